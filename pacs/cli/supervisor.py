"""The parent of a whole node: embedded servers, migrations, the four processes; restarts, drain, nothing left behind.

One thread: children are tied to the thread that starts them (`pacs.embedded.process`).
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog

from pacs.cli.components import Component, enabled, with_ports
from pacs.cli.greeting import greet, is_ready
from pacs.embedded.connect import erase_note, located, missing, note_exists, write_note
from pacs.embedded.process import spawn, wait_until
from pacs.embedded.servers import Servers
from pacs.errors import FilmroomError, Unavailable
from pacs.hardening import with_secret_key
from pacs.settings import Settings

PERIOD = 0.1
DRAIN = 20.0
FIRST_DELAY, LONGEST_DELAY = 1.0, 30.0
STEADY = 10.0  # a process that lived this long has no bad record
LEFTOVER = 10.0  # how long a killed node's processes may hold its ports


class Member(Protocol):
    """A process that is started again when it ends."""

    name: str
    process: subprocess.Popen[bytes] | None

    def start(self) -> None: ...


class Child:
    """One of the node's own processes, in a session of its own."""

    def __init__(self, component: Component, env: dict[str, str]) -> None:
        self.name, self.delay = component.name, component.delay
        self.process: subprocess.Popen[bytes] | None = None
        self._env = env

    def start(self) -> None:
        argv = [sys.executable, "-P", "-m", "pacs", "serve", self.name]
        self.process = spawn(argv, log=None, env=self._env)

    def tell(self, number: signal.Signals) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)

    def clear(self) -> None:
        """End whatever the process left in its session."""
        if self.process:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)


@dataclass
class Watch:
    """A member's record: when it was started, how often it failed in a row, when it is due again."""

    member: Member
    started: float = field(default_factory=time.monotonic)
    failures: int = 0
    due: float | None = None

    def tend(self, now: float) -> None:
        """Notice an end, and start (again) once the delay has passed."""
        process = self.member.process
        if self.due is not None:
            if now >= self.due:
                self._start(now)
        elif process is not None and process.poll() is not None:
            if isinstance(self.member, Child):
                self.member.clear()
            self._failed(now, exit_code=process.returncode)

    def _start(self, now: float) -> None:
        self.due, self.started = None, now
        try:
            self.member.start()
        except (OSError, FilmroomError):  # no memory, no disk, no program: as passing as an end
            self._failed(now, exc_info=True)

    def _failed(self, now: float, **fields: object) -> None:
        self.failures = 1 if now - self.started > STEADY else self.failures + 1
        delay = min(FIRST_DELAY * 2 ** (self.failures - 1), LONGEST_DELAY)
        self.due = now + delay
        structlog.get_logger().warning("process_ended", process=self.member.name, again_in_seconds=delay, **fields)


class Supervisor:
    """Runs until a signal asks it to end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._asked = 0

    def run(self) -> int:
        """Everything up, watched, and down again. Raises Conflict, SettingsError or Unavailable before it serves."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._ask)
        servers = Servers(self._settings.home, missing(self._settings))
        children: list[Child] = []
        try:
            settings = self._boot(servers)
            children = [Child(component, _environment(settings)) for component in enabled(settings)]
            if not self._asked:
                self._watch(settings, servers, children)
        finally:
            self._drain(children)
            servers.stop()
            erase_note(self._settings)
        return 0

    def _boot(self, servers: Servers) -> Settings:
        settings = with_secret_key(self._settings)
        settings = with_ports(settings, enabled(settings), LEFTOVER if note_exists(settings) else 0.0)
        write_note(settings)
        servers.start()
        settings = located(settings)
        _migrate(settings)
        return settings

    def _watch(self, settings: Settings, servers: Servers, children: Sequence[Child]) -> None:
        now = time.monotonic()
        watches = [Watch(member) for member in servers.members]
        watches += [Watch(child, due=now + child.delay) for child in children]
        threading.Thread(target=_announce, args=(settings,), daemon=True).start()
        while not self._asked:
            now = time.monotonic()
            for watch in watches:
                watch.tend(now)
            time.sleep(PERIOD)

    def _drain(self, children: Sequence[Child]) -> None:
        for child in children:
            child.tell(signal.SIGTERM)
        if children:
            wait_until(lambda: self._asked > 1 or not any(map(_lives, children)), DRAIN)
        for child in children:
            if _lives(child):
                structlog.get_logger().warning("process_killed", process=child.name, after_seconds=DRAIN)
            child.clear()
            if child.process:
                child.process.wait()

    def _ask(self, _number: int, _frame: object) -> None:
        self._asked += 1


def _migrate(settings: Settings) -> None:
    """Bring the schema to head, in a process of its own: Alembic takes memory that we would keep for ever."""
    from pacs.index import schema

    found = schema.current(settings.database_url)
    if found in {None, *(revision.name for revision in schema.revisions()[:-1])}:
        argv = [sys.executable, "-P", "-m", "pacs", "db", "upgrade", "--quiet"]
        if spawn(argv, log=None, env=_environment(settings)).wait() != 0:
            raise Unavailable("The database's schema could not be brought to head; see above.")
    else:
        schema.require_head(found)


def _lives(child: Child) -> bool:
    return child.process is not None and child.process.poll() is None


def _announce(settings: Settings) -> None:
    while not is_ready(settings):
        time.sleep(PERIOD)
    structlog.get_logger().info("node_ready", http_port=settings.http_port, dicom_port=settings.dicom_port)
    print(greet(settings), flush=True)


def _environment(settings: Settings) -> dict[str, str]:
    """What the children run with: ours, and what we found out."""
    root = str(Path(__file__).resolve().parents[2])
    found = ("filmroom_home", "database_url", "redis_url", "http_port", "web_port", "dicom_port")
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, **{name.upper(): str(getattr(settings, name)) for name in found}, "PYTHONPATH": path}
