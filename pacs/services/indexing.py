"""Indexing what the configuration adds (INDEX_ATTRIBUTES), in the background, from derived metadata: no file is opened.

New objects come soon after their answer; after a change of the setting all objects come again, a few at a time, while
searches go on and say that they are not complete yet.
"""

import threading
import time
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson
from psycopg_pool import ConnectionPool

from pacs.domain.added import added_paths, key_of, values_at
from pacs.index.named import queries
from pacs.index.pool import Connection, transaction
from pacs.services.duties import Duty

if TYPE_CHECKING:
    from pacs.node import Node

SQL = queries("indexing")
AT_ONCE = 200
MOST_GONE = 5000
BUDGET_SECONDS = 0.5  # of each period of the duty
FULL_PASS_SECONDS = 3600.0  # what was derived late is found then


class Indexing:
    """Keeps the values of added attributes up to date. One at a time works at it; thread-safe."""

    def __init__(self, pool: ConnectionPool[Any], names: Sequence[str]) -> None:
        self._pool = pool
        self.paths = added_paths(names)
        self.list = "\n".join(sorted(map(key_of, self.paths)))
        self._after = 0  # up to here nothing is left to index
        self._full_pass = 0.0  # when everything was last looked at
        self._lock = threading.Lock()

    def is_whole(self) -> bool:
        """Whether all objects are indexed, but for those that have just come. Raises Unavailable."""
        with transaction(self._pool) as connection:
            row = connection.execute(SQL["whole"], {"attributes": self.list}).fetchone()
            return bool(row and row[0])

    def catch_up(self, seconds: float = BUDGET_SECONDS) -> int:
        """Index what waits, for about so long; how many. Raises Unavailable."""
        until, done = time.monotonic() + seconds, 0
        with self._lock:
            if time.monotonic() - self._full_pass > FULL_PASS_SECONDS or not self._full_pass:
                self._after, self._full_pass = 0, time.monotonic()
                self._forget()
            place = self._after
            while self.paths and time.monotonic() < until:
                count, place, settled = self._some(place)
                done += count
                if count < AT_ONCE:
                    self._after = settled
                    break
                self._after = place
        return done

    def _some(self, after: int) -> tuple[int, int, int]:
        """Index a few behind a place, in one transaction; how many, up to where, and where all is settled."""
        with transaction(self._pool) as connection:
            row = connection.execute(SQL["settled_before"]).fetchone()
            asked = {"after": after, "attributes": self.list, "limit": AT_ONCE}
            waiting = connection.execute(SQL["waiting"], asked).fetchall()
            self._index(connection, waiting)
            if len(waiting) < AT_ONCE:
                connection.execute(SQL["say"], {"attributes": self.list})
        return len(waiting), waiting[-1][0] if waiting else after, row[0] if row else 0

    def _index(self, connection: Connection, waiting: Sequence[tuple[int, bytes]]) -> None:
        if not waiting:
            return
        rows = [
            (pk, key_of(path), value)
            for pk, metadata in waiting
            for path in self.paths
            for value in values_at(orjson.loads(zlib.decompress(metadata)), path)
        ]
        pks = [pk for pk, _ in waiting]
        connection.execute(SQL["clear"], {"pks": pks})
        columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
        connection.execute(SQL["add"], dict(zip(("pks", "attributes", "values"), columns, strict=True)))
        connection.execute(SQL["done"], {"pks": pks, "attributes": self.list})

    def _forget(self) -> None:
        """Drop what belongs to objects that are gone; everything where nothing is to be indexed any more."""
        while True:
            with transaction(self._pool) as connection:
                found = connection.execute(SQL["gone"], {"all": not self.paths, "limit": MOST_GONE}).fetchall()
                connection.execute(SQL["clear"], {"pks": [pk for (pk,) in found]})
            if len(found) < MOST_GONE:
                return


def index(node: "Node") -> None:
    """Index what was derived lately."""
    node.indexing.catch_up()


DUTIES = (Duty("index-attributes", 2.0, index),)
