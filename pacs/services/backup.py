"""Saving the archive while it runs: the database's snapshot first, then the files, which never change (storage.md).

Every instance that was acknowledged before the snapshot has its row in it, and its file in the store until long after:
while a backup runs nothing that was deleted is unlinked (`note`, lifecycle.sql).
"""

import hashlib
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import structlog
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from pacs.errors import Conflict, Damaged, FilmroomError, Unavailable
from pacs.index import schema
from pacs.index.named import queries
from pacs.index.pool import transaction
from pacs.places import default_config_file
from pacs.services import backup_database, backup_manifest
from pacs.services.backup_manifest import ABOUT, DUMP, MARK, OBJECT_PLACES, PART, SUMS, About
from pacs.settings import Settings
from pacs.settings import schema as settings_schema
from pacs.store.base import Place, Store

SQL = queries("backup")
NOTE_SECONDS = 60.0
CHUNK = 1 << 20
GIB = 1 << 30
SLACK_BYTES = 256 << 20  # left free on the backup's disk
LISTED = "objects.part"
log = structlog.get_logger()


class Steps(Protocol):
    def step(self, count: int = 1) -> None:
        """So many more are done."""


Meter = Callable[[str, int], AbstractContextManager[Steps]]  # what is counted, how many there are


class Unreadable(Exception):
    """The file to be saved cannot be read to its end."""


@dataclass
class Report:
    """What a backup did. `damaged`: objects that the store could not give whole, and that no earlier backup has."""

    folder: str
    instances: int = 0
    files: int = 0
    copied: int = 0
    kept: int = 0
    bytes: int = 0
    gone: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One object to save; `sha256` in hex, empty where the index does not know it."""

    place: Place
    name: str
    size: int
    sha256: str

    @property
    def path(self) -> str:
        return f"{self.place}/{self.name}"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a backup goes: its folder, the folder in it that is this one's own, and what the last one listed."""

    folder: Path
    own: Path
    known: dict[str, str]


