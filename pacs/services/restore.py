"""Bringing a backup back, into an empty system only.

Every digest is checked before the first byte is written. Then files, then the database in one transaction, then the
schema's newer revisions: until the database is there the system is still an empty one. A restore that was cut off goes
on when the same backup is restored again.
"""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg_pool import ConnectionPool

from pacs.embedded.lock import holder
from pacs.errors import Conflict, Damaged, FilmroomError
from pacs.index import schema
from pacs.index.named import queries
from pacs.index.pool import transaction
from pacs.services import backup_database, backup_manifest
from pacs.services.backup import (
    GIB,
    SLACK_BYTES,
    Unreadable,
    configuration,
    copy,
    file_digest,
    files_of,
    folders_beside,
)
from pacs.services.backup_manifest import DUMP, OBJECT_PLACES, SUMS, Manifest, named
from pacs.services.findings import MISSING_FILE, WRONG_DIGEST, Findings
from pacs.services.wholeness import Fault, Meter
from pacs.settings import Settings
from pacs.store.base import Store

SQL = queries("backup")
UNDERWAY = "restoring"  # in the home: the digest of the list that is being restored
# tables that say nothing of patients or people and that a node fills by itself
OWN_TABLES = frozenset({"alembic_version", "node_state", "ai_model", "ai_sidecar"})
AT_ONCE = 1000


@dataclass
class Report:
    """What a restore did. `left`: files that were there already and differ; they were not touched."""

    folder: str
    revision: str
    objects: int = 0
    others: int = 0
    gone: int = 0
    left: list[str] = field(default_factory=list)


