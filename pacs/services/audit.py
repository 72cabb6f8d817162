"""Who did what with which patient's data (security.md 3): rows that are only ever added.

Stores and deletes write theirs in their own transaction. Every other access is noted a moment later by a thread of its
own, which also looks the patient up; what one principal repeats within a minute becomes one row more, with a count
(docs/decisions/0008).
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import orjson
import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from pacs.domain.attributes import BY_KEYWORD, BY_TAG
from pacs.domain.events import Source
from pacs.domain.query import Query
from pacs.index.named import queries
from pacs.index.pool import transaction
from pacs.services.auditfold import Fold
from pacs.services.backlog import Backlog
from pacs.telemetry import Metrics

SQL = queries("audit")
Row = dict[str, Any]

LONGEST = 256  # characters of what a peer says of itself
LONGEST_VALUE = 64  # of a value that was asked for
MOST_LISTED = 1_000  # studies of a list whose patients are named
MOST_ROWS = 20_000  # rows of an answer that are looked at for them
STUDY, PATIENT = BY_KEYWORD["StudyInstanceUID"], BY_KEYWORD["PatientID"]
WILD = frozenset("*?\\")


class Audit:
    """The audit trail."""

    def __init__(self, pool: ConnectionPool[Any], metrics: Metrics | None = None) -> None:
        self._pool = pool
        self._fold = Fold()
        self._backlog = Backlog(pool, _add, "audit", late=self._fold.due, metrics=metrics)

    def note(self, source: Source, action: str, **fields: Any) -> None:
        """Add an access in the background; never waits. Fields as `row` takes them."""
        fresh = self._fold.take(row(source, action, **fields))
        if fresh is not None:
            self._backlog.add(fresh)

    def find(
        self,
        *,
        patient: str | None = None,
        study: str | None = None,
        user: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        before: int | None = None,
        limit: int = 1000,
    ) -> list[Row]:
        """Who did what, newest first: about a patient (also where a list showed them), a study, by a user, in a time.

        `before` is the number of a row: those noted earlier. Times are aware. Raises Unavailable.
        """
        question = {
            "patient": patient,
            "study": study,
            "user": user,
            "since": since,
            "until": until,
            "before": before,
            "limit": limit,
        }
        with transaction(self._pool) as connection, connection.cursor(row_factory=dict_row) as cursor:
            # each part that is left out makes another plan
            rows: list[Row] = cursor.execute(SQL["find"], question, prepare=False).fetchall()
            return rows

    def of_study(self, study_uid: str, limit: int = 1000) -> list[Row]:
        """What was done with a study, newest first. Raises Unavailable."""
        return self.find(study=study_uid, limit=limit)

    def of_patient(self, patient_id: str, limit: int = 1000) -> list[Row]:
        """Who saw a patient, newest first. Raises Unavailable."""
        return self.find(patient=patient_id, limit=limit)

    @staticmethod
    def searched(query: Query, rows: Iterable[dict[str, Any]]) -> Row:
        """The fields of `note` for a search, see `searched`."""
        return searched(query, rows)

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
    listed: Iterable[str] = (),
    detail: dict[str, Any] | None = None,
) -> Row:
    """One row for `record` or `Audit.note`. `listed`: the studies that an answer showed."""
    return {
        "at": datetime.now(UTC),
        "door": source.door,
        "actor": _fit(source.peer),
        "address": _fit(source.address),
        "action": action,
        "outcome": outcome,
        "patient_id": _fit(patient_id),
        "study_uid": _fit(study_uid),
        "series_uid": _fit(series_uid),
        "sop_instance_uid": _fit(sop_instance_uid),
        "listed": list(listed),
        "detail": Jsonb(_fit_all(detail or {})),
    }


def record(connection: psycopg.Connection[Any], rows: list[Row]) -> None:
    """Add rows in the transaction that is open on this connection."""
    with connection.cursor() as cursor:
        cursor.executemany(SQL["record"], rows)


def _add(connection: psycopg.Connection[Any], rows: list[Row]) -> None:
    """Add rows that were noted, all by one statement: planning it costs more than a row."""
    plain = [{**row, "detail": row["detail"].obj} for row in rows]
    connection.execute(SQL["by_index"])
    connection.execute(SQL["add"], {"rows": Jsonb(plain, orjson.dumps)})


def searched(query: Query, rows: Iterable[dict[str, Any]]) -> Row:
    """What a row says of a search: the fields of `row` for a query and the rows that it was answered with.

    A search for one Patient ID is about that patient, found or not; else the patients of the studies listed count.
    """
    asked = {_keyword(condition.path): _brief(condition.values) for condition in query.conditions if condition.values}
    named = [values[0] for path, values in _exact(query) if path == (PATIENT.tag,)]
    listed: dict[str, None] = {}
    for found in islice(rows, MOST_ROWS):
        listed.update(dict.fromkeys(found.get(STUDY.hex, {}).get("Value", ())))
        if len(listed) >= MOST_LISTED:
            break
    one = next((values[0] for path, values in _exact(query) if path == (STUDY.tag,)), "")
    return {
        "patient_id": named[0] if named else "",
        "study_uid": one,
        "listed": list(listed)[:MOST_LISTED],
        "detail": {"level": query.level.name.lower(), "asked": asked},
    }


def _exact(query: Query) -> list[tuple[tuple[int, ...], tuple[str, ...]]]:
    """The conditions that name one value as it is."""
    single = (c for c in query.conditions if len(c.values) == 1 and c.values[0])
    return [(c.path, c.values) for c in single if not WILD & set(c.values[0])]


def _keyword(path: tuple[int, ...]) -> str:
    return ".".join(BY_TAG[tag].keyword if tag in BY_TAG else f"{tag:08X}" for tag in path)


def _brief(values: tuple[str, ...]) -> str:
    return _fit("\\".join(values)[:LONGEST_VALUE])


def _fit_all(value: Any) -> Any:
    """The same with every text in it fit."""
    if isinstance(value, dict):
        return {_fit(str(key)): _fit_all(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_fit_all(item) for item in value]
    return _fit(value) if isinstance(value, str) else value


def _fit(text: str) -> str:
    """What a text column takes: no NUL, no half characters, no endless text."""
    return text[:LONGEST].replace("\0", "").encode("utf-8", "replace").decode("utf-8")
