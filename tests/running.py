"""A real node in processes of its own: `filmroom serve` on a home of a test's own, any free ports."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from pacs.cli.greeting import is_ready
from pacs.embedded.connect import located, note_exists, noted
from pacs.embedded.process import spawn
from pacs.settings import Settings, load

QUICK = {
    "HTTP_PORT": "0",
    "WEB_PORT": "0",
    "DICOM_PORT": "0",
    "DISK_RESERVE_GB": "0",
    "AI_SERIES_QUIET_SECONDS": "1",
    "AI_STUDY_QUIET_SECONDS": "2",
    "LOG_FORMAT": "json",
    "FILMROOM_CONFIG": os.devnull,
}
SERVER_VARIABLES = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "ENVIRONMENT", "AUTH_MODE")
PATIENCE = 60.0


@dataclass
class RunningNode:
    """`start` it, use `http_url`, `dicom_port` and `settings`, `stop` it."""

    home: Path
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def log_path(self) -> Path:
        return self.home.with_name(self.home.name + ".log")

    @property
    def settings(self) -> Settings:
        """What the node runs with, URLs and real ports filled in."""
        return located(noted(load(self._environment())))

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.settings.http_port}"

    @property
    def dicom_port(self) -> int:
        return self.settings.dicom_port

    def launch(self) -> None:
        """Start the process and do not wait."""
        with self.log_path.open("ab") as log:
            self.process = spawn([sys.executable, "-m", "pacs", "serve"], log=log, env=self._environment())

    def start(self, patience: float = PATIENCE) -> "RunningNode":
        """Start and wait until it is ready; the failure shows the tail of its log."""
        self.launch()
        self.wait_ready(patience)
        return self

    def wait_ready(self, patience: float = PATIENCE) -> None:
        """Wait until /ready answers 200 and DICOM takes connections."""
        self.wait(lambda: note_exists(self.settings) and is_ready(self.settings), patience)

    def wait(self, condition, patience: float = PATIENCE) -> None:
        """Wait for a condition while the node lives."""
        deadline = time.monotonic() + patience
        while not condition():
            ended = self.process is not None and self.process.poll() is not None
            assert not ended, f"the node ended with {self.process.returncode}:\n{self.log_tail()}"
            assert time.monotonic() < deadline, f"not in {patience:g} s:\n{self.log_tail()}"
            time.sleep(0.05)

    def stop(self, number: signal.Signals = signal.SIGTERM, patience: float = PATIENCE) -> int:
        """Ask it to end and give its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(patience)

    def family(self) -> list[psutil.Process]:
        """The supervisor and all its descendants, of now."""
        assert self.process is not None
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def children(self) -> dict[str, psutil.Process]:
        """The living direct children of the supervisor by their command lines."""
        assert self.process is not None
        found = {}
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.Error):  # it ended meanwhile
                found[" ".join(child.cmdline())] = child
        return found

    def child(self, words: str) -> psutil.Process:
        """The child whose command line holds the words."""
        for line, child in self.children().items():
            if words in line:
                return child
        raise AssertionError(f"no child {words}:\n{self.log_tail()}")

    def log_tail(self, lines: int = 60) -> str:
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in SERVER_VARIABLES}
        return {**kept, **QUICK, "FILMROOM_HOME": str(self.home), **self.env}