class Backup:
    """Makes backups. Nothing of the archive changes but the note of when the last one ran."""

    def __init__(self, settings: Settings, pool: ConnectionPool[Any], store: Store) -> None:
        self._settings, self._pool, self._store = settings, pool, store

    def run(self, folder: Path, meter: Meter) -> Report:
        """Save all into `folder`, which is empty, or holds an earlier backup, or one that was cut off.

        Raises FilmroomError naming what stands against the folder, Unavailable, Conflict.
        """
        folder = folder.absolute()
        revision = self._revision()
        refuse_place(folder, self._settings)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with backup_manifest.held(folder), self._noted(folder):
            return self._run(folder, revision, meter)

    def _run(self, folder: Path, revision: str, meter: Meter) -> Report:
        started = datetime.now(UTC)
        into = Target(folder, folder / started.strftime("%Y%m%dT%H%M%S.%fZ"), earlier(folder))
        into.own.mkdir(mode=0o700)
        report = Report(str(folder))
        dumped_by = self._snapshot(into, report)
        sums = self._objects(into, report, meter)
        (into.own / LISTED).unlink()
        sums |= dict(self._rest(into))
        about = About(
            version=version("filmroom"),
            revision=revision,
            started_at=started.isoformat(),
            finished_at=datetime.now(UTC).isoformat(),
            instances=report.instances,
            objects=report.copied + report.kept,
            bytes=report.bytes,
            dump_version=dumped_by,
            settings=_shown(self._settings),
            gone=tuple(report.gone),
            damaged=tuple(report.damaged),
        )
        (into.own / ABOUT).write_bytes(about.as_json())
        sums[f"{into.own.name}/{ABOUT}"] = hashlib.sha256(about.as_json()).hexdigest()
        backup_manifest.write(folder, sorted(sums.items()))
        _prune(folder, sums)
        return report

    def _revision(self) -> str:
        """What the schema is at, which may be behind. Raises SchemaMismatch for none, and for a newer one."""
        found = schema.current(self._settings.database_url)
        if found is None:
            schema.require_head(found)
        schema.refuse_newer(found)
        return str(found)

    def _snapshot(self, into: Target, report: Report) -> str:
        """Dump the database and list the objects, both of one moment; the version of the program that dumped."""
        with backup_database.snapshot(self._settings.database_url) as snapshot:
            _require_space(into.folder, self._database_bytes())
            dumped_by = snapshot.dump(into.own / DUMP)
            with (into.own / LISTED).open("wb") as file:
                report.instances = _listed(snapshot, "objects", file)
                report.files = report.instances + _listed(snapshot, "conflicts", file)
        return dumped_by

    def _objects(self, into: Target, report: Report, meter: Meter) -> dict[str, str]:
        """Bring over what is not there yet; the digests of all objects by path."""
        listed = into.own / LISTED
        _require_space(into.folder, sum(w.size for w in _wanted(listed) if not (into.folder / w.path).is_file()))
        sums: dict[str, str] = {}
        with meter("backup", report.files) as steps:
            for wanted in _wanted(listed):
                digest = self._save(into, wanted, report)
                if digest:
                    sums[wanted.path] = digest
                    report.bytes += wanted.size
                steps.step()
        return sums

    def _save(self, into: Target, wanted: Wanted, report: Report) -> str:
        """The digest of the object in the backup; empty when it could not be had."""
        target = into.folder / wanted.path
        digest = _already(target, wanted, into.known)
        if digest:
            report.kept += 1
            return digest
        try:
            with self._store.open(wanted.name, wanted.place) as source:
                digest = copy(source, target)
        except FileNotFoundError:
            (report.damaged if self._still_named(wanted) else report.gone).append(wanted.path)
            return ""
        except Unreadable as error:
            log.error("backup_cannot_read", object_name=wanted.name, said=str(error))
            report.damaged.append(wanted.path)
            return ""
        except OSError as error:
            raise FilmroomError(f"{target} cannot be written ({error.strerror}); run the backup again.") from error
        if wanted.sha256 and digest != wanted.sha256:
            target.unlink()
            report.damaged.append(wanted.path)
            return ""
        report.copied += 1
        return digest

    def _still_named(self, wanted: Wanted) -> bool:
        with transaction(self._pool) as connection:
            return connection.execute(SQL["still_named"], {"names": [wanted.name]}).fetchone() is not None

    def _rest(self, into: Target) -> Iterator[tuple[str, str]]:
        """What is not in the index: files set apart, models, working files, configuration; paths and digests."""
        folder, own = into.folder, into.own
        apart: tuple[Place, ...] = ("quarantine", "lost+found")
        for place in apart:
            for name in (name for names in self._store.folders(place) for name in names):
                with suppress(FileNotFoundError), self._store.open(name, place) as source:
                    yield f"{place}/{name}", copy(source, folder / place / name)
        yield f"{own.name}/{DUMP}", file_digest(own / DUMP)
        for name, path in beside(self._settings):
            with suppress(FileNotFoundError), path.open("rb", buffering=0) as source:
                yield f"{own.name}/{name}", copy(source, own / name)

    def _database_bytes(self) -> int:
        with transaction(self._pool) as connection:
            row = connection.execute(SQL["database"]).fetchone()
        return int(row[0]) if row else 0

    @contextmanager
    def _noted(self, folder: Path) -> Iterator[None]:
        """Say in the database that a backup runs, again and again, and at the end how it went."""
        stop = threading.Event()
        facts = {"folder": str(folder), "started_at": datetime.now(UTC).isoformat(), "state": "running"}
        self._note(facts)
        beating = threading.Thread(target=self._beat, args=(facts, stop), name="backup-note", daemon=True)
        beating.start()
        state = "failed"
        try:
            yield
            state = "done"
        finally:
            stop.set()
            beating.join()
            self._note(facts | {"state": state, "finished_at": datetime.now(UTC).isoformat()})

    def _beat(self, facts: dict[str, str], stop: threading.Event) -> None:
        while not stop.wait(NOTE_SECONDS):
            self._note(facts)

    def _note(self, facts: dict[str, str]) -> None:
        try:
            with transaction(self._pool) as connection:
                connection.execute(SQL["note"], {"value": Jsonb(facts)})
        except Unavailable as error:  # what reads the database says so itself
            log.warning("backup_not_noted", exc_info=error)


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + SLACK_BYTES:
        raise FilmroomError(
            f"{folder} has {free / GIB:.1f} GiB free and up to {(needed + SLACK_BYTES) / GIB:.1f} are needed; "
            "free space there, or name a folder on another disk."
        )


