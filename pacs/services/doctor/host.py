"""The machine: Python, disks, ports, clock, limits, certificates, and who runs here."""

import os
import resource
import shutil
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pacs.embedded.connect import note_exists
from pacs.embedded.lock import holder
from pacs.places import checkout
from pacs.services.doctor.case import Case
from pacs.services.doctor.finding import DOCTOR_FIX, ERROR, WARNING, Check, Finding, some

PYTHONS = ((3, 11), (3, 14))
COMFORTABLE_GB = 10
GIB = 1 << 30
OPEN_FILES = 1024
CLOCK_SECONDS = 5.0
YEARS = (2025, 2100)
CERTIFICATE_DAYS = 30
VOLATILE = frozenset({"tmpfs", "ramfs"})
LISTENING = "0A"
OUR_WORDS = ("filmroom", "pacs")


def python(_case: Case) -> Iterator[Finding]:
    found = sys.version_info[:2]
    if not PYTHONS[0] <= found < PYTHONS[1]:
        what = f"This is Python {found[0]}.{found[1]}; Filmroom is tested on 3.11 to 3.13."
        yield Finding(what, severity=WARNING)


def disk(case: Case) -> Iterator[Finding]:
    places = {"files": case.settings.storage_dir, "state": case.settings.home}
    seen = set()
    for what, folder in places.items():
        place = existing(folder)
        if place.stat().st_dev in seen:
            continue
        seen.add(place.stat().st_dev)
        free = shutil.disk_usage(place).free / GIB
        if free < case.settings.disk_reserve_gb:
            yield Finding(f"{free:.1f} GiB are free for {what}, less than DISK_RESERVE_GB: objects are refused.",
                          examples=(str(place),))  # fmt: skip
        elif free < COMFORTABLE_GB:
            yield Finding(f"{free:.1f} GiB are free for {what}.", examples=(str(place),), severity=WARNING)


def existing(folder: Path) -> Path:
    """The folder, or what of its path exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def storage(case: Case) -> Iterator[Finding]:
    root = existing(case.settings.storage_dir)
    if os.statvfs(root).f_flag & os.ST_RDONLY or not os.access(root, os.W_OK):
        cure = "mount it writable, or correct DICOM_STORAGE_DIR and its owner"
        yield Finding("The file store cannot be written.", examples=(str(root),), cure=cure)
    kind = filesystem(root)
    if kind in VOLATILE:
        yield Finding(f"The file store lies in memory ({kind}): all is gone when the machine stops.",
                      examples=(str(root),), cure="set DICOM_STORAGE_DIR to a folder on a disk")  # fmt: skip
    devices = {}
    for name in ("tmp", "objects", "conflicts", "quarantine"):
        with suppress(FileNotFoundError):
            devices[name] = (case.settings.storage_dir / name).stat().st_dev
    if len(set(devices.values())) > 1:
        yield Finding("Folders of the file store lie on several disks: no file can be moved into its place.",
                      examples=some(devices), cure="mount one disk at DICOM_STORAGE_DIR itself")  # fmt: skip


def filesystem(folder: Path) -> str:
    """The kind of file system that a folder lies on; empty where nobody tells."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    found = ("", "")
    for line in lines:
        left, _, right = line.partition(" - ")
        point = left.split()[4].encode().decode("unicode_escape")
        if folder.resolve().is_relative_to(point) and len(point) >= len(found[0]):
            found = (point, right.split()[0])
    return found[1]


def open_files(_case: Case) -> Iterator[Finding]:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES:
        yield Finding(f"A process may open {soft} files; senders are turned away when they are used up.",
                      severity=WARNING)  # fmt: skip


# clocks


def clock(case: Case) -> Iterator[Finding]:
    year = datetime.now(UTC).year
    if not YEARS[0] <= year <= YEARS[1]:
        yield Finding(f"This machine says that it is {year}.")
    if "database" in case.troubles:
        return
    before = time.time()
    theirs = case.rows("clock")[0]["seconds"]
    apart = max(before - theirs, theirs - time.time(), 0.0)
    if apart > CLOCK_SECONDS:
        what = f"The clocks of this machine and of the database are {apart:.0f} s apart."
        yield Finding(what, severity=ERROR if apart > 60 else WARNING)
    if "schema" in case.troubles:
        return
    row = case.rows("future")[0]
    if row["rows"]:
        what = (
            f"{row['rows']} objects were stored later than now ({row['latest']:%Y-%m-%d %H:%M}): the clock went back."
        )
        yield Finding(what, row["rows"], severity=WARNING)


# ports and processes


def ports(case: Case) -> Iterator[Finding]:
    for name in ("http_port", "web_port", "dicom_port", "dicom_tls_port"):
        port = getattr(case.settings, name)
        pid = listener(port) if port else 0
        if pid and not is_ours(pid, case):
            what = f"Port {port} ({name.upper()}) is held by another program: {command(pid)} (process {pid})."
            yield Finding(what, examples=(f"{name.upper()}={port}",))


