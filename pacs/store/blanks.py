"""Empty files made ahead, under their final names, whose names are durable already.

An object that is written into one needs a single fsync on the path of its answer: that of its file. One fsync of the
folder serves all blanks made together. They are held: the sweep removes those of a process that died.
"""

import contextlib
import os
import random
import threading
import uuid
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pacs.store.folders import make_folders, sync_folder
from pacs.store.holding import create_held

MADE_TOGETHER = 32
OBJECTS_A_FOLDER = 1000
TOKEN_DIGITS = 20


@dataclass(frozen=True, slots=True)
class Blank:
    """An empty file: its object name, its path, and the file number it is open under."""

    name: str
    path: Path
    file: int

    def drop(self) -> None:
        """Remove it unused."""
        with contextlib.suppress(OSError):
            os.close(self.file)
        with contextlib.suppress(OSError):
            self.path.unlink()


class Blanks:
    """The blanks of one process, in the folder that it is filling. Thread-safe."""

    def __init__(self, objects: Path) -> None:
        self._objects = objects
        self._token = uuid.uuid4().hex[:TOKEN_DIGITS]  # of all names that this process makes
        self._lock = threading.Lock()
        self._ready: deque[Blank] = deque()
        self._names = 0
        self._folder = ""
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="blanks")
        self._making: Future[None] | None = None

    def made_here(self, name: str) -> bool:
        """Whether this process made the name."""
        return name.rpartition("/")[2].startswith(self._token)

    def ready(self) -> bool:
        """Whether there is one to take; only true for a caller that takes it before others do."""
        return bool(self._ready)

    def take(self) -> Blank:
        """A blank for one object; the next ones are made in the background. Raises OSError."""
        while True:
            with self._lock:
                blank = self._ready.popleft() if self._ready else None
                if len(self._ready) < MADE_TOGETHER // 2 and (self._making is None or self._making.done()):
                    self._making = self._maker.submit(self._make)
                making = self._making
            if blank is not None:
                return blank
            if making is not None:
                making.result()

    def name(self) -> str:
        """A fresh object name in the folder that is being filled; for a file that is moved there. Raises OSError."""
        with self._lock:
            return self._next_name()

    def _next_name(self) -> str:
        if self._names % OBJECTS_A_FOLDER == 0:
            folder = f"{random.randrange(256):02x}/{random.randrange(256):02x}"  # noqa: S311 - spreads, no secret
            make_folders(self._objects / folder, self._objects)
            self._folder = folder
        self._names += 1
        return f"{self._folder}/{self._token}{self._names:012x}"

    def _make(self) -> None:
        made: list[Blank] = []
        try:
            for _ in range(MADE_TOGETHER):
                name = self.name()
                path = self._objects / name
                made.append(Blank(name, path, create_held(path)))
            for folder in {blank.path.parent for blank in made}:
                sync_folder(folder)
        except OSError:
            for blank in made:
                blank.drop()
            raise
        with self._lock:
            self._ready.extend(made)

    def close(self) -> None:
        """Remove what was not used."""
        self._maker.shutdown()
        while self._ready:
            self._ready.popleft().drop()
