"""Folders whose names are durable, and fsyncs of a folder that waiting threads share."""

import os
import threading
from concurrent.futures import Future
from pathlib import Path

OPEN_FOLDERS = 16


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def make_folders(folder: Path, top: Path) -> None:
    """Make a folder and those between it and `top`, each durable in its parent. Raises OSError.

    Also syncs what was there already: another process may have made it a moment ago and not synced it yet.
    """
    top.mkdir(mode=0o700, parents=True, exist_ok=True)
    below = top
    for part in folder.relative_to(top).parts:
        (below / part).mkdir(mode=0o700, exist_ok=True)
        sync_folder(below)
        below /= part


class SharedSync:
    """One fsync of a folder serves all threads that asked before it began."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: dict[Path, threading.Lock] = {}
        self._gathering: dict[Path, Future[None]] = {}
        self._numbers: dict[Path, int] = {}  # folders that are open, each used with its turn held

    def sync(self, folder: Path) -> None:
        """Return after an fsync of the folder that began after this call. Raises OSError."""
        with self._lock:
            turn = self._turns.setdefault(folder, threading.Lock())
            shared = self._gathering.get(folder)
            leads = shared is None
            if shared is None:
                shared = self._gathering[folder] = Future()
        if leads:
            self._lead(folder, turn, shared)
        shared.result()

    def _lead(self, folder: Path, turn: threading.Lock, shared: "Future[None]") -> None:
        with turn:  # the fsync before this one has ended
            with self._lock:  # who asks from here on gathers for the next
                del self._gathering[folder]
                try:
                    number = self._opened(folder)
                except OSError as error:
                    shared.set_exception(error)
                    return
            try:
                os.fsync(number)
                shared.set_result(None)
            except OSError as error:
                shared.set_exception(error)

    def _opened(self, folder: Path) -> int:
        """The file number of a folder whose turn the caller has."""
        if folder not in self._numbers:
            if len(self._numbers) >= OPEN_FOLDERS:
                self._close_idle()
            self._numbers[folder] = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._numbers[folder]

    def _close_idle(self) -> None:
        for folder in list(self._numbers):
            turn = self._turns[folder]
            if turn.acquire(blocking=False):
                os.close(self._numbers.pop(folder))
                turn.release()

    def close(self) -> None:
        """Close the folders that nobody waits for."""
        with self._lock:
            self._close_idle()
