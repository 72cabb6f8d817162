"""What every file store offers (storage.md 2 and 6). Object names are ours, never a peer's text."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Protocol


class StoreFull(Exception):
    """No space is left, or the quota is used up."""


class StoreFailed(Exception):
    """The store could not write or make durable; what was being written does not count as kept."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file that the store holds: its object name (or place outside `objects`), size and time of change."""

    name: str
    size: int
    changed_at: datetime


class Draft(Protocol):
    """A file that is being written and that nobody else can see."""

    size: int

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Append. Raises StoreFull or StoreFailed."""

    def patch(self, offset: int, data: bytes) -> None:
        """Overwrite bytes written before."""

    def view(self) -> memoryview:
        """All bytes written so far, read-only. The caller releases it before `publish` or `discard`."""

    def publish(self) -> str:
        """Give the file its object name and return it. Not durable until `settle`."""

    def settle(self) -> None:
        """Return when the published file and its name are durable. Raises StoreFailed: then it is gone."""

    def discard(self) -> None:
        """Forget it, published or not. Idempotent."""


class Store(Protocol):
    """Keeps objects under names of its own."""

    def draft(self) -> Draft:
        """Begin a file. Raises StoreFull or StoreFailed."""

    def free_bytes(self) -> int:
        """Space that is left, at most a second old."""

    def healthy(self) -> bool:
        """False after a failed write or fsync, until a probe write passes."""

    def open(self, name: str) -> BinaryIO:
        """The object for reading, seekable, with a file number. Raises FileNotFoundError."""

    def size(self, name: str) -> int | None:
        """Bytes of the object; None when it is not there."""

    def set_aside(self, name: str, folder: str) -> None:
        """Move an object out of sight, durably: to `conflicts`, `quarantine` or `lost+found`."""

    def bring_back(self, name: str, folder: str) -> None:
        """The reverse of `set_aside`."""

    def remove(self, names: list[str], folder: str = "objects") -> None:
        """Unlink, durably. Names that are not there are no error."""

    def objects(self) -> Iterator[Entry]:
        """Every published file."""

    def clear_drafts(self, older_than: datetime, wanted: Callable[[str], bool] = ...) -> int:
        """Remove drafts that nobody writes any more; their number."""
