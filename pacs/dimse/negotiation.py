"""Whether an association is taken, and with which presentation contexts (PS3.8 7.1, PS3.7 D.3). Pure functions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum

from pacs.dimse.associate import (
    APPLICATION_CONTEXT,
    PROTOCOL_VERSION,
    AssociateAccept,
    AssociateRequest,
    ContextResult,
    Identity,
    ProposedContext,
    Role,
    UserInformation,
)
from pacs.dimse.identity import can_be_verified
from pacs.dimse.limits import Limits
from pacs.dimse.operation import Context
from pacs.dimse.pdu import Rejection
from pacs.dimse.services import RECEIVE, STORE, Service, service_for
from pacs.domain import uids
from pacs.domain.roles import SIGNED_IN
from pacs.domain.roles import Identity as Who
from pacs.domain.syntaxes import IMPLICIT_LE
from pacs.services.outgoing import CONVERTIBLE
from pacs.services.peers import SERVICES, Peer

MOST_OPTIONS = 16  # bytes of an extended negotiation answer; the standard has five at most (PS3.4 C.5)
MIN_PEER_PDU = 64  # a peer that takes less than this a PDU cannot be answered sensibly


# service -> the permission that a user needs for it (pacs.domain.roles)
NEEDS = {
    "store": "store",
    "find": "search",
    "move": "retrieve",
    "get": "retrieve",
    "commit": "store",
    "worklist": "search",
    "mpps": "store",
}


class Refusal(Enum):
    """Why an association is rejected: our word for logs and counters, and the answer (PS3.8 table 9-21)."""

    PROTOCOL_VERSION = "protocol-version", Rejection(1, 2, 2)
    APPLICATION_CONTEXT = "application-context", Rejection(1, 1, 2)
    CALLED_TITLE = "called-title", Rejection(1, 1, 7)
    CALLING_TITLE = "calling-title", Rejection(1, 1, 3)
    CERTIFICATE = "certificate", Rejection(1, 1, 3)  # title and certificate do not belong together
    IDENTITY = "identity", Rejection(1, 1, 1)
    PDU_SIZE = "pdu-size", Rejection(1, 2, 1)
    TOO_MANY = "too-many", Rejection(2, 3, 2)
    UNAVAILABLE = "unavailable", Rejection(2, 3, 1)  # nobody can tell now whether the identity is right

    def __init__(self, word: str, rejection: Rejection) -> None:
        self.word, self.rejection = word, rejection


class Result(IntEnum):
    """PS3.8 table 9-18."""

    ACCEPTANCE = 0
    USER_REJECTION = 1
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


@dataclass(frozen=True, slots=True)
class Load:
    """Associations open now."""

    total: int
    unknown: int  # of callers that peers.toml does not know
    address: int  # of this caller's address
    peer: int  # of this caller's title


def judge(
    request: AssociateRequest,
    title: str,
    peer: Peer | None,
    *,
    local: bool,
    load: Load,
    limits: Limits,
    certified: bool = True,
) -> Refusal | None:
    """The first reason to reject, or None. `peer` is the known peer whose title and network fit; `local`: loopback;
    `certified`: title and certificate belong together. That an identity is right is not judged here."""
    checks = (
        (not request.protocol_version & PROTOCOL_VERSION, Refusal.PROTOCOL_VERSION),
        (request.application_context != APPLICATION_CONTEXT, Refusal.APPLICATION_CONTEXT),
        (request.called != title, Refusal.CALLED_TITLE),
        (peer is None and not local, Refusal.CALLING_TITLE),
        (not request.calling, Refusal.CALLING_TITLE),
        (not certified, Refusal.CERTIFICATE),
        (peer is not None and peer.require_identity and not can_be_verified(request.user.identity), Refusal.IDENTITY),
        (0 < request.user.max_pdu < MIN_PEER_PDU, Refusal.PDU_SIZE),
        (_too_many(peer, load, limits), Refusal.TOO_MANY),
    )
    return next((refusal for wrong, refusal in checks if wrong), None)


def _too_many(peer: Peer | None, load: Load, limits: Limits) -> bool:
    if load.total >= limits.associations:
        return True
    if peer is not None:
        return 0 < peer.max_associations <= load.peer
    return load.unknown >= limits.associations - limits.reserved or load.address >= limits.per_address


def negotiate(
    request: AssociateRequest,
    services: Mapping[str, Service],
    peer: Peer | None,
    limits: Limits,
    who: Who | None = None,
) -> tuple[AssociateAccept, dict[int, tuple[Context, Service]]]:
    """The acceptance, and its contexts by ID. The requestor's order of transfer syntaxes wins unless `peer` prefers.

    `who`: the user that the caller has shown to be, whose permissions count too.
    """
    allowed = _allowed(peer, who)
    results, contexts = [], {}
    receives = frozenset(role.sop_class_uid for role in request.user.roles if role.scp)
    extended = dict(_extended(request.user.extended, services))
    for proposed in request.contexts:
        abstract = proposed.abstract_syntax
        result, service = _answer(proposed, services, peer, allowed, receives=abstract in receives)
        results.append(result)
        if service is not None:
            options = agreed(extended.get(abstract, b""), service)
            context = Context(proposed.context_id, abstract, result.transfer_syntax, options)
            contexts[proposed.context_id] = (context, service)
    accepted = {context.abstract_syntax: service for context, service in contexts.values()}
    user = UserInformation(
        max_pdu=limits.max_pdu,
        implementation_class_uid=uids.IMPLEMENTATION_CLASS_UID,
        implementation_version=uids.IMPLEMENTATION_VERSION_NAME,
        window=_window(request.user.window, limits),
        roles=_roles(request.user.roles, accepted),
        extended=tuple((uid, value) for uid, value in extended.items() if uid in accepted),
        identity_answer=_identity_answer(request.user.identity, who),
    )
    return AssociateAccept(request.called, request.calling, tuple(results), user), contexts


def _answer(
    proposed: ProposedContext,
    services: Mapping[str, Service],
    peer: Peer | None,
    allowed: frozenset[str],
    *,
    receives: bool,
) -> tuple[ContextResult, Service | None]:
    """`receives`: the requestor would be SCP of the class, as C-GET needs it."""
    service = service_for(services, proposed.abstract_syntax, peer)
    if service is None:
        return _refused(proposed, Result.ABSTRACT_SYNTAX_NOT_SUPPORTED), None
    if service.name not in allowed:
        if not (receives and service is STORE and "get" in allowed):
            return _refused(proposed, Result.USER_REJECTION), None
        service = RECEIVE
    syntax = _choose(proposed.transfer_syntaxes, service, peer, receives=receives)
    if syntax is None:
        return _refused(proposed, Result.TRANSFER_SYNTAXES_NOT_SUPPORTED), None
    return ContextResult(proposed.context_id, Result.ACCEPTANCE, syntax), service


def _allowed(peer: Peer | None, who: Who | None) -> frozenset[str]:
    """The services of the peer's entry, and of those only what the user's roles permit."""
    of_peer = peer.services if peer is not None else SERVICES
    return of_peer if who is None else frozenset(word for word in of_peer if who.may(NEEDS.get(word, SIGNED_IN)))


def _identity_answer(asked: Identity | None, who: Who | None) -> bytes | None:
    """What a positive answer carries: nothing, but that it is one (PS3.7 table D.3-15)."""
    return b"" if asked is not None and asked.answer_wanted and who is not None else None


def _refused(proposed: ProposedContext, result: Result) -> ContextResult:
    return ContextResult(proposed.context_id, result, IMPLICIT_LE)  # not significant, but must be there


def _choose(offered: tuple[str, ...], service: Service, peer: Peer | None, *, receives: bool) -> str | None:
    """Of a context by which we send, the syntax that any object can be written in, where there is one."""
    usable = [uid for uid in offered if uid in service.transfer_syntaxes]
    preferred = peer.transfer_syntaxes if peer is not None else ()
    if receives:
        preferred += CONVERTIBLE
    return next((uid for uid in preferred if uid in usable), usable[0] if usable else None)


def _extended(asked: tuple[tuple[str, bytes], ...], services: Mapping[str, Service]) -> Iterator[tuple[str, bytes]]:
    """The answer to each proposal of a service class that has options: those that we have and were asked for."""
    for uid, wanted in asked:
        service = services.get(uid)
        if service is not None and service.options:
            have = [
                bool(word) and place < len(wanted) and wanted[place] == 1 for place, word in enumerate(service.options)
            ]
            yield uid, bytes(have[: len(wanted)]).ljust(min(len(wanted), MOST_OPTIONS), b"\0")


def agreed(answer: bytes, service: Service) -> frozenset[str]:
    """The words of the options that an answer grants."""
    return frozenset(word for word, given in zip(service.options, answer, strict=False) if given)


def _window(asked: tuple[int, int] | None, limits: Limits) -> tuple[int, int] | None:
    """They may invoke as many as asked and we can take; we invoke nothing but answers (PS3.7 D.3.3.3)."""
    if asked is None:
        return None
    return min(asked[0] or limits.operations, limits.operations), 1


def _roles(asked: tuple[Role, ...], accepted: Mapping[str, Service]) -> tuple[Role, ...]:
    """The requestor stays SCU where it asked to be, and is SCP of what it wants to be sent by C-GET."""
    stores = (STORE, RECEIVE)
    return tuple(
        Role(role.sop_class_uid, role.scu, role.scp and accepted[role.sop_class_uid] in stores)
        for role in asked
        if role.sop_class_uid in accepted
    )
