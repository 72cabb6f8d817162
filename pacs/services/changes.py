"""The change feed: what was stored, replaced and deleted, numbered without gaps (docs/decisions/0002)."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import class_row
from psycopg_pool import ConnectionPool

from pacs.errors import Unavailable
from pacs.index.named import queries
from pacs.services.duties import Duty

if TYPE_CHECKING:
    from pacs.node import Node

SQL = queries("changes")


@dataclass(frozen=True, slots=True)
class Change:
    """One row of the feed. `action` is create, replace or delete."""

    seq: int
    action: str
    study_uid: str
    series_uid: str
    sop_instance_uid: str
    at: datetime


class Changes:
    """Numbers the feed and reads it."""

    def __init__(self, pool: ConnectionPool[Any]) -> None:
        self._pool = pool

    def since(self, seq: int, limit: int) -> list[Change]:
        """Up to `limit` changes after `seq`. What is committed is in it: numbers are given now where they are missing.

        Raises Unavailable when the database is away.
        """
        try:
            with self._pool.connection() as connection:
                _seal(connection)
            with self._pool.connection() as connection, connection.cursor(row_factory=class_row(Change)) as cursor:
                found: list[Change] = cursor.execute(SQL["since"], {"seq": seq, "limit": limit}).fetchall()
        except psycopg.Error as error:
            raise Unavailable("The database does not answer; see /ready.") from error
        return found

    def seal(self) -> None:
        """Give numbers to what has none. Raises psycopg.Error."""
        with self._pool.connection() as connection:
            _seal(connection)


def _seal(connection: psycopg.Connection[Any]) -> None:
    if connection.execute(SQL["unsealed"]).fetchone() == (True,):
        connection.execute(SQL["lock"])
        connection.execute(SQL["seal"])


def seal(node: "Node") -> None:
    """Number what was committed."""
    node.changes.seal()


DUTIES = (Duty("seal-changes", 5.0, seal),)
