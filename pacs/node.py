"""Builds every object of the node, each when it is first asked for; its attributes are the public interface.

A process builds one node, passes it to its door and closes it at the end.
"""

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar, cast, overload

from pacs.index.pool import open_pool
from pacs.settings import Settings
from pacs.telemetry import Metrics

if TYPE_CHECKING:
    from psycopg_pool import ConnectionPool

    from pacs.bus.stream import Stream
    from pacs.domain.roles import Visible
    from pacs.services.accounts import Accounts
    from pacs.services.audit import Audit
    from pacs.services.auditchain import Chain
    from pacs.services.auditexport import Export
    from pacs.services.backup import Backup
    from pacs.services.books import Books
    from pacs.services.calls import Peers
    from pacs.services.changes import Changes
    from pacs.services.commitment import Commitments
    from pacs.services.conflicts import Conflicts
    from pacs.services.conversions import Conversions
    from pacs.services.credentials import Credentials
    from pacs.services.decoders import Decoders
    from pacs.services.derive import Derive
    from pacs.services.findings import Findings
    from pacs.services.forward import Forwarding
    from pacs.services.gate import Gate
    from pacs.services.gauges import Gauges
    from pacs.services.health import Health
    from pacs.services.indexing import Indexing
    from pacs.services.ingest import Ingest
    from pacs.services.instances import Files
    from pacs.services.jobs import Jobs
    from pacs.services.keys import Keys
    from pacs.services.labels import Labels
    from pacs.services.ledger import Ledger
    from pacs.services.lifecycle import Lifecycle
    from pacs.services.listener import Listener
    from pacs.services.maintenance import Windows
    from pacs.services.models import Models
    from pacs.services.outgoing import Outgoing
    from pacs.services.passwords import Passwords
    from pacs.services.reconcile import Reconciler
    from pacs.services.refusals import Refusals
    from pacs.services.relay import Relay
    from pacs.services.render import Render
    from pacs.services.report import Report
    from pacs.services.restore import Restore
    from pacs.services.retrieve import Retrieve
    from pacs.services.scrub import Scrub
    from pacs.services.search import Search
    from pacs.services.sessions import Sessions
    from pacs.services.signin import SignIn
    from pacs.services.status import StatusBoard
    from pacs.services.steps import Steps
    from pacs.services.sweep import Sweep
    from pacs.services.tokens import Tokens
    from pacs.services.wholeness import Wholeness
    from pacs.services.worklist import Worklist
    from pacs.store.base import Store

MOST_DECODERS = 8  # of one process; each may hold a few frames

T = TypeVar("T")


class once(Generic[T]):
    """A property made when it is first asked for, once, however many threads ask at that moment."""

    def __init__(self, make: "Callable[[Node], T]") -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, _owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, node: None, owner: type) -> "once[T]": ...
    @overload
    def __get__(self, node: "Node", owner: type) -> T: ...
    def __get__(self, node: "Node | None", owner: type) -> "once[T] | T":
        if node is None:
            return self
        with node.making:
            if self._name not in node.__dict__:  # from then on the attribute stands before this property
                node.__dict__[self._name] = self._make(node)
            made: T = node.__dict__[self._name]
            return made


def build(settings: Settings, *, component: str) -> "Node":
    """The node of one process. Nothing is opened or connected before it is used."""
    return Node(settings, component)


