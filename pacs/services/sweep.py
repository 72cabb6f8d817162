"""Index and store compared, both ways; what is left over from a crash is put in order (storage.md 5)."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from pacs.index.named import queries
from pacs.index.pool import transaction
from pacs.services.doctor import marker
from pacs.services.duties import Duty
from pacs.services.findings import COUNTERS, MISSING_FILE, STRAY_FILE, WRONG_DIGEST, Findings
from pacs.store.base import Store
from pacs.store.digest import sha256_of

if TYPE_CHECKING:
    from pacs.node import Node

SQL = queries("sweep")
STRAY_SECONDS = 3600.0  # a file that nothing names for so long belongs to no store under way
BLANK_SECONDS = 60.0
RECENT = timedelta(minutes=15)  # how long before the last sign of life a commit may have outrun its fsync
AT_ONCE = 1000
STUDIES_AT_ONCE = 50
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
ALIVE = "alive"
log = structlog.get_logger()


class Sweep:
    """Looks for what does not fit. Everything may be repeated, and runs beside stores and deletes."""

    def __init__(self, pool: ConnectionPool[Any], store: Store, findings: Findings) -> None:
        self._pool, self._store, self._findings = pool, store, findings

    def start(self) -> None:
        """What must be done when the node starts: drafts of dead processes go, and rows that outran their files."""
        log.info("drafts_removed", count=self._store.clear_drafts())
        self.drop_unwritten()
        self.beat()

    def beat(self) -> None:
        """Remember that this machine is up: after a loss of power it tells which commits to doubt."""
        with transaction(self._pool) as connection:
            connection.execute(SQL["remember"], {"key": ALIVE, "value": Jsonb({"boot": _boot()})})

    def drop_unwritten(self) -> int:
        """After the machine went down: take out the rows of the last minutes whose files did not reach the disk.

        Commit and fsync are waited for together, and only both make an answer: such a row was never answered for.
        Its file goes to quarantine, and a finding says so. While the machine stayed up nothing can be half written.
        """
        with transaction(self._pool) as connection:
            row = connection.execute(SQL["recall"], {"key": ALIVE}).fetchone()
        if row is None or row[0].get("boot") == _boot():
            return 0
        dropped = 0
        for pk, name, size, uid, sha256 in self._rows("objects_since", since=row[1] - RECENT):
            if not self._whole(name, size, bytes(sha256)):
                with transaction(self._pool) as connection:
                    connection.execute(SQL["remove"], {"pks": [pk]})
                message = "The machine went down while this object was being stored; it was never acknowledged."
                self._findings.add(WRONG_DIGEST, name, message, uid)
                dropped += 1
        return dropped

    def _whole(self, name: str, size: int, sha256: bytes) -> bool:
        if self._store.size(name) != size:
            return False
        with self._store.open(name) as file:
            return sha256_of(file) == sha256

    def _rows(self, statement: str, **parameters: Any) -> Iterator[tuple[Any, ...]]:
        """All rows of a statement that pages by primary key."""
        after = 0
        while True:
            with transaction(self._pool) as connection:
                found = connection.execute(SQL[statement], {**parameters, "after": after, "limit": AT_ONCE}).fetchall()
            yield from found
            if len(found) < AT_ONCE:
                return
            after = found[-1][0]

    def strays(self, older_than: float = STRAY_SECONDS) -> int:
        """Move files that nothing names to `lost+found`, remove unused blanks; how many files were moved."""
        moved = 0
        for names in self._store.folders():
            with transaction(self._pool) as connection:
                unnamed = [row[0] for row in connection.execute(SQL["unnamed"], {"names": names})]
            moved += sum(self._stray(name, older_than) for name in unnamed)
        return moved

    def _stray(self, name: str, older_than: float) -> bool:
        entry = self._store.entry(name)
        if entry is None:
            return False
        age = (datetime.now(UTC) - entry.changed_at).total_seconds()
        if age < min(older_than, BLANK_SECONDS) or self._store.in_use(name):
            return False
        if entry.size == 0:
            self._store.remove([name])
            return False
        if age < older_than or not self._still_unnamed(name):
            return False
        self._store.move(name, "objects", "lost+found")
        self._findings.add(STRAY_FILE, name, "No index row names this file; it was moved to lost+found.")
        return True

    def _still_unnamed(self, name: str) -> bool:
        with transaction(self._pool) as connection:
            return connection.execute(SQL["unnamed"], {"names": [name]}).fetchone() is not None

    def missing(self) -> int:
        """Record rows whose file is missing or cut, and that those found again are cured; how many are missing."""
        missing, whole = 0, []
        for _pk, name, size, uid in self._rows("objects"):
            found = self._store.size(name)
            if found == size:
                whole.append(name)
            elif found is None or self._store.size(name) != size:
                message = "The file of this object is " + ("missing." if found is None else "not as long as it was.")
                self._findings.add(MISSING_FILE, name, message, uid)
                missing += 1
            if len(whole) >= AT_ONCE:
                self._findings.cure(whole, MISSING_FILE)
                whole = []
        self._findings.cure(whole, MISSING_FILE)
        return missing

    def counters(self) -> int:
        """Count everything anew and correct what was wrong; how many studies and series had been wrong."""
        wrong, after = 0, 0
        while True:
            with transaction(self._pool) as connection:
                parameters = {"after": after, "limit": STUDIES_AT_ONCE}
                pks = [row[0] for row in connection.execute(SQL["studies"], parameters)]
                if not pks:
                    return wrong
                connection.execute(SQL["lock_studies"], {"pks": pks})
                uids = [row[0] for row in connection.execute(SQL["recount"], {"pks": pks})]
            for uid in uids:
                self._findings.add(COUNTERS, uid, "Counts were wrong and have been corrected.")
            wrong, after = wrong + len(uids), pks[-1]


def _boot() -> str:
    """Which start of this machine we are in."""
    return BOOT_ID.read_text(encoding="ascii").strip() if BOOT_ID.exists() else ""


def sweep(node: "Node") -> None:
    """Compare index and store, unless they do not belong together: then nothing of it may be judged."""
    if not marker.agree(node.books, node.store, node.settings.storage_dir):
        log.error("store_of_another_database", cure="filmroom doctor")
        return
    node.sweep.strays()
    node.sweep.missing()


def count(node: "Node") -> None:
    """Compare the counters with what they count."""
    node.sweep.counters()


def beat(node: "Node") -> None:
    """Show that the machine is up."""
    node.sweep.beat()


def clear(node: "Node") -> None:
    """Remove drafts of processes that died."""
    node.store.clear_drafts()


DUTIES = (
    Duty("alive", 30.0, beat),
    Duty("clear-drafts", 60.0, clear),
    Duty("sweep", 6 * 3600.0, sweep),
    Duty("counters", 24 * 3600.0, count),
)