def refuse_place(folder: Path, settings: Settings) -> None:
    """Raise Conflict when the folder is no place for a backup of this node."""
    kept = (settings.storage_dir, settings.results_dir, *settings.models_dirs, settings.home / "postgres")
    for one in (path.absolute().resolve() for path in kept):
        if folder.resolve().is_relative_to(one):
            raise Conflict(f"{folder} lies inside {one}, which is what is saved; name a folder elsewhere.")
        if one.is_relative_to(folder.resolve()):
            raise Conflict(f"{folder} holds {one}, which is what is saved; name a folder of its own.")
    if folder.exists() and not folder.is_dir():
        raise Conflict(f"{folder} is not a folder.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise Conflict(f"{folder} holds other files; name an empty folder, or one with an earlier backup.")


def earlier(folder: Path) -> dict[str, str]:
    """What the last complete backup in the folder lists; nothing where there is none, or its list is damaged."""
    try:
        return backup_manifest.read(folder).sums if (folder / SUMS).exists() else {}
    except Damaged as error:
        log.warning("backup_list_damaged", said=error.message)  # everything is hashed again then
        return {}


def beside(settings: Settings) -> Iterator[tuple[str, Path]]:
    """The files of a node besides database and objects: place in the backup, and the file here."""
    for below, folder in folders_beside(settings):
        yield from ((f"{below}/{name}", path) for name, path in files_of(folder))
    for name, file in configuration(settings):
        if file.is_file():
            yield name, file


def folders_beside(settings: Settings) -> Iterator[tuple[str, Path]]:
    """The folders of models and working files: place in the backup, and the folder here."""
    for number, models in enumerate(settings.models_dirs):
        yield f"models/{number}", models
    yield "results", settings.results_dir


def configuration(settings: Settings) -> tuple[tuple[str, Path], ...]:
    """The configuration in use: place in the backup, and the file here."""
    file = Path(os.environ.get("FILMROOM_CONFIG") or default_config_file(settings.home))
    return ("config/filmroom.toml", file), ("config/peers.toml", settings.peers_file)


def files_of(folder: Path) -> Iterator[tuple[str, Path]]:
    """The plain files below a folder, with their paths in it."""
    for found, _folders, names in os.walk(folder):
        for name in sorted(names):
            path = Path(found) / name
            if path.is_file():
                yield path.relative_to(folder).as_posix(), path


def copy(source: BinaryIO, target: Path) -> str:
    """Copy a file to a place where nobody sees it half; its digest in hex. Raises Unreadable, OSError of writing."""
    part = target.with_name(target.name + PART)
    digest = hashlib.sha256()
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb", buffering=0) as file:
        while chunk := _read(source):
            digest.update(chunk)
            file.write(chunk)
    part.replace(target)
    return digest.hexdigest()


def _read(source: BinaryIO) -> bytes:
    try:
        return source.read(CHUNK)
    except OSError as error:
        raise Unreadable(error.strerror) from error


def file_digest(path: Path) -> str:
    """The digest of a file in hex. Raises OSError."""
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _already(target: Path, wanted: Wanted, known: dict[str, str]) -> str:
    """The digest of what the backup holds; empty when it must be copied.

    What the last complete backup lists was on the disk then. Anything else is left of one that was cut off.
    """
    try:
        facts = target.stat()
    except FileNotFoundError:
        return ""
    if not stat.S_ISREG(facts.st_mode) or facts.st_size != wanted.size:
        return ""
    digest = known.get(wanted.path) or file_digest(target)
    return digest if wanted.sha256 in {digest, ""} else ""


def _listed(snapshot: backup_database.Snapshot, what: str, file: BinaryIO) -> int:
    """Write the list of objects or conflicts, each line after its place; how many there are."""
    spool = Path(file.name + what)
    with spool.open("w+b") as raw:
        snapshot.list(what, raw)
        raw.seek(0)
        count = 0
        for line in raw:
            file.write(what.encode() + b"\t" + line)
            count += 1
    spool.unlink()
    return count


def _wanted(listed: Path) -> Iterator[Wanted]:
    with listed.open(encoding="ascii") as file:
        for line in file:
            place, name, size, sha256 = line.rstrip("\n").split("\t")
            yield Wanted("conflicts" if place == "conflicts" else "objects", name, int(size), sha256)


def _prune(folder: Path, sums: dict[str, str]) -> None:
    """Remove what the new list does not name: objects that were deleted since, and what the last one did not share."""
    for path in folder.iterdir():
        if path.name in OBJECT_PLACES:
            for name, file in list(files_of(path)):
                if f"{path.name}/{name}" not in sums:
                    file.unlink()
        elif path.is_dir() and not any(listed.startswith(f"{path.name}/") for listed in sums):
            shutil.rmtree(path)


def _shown(settings: Settings) -> dict[str, Any]:
    """The settings in force, without secrets: for people who restore."""
    rows = (row for row in settings_schema() if not row.metadata["secret"])
    return {row.name: str(getattr(settings, row.name)) for row in rows}
