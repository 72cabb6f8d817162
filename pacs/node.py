"""Builds every object of the node, each when it is first asked for; its attributes are the public interface.

A process builds one node, passes it to its door and closes it at the end.
"""

from functools import cached_property
from typing import TYPE_CHECKING

from pacs.index.pool import open_pool
from pacs.settings import Settings
from pacs.telemetry import Metrics

if TYPE_CHECKING:
    from psycopg_pool import ConnectionPool

    from pacs.bus.stream import Stream
    from pacs.services.audit import Audit
    from pacs.services.books import Books
    from pacs.services.changes import Changes
    from pacs.services.conflicts import Conflicts
    from pacs.services.derive import Derive
    from pacs.services.findings import Findings
    from pacs.services.health import Health
    from pacs.services.ingest import Ingest
    from pacs.services.instances import Files
    from pacs.services.jobs import Jobs
    from pacs.services.ledger import Ledger
    from pacs.services.lifecycle import Lifecycle
    from pacs.services.listener import Listener
    from pacs.services.models import Models
    from pacs.services.reconcile import Reconciler
    from pacs.services.refusals import Refusals
    from pacs.services.relay import Relay
    from pacs.services.report import Report
    from pacs.services.retrieve import Retrieve
    from pacs.services.scrub import Scrub
    from pacs.services.search import Search
    from pacs.services.status import StatusBoard
    from pacs.services.sweep import Sweep
    from pacs.store.base import Store


def build(settings: Settings, *, component: str) -> "Node":
    """The node of one process. Nothing is opened or connected before it is used."""
    return Node(settings, component)


class Node:
    """The public interface of the core. Thread-safe once built."""

    def __init__(self, settings: Settings, component: str) -> None:
        self.settings, self.component = settings, component

    def close(self) -> None:
        """Finish what is being stored, then give pools and threads back. Idempotent."""
        for name in ("ingest", "refusals", "audit", "store", "stream", "pool", "metrics"):
            made = self.__dict__.pop(name, None)
            if made is not None:
                made.close()

    @cached_property
    def metrics(self) -> Metrics:
        metrics = Metrics(self.component)
        metrics.share(self.settings.run_dir / "metrics")  # whoever answers /metrics tells those of all processes
        return metrics

    @cached_property
    def pool(self) -> "ConnectionPool":
        """Connections for services, with a limit on how long a statement may run."""
        return open_pool(self.settings.database_url, self.component)

    @cached_property
    def store(self) -> "Store":
        from pacs.store.local import LocalStore

        return LocalStore(self.settings.storage_dir)

    @cached_property
    def refusals(self) -> "Refusals":
        from pacs.services.refusals import Refusals

        return Refusals(self.pool)

    @cached_property
    def audit(self) -> "Audit":
        from pacs.services.audit import Audit

        return Audit(self.pool)

    @cached_property
    def ingest(self) -> "Ingest":
        from pacs.services.ingest import Ingest

        return Ingest(self.settings, self.store, self.refusals, self.metrics, self.component)

    @cached_property
    def search(self) -> "Search":
        from pacs.services.search import Search

        return Search(self.pool)

    @cached_property
    def findings(self) -> "Findings":
        from pacs.services.findings import Findings

        return Findings(self.pool, self.metrics)

    @cached_property
    def files(self) -> "Files":
        from pacs.services.instances import Files

        return Files(self.pool, self.store, self.findings)

    @cached_property
    def derive(self) -> "Derive":
        from pacs.services.derive import Derive

        return Derive(self.pool, self.files)

    @cached_property
    def retrieve(self) -> "Retrieve":
        from pacs.services.retrieve import Retrieve

        return Retrieve(self.pool, self.files, self.derive)

    @cached_property
    def lifecycle(self) -> "Lifecycle":
        from pacs.services.lifecycle import Lifecycle

        return Lifecycle(self.pool, self.store)

    @cached_property
    def sweep(self) -> "Sweep":
        from pacs.services.sweep import Sweep

        return Sweep(self.pool, self.store, self.findings)

    @cached_property
    def scrub(self) -> "Scrub":
        from pacs.services.scrub import Scrub

        return Scrub(self.pool, self.store, self.findings)

    @cached_property
    def conflicts(self) -> "Conflicts":
        from pacs.services.conflicts import Conflicts

        return Conflicts(self.pool, self.store, lambda: self.ingest)

    @cached_property
    def changes(self) -> "Changes":
        from pacs.services.changes import Changes

        return Changes(self.pool)

    @cached_property
    def books(self) -> "Books":
        from pacs.services.books import Books

        return Books(self.pool)

    def listen(self, channel: str) -> "Listener":
        """A listener on a channel of the database, for one thread."""
        from pacs.services.listener import Listener

        return Listener(self.pool, channel)

    @cached_property
    def jobs(self) -> "Jobs":
        from pacs.services.jobs import Jobs

        return Jobs(self.books, self.models, self.settings)

    @cached_property
    def ledger(self) -> "Ledger":
        from pacs.services.ledger import Ledger

        return Ledger(self.books, self.settings)

    @cached_property
    def models(self) -> "Models":
        from pacs.services.models import Models

        return Models(self.books)

    @cached_property
    def stream(self) -> "Stream":
        from pacs.bus.stream import Stream

        return Stream(self.settings.redis_url)

    @cached_property
    def relay(self) -> "Relay":
        from pacs.services.relay import Relay

        return Relay(self.books, self.stream)

    @cached_property
    def reconciler(self) -> "Reconciler":
        from pacs.services.reconcile import Reconciler

        return Reconciler(self.books, self.stream, self.metrics)

    @cached_property
    def health(self) -> "Health":
        from pacs.services.health import Health

        return Health(self.settings, self.pool, {"ai": self.models.check_ready})

    @cached_property
    def status(self) -> "StatusBoard":
        from pacs.services.status import StatusBoard

        return StatusBoard(self.pool, self.settings.storage_dir, self.settings.disk_reserve_gb)

    @cached_property
    def report(self) -> "Report":
        from pacs.services.report import Report

        return Report(self.retrieve)