class Restore:
    """Restores backups."""

    def __init__(self, settings: Settings, pool: ConnectionPool[Any]) -> None:
        self._settings, self._pool = settings, pool

    def run(self, folder: Path, meter: Meter) -> Report:
        """Bring the backup in `folder` back.

        Raises Conflict naming what is in the way, Damaged naming the files that are not what was saved,
        SchemaMismatch for a backup of a newer version, FilmroomError.
        """
        manifest = backup_manifest.read(folder.absolute())
        about = manifest.about()
        schema.refuse_newer(about.revision)
        seal = file_digest(manifest.root / SUMS)
        self._refuse_unless_empty(seal)
        self._require_space(manifest)
        check(manifest, meter)
        self._underway.write_text(seal, encoding="ascii")
        report = Report(str(manifest.root), about.revision)
        self._objects(manifest, report, meter)
        self._database(manifest, about.gone, report)
        self._beside(manifest, report)
        os.sync()
        self._underway.unlink()
        return report

    def mend(self, folder: Path, faults: Sequence[Fault], store: Store, findings: Findings, meter: Meter) -> list[str]:
        """Put objects that a living store lost, or that changed there, back from a backup; those it has not.

        What is in the way goes to quarantine. Raises Damaged, StoreFailed.
        """
        manifest = backup_manifest.read(folder.absolute())
        absent, mended = [], []
        with meter("mend", len(faults)) as steps:
            for fault in faults:
                place, _, name = fault.path.partition("/")
                if place != "objects" or backup_manifest.changed(manifest, fault.path):
                    absent.append(fault.path)
                else:
                    with suppress(FileNotFoundError):
                        store.move(name, "objects", "quarantine")
                    put(manifest, fault.path, self._settings.storage_dir / fault.path)
                    mended.append(name)
                steps.step()
        os.sync()
        findings.cure(mended, MISSING_FILE, WRONG_DIGEST)
        return absent

    @property
    def _underway(self) -> Path:
        return self._settings.home / UNDERWAY

    def _refuse_unless_empty(self, seal: str) -> None:
        other = holder(self._settings.home)
        if other not in {None, os.getpid()}:
            raise Conflict(f"A node runs on {self._settings.home} (process {other}); stop it, and restore elsewhere.")
        with transaction(self._pool) as connection:
            running = [row[0] for row in connection.execute(SQL["users"], {"own": "filmroom restore"})]
        if running:
            raise Conflict(f"Processes of a node use this database ({', '.join(running)}); stop them first.")
        with suppress(FileNotFoundError):
            if self._underway.read_text(encoding="ascii") == seal:
                return
        found = [*self._filled_tables(), *self._filled_places()]
        if found:
            raise Conflict(
                f"This system is not empty: {named(found)}. A restore writes over nothing; name another FILMROOM_HOME "
                "(and DATABASE_URL), or move away what is there."
            )

    def _filled_tables(self) -> list[str]:
        found = []
        with transaction(self._pool) as connection:
            for (table,) in connection.execute(SQL["tables"]).fetchall():
                if table not in OWN_TABLES:
                    counted = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))
                    row = connection.execute(counted).fetchone()
                    if row and row[0]:
                        found.append(f"{row[0]} rows in table {table}")
        return found

    def _filled_places(self) -> list[str]:
        places = (self._settings.storage_dir / place for place in sorted(OBJECT_PLACES))
        counts = ((place, sum(1 for _, file in files_of(place) if file.stat().st_size)) for place in places)
        return [f"{count} files in {place}" for place, count in counts if count]

    def _require_space(self, manifest: Manifest) -> None:
        storage = self._settings.storage_dir
        storage.mkdir(mode=0o700, parents=True, exist_ok=True)
        free, needed = shutil.disk_usage(storage).free, manifest.weight() + SLACK_BYTES
        if free < needed:
            raise FilmroomError(
                f"{storage} has {free / GIB:.1f} GiB free and {needed / GIB:.1f} are needed; free space there, or "
                "set DICOM_STORAGE_DIR to a folder on another disk."
            )

    def _objects(self, manifest: Manifest, report: Report, meter: Meter) -> None:
        paths = [path for path in manifest.sums if path.partition("/")[0] in OBJECT_PLACES]
        with meter("restore", len(paths)) as steps:
            for path in paths:
                put(manifest, path, self._settings.storage_dir / path)
                steps.step()
        report.objects = len(paths)
        os.sync()  # before the database names them

    def _database(self, manifest: Manifest, gone: tuple[str, ...], report: Report) -> None:
        url = self._settings.database_url
        clear(url)
        backup_database.load(url, manifest.root / manifest.generation / DUMP)
        schema.upgrade(url)
        names = [path.partition("/")[2] for path in gone]
        with transaction(self._pool) as connection:
            connection.execute(SQL["forget"])
            for at in range(0, len(names), AT_ONCE):
                row = connection.execute(SQL["gone"], {"names": names[at : at + AT_ONCE]}).fetchone()
                report.gone += int(row[0]) if row else 0
                connection.execute(SQL["decided"], {"names": names[at : at + AT_ONCE]})

    def _beside(self, manifest: Manifest, report: Report) -> None:
        """Models, working files, configuration: put where nothing is; what is there and differs stays."""
        for below, folder in folders_beside(self._settings):
            top = f"{manifest.generation}/{below}"
            for path in manifest.below(top):
                self._put_beside(manifest, path, folder / path.removeprefix(top + "/"), report)
        for below, file in configuration(self._settings):
            path = f"{manifest.generation}/{below}"
            if path in manifest.sums:
                self._put_beside(manifest, path, file, report)

    def _put_beside(self, manifest: Manifest, path: str, target: Path, report: Report) -> None:
        if not target.exists():
            try:
                put(manifest, path, target)
                report.others += 1
            except OSError:
                report.left.append(f"{target} (cannot be written)")
        elif file_digest(target) != manifest.sums[path]:
            report.left.append(str(target))


def check(manifest: Manifest, meter: Meter) -> None:
    """Compare every file of a backup with its digest. Raises Damaged naming those that are not what was saved."""
    faults = []
    with meter("check", len(manifest.sums)) as steps:
        for path in manifest.sums:
            why = backup_manifest.changed(manifest, path)
            if why:
                faults.append(f"{path} {why}")
            steps.step()
    if faults:
        raise Damaged(f"{len(faults)} files of the backup in {manifest.root} are damaged: {named(faults)}.")


def put(manifest: Manifest, path: str, target: Path) -> None:
    """Copy one file of a backup to its place, unless it is there. Raises Damaged, OSError."""
    size = (manifest.root / path).stat().st_size
    if target.exists() and target.stat().st_size == size and file_digest(target) == manifest.sums[path]:
        return
    try:
        with (manifest.root / path).open("rb", buffering=0) as source:
            digest = copy(source, target)
    except Unreadable as error:
        raise Damaged(f"{path} of the backup cannot be read ({error}).") from error
    if digest != manifest.sums[path]:
        target.unlink()
        raise Damaged(f"{path} of the backup has changed since it was checked.")


def clear(url: str) -> None:
    """Take an empty schema away, so that the dump finds nothing in its way."""
    if schema.current(url) is not None:
        schema.downgrade(url, "base")
        with psycopg.connect(url) as connection:
            connection.execute("DROP TABLE alembic_version")
