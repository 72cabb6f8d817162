"""Rows that may be written a moment later: a thread of its own writes them, callers may be event loops."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import psycopg
import structlog
from psycopg_pool import ConnectionPool

from pacs.telemetry import Metrics

MOST_WAITING = 10_000  # rows remembered while the database is away; the oldest are dropped first
RETRY_SECONDS = 2.0
LATE_SECONDS = 1.0  # how often late rows are asked for
PATIENCE_SECONDS = 1.0
Row = dict[str, Any]
log = structlog.get_logger()


class Late(Protocol):
    """Gives rows that were held back until now; `everything` when there will be no other time."""

    def __call__(self, *, everything: bool = False) -> list[Row]: ...


def nothing_late(*, everything: bool = False) -> list[Row]:  # noqa: ARG001 - as the protocol names it
    """For a backlog that holds nothing back."""
    return []


class Backlog:
    """Writes rows, many in a transaction, and tries again while the database is away.

    `write` adds rows in the transaction that is open on a connection.
    """

    def __init__(
        self,
        pool: ConnectionPool[Any],
        write: Callable[[psycopg.Connection[Any], list[Row]], None],
        name: str,
        late: Late = nothing_late,
        metrics: Metrics | None = None,
    ) -> None:
        self._pool, self._insert, self._name, self._late = pool, write, name, late
        self._waiting: deque[Row] = deque()
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._meters = metrics and (
            metrics.gauge("filmroom_backlog_rows", "Rows that wait to be written", ("of",)).labels(name),
            metrics.counter("filmroom_backlog_lost", "Rows that could not be written", ("of",)).labels(name),
        )

    def add(self, row: Row, *, wait: bool = False) -> None:
        """Queue a row. `wait`: return when it is committed, or after a second."""
        with self._news:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._waiting.append(row)
            if len(self._waiting) > MOST_WAITING:
                self._waiting.popleft()
                self._lost(1)
            self._news.notify_all()
            if wait:
                self._news.wait_for(lambda: not any(other is row for other in self._waiting), PATIENCE_SECONDS)

    def waiting(self) -> list[Row]:
        """The rows that are not written yet."""
        with self._news:
            return list(self._waiting)

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting or self._closed, LATE_SECONDS)
                self._waiting.extend(self._late(everything=self._closed))
                batch = list(self._waiting)
                if self._closed and not batch:
                    return
            if batch and not self._write(batch):
                if self._closed:
                    return
                time.sleep(RETRY_SECONDS)

    def _write(self, batch: list[Row]) -> bool:
        """Whether the rows need no other attempt: they are written, or cannot be."""
        try:
            with self._pool.connection() as connection:
                self._insert(connection, batch)
        except psycopg.OperationalError as error:
            log.error("rows_not_written", of=self._name, count=len(batch), exc_info=error)
            self._show()
            return False
        except psycopg.Error:  # waiting would not help: one of them cannot be written
            self._write_each(batch)
        with self._news:
            written = {id(row) for row in batch}
            self._waiting = deque(row for row in self._waiting if id(row) not in written)
            self._news.notify_all()
        self._show()
        return True

    def _write_each(self, batch: list[Row]) -> None:
        """One by one, so that a bad row takes no other with it."""
        for row in batch:
            try:
                with self._pool.connection() as connection:
                    self._insert(connection, [row])
            except psycopg.Error as error:
                log.error("row_dropped", of=self._name, exc_info=error)
                self._lost(1)

    def _lost(self, count: int) -> None:
        if self._meters:
            self._meters[1].inc(count)

    def _show(self) -> None:
        if self._meters:
            self._meters[0].set(len(self._waiting))

    def close(self) -> None:
        """Write what waits, if the database lets us."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        if self._thread is not None:
            self._thread.join(RETRY_SECONDS * 2)
