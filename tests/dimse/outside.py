"""The door as a process of its own, as an attacker meets it, and what it takes of the machine."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from pacs.settings import Settings
from tests.dimse.certificates import Authority, Credential
from tests.dimse.sender import Refusal, Sender

LAZY_THREADS, LAZY_FILES = 16, 12  # bounded pools of threads and of connections grow when they are first needed so


@dataclass(frozen=True)
class Usage:
    """Resident bytes, threads, file descriptors and staging files of the door's process.

    Files of the store that are made ahead and held open come and go by the dozen and are not counted.
    """

    memory: int
    threads: int
    descriptors: int
    files: int

    def within(self, other: "Usage", megabytes: float) -> bool:
        """Whether this is the baseline `other` again, but for some memory that the allocator keeps."""
        grown = self.memory - other.memory < megabytes * 2**20
        as_many = self.threads <= other.threads + LAZY_THREADS and self.descriptors <= other.descriptors + LAZY_FILES
        return grown and as_many and not self.files


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass
class OutsideDoor:
    """`filmroom serve dimse` with a plain and a TLS port. `peers`: bodies of [peers.TITLE] tables."""

    folder: Path
    settings: Settings
    peers: Mapping[str, str] = field(default_factory=dict)

    def __enter__(self) -> "OutsideDoor":
        self.authority = Authority(self.folder)
        self.ours, self.caller = self.authority.issue("ours"), self.authority.issue("caller")
        (self.folder / "peers.toml").write_text(
            "\n".join(f"[peers.{title}]\n{body}" for title, body in self.peers.items())
        )
        self.address, self.tls_address = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
        self.log = self.folder / "door.log"
        self.process = self.start()
        self.wait()
        return self

    def start(self) -> subprocess.Popen[bytes]:
        """One more process on the same ports."""
        with self.log.open("ab") as log:
            line = [sys.executable, "-P", "-m", "pacs", "serve", "dimse"]
            return subprocess.Popen(line, stdout=log, stderr=log, env=self._environment())

    def _environment(self) -> dict[str, str]:
        ours = {
            "FILMROOM_HOME": self.settings.home,
            "FILMROOM_CONFIG": os.devnull,
            "DATABASE_URL": self.settings.database_url,
            "REDIS_URL": self.settings.redis_url,
            "DISK_RESERVE_GB": 0,
            "DICOM_PORT": self.address[1],
            "DICOM_PEERS": self.folder / "peers.toml",
            "DICOM_TLS_PORT": self.tls_address[1],
            "DICOM_TLS_CERT": self.ours.certificate,
            "DICOM_TLS_KEY": self.ours.key,
            "DICOM_TLS_CA": self.authority.file,
            "LOG_FORMAT": "json",
        }
        root = str(Path(__file__).resolve().parents[2])
        return {**os.environ, **{name: str(value) for name, value in ours.items()}, "PYTHONPATH": root}

    def wait(self, seconds: float = 60.0) -> None:
        """Until an echo is answered."""
        end = time.monotonic() + seconds
        while True:
            with suppress(OSError, Refusal), Sender(self.address, timeout=5) as sender:
                assert sender.echo() == 0
                return
            assert self.process.poll() is None, self.log.read_text()[-3_000:]
            assert time.monotonic() < end, self.log.read_text()[-3_000:]
            time.sleep(0.05)

    def usage(self) -> Usage:
        process = psutil.Process(self.process.pid)
        left = list((self.settings.storage_dir / "tmp").glob("*"))
        return Usage(process.memory_info().rss, process.num_threads(), self._descriptors(), len(left))

    def _descriptors(self) -> int:
        objects, count = str(self.settings.storage_dir / "objects"), 0
        for entry in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                count += not os.readlink(entry).startswith(objects)
        return count

    def settled(self, seconds: float = 60.0) -> Usage:
        """The usage once nobody is connected any more."""
        end = time.monotonic() + seconds
        ports = {self.address[1], self.tls_address[1]}
        while time.monotonic() < end:
            found = psutil.Process(self.process.pid).net_connections("tcp")
            if not any(one.laddr and one.laddr.port in ports and one.status != psutil.CONN_LISTEN for one in found):
                break
            time.sleep(0.1)
        return self.usage()

    def settles(self, baseline: Usage, megabytes: float, seconds: float = 60.0) -> Usage:
        """The usage when it is the baseline again, or the last one seen."""
        end = time.monotonic() + seconds
        while not (now := self.usage()).within(baseline, megabytes) and time.monotonic() < end:
            time.sleep(0.1)
        return now

    def traces(self) -> list[str]:
        """Lines of the log that tell of a failure of ours."""
        return [line for line in self.log.read_text().splitlines() if "dimse_failure" in line or "Traceback" in line]

    @property
    def credential(self) -> Credential:
        return self.caller

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(40)
