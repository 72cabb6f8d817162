"""Searching: C-FIND, QIDO and the console ask here (PS3.4 C.4.1, PS3.18 10.6)."""

from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from psycopg_pool import ConnectionPool

from pacs.domain.query import Page, Query
from pacs.errors import Unavailable
from pacs.index import read
from pacs.index.pool import reading

T = TypeVar("T")

# MONAI Label and Slicer ask for every series of the archive at once and do not turn pages
MOST_ROWS = 50_000
PATIENCE = 2.0  # seconds to wait for a connection


class Search:
    """Finds what is stored. Thread-safe; each call is one statement on one snapshot, so its counts agree."""

    def __init__(self, pool: ConnectionPool[Any]) -> None:
        self._pool = pool

    def find(self, query: Query) -> Page:
        """A page of rows in the stable order of the level, `MOST_ROWS` at most; `truncated` when that cut the list.

        Studies come newest first; series and instances of one named parent by number, else in order of arrival;
        patients by name. Raises BadRequest for a malformed key and Unavailable when the database is away or slow.
        """
        limited = query.limit is not None and query.limit <= MOST_ROWS
        limit = query.limit if limited and query.limit is not None else MOST_ROWS + 1
        rows, warnings = self._rows(query, limit)
        return Page(tuple(rows[:MOST_ROWS]), truncated=len(rows) > MOST_ROWS, warnings=warnings)

    def rendered(self, query: Query, render: Callable[[Page], T]) -> T:
        """What `render` makes of the page that `find` gives. No garbage is looked for until the page is gone."""
        with read.collector_paused():
            return render(self.find(query))

    def _rows(self, query: Query, limit: int) -> tuple[list[read.Row], tuple[str, ...]]:
        try:
            with reading(self._pool, PATIENCE) as connection:
                return read.find(connection, query, limit=limit)
        except psycopg.errors.QueryCanceled as error:
            raise Unavailable("The search took too long; narrow it by date, patient or study.") from error
        except psycopg.OperationalError as error:
            raise Unavailable("The database does not answer; check DATABASE_URL and that Postgres runs.") from error
