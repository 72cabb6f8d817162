"""The embedded Valkey: an append-only file in the home, reached by a Unix socket only."""

import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

from pacs.embedded.binaries import valkey_program
from pacs.embedded.process import clean_environment, end, own, service_account, spawn, wait_until

FLAGS = {
    "port": "0",
    "unixsocketperm": "700",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",  # a queue may not forget entries
    "daemonize": "no",
}


class Valkey:
    """One server on one home. The caller holds the home's lock."""

    name = "valkey"

    def __init__(self, home: Path, run_dir: Path) -> None:
        self.data = home / "valkey"
        self.socket_path = run_dir / "valkey.sock"
        self.log_path = home / "logs" / "valkey.log"
        self.url = f"unix://{self.socket_path}?db=0"
        self.process: subprocess.Popen[bytes] | None = None
        self._account = service_account()

    def start(self) -> None:
        """Start the server. Returns before it takes connections."""
        self.data.mkdir(mode=0o700, exist_ok=True)
        own(self.data, self._account)
        self._clear_predecessor()
        flags = {**FLAGS, "dir": str(self.data), "unixsocket": str(self.socket_path)}
        options = [part for name, value in flags.items() for part in (f"--{name}", value)]
        with self.log_path.open("ab") as log:
            self.process = spawn(
                [valkey_program(), *options],
                log=log,
                account=self._account,
                env=clean_environment(),
                reach=(self.data, valkey_program(), self.socket_path),
            )

    def ready(self) -> bool:
        """True once a PING is answered: the append-only file is loaded."""
        return self._ask(b"PING\r\n").startswith(b"+PONG")

    def stop(self, patience: float = 10.0) -> None:
        """Orderly shutdown, the append-only file synced; then the hard way."""
        if self.process:
            end(self.process, (signal.SIGTERM, signal.SIGKILL), patience)

    def _clear_predecessor(self) -> None:
        """Wait for, then end, a server of ours that outlived its supervisor."""
        if not wait_until(lambda: not self._listener(), 10.0):
            os.kill(self._listener(), signal.SIGKILL)
            wait_until(lambda: not self._listener(), 10.0)
        self.socket_path.unlink(missing_ok=True)

    def _listener(self) -> int:
        """The process that listens on our socket, 0 if none."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket_path))
            except OSError:
                return 0
            if sys.platform != "linux":
                return -1
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[0])

    def _ask(self, command: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1.0)
            try:
                connection.connect(str(self.socket_path))
                connection.sendall(command)
                return connection.recv(256)
            except OSError:
                return b""
