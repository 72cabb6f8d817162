"""One object on its way in, from its first byte until it is handed over."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, NoReturn, TypeVar

from pacs.domain.events import Expected, Source
from pacs.errors import Reason
from pacs.services.part10 import PREAMBLE_BYTES, PREFIX, head
from pacs.store.base import Bytes, Draft, StoreFailed, StoreFull

if TYPE_CHECKING:
    from pacs.services.ingest import Ingest

T = TypeVar("T")

SPACE_CHECK_BYTES = 64 << 20  # how much may arrive between two looks at the free space
PREAMBLE_ZEROED = "the preamble was not empty and has been zeroed"


class Incoming:
    """Bytes to the staging file. One thread at a time; `write` never waits for a disk to be done.

    `raw`: a bare data set follows, and the head of the file is ours. Else a Part 10 stream follows, whose preamble is
    emptied: bytes there could make the file something else too (PS3.10 7.5).
    """

    def __init__(self, ingest: "Ingest", draft: Draft, source: Source, expected: Expected, raw: bool) -> None:
        self.source, self.expected, self.draft = source, expected, draft
        self.warnings: list[str] = []
        self.raw = raw
        self.replaces = ingest.replaces  # what is stored under the same UID gives way
        self.settling: Future[bool] | None = None  # the fsync, where it began before the object was looked at
        self._ingest = ingest
        self._start: bytearray | None = None if raw else bytearray()  # until preamble and prefix are there
        self._next_check = SPACE_CHECK_BYTES
        if raw:
            self._put(
                head(expected.sop_class_uid, expected.sop_instance_uid, expected.transfer_syntax_uid, source.peer)
            )

    @property
    def size(self) -> int:
        """Bytes of the file so far."""
        return self.draft.size + len(self._start or b"")

    def write(self, chunk: Bytes) -> None:
        """Append bytes. Raises Refused (TOO_LARGE, OUT_OF_SPACE, UNAVAILABLE); the object is then gone."""
        if self.size + len(chunk) > self._ingest.largest:
            self._refuse(Reason.TOO_LARGE, "The object is larger than DICOM_MAX_UPLOAD_SIZE_GB allows.")
        if self._start is None:
            self._put(chunk)
            return
        self._start += chunk
        if len(self._start) >= PREAMBLE_BYTES + len(PREFIX):
            self.begin_file()

    def begin_file(self) -> None:
        """What was held back goes to the draft, with an empty preamble. Raises Refused as `write` does."""
        start, self._start = self._start, None
        if not start:
            return
        if start[PREAMBLE_BYTES:].startswith(PREFIX) and any(start[:PREAMBLE_BYTES]):
            start[:PREAMBLE_BYTES] = bytes(PREAMBLE_BYTES)
            self.warnings.append(PREAMBLE_ZEROED)
        self._put(start)

    def publish(self) -> str:
        """Give the draft its name in the store, and return it. Raises Refused as `write` does."""
        return self._stored(self.draft.publish)

    def _put(self, chunk: Bytes) -> None:
        if self.draft.size >= self._next_check:
            self._next_check = self.draft.size + SPACE_CHECK_BYTES
            if not self._ingest.has_space():
                self._refuse(Reason.OUT_OF_SPACE, "The disk is at its reserve; free space or lower DISK_RESERVE_GB.")
        self._stored(lambda: self.draft.write(chunk))

    def _stored(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except StoreFull:
            self._refuse(Reason.OUT_OF_SPACE, "The file store has no space left; free space on its disk.")
        except StoreFailed:
            self._refuse(Reason.OUT_OF_SPACE, "The file store cannot write; look at the log and the disk.")

    def _refuse(self, reason: Reason, message: str) -> NoReturn:
        self.abort()
        raise self._ingest.refusal(self.source, self.expected, reason, message)

    def abort(self) -> None:
        """Forget it; the temporary file is gone. Idempotent."""
        self._ingest.ended(self)
        if self.settling is not None:
            self.settling.result()  # a file must not be closed under its fsync
        self.draft.discard()
