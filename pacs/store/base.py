"""What every file store offers (storage.md 2 and 6). Object names are ours, never a peer's text."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Literal, Protocol

Bytes = bytes | bytearray | memoryview
Place = Literal["objects", "conflicts", "quarantine", "lost+found"]


class StoreFull(Exception):
    """No space is left, or the quota is used up."""


class StoreFailed(Exception):
    """The store could not write or make durable; what was being written does not count as kept."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file that the store holds: its object name, size and time of change."""

    name: str
    size: int
    changed_at: datetime


class Draft(Protocol):
    """A file that is being written and that nobody else can see."""

    size: int

    @property
    def in_memory(self) -> bool:
        """Whether all bytes are held, so that they can be read while the file goes to disk."""

    def write(self, chunk: Bytes) -> None:
        """Append. Raises StoreFull or StoreFailed."""

    def view(self) -> memoryview:
        """All bytes written so far, read-only. Release it before `discard`."""

    def digests(self, data_offset: int) -> tuple[bytes, bytes]:
        """sha256 of the file, and of what stands from `data_offset` on."""

    def publish(self) -> str:
        """Give the file its object name and return it; once. Durable only after `settle`. Raises as `write` does."""

    def settle(self) -> None:
        """Return when the published file and its name are durable. Raises StoreFailed: then it is gone."""

    def discard(self) -> None:
        """Forget it, published or not. Idempotent."""

    def close(self) -> None:
        """Let go of it; a published file stays."""


class Store(Protocol):
    """Keeps objects under names of its own."""

    def draft(self) -> Draft:
        """Begin a file. Opens and writes nothing before it must."""

    def ready(self) -> bool:
        """Whether a draft that is in memory would be published without waiting for the disk."""

    def free_bytes(self) -> int:
        """Space that is left, at most a second old."""

    def healthy(self) -> bool:
        """False after a failed write or fsync, until a probe write passes (probed in the background)."""

    def made_here(self, name: str) -> bool:
        """Whether this very process published the object."""

    def open(self, name: str, place: Place = "objects") -> BinaryIO:
        """The object for reading: unbuffered, seekable, with a file number. Raises FileNotFoundError."""

    def size(self, name: str, place: Place = "objects") -> int | None:
        """Bytes of the object; None when it is not there."""

    def move(self, name: str, source: Place, target: Place) -> None:
        """Move an object from one place to another, durably. Raises FileNotFoundError or StoreFailed."""

    def remove(self, names: list[str], place: Place = "objects") -> None:
        """Unlink, durably. Names that are not there are no error. Raises StoreFailed."""

    def folders(self, place: Place = "objects") -> Iterator[list[str]]:
        """The names of all files of a place, folder by folder."""

    def entry(self, name: str, place: Place = "objects") -> Entry | None:
        """The facts about a file; None when it is not there."""

    def in_use(self, name: str) -> bool:
        """Whether some process is still writing the object, or holds its name for one."""

    def clear_drafts(self) -> int:
        """Remove staged files that no process writes any more; their number."""

    def close(self) -> None:
        """Give back what was prepared ahead."""
