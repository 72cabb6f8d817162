"""What is stored, queued and running, and what is wrong: the one answer of `filmroom status`, the API, the console."""

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from pacs.errors import Unavailable
from pacs.index.named import queries
from pacs.services.gate import Maintenance, read

SQL = queries("status")
GIB = 1 << 30
OUTBOX_LATE_SECONDS = 60
QUEUE_LATE_SECONDS = 1800
DOORS = frozenset({"web", "dimse"})
PROCESSES = ("web", "dimse", "clerk", "ai")  # of a node; commands that are at work are no part of it

CURES = {
    "missing_file": "objects are in the index but their files are gone; see: filmroom doctor",
    "wrong_digest": "files are not what was stored; they are in quarantine; see: filmroom doctor",
    "stray_file": "files without an index row were moved to lost+found; look at them there",
    "counters": "counts of studies or series were wrong and have been corrected",
}


@dataclass(frozen=True, slots=True)
class Wrong:
    """Something that needs a person: what it is, and what to do."""

    what: str
    cure: str


@dataclass(frozen=True, slots=True)
class Status:
    """One screenful of facts about the node. Ages are seconds, sizes bytes."""

    stored: dict[str, int]
    last_hour: dict[str, int]
    queues: dict[str, float]
    jobs: dict[str, int]
    disk: dict[str, int]
    maintenance: bool
    window: dict[str, Any] = field(default_factory=dict)  # the switch as pacs/services/gate.py keeps it
    waiting_seconds: float = 0.0  # of the oldest queued AI job
    models: dict[str, int] = field(default_factory=dict)
    sidecars: list[dict[str, Any]] = field(default_factory=list)
    processes: list[str] = field(default_factory=list)
    quarantined: dict[str, int] = field(default_factory=dict)
    wrong: list[Wrong] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """The same, as plain dicts and lists."""
        return asdict(self)


class StatusBoard:
    """Collects the status from the index and the file system."""

    def __init__(self, pool: ConnectionPool[Any], storage: Path, reserve_gb: float) -> None:
        self.pool, self.storage, self.reserve_gb = pool, storage, reserve_gb

    def now(self) -> Status:
        """The node's status at this moment. Raises Unavailable when the database is away or has no schema of ours."""
        try:
            with self.pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
                facts = {name: cursor.execute(SQL[name]).fetchall() for name in SQL}
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
            raise Unavailable("The database's schema is not this version's; run: filmroom db upgrade") from error
        except psycopg.Error as error:
            raise Unavailable("The database does not answer; see /ready.") from error
        window = read(facts["maintenance"][0]["value"] if facts["maintenance"] else None)
        there = {row["process"] for row in facts["processes"]}
        status = Status(
            stored=facts["stored"][0],
            last_hour=facts["last_hour"][0],
            queues=facts["queues"][0],
            jobs=_counted(facts["jobs"], "state"),
            disk=self._disk(),
            maintenance=window.on,
            window=window.as_json(),
            waiting_seconds=facts["waiting"][0]["seconds"],
            models=_counted(facts["models"], "state"),
            sidecars=facts["sidecars"],
            processes=[name for name in PROCESSES if name in there],
            quarantined=_counted(facts["quarantined"], "what"),
        )
        status.wrong.extend(self._wrong(status, window, _counted(facts["findings"], "kind")))
        return status

    def _disk(self) -> dict[str, int]:
        place = next(path for path in (self.storage, *self.storage.absolute().parents) if path.exists())
        usage = shutil.disk_usage(place)
        return {"free_bytes": usage.free, "total_bytes": usage.total}

    def _wrong(self, status: Status, window: Maintenance, findings: dict[str, int]) -> list[Wrong]:
        free_gb, late = status.disk["free_bytes"] / GIB, status.queues["outbox_age_seconds"]
        doors, waits = DOORS & {*status.processes}, status.waiting_seconds
        dead, unusable = status.jobs.get("DEAD", 0), status.models.get("quarantined", 0)
        late_jobs = waits > QUEUE_LATE_SECONDS and not window.on
        unready = [one for one in status.sidecars if not one["ready"]]
        rules = (
            (free_gb < self.reserve_gb, f"{free_gb:.1f} GB of disk are left", "free space, or lower DISK_RESERVE_GB"),
            (doors and "clerk" not in status.processes, "no clerk is at work", "filmroom serve clerk"),
            (
                status.queues["forward_dead"],
                f"{status.queues['forward_dead']} objects were not forwarded",
                "filmroom rules dead",
            ),
            (late > OUTBOX_LATE_SECONDS, f"events wait for {late:.0f} s", "look at the clerk's log and at Redis"),
            (window.on, window.sentence.rstrip("."), "filmroom maintenance off"),
            (unready, f"{len(unready)} sidecars cannot run models", unready[0]["message"] if unready else ""),
            (
                late_jobs,
                f"AI jobs wait for {waits / 60:.0f} min",
                "filmroom ai jobs",
            ),
            (dead, f"{dead} dead AI jobs", "filmroom ai jobs --state DEAD"),
            (unusable, f"{unusable} model packages cannot be used", "filmroom ai models"),
            (status.queues["conflicts"], f"{status.queues['conflicts']} open conflicts", "resolve them at /console/"),
        )
        found = [Wrong(f"{count} x {kind}", CURES.get(kind, "see docs/runbook.md")) for kind, count in findings.items()]
        return [Wrong(what, cure) for is_so, what, cure in rules if is_so] + found


def _counted(rows: list[dict[str, Any]], column: str) -> dict[str, int]:
    return {row[column]: row["count"] for row in rows}
