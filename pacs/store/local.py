"""Objects as files under `objects/aa/bb/<name>` (storage.md 2.4).

Large ones are staged in `tmp/` and renamed, which takes an fsync of the file and of the folder. Small ones, once
whole, are written into a blank whose name is durable already. Nobody looks at a file that the index does not name.
"""

import contextlib
import errno
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import structlog

from pacs.store.base import Entry, Place, StoreFailed, StoreFull
from pacs.store.blanks import Blanks
from pacs.store.draft import LocalDraft, translated
from pacs.store.folders import SharedSync, make_folders
from pacs.store.holding import is_held

SPACE_AGE_SECONDS = 1.0
PROBE_SECONDS = 1.0
PROBE_BYTES = bytes(4096)
JUST_MADE_SECONDS = 5.0  # between making a staged file and holding it
PLACES: tuple[Place, ...] = ("objects", "conflicts", "quarantine", "lost+found")
log = structlog.get_logger()


class LocalStore:
    """A file store on one file system. Thread-safe; any number of processes may share it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.blanks = Blanks(root / "objects")
        self._space = (0.0, 0)
        self._sync = SharedSync()
        self._failed = False
        self._probing = False
        self._ready = False

    def draft(self) -> LocalDraft:
        return LocalDraft(self)

    def ready(self) -> bool:
        return self._ready and self.blanks.ready()

    def prepare(self) -> None:
        """Make the store's own folders, once."""
        if not self._ready:
            for name in ("tmp", *PLACES):
                make_folders(self._root / name, self._root)
            self._ready = True

    def staging_path(self) -> Path:
        """A fresh name for a draft."""
        self.prepare()
        return self._root / "tmp" / f"{uuid.uuid4().hex}.part"

    def made_here(self, name: str) -> bool:
        return self.blanks.made_here(name)

    def path(self, name: str, place: Place = "objects") -> Path:
        """Where an object is. Names come from our index, but a bad row must not lead out of the store."""
        if ".." in name.split("/") or name.startswith("/"):
            raise FileNotFoundError(errno.ENOENT, "not an object name", name)
        return self._root / place / name

    def sync_folder(self, folder: Path) -> None:
        """fsync of a folder; callers that come while one runs share the next."""
        self._sync.sync(folder)

    def free_bytes(self) -> int:
        taken, free = self._space
        if time.monotonic() - taken > SPACE_AGE_SECONDS:
            self.prepare()
            free = shutil.disk_usage(self._root).free
            self._space = (time.monotonic(), free)
        return free

    def healthy(self) -> bool:
        failed = self._failed  # as it was found: the probe may be through before this returns
        if failed and not self._probing:
            self._probing = True
            threading.Thread(target=self._probe, name="store-probe", daemon=True).start()
        return not failed

    def failed(self, error: OSError) -> StoreFull | StoreFailed:
        """Take note of a failed write or fsync and return the exception to raise."""
        if not self._failed:
            log.error("store_degraded", error=errno.errorcode.get(error.errno or 0, "?"))
        self._failed = True
        return translated(error)

    def _probe(self) -> None:
        """Write, fsync and remove a file; the store is whole again when all that passes."""
        try:
            path = self.staging_path()
            number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.write(number, PROBE_BYTES)
                os.fsync(number)
            finally:
                os.close(number)
                path.unlink()
            self._failed = False
            log.info("store_recovered")
        except OSError as error:
            log.warning("store_still_degraded", error=errno.errorcode.get(error.errno or 0, "?"))
            time.sleep(PROBE_SECONDS)
        finally:
            self._probing = False

    def open(self, name: str, place: Place = "objects") -> BinaryIO:
        return open(self.path(name, place), "rb", buffering=0)

    def size(self, name: str, place: Place = "objects") -> int | None:
        try:
            return self.path(name, place).stat().st_size
        except FileNotFoundError:
            return None

    def move(self, name: str, source: Place, target: Place) -> None:
        start, end = self.path(name, source), self.path(name, target)
        try:
            make_folders(end.parent, self._root)
            start.rename(end)
            self.sync_folder(end.parent)
            self.sync_folder(start.parent)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self.failed(error) from error

    def remove(self, names: list[str], place: Place = "objects") -> None:
        folders = set()
        try:
            for name in names:
                path = self.path(name, place)
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
                    folders.add(path.parent)
            for folder in folders:
                self.sync_folder(folder)
        except OSError as error:
            raise self.failed(error) from error

    def folders(self, place: Place = "objects") -> Iterator[list[str]]:
        top = self._root / place
        for folder, _folders, files in os.walk(top):
            if files:
                below = Path(folder).relative_to(top).as_posix()
                yield [file if below == "." else f"{below}/{file}" for file in files]

    def entry(self, name: str, place: Place = "objects") -> Entry | None:
        try:
            facts = self.path(name, place).stat()
        except FileNotFoundError:
            return None
        return Entry(name, facts.st_size, datetime.fromtimestamp(facts.st_mtime, UTC))

    def in_use(self, name: str) -> bool:
        return is_held(self.path(name))

    def clear_drafts(self) -> int:
        self.prepare()
        removed = 0
        for path in (self._root / "tmp").glob("*.part"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > JUST_MADE_SECONDS and not is_held(path):
                    path.unlink()
                    removed += 1
        return removed

    def close(self) -> None:
        """Remove what was made ahead."""
        self.blanks.close()
        self._sync.close()
