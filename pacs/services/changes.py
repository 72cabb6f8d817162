"""The change feed: what was stored, replaced and deleted, numbered without gaps (docs/decisions/0002)."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from psycopg.rows import class_row
from psycopg_pool import ConnectionPool

from pacs.index.named import queries
from pacs.index.pool import transaction
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
        self.seal()
        with transaction(self._pool) as connection, connection.cursor(row_factory=class_row(Change)) as cursor:
            found: list[Change] = cursor.execute(SQL["since"], {"seq": seq, "limit": limit}).fetchall()
            return found

    def seal(self) -> None:
        """Give numbers to what has none, in a transaction of its own. Raises Unavailable."""
        with transaction(self._pool) as connection:
            if connection.execute(SQL["unsealed"]).fetchone() == (True,):
                connection.execute(SQL["lock"])
                connection.execute(SQL["seal"])


def seal(node: "Node") -> None:
    """Number what was committed."""
    node.changes.seal()


DUTIES = (Duty("seal-changes", 5.0, seal),)
