"""Import of files, folders, DICOMDIR trees and zip archives through the one door.

A journal in the state folder remembers which files are done, so an import that was stopped goes on where it was.
"""

import hashlib
import os
import zipfile
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pacs.domain.events import Source, Stored
from pacs.errors import FilmroomError, Refused
from pacs.services.ingest import Incoming, Ingest

CHUNK = 1 << 20
IN_FLIGHT = 16  # stores that wait for one another's commit together
MAGIC_OFFSET = 128
DATA_SET_STARTS = {0x0002, 0x0008}  # groups a data set without a preamble may begin with


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file found: on disk, or a member of a zip archive (`member` is then its name in there)."""

    path: Path
    size: int
    member: str = ""

    @property
    def name(self) -> str:
        """How the file is called in messages and in the journal."""
        return f"{self.path}!{self.member}" if self.member else str(self.path)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file: stored, known, replaced, skipped, refused or done (by an earlier run)."""

    name: str
    kind: str
    reason: str = ""


class Journal:
    """One line per finished file, keyed by name, size and time of change; a changed file is imported again."""

    def __init__(self, folder: Path, paths: Iterable[Path]) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = hashlib.sha256("\0".join(sorted(str(p.resolve()) for p in paths)).encode()).hexdigest()[:16]
        self.path = folder / f"{key}.done"
        self._done = set(self.path.read_text().split()) if self.path.exists() else set()
        self._file = self.path.open("a", encoding="ascii")

    def __contains__(self, candidate: Candidate) -> bool:
        return self._key(candidate) in self._done

    def add(self, candidate: Candidate) -> None:
        """Remember that the file needs no second import."""
        self._file.write(self._key(candidate) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the journal's file."""
        self._file.close()

    @staticmethod
    def _key(candidate: Candidate) -> str:
        changed = candidate.path.stat().st_mtime_ns
        return hashlib.sha256(f"{candidate.name}\0{candidate.size}\0{changed}".encode()).hexdigest()[:32]


def find(paths: Iterable[Path]) -> Iterator[Candidate]:
    """Every file below the paths, in a stable order; zip archives are looked into.

    Raises FileNotFoundError for a path that is not there.
    """
    for path in paths:
        if path.is_dir():
            for folder, folders, names in os.walk(path):
                folders.sort()
                yield from (c for name in sorted(names) for c in _candidates(Path(folder, name)))
        elif path.name.upper() == "DICOMDIR":
            yield from find([path.parent])
        else:
            yield from _candidates(path)


def _candidates(path: Path) -> Iterator[Candidate]:
    if path.suffix.lower() == ".zip" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (Candidate(path, m.file_size, m.filename) for m in archive.infolist() if not m.is_dir())
    elif path.is_file():
        yield Candidate(path, path.stat().st_size)
    elif not path.exists():
        raise FileNotFoundError(path)


def run(ingest: Ingest, candidates: Iterable[Candidate], journal: Journal, *, again: bool = False) -> Iterator[Outcome]:
    """Store each candidate and say what became of it. Several are under way at once and share commits."""
    pending: deque[tuple[Candidate, Future[Stored]]] = deque()
    for candidate in candidates:
        if not again and candidate in journal:
            yield Outcome(candidate.name, "done", "imported by an earlier run")
            continue
        started = _start(ingest, candidate)
        if isinstance(started, Outcome):
            yield started
            continue
        pending.append((candidate, started))
        if len(pending) >= IN_FLIGHT:
            yield _finish(*pending.popleft(), journal)
    while pending:
        yield _finish(*pending.popleft(), journal)


def summary(outcomes: Iterable[Outcome]) -> dict[str, Counter[str]]:
    """Counts by kind, and within each kind by reason."""
    counts: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        counts.setdefault(outcome.kind, Counter())[outcome.reason] += 1
    return counts


def _start(ingest: Ingest, candidate: Candidate) -> Outcome | Future[Stored]:
    try:
        with _open(candidate) as file:
            head = file.read(MAGIC_OFFSET + 4)
            why_not = _not_dicom(candidate, head)
            if why_not:
                return Outcome(candidate.name, "skipped", why_not)
            incoming = ingest.begin(Source("import", "import", ""))
            _copy(head, file, incoming)
    except Refused as refused:
        return Outcome(candidate.name, "refused", refused.reason.value)
    except (OSError, zipfile.BadZipFile, RuntimeError) as error:  # RuntimeError: an encrypted zip member
        return Outcome(candidate.name, "skipped", f"cannot be read ({type(error).__name__})")
    return ingest.submit(incoming)


def _copy(head: bytes, file: BinaryIO, incoming: Incoming) -> None:
    try:
        incoming.write(head)
        while chunk := file.read(CHUNK):
            incoming.write(chunk)
    except BaseException:
        incoming.abort()
        raise


def _open(candidate: Candidate) -> BinaryIO:
    if candidate.member:
        return zipfile.ZipFile(candidate.path).open(candidate.member)  # type: ignore[return-value]
    return candidate.path.open("rb")


def _not_dicom(candidate: Candidate, head: bytes) -> str:
    if Path(candidate.member or candidate.path).name.upper() == "DICOMDIR":
        return "DICOMDIR (the files it lists are imported)"
    if head[MAGIC_OFFSET:] == b"DICM" or int.from_bytes(head[:2], "little") in DATA_SET_STARTS:
        return ""
    return "not DICOM"


def _finish(candidate: Candidate, future: Future[Stored], journal: Journal) -> Outcome:
    try:
        stored = future.result()
    except Refused as refused:
        return Outcome(candidate.name, "refused", refused.reason.value)
    except FilmroomError as error:
        return Outcome(candidate.name, "refused", error.code)
    journal.add(candidate)
    return Outcome(candidate.name, stored.outcome)
