"""A node started as an operator starts it, in a state folder of its own, for campaigns that break things."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

READY_SECONDS = 120
QUIET = {
    "AI_SERIES_QUIET_SECONDS": "2",
    "AI_STUDY_QUIET_SECONDS": "4",
    "DISK_RESERVE_GB": "0.1",
    "LOG_LEVEL": "warning",
}


class Stand:
    """`filmroom serve` on embedded servers. Use it as a context manager."""

    def __init__(self, folder: Path, ports: dict[str, int], settings: dict[str, str] | None = None) -> None:
        self.folder, self.ports = folder, ports
        self.environment = os.environ | QUIET | {k: str(v) for k, v in ports.items()} | (settings or {})
        self.environment["FILMROOM_HOME"] = str(folder / "home")
        self.http_port, self.dicom_port = ports["HTTP_PORT"], ports["DICOM_PORT"]

    def __enter__(self) -> "Stand":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start and wait until it is ready."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pacs", "serve"], stdout=log, stderr=log, env=self.environment
            )
        self.wait_ready()

    def stop(self) -> None:
        """SIGTERM, and wait for the drain."""
        self.process.terminate()
        self.process.wait(90)

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self.process.pid

    def wait_ready(self) -> None:
        """Wait until `/ready` says so."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            try:
                self.get("/ready")
            except (urllib.error.URLError, OSError):
                if self.process.poll() is not None:
                    break
                time.sleep(0.2)
            else:
                return
        raise AssertionError("not ready:\n" + (self.folder / "log").read_text(errors="replace")[-4000:])

    def get(self, path: str, accept: str = "*/*") -> bytes:
        """The body of an answer; raises HTTPError for an error status."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=60) as answer:
            body: bytes = answer.read()
            return body

    def qido(self, path: str) -> list[dict[str, Any]]:
        """Rows of a query."""
        rows: list[dict[str, Any]] = json.loads(self.get("/dicom-web" + path, "application/dicom+json"))
        return rows

    def wado(self, row: dict[str, Any]) -> bytes:
        """The stored file of an instance row."""
        study, series, instance = (row[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018"))
        path = f"/dicom-web/studies/{study}/series/{series}/instances/{instance}"
        return self.get(path, "application/dicom; transfer-syntax=*")
