"""One thread that commits what is ready, all of it in one transaction (group commit, storage.md 2.5)."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import structlog

from pacs.index.write import Away, Item, Rejected, Unknown, Verdict, Writer

LARGEST_BATCH = 64
RING_SECONDS = 0.05  # quiet after which the relay is told of what was committed
RING_MOST_SECONDS = 1.0  # without such quiet
log = structlog.get_logger()

Answer = Verdict | Away | Unknown | Rejected


class Waiting(Protocol):
    """Something that waits for its commit."""

    item: Item
    to_settle: bool  # nobody else makes its file durable

    def settle(self) -> None:
        """Make its file durable; waits for the disk."""

    def committed(self, answer: Answer) -> None:
        """Told once, on the committer's thread; must not wait for anything."""


class Committer:
    """Takes all that has queued while the last commit ran. `disk`: threads that may wait for a disk."""

    def __init__(self, writer: Writer, disk: ThreadPoolExecutor) -> None:
        self._writer, self._disk = writer, disk
        self._queue: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)
        self._thread.start()

    def put(self, waiting: Waiting) -> None:
        """Queue something; its `committed` will be called, whatever happens."""
        self._queue.put(waiting)

    def close(self) -> None:
        """Commit what is queued, then stop."""
        self._queue.put(None)
        self._thread.join()
        self._writer.close()

    def _run(self) -> None:
        unrung = 0.0  # since when the relay has not been told
        while True:
            try:
                first = self._queue.get(timeout=RING_SECONDS if unrung else None)
            except queue.Empty:
                first = None
            else:
                if first is None:
                    return
                unrung = unrung or time.monotonic()
                self._commit(self._gather(first))
            if unrung and (first is None or time.monotonic() - unrung > RING_MOST_SECONDS):
                self._writer.ring()
                unrung = 0.0

    def _gather(self, first: Waiting) -> list[Waiting]:
        batch = [first]
        while len(batch) < LARGEST_BATCH and not self._queue.empty():
            more = self._queue.get()
            if more is None:
                self._queue.put(None)  # stop after this batch
                break
            batch.append(more)
        return batch

    def _commit(self, batch: Sequence[Waiting]) -> None:
        """One object that the database does not take must not fail its neighbours: then each goes alone."""
        items = [waiting.item for waiting in batch]
        try:
            sent = self._writer.send(items)
            self._settle(batch, here=sent)
            answers: Sequence[Answer] = self._writer.receive(items) if sent else self._writer.store(items)
        except Rejected as error:
            if len(batch) > 1:
                for waiting in batch:
                    self._commit([waiting])
                return
            answers = [error]
        except (Away, Unknown) as error:
            answers = [error] * len(batch)
        except Exception as error:  # a fault of ours must not leave senders waiting for ever
            log.error("committer_failed", exc_info=error)
            answers = [Unknown()] * len(batch)
        for waiting, answer in zip(batch, answers, strict=True):
            self._tell(waiting.committed, answer)

    def _settle(self, batch: Sequence[Waiting], *, here: bool) -> None:
        """The files of small objects, while the database is at work: one of them `here`, to save a thread's turn."""
        unsettled = [waiting for waiting in batch if waiting.to_settle]
        for waiting in unsettled:
            waiting.to_settle = False
        for waiting in unsettled[here:]:
            self._disk.submit(waiting.settle)
        for waiting in unsettled[:here]:
            waiting.settle()

    def _tell(self, committed: Callable[[Answer], None], answer: Answer) -> None:
        try:
            committed(answer)
        except Exception as error:
            log.error("commit_not_told", exc_info=error)
