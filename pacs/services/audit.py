"""Who did what with which patient's data (security.md 3): rows that are only ever added.

Stores and deletes write theirs in their own transaction; reads and searches are noted a moment later.
"""

from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from pacs.domain.events import Source
from pacs.index.named import queries
from pacs.index.pool import transaction
from pacs.services.backlog import Backlog

SQL = queries("audit")
Row = dict[str, Any]


class Audit:
    """The audit trail."""

    def __init__(self, pool: ConnectionPool[Any]) -> None:
        self._pool = pool
        self._backlog = Backlog(pool, SQL["add"], "audit")

    def note(self, source: Source, action: str, **fields: Any) -> None:
        """Add an access in the background; never waits. Fields as `row` takes them."""
        self._backlog.add(row(source, action, **fields))

    def of_study(self, study_uid: str, limit: int = 1000) -> list[Row]:
        """What was done with a study, newest first. Raises Unavailable."""
        return self._list("of_study", {"study_uid": study_uid, "limit": limit})

    def of_patient(self, patient_id: str, limit: int = 1000) -> list[Row]:
        """What was done with a patient's data, newest first. Raises Unavailable."""
        return self._list("of_patient", {"patient_id": patient_id, "limit": limit})

    def _list(self, name: str, parameters: Row) -> list[Row]:
        with transaction(self._pool) as connection, connection.cursor(row_factory=dict_row) as cursor:
            rows: list[Row] = cursor.execute(SQL[name], parameters).fetchall()
            return rows

    def close(self) -> None:
        """Write what waits."""
        self._backlog.close()


def row(
    source: Source,
    action: str,
    *,
    outcome: str = "ok",
    patient_id: str = "",
    study_uid: str = "",
    series_uid: str = "",
    sop_instance_uid: str = "",
    detail: dict[str, Any] | None = None,
) -> Row:
    """One row for `record` or the statement `add`."""
    return {
        "at": datetime.now(UTC),
        "door": source.door,
        "actor": source.peer,
        "address": source.address,
        "action": action,
        "outcome": outcome,
        "patient_id": patient_id,
        "study_uid": study_uid,
        "series_uid": series_uid,
        "sop_instance_uid": sop_instance_uid,
        "detail": Jsonb(detail or {}),
    }


def record(connection: psycopg.Connection[Any], rows: list[Row]) -> None:
    """Add rows in the transaction that is open on this connection."""
    with connection.cursor() as cursor:
        cursor.executemany(SQL["add"], rows)
