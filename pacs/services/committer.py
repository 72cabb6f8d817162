"""One thread that commits what is ready, all of it in one transaction (group commit, storage.md 2.5)."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
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

    def committed(self, answer: Answer) -> None:
        """Told once, on the committer's thread; must not wait for anything."""


class Committer:
    """Takes all that has queued while the last commit ran."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
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
        try:
            answers: Sequence[Answer] = self._writer.store([waiting.item for waiting in batch])
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

    def _tell(self, committed: Callable[[Answer], None], answer: Answer) -> None:
        try:
            committed(answer)
        except Exception as error:
            log.error("commit_not_told", exc_info=error)
