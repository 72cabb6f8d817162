"""One object between its admission and its answer: two threads work for it, and the one that ends last concludes."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import structlog

from pacs.domain.events import Stored
from pacs.domain.header import Header
from pacs.index.write import File, Item
from pacs.services.committer import Answer
from pacs.services.incoming import Incoming
from pacs.store.base import Draft, StoreFailed, StoreFull

log = structlog.get_logger()


@dataclass(slots=True)
class Pending:
    """An admitted object whose file and row are on their way to disk."""

    incoming: Incoming
    header: Header
    file: File
    item: Item
    draft: Draft
    warnings: tuple[str, ...]
    conclude: "Callable[[Pending], None]"  # called once both have spoken
    answer: "Future[Stored]"
    to_settle: bool = False  # by the committer
    verdict: Answer | None = None
    settled: bool | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def settle(self) -> None:
        """Wait for the disk, and take its word. Raises nothing: who calls it has others to care for."""
        try:
            on_disk = settled(self.draft)
        except Exception as error:  # a fault of ours
            log.error("settle_failed", exc_info=error)
            on_disk = False
        self.on_disk(on_disk)

    def committed(self, answer: Answer) -> None:
        """The committer's word; see `pacs.services.committer.Waiting`."""
        with self._lock:
            self.verdict = answer
            last = self.settled is not None
        if last:
            self.conclude(self)

    def on_disk(self, settled: bool) -> None:
        """The disk's word."""
        with self._lock:
            self.settled = settled
            last = self.verdict is not None
        if last:
            self.conclude(self)


def settled(draft: Draft) -> bool:
    """Wait for the disk; whether the file and its name are durable. If not, it is gone."""
    try:
        draft.settle()
    except (StoreFailed, StoreFull):
        return False
    return True
