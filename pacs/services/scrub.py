"""Every object is read again now and then: bytes that changed on the disk are found before somebody needs them."""

import time
from typing import TYPE_CHECKING, Any

import structlog
from psycopg_pool import ConnectionPool

from pacs.index.named import queries
from pacs.index.pool import transaction
from pacs.services.duties import Duty
from pacs.services.findings import MISSING_FILE, WRONG_DIGEST, Findings
from pacs.store.base import Store
from pacs.store.digest import sha256_of

if TYPE_CHECKING:
    from pacs.node import Node

SQL = queries("scrub")
PERIOD_SECONDS = 10.0
BYTES_A_SECOND = 10e6  # reads go on beside it
CHECK_EVERY_SECONDS = 30 * 86400.0
AT_ONCE = 64
log = structlog.get_logger()


class Scrub:
    """Hashes the objects whose last check is longest ago."""

    def __init__(self, pool: ConnectionPool[Any], store: Store, findings: Findings) -> None:
        self._pool, self._store, self._findings = pool, store, findings

    def run(self, seconds: float = PERIOD_SECONDS, older_than: float = CHECK_EVERY_SECONDS) -> int:
        """Check for about so long what was not checked for `older_than` seconds; how many objects."""
        until, checked = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            with transaction(self._pool) as connection:
                due = connection.execute(SQL["due"], {"seconds": older_than, "limit": AT_ONCE}).fetchall()
            done = []
            for pk, name, size, uid, sha256 in due:
                self._check(name, uid, bytes(sha256))
                done.append(pk)
                time.sleep(min(size / BYTES_A_SECOND, max(0.0, until - time.monotonic())))
                if time.monotonic() >= until:
                    break
            with transaction(self._pool) as connection:
                connection.execute(SQL["checked"], {"pks": done})
            checked += len(done)
            if len(due) < AT_ONCE:
                break
        return checked

    def _check(self, name: str, sop_instance_uid: str, sha256: bytes) -> None:
        """A file that is not what was stored goes to quarantine: readers get an error, never wrong bytes."""
        try:
            with self._store.open(name) as file:
                whole = sha256_of(file) == sha256
        except FileNotFoundError:
            self._findings.add(MISSING_FILE, name, "The file of this object is missing.", sop_instance_uid)
            return
        except OSError as error:
            log.error("scrub_cannot_read", object_name=name, exc_info=error)
            whole = False
        if not whole and self._still_wanted(name):
            self._store.move(name, "objects", "quarantine")
            message = "The file is not what was stored; it is in quarantine. Restore it from a backup."
            self._findings.add(WRONG_DIGEST, name, message, sop_instance_uid)

    def _still_wanted(self, name: str) -> bool:
        return self._store.size(name) is not None


def scrub(node: "Node") -> None:
    """Check some objects."""
    node.scrub.run()


DUTIES = (Duty("scrub", PERIOD_SECONDS * 2, scrub),)
