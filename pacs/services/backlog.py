"""Rows that may be written a moment later: a thread of its own writes them, callers may be event loops."""

import threading
import time
from collections import deque
from typing import Any

import psycopg
import structlog
from psycopg_pool import ConnectionPool

MOST_WAITING = 10_000  # rows remembered while the database is away; the oldest are dropped first
RETRY_SECONDS = 2.0
PATIENCE_SECONDS = 1.0
Row = dict[str, Any]
log = structlog.get_logger()


class Backlog:
    """Writes rows with one statement, many in a transaction, and tries again while the database is away."""

    def __init__(self, pool: ConnectionPool[Any], statement: bytes, name: str) -> None:
        self._pool, self._statement, self._name = pool, statement, name
        self._waiting: deque[Row] = deque(maxlen=MOST_WAITING)
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, row: Row, *, wait: bool = False) -> None:
        """Queue a row. `wait`: return when it is committed, or after a second."""
        with self._news:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._waiting.append(row)
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
                self._news.wait_for(lambda: self._waiting or self._closed)
                batch = list(self._waiting)
            if not batch:
                return
            if not self._write(batch):
                if self._closed:
                    return
                time.sleep(RETRY_SECONDS)

    def _write(self, batch: list[Row]) -> bool:
        try:
            with self._pool.connection() as connection, connection.cursor() as cursor:
                cursor.executemany(self._statement, batch)
        except psycopg.OperationalError as error:
            log.error("rows_not_written", of=self._name, count=len(batch), exc_info=error)
            return False
        except psycopg.Error as error:  # waiting would not help: one of them cannot be written
            log.error("rows_dropped", of=self._name, count=len(batch), exc_info=error)
        with self._news:
            written = {id(row) for row in batch}
            self._waiting = deque((row for row in self._waiting if id(row) not in written), MOST_WAITING)
            self._news.notify_all()
        return True

    def close(self) -> None:
        """Write what waits, if the database lets us."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        if self._thread is not None:
            self._thread.join(RETRY_SECONDS * 2)
