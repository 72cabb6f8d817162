"""The servers that are measured: Filmroom itself, and the rivals that are installed here."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
READY_SECONDS = 90
STOP_SECONDS = 30
SINK = "SINK"  # the title that C-MOVE sends to, at a port of loopback that the starters are told


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its DICOM port and, where it has one, the root of its DICOMweb service."""

    name: str
    aet: str
    port: int
    web_port: int = 0
    process: int = 0

    def has_web(self) -> bool:
        """Whether it speaks DICOMweb."""
        return self.web_port > 0


@contextmanager
def filmroom(folder: Path, sink_port: int = 0) -> Iterator[Server]:
    """The node as an operator starts it, on embedded servers, with a state folder of its own."""
    port, http, web = (free_port() for _ in range(3))
    peers = folder / "peers.toml"
    peers.write_text(f'[peers.{SINK}]\nhost = "127.0.0.1"\nport = {sink_port}\n' if sink_port else "")
    environment = os.environ | {
        "FILMROOM_HOME": str(folder / "home"),
        "DICOM_PORT": str(port),
        "DICOM_PEERS": str(peers),
        "HTTP_PORT": str(http),
        "WEB_PORT": str(web),
        "AI_ENABLED": "false",
        "LOG_LEVEL": "warning",
    }
    with _running([sys.executable, "-m", "pacs", "serve"], folder, environment) as process:
        _wait(f"http://127.0.0.1:{http}/ready", process, folder)
        yield Server("filmroom", "FILMROOM", port, http, process.pid)


@contextmanager
def orthanc(folder: Path, sink_port: int = 0) -> Iterator[Server]:
    """Orthanc with its DICOMweb plugin and SQLite, as Debian packages it."""
    port, http = free_port(), free_port()
    configuration = {
        "Name": "bench",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "HttpPort": http,
        "DicomPort": port,
        "DicomAet": "ORTHANC",
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomModalities": {SINK: [SINK, "127.0.0.1", sink_port], "BENCH": ["BENCH", "127.0.0.1", sink_port]},
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(DICOMWEB_PLUGIN)] if DICOMWEB_PLUGIN.exists() else [],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with _running(["Orthanc", str(folder / "orthanc.json")], folder, dict(os.environ)) as process:
        _wait(f"http://127.0.0.1:{http}/system", process, folder)
        yield Server("orthanc", "ORTHANC", port, http if DICOMWEB_PLUGIN.exists() else 0, process.pid)


@contextmanager
def storescp(folder: Path, _sink_port: int = 0) -> Iterator[Server]:
    """DCMTK's storescp, which writes files and keeps no index."""
    port = free_port()
    (folder / "received").mkdir()
    command = ["storescp", "--output-directory", str(folder / "received"), "--accept-all", str(port)]
    with _running(command, folder, dict(os.environ)) as process:
        deadline = time.monotonic() + READY_SECONDS
        while socket.socket().connect_ex(("127.0.0.1", port)) and time.monotonic() < deadline:
            time.sleep(0.05)
        yield Server("storescp", "STORESCP", port, 0, process.pid)


def installed() -> list[str]:
    """The rivals that can be started here."""
    rivals = {"orthanc": "Orthanc", "storescp": "storescp"}
    return [name for name, program in rivals.items() if shutil.which(program)]


STARTERS = {"filmroom": filmroom, "orthanc": orthanc, "storescp": storescp}


def free_port() -> int:
    """A TCP port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _running(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None:
                break
            time.sleep(0.1)
    raise RuntimeError(f"{url} is not ready:\n" + (folder / "log").read_text(errors="replace")[-3000:])