class Node:
    """The public interface of the core. Thread-safe once built."""

    def __init__(self, settings: Settings, component: str) -> None:
        self.settings, self.component = settings, component
        self.making = threading.RLock()

    def close(self) -> None:
        """Finish what is being stored, then give pools and threads back. Idempotent."""
        for name in (
            "forwarding",
            "ingest",
            "gate",
            "decoders",
            "refusals",
            "audit",
            "store",
            "stream",
            "pool",
            "metrics",
        ):
            made = self.__dict__.pop(name, None)
            if made is not None:
                made.close()

    @once
    def metrics(self) -> Metrics:
        metrics = Metrics(self.component)
        metrics.share(self.settings.run_dir / "metrics")  # whoever answers /metrics tells those of all processes
        return metrics

    @once
    def pool(self) -> "ConnectionPool":
        """Connections for services, with a limit on how long a statement may run."""
        from pacs.index.figures import PoolFigures

        pool = open_pool(self.settings.database_url, self.component)
        self.metrics.add(PoolFigures(pool))
        return pool

    @once
    def gauges(self) -> "Gauges":
        from pacs.services.gauges import Gauges

        return Gauges(self.pool, self.settings, self.metrics)

    @once
    def store(self) -> "Store":
        from pacs.store.local import LocalStore

        return LocalStore(self.settings.storage_dir)

    @once
    def refusals(self) -> "Refusals":
        from pacs.services.refusals import Refusals

        return Refusals(self.pool, self.audit.note)

    @once
    def audit(self) -> "Audit":
        from pacs.services.audit import Audit

        return Audit(self.pool, self.metrics)

    @once
    def chain(self) -> "Chain":
        from pacs.services.auditchain import Chain

        return Chain(self.pool)

    @once
    def audit_export(self) -> "Export":
        from pacs.services.auditexport import Export

        return Export(self.pool, self.settings, self.metrics)

    @once
    def ingest(self) -> "Ingest":
        from pacs.services.ingest import Ingest

        ingest = Ingest(
            self.settings, self.store, self.refusals, self.metrics, self.component, closed_to=self.gate.refusal
        )
        self.gate.under_way = ingest.under_way
        self.gate.start()
        return ingest

    @once
    def gate(self) -> "Gate":
        """What this process knows of maintenance."""
        from pacs.services.gate import Gate

        return Gate(self.settings.database_url, self.component)

    @once
    def maintenance(self) -> "Windows":
        from pacs.services.maintenance import Windows

        return Windows(self.books)

    @once
    def search(self) -> "Search":
        from pacs.services.search import Search

        return Search(self.pool, lambda: self.derive, self.indexing)

    @once
    def indexing(self) -> "Indexing":
        from pacs.services.indexing import Indexing

        return Indexing(self.pool, self.settings.index_attributes)

    @once
    def findings(self) -> "Findings":
        from pacs.services.findings import Findings

        return Findings(self.pool, self.metrics)

    @once
    def files(self) -> "Files":
        from pacs.services.instances import Files

        return Files(self.pool, self.store, self.findings)

    @once
    def derive(self) -> "Derive":
        from pacs.services.derive import Derive

        return Derive(self.pool, self.files)

    @once
    def retrieve(self) -> "Retrieve":
        from pacs.services.retrieve import Retrieve

        return Retrieve(self.pool, self.files, self.derive)

    @once
    def decoders(self) -> "Decoders":
        """Processes for code streams; they start when the first stream comes."""
        from pacs.services.decoders import Decoders

        return Decoders(min(max(os.cpu_count() or 0, 2), MOST_DECODERS))

    @once
    def conversions(self) -> "Conversions":
        """Objects in other transfer syntaxes; what was made lately is kept in the home."""
        from pacs.services.cache import Cache
        from pacs.services.conversions import Conversions

        most = int(self.settings.conversion_cache_gb * 2**30)
        reserve, told = self.settings.disk_reserve_bytes, self.metrics.cache("conversions")
        cache = Cache(self.settings.home / "cache", most, reserve, told)
        return Conversions(self.retrieve, self.files, self.decoders, cache)

    @once
    def render(self) -> "Render":
        from pacs.services.render import Render

        return Render(self.retrieve, self.files, self.decoders.decode)

    @once
    def outgoing(self) -> "Outgoing":
        """What C-GET, C-MOVE and forwarding send."""
        from pacs.services.outgoing import Outgoing

        return Outgoing(self.pool, self.files, self.decoders.decode, self.settings.home)

    @once
    def commitments(self) -> "Commitments":
        """Requests for storage commitment."""
        from pacs.services.commitment import Commitments

        return Commitments(self.books, self.store)

    @once
    def forwarding(self) -> "Forwarding":
        """What rules send on."""
        from pacs.services.forward import Forwarding
        from pacs.services.forward_rules import RuleBook

        rules = RuleBook(self.settings.rules_file, required=self.settings.dicom_rules is not None)
        return Forwarding(self.books, self.changes, rules)

    @once
    def lifecycle(self) -> "Lifecycle":
        from pacs.services.lifecycle import Lifecycle

        return Lifecycle(self.pool, self.store)

    @once
    def sweep(self) -> "Sweep":
        from pacs.services.sweep import Sweep

        return Sweep(self.pool, self.store, self.findings)

    @once
    def scrub(self) -> "Scrub":
        from pacs.services.scrub import Scrub

        return Scrub(self.pool, self.store, self.findings)

    @once
    def wholeness(self) -> "Wholeness":
        from pacs.services.wholeness import Wholeness

        return Wholeness(self.pool, self.store)

    @once
    def backup(self) -> "Backup":
        from pacs.services.backup import Backup

        return Backup(self.settings, self.pool, self.store)

    @once
    def restore(self) -> "Restore":
        from pacs.services.restore import Restore

        return Restore(self.settings, self.pool)

    @once
    def conflicts(self) -> "Conflicts":
        from pacs.services.conflicts import Conflicts

        return Conflicts(self.pool, self.store, lambda: self.ingest)

    @once
    def changes(self) -> "Changes":
        from pacs.services.changes import Changes

        return Changes(self.pool)

    @once
    def books(self) -> "Books":
        from pacs.services.books import Books

        return Books(self.pool)

    def listen(self, channel: str) -> "Listener":
        """A listener on a channel of the database, for one thread."""
        from pacs.services.listener import Listener

        return Listener(self.pool, channel)

    @once
    def jobs(self) -> "Jobs":
        from pacs.services.jobs import Jobs

        return Jobs(self.books, self.models, self.settings)

    @once
    def ledger(self) -> "Ledger":
        from pacs.services.ledger import Ledger

        return Ledger(self.books, self.settings)

    @once
    def models(self) -> "Models":
        from pacs.services.models import Models

        return Models(self.books)

    @once
    def stream(self) -> "Stream":
        from pacs.bus.stream import Stream

        return Stream(self.settings.redis_url)

    @once
    def relay(self) -> "Relay":
        from pacs.services.relay import Relay

        return Relay(self.books, self.stream)

    @once
    def reconciler(self) -> "Reconciler":
        from pacs.services.reconcile import Reconciler

        return Reconciler(self.books, self.stream, self.metrics)

    @once
    def worklist(self) -> "Worklist":
        from pacs.services.worklist import Worklist

        return Worklist(self.books)

    @once
    def steps(self) -> "Steps":
        from pacs.services.steps import Steps

        return Steps(self.books)

    @once
    def peers(self) -> "Peers":
        from pacs.services.calls import Peers

        return Peers(self.settings)

    @once
    def health(self) -> "Health":
        from pacs.services.health import Health

        return Health(self.settings, self.pool, {"ai": self.models.check_ready})

    @once
    def status(self) -> "StatusBoard":
        from pacs.services.status import StatusBoard

        return StatusBoard(self.pool, self.settings.storage_dir, self.settings.disk_reserve_gb)

    @once
    def report(self) -> "Report":
        from pacs.services.report import Report

        return Report(self.retrieve)

    # --- who may come in ---

    @once
    def keys(self) -> "Keys":
        from pacs.services.keys import Keys

        return Keys(self.settings)

    @once
    def passwords(self) -> "Passwords":
        from pacs.services.passwords import Passwords

        return Passwords()

    @once
    def sessions(self) -> "Sessions":
        from pacs.services.sessions import Sessions

        return Sessions(self.pool, self.keys, self.settings.access_token_expire_minutes * 60)

    @once
    def tokens(self) -> "Tokens":
        from pacs.services.tokens import Tokens

        return Tokens(self.pool)

    @once
    def accounts(self) -> "Accounts":
        from pacs.services.accounts import Accounts

        return Accounts(self.pool, self.passwords, self.sessions)

    @once
    def sign_in(self) -> "SignIn":
        from pacs.services.signin import SignIn

        return SignIn(self.pool, self.passwords, self.sessions)

    @once
    def credentials(self) -> "Credentials":
        from pacs.services.credentials import Credentials
        from pacs.services.oidc import Oidc

        return Credentials(self.keys, self.sessions, self.tokens, Oidc(self.settings))

    @once
    def labels(self) -> "Labels":
        from pacs.services.labels import Labels

        return Labels(self.pool)

    def within(self, visible: "Visible") -> "Node":
        """This node as somebody sees it who may see a part of the archive only."""
        from pacs.services.scoped import NodeInPart

        return cast("Node", NodeInPart(self, visible))
