"""Both embedded servers on one home: its folders, its lock, start, watch and stop."""

import os
from pathlib import Path

from pacs.embedded.lock import HomeLock
from pacs.embedded.postgres import Postgres
from pacs.embedded.process import own, service_account, wait_until
from pacs.embedded.valkey import Valkey
from pacs.errors import Unavailable
from pacs.places import run_folder

PATIENCE = 60.0
LOG_LIMIT = 10 * 2**20


class Servers:
    """The home's servers. Raises Conflict when another process holds the home.

    `wanted` names those to run, for a node of which one server is given by its URL.
    """

    def __init__(self, home: Path, wanted: tuple[str, ...] = ("postgres", "valkey")) -> None:
        prepare_home(home)
        self._lock = HomeLock(home)
        run_dir = run_folder(home)
        every: tuple[Postgres | Valkey, ...] = (Postgres(home, run_dir), Valkey(home, run_dir))
        self.members = tuple(member for member in every if member.name in wanted)

    def start(self) -> None:
        """Start all, together, and wait until each takes connections. Raises Unavailable naming the log."""
        for member in self.members:
            _shorten(member.log_path)
            member.start()
        for member in self.members:
            if not wait_until(lambda member=member: _risen(member), PATIENCE):  # type: ignore[misc]
                raise Unavailable(f"The embedded {member.name} does not start; {member.log_path} says why.")

    def stop(self) -> None:
        """Stop all in order and give the home back."""
        for member in self.members:
            member.stop()
        self._lock.release()


def prepare_home(home: Path) -> None:
    """Make the home's folders. Only their owner may look inside; the servers' account may walk through."""
    account = service_account()
    home.mkdir(mode=0o711 if account else 0o700, parents=True, exist_ok=True)
    (home / "logs").mkdir(mode=0o700, exist_ok=True)
    run_dir = run_folder(home)
    run_dir.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    run_dir.mkdir(mode=0o700, exist_ok=True)
    if run_dir.stat().st_uid not in (os.geteuid(), account.uid if account else os.geteuid()):
        raise Unavailable(f"{run_dir} belongs to another user; remove it, or set TMPDIR or FILMROOM_HOME.")
    own(run_dir, account)


def _risen(member: Postgres | Valkey) -> bool:
    """Ready; a server that gave up (the last one's memory was still in use) is started once more."""
    if member.process and member.process.poll() is not None:
        wait_until(lambda: False, 0.5)
        member.start()
    return member.ready()


def _shorten(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.replace(log.with_suffix(".log.1"))
