"""What the doctor looks at: one node with its settings, its index and its files, as they are at this moment."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import redis
from psycopg.rows import dict_row

from pacs.errors import FilmroomError, Unavailable
from pacs.index import schema
from pacs.index.named import queries
from pacs.index.pool import Connection, repeated
from pacs.services.books import Cursor, Row
from pacs.services.doctor.quarantine import Quarantine
from pacs.settings import Settings

if TYPE_CHECKING:
    from pacs.node import Node

T = TypeVar("T")
SQL = queries("doctor")
PATIENCE_SECONDS = 3.0
AT_ONCE = 1000
YOUNG_SECONDS = 5.0  # what is younger may be on its way: it is looked at again once it is older
MOMENT_SECONDS = 1.0


class Case:
    """One examination. `node` is None where no server can be reached for want of an address."""

    def __init__(
        self,
        settings: Settings,
        node: "Node | None",
        *,
        environ: Mapping[str, str] = os.environ,
        faults: Sequence[str] = (),
        deep: bool = False,
        accept_loss: bool = False,
        proxy: Path | None = None,
        asleep: bool = False,
    ) -> None:
        """`asleep`: no process of the node runs; what its clerk would do at its next start is no damage."""
        self.settings, self.environ, self.faults = settings, environ, tuple(faults)
        self.deep, self.accept_loss, self.proxy = deep, accept_loss, proxy
        self.asleep = asleep
        self._node = node
        self.quarantine = Quarantine(settings.storage_dir)
        self.kept: dict[str, object] = {}  # what several checks look at is looked for once

    @property
    def node(self) -> "Node":
        """The node; only for checks that need the database. Raises Unavailable."""
        if self._node is None:
            raise Unavailable("No node has run here yet; start one with: filmroom serve")
        return self._node

    @property
    def has_node(self) -> bool:
        return self._node is not None

    @cached_property
    def troubles(self) -> dict[str, str]:
        """Why what checks need is not there; a name that is missing here is there."""
        asked = {"database": self._database, "schema": self._schema, "redis": self._redis, "store": self._store}
        asked["clerk"] = self._clerk
        found: dict[str, str] = {}
        for name, ask in asked.items():
            cause = "database" if name == "schema" else ""
            trouble = found[cause] if cause in found else _trouble(ask)
            if trouble:
                found[name] = trouble
        return found

    def _database(self) -> None:
        schema.ping(self.node.pool, PATIENCE_SECONDS)

    def _schema(self) -> None:
        schema.require_head(schema.recorded_in(self.node.pool, PATIENCE_SECONDS))

    def _redis(self) -> None:
        if not self.settings.redis_url:
            raise Unavailable("No node has run here yet; start one with: filmroom serve")
        try:
            with self.redis() as client:
                client.ping()
        except redis.RedisError as error:
            raise Unavailable("Redis does not answer.") from error

    def _clerk(self) -> None:
        if self.asleep:
            raise Unavailable("No node runs here; its clerk will see to it.")

    def _store(self) -> None:
        if not (self.settings.storage_dir / "objects").is_dir():
            raise Unavailable("The file store has not been used yet.")

    def redis(self) -> redis.Redis:
        """A client with patience of its own; close it."""
        url, seconds = self.settings.redis_url, PATIENCE_SECONDS
        return redis.Redis.from_url(url, socket_timeout=seconds, socket_connect_timeout=seconds, decode_responses=True)

    # the index

    def rows(self, statement: str, **parameters: Any) -> list[Row]:
        """All rows of a statement of doctor.sql. Raises Unavailable."""
        with self.node.books.transaction() as cursor:
            return cursor.execute(SQL[statement], parameters or None).fetchall()

    def pages(self, statement: str, **parameters: Any) -> Iterator[list[Row]]:
        """The rows of a statement that pages by `pk`, a page at a time."""
        after = 0
        while page := self.rows(statement, **parameters, after=after, limit=AT_ONCE):
            yield page
            after = page[-1]["pk"]

    def change(self, work: Callable[[Cursor], T]) -> T:
        """`work` in one transaction, again where a concurrent one stood in its way. Raises Unavailable."""

        def on(connection: Connection) -> T:
            with connection.cursor(row_factory=dict_row) as cursor:
                return work(cursor)

        return repeated(self.node.pool, on)

    # things on their way

    def settled(
        self, look: Callable[[], Sequence[T]], key: Callable[[T], object], changed_at: Callable[[T], float]
    ) -> list[T]:
        """What is found now and still a moment later: what was on its way has arrived by then."""
        first = look()
        if not first:
            return []
        youngest = time.time() - max(changed_at(one) for one in first)
        time.sleep(YOUNG_SECONDS if youngest < YOUNG_SECONDS else MOMENT_SECONDS)
        known = {key(one) for one in first}
        return [one for one in look() if key(one) in known]


def _trouble(ask: Callable[[], None]) -> str:
    try:
        ask()
    except FilmroomError as error:
        return error.message
    except OSError as error:
        return f"The check failed ({type(error).__name__})."
    return ""
