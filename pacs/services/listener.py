"""Waits for a NOTIFY of the database: a wake-up, never the only way to hear of something."""

import contextlib
import time
from typing import Any

import psycopg
from psycopg import sql
from psycopg_pool import ConnectionPool


class Listener:
    """One channel on a connection of its own, which is made again when it breaks. For one thread."""

    def __init__(self, pool: ConnectionPool[Any], channel: str) -> None:
        self.pool, self.channel = pool, channel
        self._connection: psycopg.Connection[Any] | None = None

    def wait(self, seconds: float) -> bool:
        """Whether something came within that time. True also when the connection is new: it may have missed some."""
        started = time.monotonic()
        try:
            if self._connection is None:
                self._connect()
                return True
            return any(True for _ in self._connection.notifies(timeout=seconds, stop_after=1))
        except psycopg.Error:
            self.close()
            time.sleep(max(0.0, seconds - (time.monotonic() - started)))
            return False

    def _connect(self) -> None:
        given: Any = self.pool.kwargs or {}
        connection = psycopg.connect(str(self.pool.conninfo), autocommit=True, **given)
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self.channel)))
        self._connection = connection

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.close()
            self._connection = None
