"""What is stored, queued and running, and what is wrong: the one answer of `filmroom status`, the API, the console."""

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from pacs.errors import Unavailable
from pacs.index.named import queries

SQL = queries("status")
GIB = 1 << 30
OUTBOX_LATE_SECONDS = 60

CURES = {
    "missing_file": "objects are in the index but their files are gone; restore them from a backup",
    "wrong_digest": "files are not what was stored; they are in quarantine, restore them from a backup",
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
    """One screenful of facts about the node."""

    stored: dict[str, int]
    last_hour: dict[str, int]
    queues: dict[str, float]
    jobs: dict[str, int]
    disk: dict[str, int]
    maintenance: bool
    wrong: list[Wrong] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """The same, as plain dicts and lists."""
        return asdict(self)


class StatusBoard:
    """Collects the status from the index and the file system."""

    def __init__(self, pool: ConnectionPool, storage: Path, reserve_gb: float) -> None:
        self.pool, self.storage, self.reserve_gb = pool, storage, reserve_gb

    def now(self) -> Status:
        """The node's status at this moment. Raises Unavailable when the database is away."""
        try:
            with self.pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
                facts = {name: cursor.execute(SQL[name]).fetchall() for name in SQL}
        except psycopg.Error as error:
            raise Unavailable("The database does not answer; see /ready.") from error
        status = Status(
            stored=facts["stored"][0],
            last_hour=facts["last_hour"][0],
            queues=facts["queues"][0],
            jobs={row["state"]: row["count"] for row in facts["jobs"]},
            disk=self._disk(),
            maintenance=any(row["value"].get("state") == "on" for row in facts["maintenance"]),
        )
        status.wrong.extend(self._wrong(status, {row["kind"]: row["count"] for row in facts["findings"]}))
        return status

    def _disk(self) -> dict[str, int]:
        usage = shutil.disk_usage(self.storage if self.storage.exists() else self.storage.anchor)
        return {"free_bytes": usage.free, "total_bytes": usage.total}

    def _wrong(self, status: Status, findings: dict[str, int]) -> list[Wrong]:
        free_gb, late = status.disk["free_bytes"] / GIB, status.queues["outbox_age_seconds"]
        rules = (
            (free_gb < self.reserve_gb, f"{free_gb:.1f} GB of disk are left", "free space, or lower DISK_RESERVE_GB"),
            (late > OUTBOX_LATE_SECONDS, f"events wait for {late:.0f} s", "look at the clerk's log and at Redis"),
            (status.queues["conflicts"], f"{status.queues['conflicts']} open conflicts", "resolve them at /console/"),
            (status.jobs.get("DEAD"), f"{status.jobs.get('DEAD')} dead AI jobs", "filmroom ai jobs --state DEAD"),
            (status.maintenance, "maintenance is on: no AI job starts", "filmroom maintenance off"),
        )
        found = [Wrong(f"{count} x {kind}", CURES.get(kind, "see docs/runbook.md")) for kind, count in findings.items()]
        return [Wrong(what, cure) for is_so, what, cure in rules if is_so] + found
