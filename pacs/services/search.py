"""Searching: C-FIND, QIDO and the console ask here (PS3.4 C.4.1, PS3.18 10.6)."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg_pool import ConnectionPool

from pacs.domain.query import Page, Query
from pacs.errors import Damaged, NotFound, Unavailable
from pacs.index import read
from pacs.index.named import queries
from pacs.index.pool import Connection, reading
from pacs.services.bookmarks import Bookmarks
from pacs.services.instances import StoredInstance

if TYPE_CHECKING:
    from pacs.services.derive import Derive
    from pacs.services.indexing import Indexing

SQL = queries("search")
T = TypeVar("T")

# MONAI Label and Slicer ask for every series of the archive at once and do not turn pages
MOST_ROWS = 50_000
MOST_DERIVED = 200  # instances of one answer whose metadata is made for it
UNDERIVED = "Some objects have only just arrived; attributes outside the index are not known of all of them yet."
REINDEXING = "Attributes that were added to the index are still being read in; more may match."
PATIENCE = 2.0  # seconds to wait for a connection


class Search:
    """Finds what is stored. Thread-safe; each call is one statement on one snapshot, so its counts agree."""

    def __init__(
        self,
        pool: ConnectionPool[Any],
        derive: "Callable[[], Derive] | None" = None,
        indexing: "Indexing | None" = None,
    ) -> None:
        self._pool, self._derive, self._indexing = pool, derive, indexing
        self._bookmarks = Bookmarks()

    def find(self, query: Query, reader: str = "") -> Page:
        """A page of rows in the stable order of the level, `MOST_ROWS` at most; `truncated` when that cut the list.

        Studies come newest first; series and instances of one named parent by number, else in order of arrival;
        patients by name. For a `reader` who is named, a page goes on behind the last row of the page before it, so that
        paging stays exact while objects arrive and go. Raises BadRequest for a malformed key and Unavailable when the
        database is away or slow.
        """
        query = self._with_added(query)
        limited = query.limit is not None and query.limit <= MOST_ROWS
        limit = query.limit if limited and query.limit is not None else MOST_ROWS + 1
        list_ = replace(query, limit=None, offset=0)
        after = self._bookmarks.find(reader, list_, query.offset) if reader and query.offset else ()
        found = self._read(lambda connection: read.find(connection, query, limit=limit, after=after))
        if found.underived and self._complete(found.underived[:MOST_DERIVED]):
            found = self._read(lambda connection: read.find(connection, query, limit=limit, after=after))
        truncated = len(found.rows) > MOST_ROWS
        if reader and found.rows and not truncated:
            self._bookmarks.put(reader, list_, query.offset + len(found.rows), found.last)
        warnings = (*found.warnings, *([UNDERIVED] if found.underived else []), *self._incomplete(query))
        return Page(tuple(found.rows[:MOST_ROWS]), truncated=truncated, warnings=warnings)

    def count(self, query: Query) -> int:
        """How many rows a query has, on all its pages. Raises BadRequest and Unavailable."""
        return self._read(lambda connection: read.count(connection, self._with_added(query)))

    def _with_added(self, query: Query) -> Query:
        return replace(query, added=self._indexing.paths) if self._indexing and self._indexing.paths else query

    def _incomplete(self, query: Query) -> tuple[str, ...]:
        """What has to be said of keys that are still being indexed."""
        asked = {condition.path for condition in query.conditions} & query.added
        return (REINDEXING,) if asked and self._indexing and not self._indexing.is_whole() else ()

    def _complete(self, pks: Sequence[int]) -> bool:
        """Derive what was stored a moment ago, for somebody asks for what only that tells; True when it was tried."""
        if self._derive is None:
            return False
        rows = self._read(lambda connection: connection.execute(SQL["held"], {"pks": list(pks)}).fetchall())
        for instance in (StoredInstance(*columns) for columns in rows):
            with suppress(Damaged, NotFound):  # its row then lacks the attribute, and the warning says so
                list(self._derive().ensure([instance]))
        return True

    def rendered(self, render: Callable[[], T]) -> T:
        """What `render` makes of pages it finds. No garbage is looked for until they are gone."""
        with read.collector_paused():
            return render()

    def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            with reading(self._pool, PATIENCE) as connection:
                return work(connection)
        except psycopg.errors.QueryCanceled as error:
            raise Unavailable("The search took too long; narrow it by date, patient or study.") from error
        except psycopg.OperationalError as error:
            raise Unavailable("The database does not answer; check DATABASE_URL and that Postgres runs.") from error
