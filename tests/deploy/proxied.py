"""The nginx that we ship, with the file that we ship, before web processes on addresses of this machine."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from pacs.embedded.process import spawn
from pacs.settings import Settings
from tests.deploy import shipped

BACKENDS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")  # one port on all, as containers have
PATIENCE = 60.0
LIMIT_GB = 0.05  # of the node; the proxy's own stays at 10 GiB


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], bool], what: object) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def moved(folder: Path, ports: dict[str, int], resolver: int) -> str:
    """The shipped file with ports, certificate and temporary files of this machine; all else as it is."""
    text = (shipped.DEPLOY / "nginx" / "nginx.conf").read_text(encoding="utf-8")
    text = re.sub(r" /tmp/", f" {folder}/", text)
    for old, new in {
        "listen 8443 ssl": f"listen 127.0.0.1:{ports['https']} ssl",
        "listen 8000": f"listen 127.0.0.1:{ports['http']}",
        "listen 3000": f"listen 127.0.0.1:{ports['pages']}",
        "listen 127.0.0.1:8081": f"listen 127.0.0.1:{ports['alive']}",
        "backend:8000": f"backend:{ports['backend']}",
        "frontend:3000": f"frontend:{ports['frontend']}",
        "resolver 127.0.0.11": f"resolver 127.0.0.1:{resolver}",
        "/etc/filmroom/tls": f"{folder}/tls",
    }.items():
        assert text.count(old) >= 1, old
        text = text.replace(old, new)
    return text


@dataclass
class Proxied:
    """Web processes on `hosts` and nginx before them; `url` by the word of a listening port."""

    folder: Path
    settings: Settings
    hosts: tuple[str, ...] = BACKENDS
    limit_gb: float = LIMIT_GB
    ports: dict[str, int] = field(default_factory=dict)
    webs: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    nginx: subprocess.Popen[bytes] | None = None

    def start(self, resolver: int) -> None:
        """All of it, and wait until each answers."""
        self.ports = {word: free_port() for word in ("https", "http", "pages", "alive", "backend", "frontend")}
        self._certify()
        (self.folder / "nginx.conf").write_text(moved(self.folder, self.ports, resolver), encoding="utf-8")
        for host in self.hosts:
            self.serve(host)
        self.nginx = self._spawn(["nginx", "-c", f"{self.folder}/nginx.conf", "-g", "daemon off;"], "nginx")
        for host in self.hosts:
            self.wait_served(host)
        wait_for(lambda: self._alive(f"http://127.0.0.1:{self.ports['alive']}/alive"), "nginx")

    def serve(self, host: str) -> None:
        """One web process on that address."""
        line = [sys.executable, "-m", "pacs", "serve", "web"]
        self.webs[host] = self._spawn(line, host, self.environment(HTTP_HOST=host))

    def environment(self, **more: str) -> dict[str, str]:
        """What a process of this node runs with."""
        kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}}
        return kept | {
            "FILMROOM_HOME": str(self.settings.home),
            "FILMROOM_CONFIG": os.devnull,
            "DATABASE_URL": self.settings.database_url,
            "REDIS_URL": self.settings.redis_url,
            "HTTP_PORT": str(self.ports["backend"]),
            "WEB_PORT": str(self.ports["frontend"]),
            "TRUSTED_PROXIES": "127.0.0.0/8",
            "AUTH_MODE": self.settings.auth_mode,
            "SECRET_KEY": self.settings.secret_key,
            "DICOM_MAX_UPLOAD_SIZE_GB": str(self.limit_gb),
            "DISK_RESERVE_GB": "0",
            "LOG_FORMAT": "json",
            **more,
        }

    def wait_served(self, host: str) -> None:
        """Until the process on that address answers."""
        wait_for(lambda: self._alive(f"http://{host}:{self.ports['backend']}/health"), host)

    def kill(self, host: str) -> None:
        """What no process can be ready for."""
        self.webs[host].kill()
        self.webs[host].wait(PATIENCE)

    def url(self, word: str) -> str:
        return f"{'https' if word == 'https' else 'http'}://localhost:{self.ports[word]}"

    def access(self) -> list[dict[str, Any]]:
        """nginx's access log so far."""
        lines = (self.folder / "nginx.log").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def stop(self) -> None:
        running = [*self.webs.values(), *([self.nginx] if self.nginx else [])]
        for process in running:
            process.terminate()
        for process in running:
            process.wait(PATIENCE)

    def _spawn(self, line: list[str], name: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return spawn(line, log=log, env=env or dict(os.environ))

    def _certify(self) -> None:
        (self.folder / "deploy").mkdir()
        shutil.copy(shipped.ROOT / ".env.example", self.folder)
        shutil.copy(shipped.DEPLOY / "prepare", self.folder / "deploy")
        subprocess.run([self.folder / "deploy" / "prepare"], check=True, capture_output=True)
        (self.folder / "tls").symlink_to(self.folder / "deploy" / "secrets" / "tls")

    @staticmethod
    def _alive(url: str) -> bool:
        try:
            return httpx.get(url, timeout=5).is_success
        except httpx.HTTPError:
            return False
