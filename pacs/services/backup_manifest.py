"""What a backup is on disk: files, and one list of their digests that makes them a backup.

    DIR/SHA256SUMS              written last; `sha256sum -c SHA256SUMS` in DIR checks all of it by hand
    DIR/objects/aa/bb/NAME      the store's objects under the store's names; also conflicts, quarantine, lost+found
    DIR/TIME/backup.json        what was saved, when, by which version, at which revision of the schema
    DIR/TIME/database.dump      of pg_dump, custom format
    DIR/TIME/models|results/N/  the N-th folder of models, the working files of jobs
    DIR/TIME/config/            the configuration in use

Objects never change and are shared with the next backup into the same DIR; all else is new each time. Until the list
is renamed into its place the one before it holds, with everything that it names.
"""

import builtins
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pacs.errors import Conflict, Damaged, FilmroomError
from pacs.store.digest import sha256_of
from pacs.store.local import PLACES

FORMAT = 1
SUMS = "SHA256SUMS"
MARK = ".filmroom-backup"
ABOUT, DUMP = "backup.json", "database.dump"
PART = ".part"
SEAL = "# sha256 of the lines above: "  # sha256sum passes over lines that begin with #
OBJECT_PLACES = frozenset(PLACES)
SHOWN = 20


@dataclass(frozen=True)
class About:
    """The facts about one backup. `gone`: objects that were deleted while it ran; `damaged`: those it could not get."""

    version: str
    revision: str
    started_at: str
    finished_at: str
    instances: int
    objects: int
    bytes: int
    dump_version: str
    settings: dict[str, Any] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    format: int = FORMAT

    def as_json(self) -> builtins.bytes:
        return json.dumps(asdict(self), indent=1).encode() + b"\n"


class Manifest:
    """The list of one backup: digests (hex) by path below its folder."""

    def __init__(self, root: Path, sums: dict[str, str]) -> None:
        self.root, self.sums = root, sums

    @property
    def generation(self) -> str:
        """The name of the folder that holds what is not shared."""
        return next(path for path in self.sums if path.endswith(f"/{ABOUT}")).rpartition("/")[0]

    def about(self) -> About:
        """What `backup.json` says. Raises Damaged for one that is not ours, FilmroomError for a newer format."""
        try:
            found = json.loads((self.root / self.generation / ABOUT).read_bytes())
            if found["format"] > FORMAT:
                raise FilmroomError("This backup was made by a newer version of Filmroom; restore it with that one.")
            return About(**{**found, "gone": tuple(found["gone"]), "damaged": tuple(found["damaged"])})
        except (OSError, ValueError, TypeError, KeyError, StopIteration) as error:
            raise Damaged(f"{self.root} has no readable {ABOUT}; use another backup.") from error

    def below(self, folder: str) -> Iterator[str]:
        """The listed paths below a folder of the backup."""
        return (path for path in self.sums if path.startswith(folder + "/"))

    def weight(self) -> int:
        """Bytes of all listed files, as far as they are there."""
        return sum(file.stat().st_size for path in self.sums if (file := self.root / path).is_file())


def read(root: Path) -> Manifest:
    """The manifest of a backup. Raises Damaged naming the list when it is not whole, FilmroomError without one."""
    file = root / SUMS
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        state = "was not finished; run the backup again" if (root / MARK).exists() else "is no backup"
        raise FilmroomError(f"{root} {state}: there is no {SUMS} in it.") from None
    except OSError as error:
        raise FilmroomError(f"{file} cannot be read ({error.strerror}).") from error
    lines, _, seal = text.rpartition(SEAL.encode())
    if seal != _sealed(lines):
        raise Damaged(f"{file} is not as it was written: it was changed or cut; use another backup.")
    return Manifest(root, dict(_parsed(line) for line in os.fsdecode(lines).split("\n")[:-1]))


def write(root: Path, sums: Iterable[tuple[str, str]]) -> None:
    """Put a new list in the place of the old one, once all that it names is on the disk. Raises OSError."""
    part = root / (SUMS + PART)
    digest = hashlib.sha256()
    with part.open("wb") as file:
        for path, sha256 in sums:
            line = os.fsencode(_line(path, sha256))
            digest.update(line)
            file.write(line)
        file.write(SEAL.encode() + digest.hexdigest().encode() + b"\n")
    os.sync()
    part.replace(root / SUMS)
    os.sync()


def _sealed(lines: bytes) -> bytes:
    return hashlib.sha256(lines).hexdigest().encode() + b"\n"


def _line(path: str, sha256: str) -> str:
    """As sha256sum writes it: a name with a backslash or a line break is escaped, and the line says so."""
    escaped = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    mark = "\\" if escaped != path else ""
    return f"{mark}{sha256}  {escaped}\n"


def _parsed(line: str) -> tuple[str, str]:
    escaped = line.startswith("\\")
    sha256, _, path = line.removeprefix("\\").partition("  ")
    if escaped:
        path = path.replace("\\\\", "\0").replace("\\n", "\n").replace("\\r", "\r").replace("\0", "\\")
    return path, sha256


@contextmanager
def held(root: Path) -> Iterator[None]:
    """Keep a second backup out of the folder. Raises Conflict when one runs there."""
    number = os.open(root / MARK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise Conflict(f"Another backup into {root} is running; wait for it, or name another folder.") from error
    finally:
        os.close(number)


def changed(manifest: Manifest, path: str) -> str:
    """Why a file is not what was saved; empty when it is."""
    if path not in manifest.sums:
        return "is not in the backup"
    try:
        with (manifest.root / path).open("rb", buffering=0) as file:
            return "" if sha256_of(file).hex() == manifest.sums[path] else "has changed"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def named(faults: Sequence[str]) -> str:
    """Some of many, and how many more."""
    more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return ", ".join(faults[:SHOWN]) + more
