"""The embedded Postgres: a cluster in the home, reached by a Unix socket only.

Nothing in the cluster names an absolute path, so that a home can be moved. What it is tuned with stands on its command
line, so that a new version of ours brings its own tuning.
"""

import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO
from urllib.parse import quote

from pacs.embedded.binaries import postgres_program
from pacs.embedded.process import clean_environment, end, own, service_account, spawn, wait_until
from pacs.errors import Unavailable

USER = DATABASE = "filmroom"
PORT = 5432  # only names the socket
VERSION = "18"
FLAGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_connections": "100",
    "shared_buffers": "96MB",
    "effective_cache_size": "1GB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "max_wal_size": "1GB",
    "random_page_cost": "1.1",
    "jit": "off",
    "io_method": "sync",  # three fewer processes
    "autovacuum_max_workers": "2",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    # a statement, or the detail of an error, may hold a patient's name
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}


class Postgres:
    """One server on one home. The caller holds the home's lock."""

    name = "postgres"

    def __init__(self, home: Path, run_dir: Path) -> None:
        self.data = home / "postgres"
        self.run_dir = run_dir
        self.log_path = home / "logs" / "postgres.log"
        self.url = f"postgresql://{USER}@/{DATABASE}?host={quote(str(run_dir), safe='/')}"
        self.process: subprocess.Popen[bytes] | None = None
        self._account = service_account()

    def start(self) -> None:
        """Start the server, making its cluster when there is none. Returns before it takes connections."""
        if not self.data.exists():
            self._create()
        self._check_version()
        own(self.data, self._account)
        self._clear_predecessor()
        flags = {**FLAGS, "unix_socket_directories": str(self.run_dir)}
        options = [part for name, value in flags.items() for part in ("-c", f"{name}={value}")]
        with self.log_path.open("ab") as log:
            self.process = self._spawn([postgres_program("postgres"), "-D", self.data, *options], log)

    def ready(self) -> bool:
        """True once connections are taken: what pg_ctl reads, the last line of postmaster.pid."""
        lines = self._pid_file()
        return bool(self.process and len(lines) > 7 and lines[0] == str(self.process.pid) and lines[7] == "ready")

    def stop(self, patience: float = 20.0) -> None:
        """Fast shutdown (sessions are cut, all is written), then immediate, then the hard way."""
        if self.process:
            end(self.process, (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL), patience)

    def _spawn(self, argv: Sequence[str | Path], log: IO[bytes], feed: bytes = b"") -> subprocess.Popen[bytes]:
        return spawn(
            argv,
            log=log,
            account=self._account,
            death_signal=signal.SIGINT,
            env=clean_environment(),
            reach=(self.data, postgres_program("postgres"), self.run_dir / "socket"),
            feed=feed,
        )

    def _create(self) -> None:
        """initdb beside the final place, then rename: a half-made cluster is never taken for a whole one."""
        _require_account_name()
        fresh = self.data.with_name("postgres.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        own(fresh, self._account)
        locale = ("-E", "UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        initdb = (postgres_program("initdb"), "-D", fresh, "-U", USER, "-A", "trust", "--no-instructions", *locale)
        self._must_run(initdb)
        single = (postgres_program("postgres"), "--single", "-D", fresh, "postgres")
        self._must_run(single, f"CREATE DATABASE {DATABASE}\n".encode())
        fresh.rename(self.data)

    def _must_run(self, argv: Sequence[str | Path], feed: bytes = b"") -> None:
        with self.log_path.open("ab") as log:
            if self._spawn(argv, log, feed).wait(timeout=120) != 0:
                raise Unavailable(f"The embedded Postgres could not be made; {self.log_path} says why.")

    def _check_version(self) -> None:
        found = (self.data / "PG_VERSION").read_text(encoding="ascii").strip()
        if found != VERSION:
            raise Unavailable(
                f"{self.data} was made by Postgres {found}, this is {VERSION}; "
                f"dump it with the older version of Filmroom and restore it here."
            )

    def _clear_predecessor(self) -> None:
        """After a crash: wait for, then end, a server of ours that outlived its supervisor, and drop stale lock files.

        Postgres takes any living process of the same user that has the noted number for a server; we hold the home's
        lock and know better.
        """
        lines = self._pid_file()
        pid = int(lines[0]) if lines and lines[0].isdigit() else 0
        for end_signal in (None, signal.SIGQUIT, signal.SIGKILL):
            if not self._is_ours(pid):
                break
            if end_signal:
                os.kill(pid, end_signal)
            wait_until(lambda: not self._is_ours(pid), 15.0)
        for stale in (self.data / "postmaster.pid", *self.run_dir.glob(".s.PGSQL.*")):
            stale.unlink(missing_ok=True)

    def _is_ours(self, pid: int) -> bool:
        if not pid or sys.platform != "linux":
            return False
        try:
            return os.path.samefile(f"/proc/{pid}/cwd", self.data) and "postgres" in os.readlink(f"/proc/{pid}/exe")
        except OSError:
            return False

    def _pid_file(self) -> list[str]:
        try:
            return [line.strip() for line in (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()]
        except OSError:
            return []


def _require_account_name() -> None:
    """initdb asks for it, and a container may run us under a bare number."""
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError as error:
        raise Unavailable(
            f"The embedded Postgres needs a user with a name, and {os.geteuid()} has none; "
            "run as another user, or set DATABASE_URL."
        ) from error
