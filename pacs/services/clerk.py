"""The clerk: duties of the background, done by one process at a time, whoever holds the advisory lock (storage.md 6).

Others stand by and take over when the holder's connection ends. Each duty has a thread: a long one delays no other.
"""

import importlib
import os
import threading
import time
from collections.abc import Iterable
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import structlog
from psycopg import sql

from pacs import node as nodes
from pacs.index.pool import BoundedConnection, connection_arguments
from pacs.node import Node
from pacs.services.duties import Duty
from pacs.settings import Settings
from pacs.store.base import StoreFailed, StoreFull

# duties by the module that knows the work; one that is not there yet is left out
TABLES = (
    "pacs.services.stability:DUTIES",
    "pacs.services.derive:DUTIES",
    "pacs.services.indexing:DUTIES",
    "pacs.services.lifecycle:DUTIES",
    "pacs.services.changes:DUTIES",
    "pacs.services.auditchain:DUTIES",
    "pacs.services.auditexport:DUTIES",
    "pacs.services.gauges:DUTIES",
    "pacs.services.sweep:DUTIES",
    "pacs.services.doctor.marker:DUTIES",
    "pacs.services.scrub:DUTIES",
    "pacs.services.refusals:DUTIES",
    "pacs.services.sessions:DUTIES",
    "pacs.services.demo:DUTIES",
    "pacs.services.commitment:DUTIES",
    "pacs.services.steps:DUTIES",
    "pacs.services.worklist:DUTIES",
    "pacs.dimse.report:DUTIES",
    "pacs.services.forward:DUTIES",
    "pacs.dimse.courier:DUTIES",
)
LOCK = 0x46494C4D  # one clerk a database
STAND_BY_SECONDS = 1.0
NICENESS = 5  # answers go first
PATIENCE_SECONDS = 10.0  # for a duty under way when the clerk stops
LEAST_WARNING_SECONDS = 60.0  # a duty that keeps failing is logged this often
log = structlog.get_logger()


def serve(settings: Settings, stop: threading.Event) -> int:
    """Do the duties, or stand by, until `stop` is set."""
    with suppress(OSError):
        os.nice(NICENESS)
    node = nodes.build(settings, component="clerk")
    try:
        Clerk(node, duties()).run(stop)
    finally:
        node.close()
    return 0


def duties(tables: Iterable[str] = TABLES) -> tuple[Duty, ...]:
    """All duties of the tables named as `module:attribute`."""
    found: list[Duty] = []
    for table in tables:
        module, _, attribute = table.partition(":")
        found.extend(getattr(importlib.import_module(module), attribute))
    return tuple(found)


class Clerk:
    """Runs duties while it holds the lock."""

    def __init__(self, node: Node, rows: tuple[Duty, ...]) -> None:
        self._node, self._duties = node, rows
        self._runs = node.metrics.counter("filmroom_duty_runs", "Runs of background duties", ("duty", "outcome"))

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set: get the lock, work, and begin again when the database was away."""
        while not stop.is_set():
            try:
                with self._lock() as connection:
                    if connection is not None:
                        self._work(connection, stop)
            except psycopg.Error as error:
                log.warning("clerk_without_database", exc_info=error)
            stop.wait(STAND_BY_SECONDS)

    @contextmanager
    def _lock(self) -> Any:
        """A connection that holds the lock, or None while another clerk holds it."""
        settings = self._node.settings
        arguments = connection_arguments("clerk")
        with BoundedConnection.connect(settings.database_url, autocommit=True, **arguments) as connection:
            held = connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone()
            yield connection if held == (True,) else None

    def _work(self, connection: psycopg.Connection[Any], stop: threading.Event) -> None:
        """Start the duties and keep the lock's connection alive, passing on what it is notified of."""
        log.info("clerk_on_duty", duties=[duty.name for duty in self._duties])
        self._begin()
        over = threading.Event()
        turns = [Turn(duty, self._node, over, self._runs) for duty in self._duties]
        for channel in {duty.woken_by for duty in self._duties if duty.woken_by}:
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        try:
            for turn in turns:
                turn.thread.start()
            while not stop.is_set():
                for notice in connection.notifies(timeout=STAND_BY_SECONDS):
                    for turn in turns:
                        turn.wake(notice.channel)
                    if stop.is_set():
                        break
                connection.execute("SELECT 1")
        finally:
            over.set()
            for turn in turns:
                turn.end()

    def _begin(self) -> None:
        """Put in order what a crash left; a store that fails now must not keep the other duties from being done."""
        try:
            self._node.sweep.start()
        except (OSError, StoreFailed, StoreFull) as error:
            log.error("start_not_swept", exc_info=error)


class Turn:
    """One duty and the thread that does it."""

    def __init__(self, duty: Duty, node: Node, over: threading.Event, runs: Any) -> None:
        self._duty, self._node, self._over, self._runs = duty, node, over, runs
        self._due = threading.Event()
        self._warned = -LEAST_WARNING_SECONDS
        self.thread = threading.Thread(target=self._run, name=duty.name, daemon=True)

    def wake(self, channel: str) -> None:
        """Something was notified."""
        if channel == self._duty.woken_by:
            self._due.set()

    def end(self) -> None:
        """Wait for the run that is under way; a long one goes on until the process ends, and may be cut anywhere."""
        self._due.set()
        if self.thread.is_alive():
            self.thread.join(PATIENCE_SECONDS)

    def _run(self) -> None:
        while not self._over.is_set():
            self._once()
            self._due.wait(self._duty.period)
            self._due.clear()

    def _once(self) -> None:
        """A duty that fails is tried again at its next period, and hinders no other."""
        try:
            self._duty.function(self._node)
            outcome = "ok"
        except Exception as error:
            outcome = "failed"
            if time.monotonic() - self._warned >= LEAST_WARNING_SECONDS:
                self._warned = time.monotonic()
                log.warning("duty_failed", duty=self._duty.name, exc_info=error)
        self._runs.labels(self._duty.name, outcome).inc()
