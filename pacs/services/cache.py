"""Files made from stored ones, kept for whoever asks again: bounded in bytes and in age, made once for all who wait.

What is deleted from the archive must not live on here: nothing stays longer than `KEPT_SECONDS`, however often it is
read. Several processes may share the folder; each file appears whole under its name, or not at all.
"""

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

KEPT_SECONDS = 24 * 3600.0
STARTED_SECONDS = 3600.0  # a file that has been in the making for so long belongs to a process that died
ROOM = 0.9  # of the bound is left filled when it was reached


class Cache:
    """Thread-safe. `reserve`: bytes of free disk that are left to others; 0 for `most_bytes` keeps nothing.

    `told` hears of each request: hit, joined, made.
    """

    def __init__(
        self, folder: Path, most_bytes: int, reserve: int = 0, told: Callable[[str], None] = lambda _outcome: None
    ) -> None:
        self._folder, self._most, self._reserve, self._told = folder, most_bytes, reserve, told
        self._running: dict[str, Future[None]] = {}
        self._lock = threading.Lock()

    def takes(self, size: int) -> bool:
        """Whether a file of about so many bytes has a place here."""
        if size > self._most // 4:
            return False
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return shutil.disk_usage(self._folder).free - size > self._reserve
        except OSError:  # a home that this process may not write to
            return False

    def get(self, name: str, make: Callable[[], Iterator[bytes]]) -> BinaryIO:
        """The file of this name, opened: kept, or in the making by another thread, or made now.

        `name` has letters, digits, dots and dashes only. Raises what `make` raises, and OSError when the disk fails.
        """
        outcome = "hit"
        while (file := self._open(name)) is None:
            with self._lock:
                waiting = self._running.get(name)
                if waiting is None:
                    mine = self._running[name] = Future()
            if waiting is None:
                self._told("made")
                return self._make(name, make, mine)
            outcome = "joined"
            waiting.result()
        self._told(outcome)
        return file

    def _open(self, name: str) -> BinaryIO | None:
        path = self._folder / name
        try:
            file = path.open("rb", buffering=0)
        except FileNotFoundError:
            return None
        made = os.fstat(file.fileno()).st_mtime
        if time.time() - made > KEPT_SECONDS:
            file.close()
            path.unlink(missing_ok=True)
            return None
        with suppress(OSError):  # dropped by another process at this moment
            os.utime(path, (time.time(), made))  # the last to go is what was read last
        return file

    def _make(self, name: str, make: Callable[[], Iterator[bytes]], mine: "Future[None]") -> BinaryIO:
        try:
            file = self._written(name, make())
        except BaseException as error:
            self._done(name)
            mine.set_exception(error)
            raise
        self._done(name)
        mine.set_result(None)
        self.trim()
        return file

    def _done(self, name: str) -> None:
        with self._lock:
            del self._running[name]

    def _written(self, name: str, chunks: Iterator[bytes]) -> BinaryIO:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        number, path = tempfile.mkstemp(prefix=".", dir=self._folder)
        file = os.fdopen(number, "w+b", buffering=0)
        try:
            for chunk in chunks:
                view = memoryview(chunk)
                while view:
                    view = view[file.write(view) :]
            os.replace(path, self._folder / name)
        except BaseException:
            file.close()
            Path(path).unlink(missing_ok=True)
            raise
        file.seek(0)
        return file

    def trim(self) -> None:
        """Drop what is too old, and what was read longest ago until the bound is kept."""
        now, found = time.time(), []
        with suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    about = entry.stat()
                    limit = STARTED_SECONDS if entry.name.startswith(".") else KEPT_SECONDS
                    if now - about.st_mtime > limit:
                        os.unlink(entry.path)
                    elif not entry.name.startswith("."):
                        found.append((about.st_atime, about.st_size, entry.path))
        size = sum(bytes_of for _, bytes_of, _ in found)
        if size <= self._most:
            return
        for _, bytes_of, path in sorted(found):
            Path(path).unlink(missing_ok=True)
            size -= bytes_of
            if size <= self._most * ROOM:
                break
