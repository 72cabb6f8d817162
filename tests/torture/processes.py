"""The processes of a running node, found below its supervisor by what their command lines say."""

import os
import signal
import time
from pathlib import Path

ROLES = {
    "dimse": ("serve", "dimse"),
    "web": ("serve", "web"),
    "clerk": ("serve", "clerk"),
    "ai": ("serve", "ai"),
    "postgres": ("postgres", "-D"),
    "valkey": ("valkey-server",),
}


def descendants(pid: int) -> list[int]:
    """All processes below one, at this moment."""
    children = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, queue = [], [pid]
    while queue:
        queue += (below := children.get(queue.pop(), []))
        found += below
    return found


def find(supervisor: int, role: str) -> int | None:
    """The process of a role: the one nearest to the supervisor whose command line has the role's words."""
    for pid in descendants(supervisor):
        words = _command_line(pid)
        if all(any(word == w or word.endswith("/" + w) for word in words) for w in ROLES[role]):
            return pid
        if role == "valkey" and any("valkey-server" in word for word in words):
            return pid
    return None


def kill(supervisor: int, role: str, seconds: float = 60) -> None:
    """kill -9 the role's process, then wait until another one runs in its place."""
    old = _wait_for(supervisor, role, None, seconds)
    os.kill(old, signal.SIGKILL)
    _wait_for(supervisor, role, old, seconds)


def _wait_for(supervisor: int, role: str, other_than: int | None, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pid = find(supervisor, role)
        if pid is not None and pid != other_than:
            return pid
        time.sleep(0.1)
    raise AssertionError(f"no {role} process runs after {seconds:.0f} s")


def _command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
