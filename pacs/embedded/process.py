"""Child processes that cannot outlive us, under an account that may not be root.

`PR_SET_PDEATHSIG` is sent when the *thread* that started the child ends, so children are started by the main thread.
"""

import ctypes
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PR_SET_PDEATHSIG = 1
PR_SET_SECUREBITS = 28
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 47, 2
SECBIT_NO_SETUID_FIXUP = 1 << 2  # else access(2), which Postgres asks about its programs, forgets capabilities
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
CAPABILITY_VERSION_3 = 0x20080522


@dataclass(frozen=True)
class Account:
    """Who a server runs as when we are root, because Postgres refuses root."""

    uid: int
    gid: int


def clean_environment() -> dict[str, str]:
    """What a server gets of our environment: no PG* variable of the user's shell, none of our secrets."""
    kept = ("PATH", "HOME", "LD_LIBRARY_PATH", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"LC_ALL": "C"}


def service_account() -> Account | None:
    """`nobody` when we are root, else None: the server runs as we do."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    return Account(entry.pw_uid, entry.pw_gid)


def spawn(
    argv: Sequence[str | Path],
    *,
    log: IO[bytes] | None,
    account: Account | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
    env: Mapping[str, str] | None = None,
    reach: Sequence[Path] = (),
    feed: bytes = b"",
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own that gets `death_signal` when we die, however we die.

    `reach`: paths that the account must be able to walk to. Where a folder above them is closed to it (a home below
    /root), the process gets the one capability to walk and read, rather than the folder being opened to everybody.
    `feed`: a few bytes for its standard input.
    """
    walk = not all(_walkable(path, account) for path in reach)
    process = subprocess.Popen(
        [str(part) for part in argv],
        stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=env,
        cwd="/" if account else None,
        start_new_session=True,
        preexec_fn=_before_exec(account, death_signal, walk),  # noqa: PLW1509 - it takes no lock and makes no object
    )
    if process.stdin:
        process.stdin.write(feed)
        process.stdin.close()
    return process


def end(process: subprocess.Popen[bytes], signals: Sequence[signal.Signals], patience: float) -> None:
    """End a process with ever stronger signals, each given `patience` seconds."""
    for number in signals:
        if process.poll() is not None:
            return
        process.send_signal(number)
        wait_until(lambda: process.poll() is not None, patience)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Ask every 20 ms; the condition's last answer."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return condition()
        time.sleep(0.02)
    return True


def own(path: Path, account: Account | None) -> None:
    """Give a folder and all in it to the account, where they are not its own yet (a home moved between users)."""
    if account is None or path.stat().st_uid == account.uid:
        return
    for folder, _, files in os.walk(path, topdown=False):  # the top folder last: it says that all is done
        for name in (*(os.path.join(folder, file) for file in files), folder):
            os.chown(name, account.uid, account.gid, follow_symlinks=False)


def _walkable(path: Path, account: Account | None) -> bool:
    return account is None or all(_may_enter(folder, account) for folder in path.resolve().parents)


def _may_enter(folder: Path, account: Account) -> bool:
    status = folder.stat()
    shift = 6 if status.st_uid == account.uid else 3 if status.st_gid == account.gid else 0
    return bool(status.st_mode >> shift & 1)


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _before_exec(account: Account | None, death_signal: signal.Signals, walk: bool) -> Callable[[], None]:
    """What the child does between fork and exec. All memory it needs is made here, before the fork."""
    linux = sys.platform == "linux"
    libc = ctypes.CDLL(None, use_errno=True) if linux else None
    parent = os.getpid()
    capability = _walking_capability() if walk and linux else 0
    header, data = _CapHeader(CAPABILITY_VERSION_3, 0), (_CapData * 2)()
    data[0] = _CapData(*[1 << capability] * 3)

    def prepare() -> None:
        if account and libc and capability:
            libc.prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
        if account:
            os.setgroups([])
            os.setgid(account.gid)
            os.setuid(account.uid)
        if account and libc and capability:
            libc.capset(ctypes.byref(header), data)
            libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)
        if libc:
            libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)  # after setuid, which clears it
            if os.getppid() != parent:
                os._exit(1)  # the parent died before the signal was armed

    return prepare


def _walking_capability() -> int:
    """The lesser of the two capabilities that this machine lets us hand on (containers keep the wider one only)."""
    libc = ctypes.CDLL(None, use_errno=True)
    pr_capbset_read = 23
    return CAP_DAC_READ_SEARCH if libc.prctl(pr_capbset_read, CAP_DAC_READ_SEARCH, 0, 0, 0) == 1 else CAP_DAC_OVERRIDE
