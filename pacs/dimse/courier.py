"""The clerk's duty that sends what rules want sent on: by C-STORE to a peer, or by STOW to a service."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import structlog

from pacs.dimse import proposals
from pacs.dimse.proposals import Voyage
from pacs.dimse.requestor import Association, Destination, Lost, NoAssociation, Patience, destination
from pacs.dimse.status import Status
from pacs.dimse.suboperations import Delivery, Tally, is_stored
from pacs.errors import Damaged, NotFound, SettingsError, Unavailable
from pacs.services import forward_stow
from pacs.services.duties import Duty
from pacs.services.forward import RENEW_SECONDS, Forwarding, Item
from pacs.services.forward_rules import Rule
from pacs.services.peers import PeerBook

if TYPE_CHECKING:
    from pacs.node import Node

AT_ONCE = 200  # objects leased for one association
STOW_AT_ONCE, STOW_BYTES = 20, 32 << 20  # of one request
PATIENCE = Patience(connect=5.0, association=15.0, network=30.0, response=60.0)
_BUSY = frozenset(range(0xA700, 0xA800))  # out of resources: not the object's fault
log = structlog.get_logger()


def forward(node: "Node") -> None:
    """See that somebody is at each destination that something waits for. Raises Unavailable."""
    for name in node.forwarding.due():
        node.forwarding.engage(name, partial(_serve, node, name))


def _serve(node: "Node", name: str) -> None:
    """Send all that waits for one destination, until it is sent or the destination fails."""
    try:
        send = _sender(node, name)
    except (SettingsError, Unavailable) as error:
        node.forwarding.trip(name, error.message)
        return
    while not node.forwarding.closing.is_set() and send():
        pass


def _sender(node: "Node", name: str) -> "partial[bool]":
    rules = {rule.destination: rule for rule in node.forwarding.rules.rules()}
    if "://" in name:
        if name not in rules:
            raise SettingsError(f"No rule names {name} any more; put it back, or what waits for it stays.")
        return partial(_post, node, rules[name])
    peer = PeerBook(node.settings.peers_file, required=node.settings.dicom_peers is not None).get(name)
    if peer is None:
        raise SettingsError(f"{name} is not in the peers file; add it, or what waits for it stays.")
    return partial(_store, node, destination(peer, node.settings))


# C-STORE


@dataclass
class _Books(Tally):
    """Writes down at once what became of each object, and stops when the destination is out of resources."""

    forwarding: Forwarding | None = None
    name: str = ""
    ids: dict[str, int] = field(default_factory=dict)
    trouble: str = ""
    renewed_at: float = field(default_factory=time.monotonic)

    def note(self, sop_instance_uid: str, status: int, why: str = "") -> None:
        super().note(sop_instance_uid, status)
        assert self.forwarding is not None
        number = self.ids[sop_instance_uid]
        if is_stored(status):
            self.forwarding.sent(self.name, [number])
        elif status in _BUSY:
            self.trouble = f"{self.name} answered {status:#06x}, out of resources."
            self.forwarding.give_back([number])
        else:
            final = status == Status.CLASS_NOT_SUPPORTED
            self.forwarding.failed(number, f"{status:#06x}: {why}", final=final)

    def stopped(self) -> bool:
        assert self.forwarding is not None
        return bool(self.trouble) or self.forwarding.closing.is_set()

    def progress(self) -> None:
        """Keep what is leased ours; nobody waits for counts."""
        if self.forwarding is not None and time.monotonic() - self.renewed_at > RENEW_SECONDS:
            self.renewed_at = time.monotonic()
            self.forwarding.renew(list(self.ids.values()))


def _store(node: "Node", to: Destination) -> bool:
    """One association's worth; False when there is nothing more to do now."""
    forwarding = node.forwarding
    items = forwarding.lease(to.title, AT_ONCE)
    if not items:
        return False
    named = {item.candidate.sop_instance_uid: item.id for item in items if item.candidate is not None}
    books = _Books(len(named), forwarding=forwarding, name=to.title, ids=named)
    candidates = [item.candidate for item in items if item.candidate is not None]
    try:
        for voyage in proposals.voyages(candidates):
            _sail(node, to, voyage, books)
    except (NoAssociation, Lost) as error:
        books.trouble = error.message
    finally:
        forwarding.give_back(list(named.values()))  # those that had no turn
    if books.trouble:
        forwarding.trip(to.title, books.trouble)
    return not books.trouble


def _sail(node: "Node", to: Destination, voyage: Voyage, books: _Books) -> None:
    if books.stopped():
        return
    title = node.settings.dicom_ae_title.strip()
    delivery = Delivery(node.outgoing, voyage.candidates, books, books, {})
    with Association(to, title, voyage.proposed, patience=PATIENCE) as association:
        delivery.run(association)


# STOW


def _post(node: "Node", rule: Rule) -> bool:
    """One request's worth; False when there is nothing more to do now."""
    forwarding = node.forwarding
    items = forwarding.lease(rule.destination, STOW_AT_ONCE)
    batch = _within(items, STOW_BYTES)
    if not batch:
        return False
    try:
        _post_some(node, rule, batch)
    except Unavailable as error:
        forwarding.trip(rule.destination, error.message)
        return False
    finally:
        forwarding.give_back([item.id for item in items])
    return True


def _within(items: Sequence[Item], size: int) -> list[Item]:
    """The first items of no more than that size together; one at least."""
    batch: list[Item] = []
    for item in items:
        size -= item.size
        if size < 0 and batch:
            break
        batch.append(item)
    return batch


def _post_some(node: "Node", rule: Rule, batch: Sequence[Item]) -> None:
    rows = node.outgoing.load(item.candidate for item in batch if item.candidate is not None)
    whole = [(item, rows[item.candidate.pk]) for item in batch if item.candidate and item.candidate.pk in rows]
    try:
        report = forward_stow.post(rule, node.files, [row for _, row in whole])
    except (Damaged, NotFound) as error:
        if len(whole) == 1:
            node.forwarding.failed(whole[0][0].id, error.message)
            return
        for item, _ in whole:  # one by one: the others are whole
            _post_some(node, rule, [item])
        return
    stored = [item.id for item, row in whole if report.reason(row.sop_instance_uid) == 0]
    if stored:
        node.forwarding.sent(rule.destination, stored)
    for item, row in whole:
        reason = report.reason(row.sop_instance_uid)
        if reason is None:
            node.forwarding.failed(item.id, f"{rule.destination} answered {report.status} without naming it.")
        elif reason in _BUSY:
            raise Unavailable(f"{rule.destination} is out of resources ({reason:#06x}).")
        elif reason:
            node.forwarding.failed(item.id, f"{reason:#06x}: refused by {rule.destination}.")


DUTIES = (Duty("forward-send", 1.0, forward),)