def listener(port: int) -> int:
    """The process that listens on a TCP port; 0 where none does, or where it cannot be seen."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    return _holder_of(inodes) if inodes else 0


def _holder_of(sockets: set[str]) -> int:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            for link in (process / "fd").iterdir():
                with suppress(OSError):
                    if os.readlink(link) in sockets:
                        return int(process.name)
    return 0


def command(pid: int) -> str:
    """What a process runs, without its arguments."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    return "?"


def is_ours(pid: int, case: Case) -> bool:
    """Whether a process belongs to this home's node, or, where no supervisor runs, to a node at all."""
    supervisor = holder(case.settings.home)
    if supervisor and supervisor in _ancestors(pid):
        return True
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        names = {word.rpartition(b"/")[2].decode(errors="replace") for word in words}
        return not supervisor and "serve" in names and bool(names & set(OUR_WORDS))
    return True  # it cannot be looked at


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        yield pid
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        except OSError:
            return


def stale_note(case: Case) -> Iterator[Finding]:
    if case.asleep and note_exists(case.settings):
        what = "A node on this home ended without a farewell: it was killed, or the machine went down."
        yield Finding(what, examples=(str(case.settings.home),), severity=WARNING, cure="filmroom serve")


# certificates


def certificates(case: Case) -> Iterator[Finding]:
    for name, certificate, key in _pairs(case):
        yield from _certificate(name, certificate, key)


def _pairs(case: Case) -> Iterator[tuple[str, Path, Path | None]]:
    """The certificates that are in use, each with its key."""
    if case.settings.dicom_tls_port and case.settings.dicom_tls_cert:
        yield "DICOM_TLS_CERT", case.settings.dicom_tls_cert, case.settings.dicom_tls_key
    if case.settings.dicom_tls_port and case.settings.dicom_tls_ca:
        yield "DICOM_TLS_CA", case.settings.dicom_tls_ca, None
    root = checkout()
    shipped = root / "deploy" / "secrets" / "tls" if root else None
    if shipped and (shipped / "tls.crt").exists():
        yield "the proxy's certificate", shipped / "tls.crt", shipped / "tls.key"


def _certificate(name: str, file: Path, key: Path | None) -> Iterator[Finding]:
    from cryptography import x509

    where = (str(file),)
    try:
        ends = min(one.not_valid_after_utc for one in x509.load_pem_x509_certificates(file.read_bytes()))
    except OSError as error:
        yield Finding(f"{name} cannot be read ({error.strerror}).", examples=where)
        return
    except ValueError:
        yield Finding(f"{name} is no certificate in PEM.", examples=where)
        return
    days = (ends - datetime.now(UTC)).total_seconds() / 86400
    if days < CERTIFICATE_DAYS:
        ended = f"ended on {ends:%Y-%m-%d}" if days < 0 else f"ends in {days:.0f} days, on {ends:%Y-%m-%d}"
        yield Finding(f"{name} {ended}.", examples=where, severity=ERROR if days < 1 else WARNING)
    if key is not None:
        yield from _key(name, file, key)


def _key(name: str, file: Path, key: Path) -> Iterator[Finding]:
    try:
        key.read_bytes()
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file, key, password=_no_password)
    except ssl.SSLError:
        yield Finding(f"{name} and its key do not belong together.", examples=(str(key),))
    except (OSError, ValueError) as error:
        word = getattr(error, "strerror", None) or "it asks for a password"
        yield Finding(f"The key of {name} cannot be read ({word}).", examples=(str(key),))


def _no_password(*_: Any) -> str:
    raise ValueError


RENEW = "replace the files; they are read again without a restart (nginx: -s reload)"
CHECKS = (
    Check("python-version", "configuration", "a Python that Filmroom is not tested on",
          "install Python 3.11, 3.12 or 3.13", python),
    Check("disk-space", "configuration", "less than 10 GiB, or than the reserve, of free disk",
          "free space, enlarge the disk, or lower DISK_RESERVE_GB", disk),
    Check("storage-place", "configuration", "a file store in memory, on several disks, or read-only", "", storage),
    Check("open-files", "configuration", "a low limit of open files",
          "ulimit -n 65536, LimitNOFILE= or ulimits: of compose", open_files),
    Check("clock", "configuration", "clocks that are wrong or apart", "run NTP on both machines: timedatectl", clock),
    Check("ports", "configuration", "ports that another program holds", "stop that program, or set another port",
          ports),
    Check("stale-note", "configuration", "a node that ended without a farewell", DOCTOR_FIX, stale_note),
    Check("certificate", "configuration", "certificates that end soon, are unreadable, or have another key", RENEW,
          certificates),
)  # fmt: skip
