"""The AI's books in Postgres: one way to open a transaction on them, errors of the driver turned into ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

from pacs.errors import Unavailable

Row = dict[str, Any]
Cursor = psycopg.Cursor[Row]


class Books:
    """Transactions on the node's pool whose rows are dicts."""

    def __init__(self, pool: ConnectionPool[Any]) -> None:
        self.pool = pool

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """Commits at the end of the block, rolls back when it raises. Raises Unavailable when the database is away."""
        try:
            with self.pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
                yield cursor
        except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout) as error:
            raise Unavailable("The database does not answer; see /ready.") from error
