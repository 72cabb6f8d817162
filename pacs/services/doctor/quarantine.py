"""Where the doctor puts what it takes out of the way: a folder of its own for each examination, with a list."""

import errno
import json
import os
from datetime import UTC, datetime
from pathlib import Path

from pacs.errors import Unavailable
from pacs.store.folders import make_folders, sync_folder

MANIFEST = "manifest.jsonl"
FOLDER = "doctor"


class Quarantine:
    """`<store>/quarantine/doctor/<time>/`: files keep their paths below it. Made when something is moved."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "quarantine" / FOLDER / datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")

    def take(self, path: Path, reason: str) -> Path:
        """Move a file of the store, durably; where it lies now. Raises Unavailable, FileNotFoundError."""
        target = self.folder / path.relative_to(self.root)
        try:
            make_folders(target.parent, self.root)
            path.rename(target)
            sync_folder(target.parent)
            sync_folder(path.parent)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise Unavailable(f"{path} could not be moved ({_word(error)}); look at the disk.") from error
        self.note({"moved": str(path), "to": str(target), "reason": reason})
        return target

    def put_back(self, found: Path, path: Path, reason: str) -> None:
        """Move a file that proved right to the place where it is missed, durably. Raises Unavailable."""
        try:
            make_folders(path.parent, self.root)
            found.rename(path)
            sync_folder(path.parent)
            sync_folder(found.parent)
        except OSError as error:
            raise Unavailable(f"{found} could not be moved ({_word(error)}); look at the disk.") from error
        self.note({"put_back": str(path), "from": str(found), "reason": reason})

    def note(self, entry: dict[str, object]) -> None:
        """Add a line to the list, durably."""
        make_folders(self.folder, self.root)
        line = json.dumps({"at": datetime.now(UTC).isoformat(timespec="seconds"), **entry}, default=str) + "\n"
        number = os.open(self.folder / MANIFEST, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(number, line.encode())
            os.fsync(number)
        finally:
            os.close(number)


def _word(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)
