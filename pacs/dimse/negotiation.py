"""Whether an association is taken, and with which presentation contexts (PS3.8 7.1, PS3.7 D.3). Pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum

from pacs.dimse.associate import (
    APPLICATION_CONTEXT,
    PROTOCOL_VERSION,
    AssociateAccept,
    AssociateRequest,
    ContextResult,
    ProposedContext,
    Role,
    UserInformation,
)
from pacs.dimse.limits import Limits
from pacs.dimse.operation import Context
from pacs.dimse.pdu import Rejection
from pacs.dimse.services import Service, service_for
from pacs.domain import uids
from pacs.domain.syntaxes import IMPLICIT_LE
from pacs.services.peers import Peer

MIN_PEER_PDU = 64  # a peer that takes less than this a PDU cannot be answered sensibly


class Refusal(Enum):
    """Why an association is rejected: our word, and result, source, reason of PS3.8 table 9-21."""

    PROTOCOL_VERSION = Rejection(1, 2, 2)
    APPLICATION_CONTEXT = Rejection(1, 1, 2)
    CALLED_TITLE = Rejection(1, 1, 7)
    CALLING_TITLE = Rejection(1, 1, 3)
    IDENTITY = Rejection(1, 1, 1)
    PDU_SIZE = Rejection(1, 2, 1)
    TOO_MANY = Rejection(2, 3, 2)

    @property
    def word(self) -> str:
        """For logs and counters."""
        return self.name.lower().replace("_", "-")


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
    request: AssociateRequest, title: str, peer: Peer | None, *, local: bool, load: Load, limits: Limits
) -> Refusal | None:
    """The first reason to reject, or None. `peer` is the known peer whose title and network fit; `local`: loopback."""
    checks = (
        (not request.protocol_version & PROTOCOL_VERSION, Refusal.PROTOCOL_VERSION),
        (request.application_context != APPLICATION_CONTEXT, Refusal.APPLICATION_CONTEXT),
        (request.called != title, Refusal.CALLED_TITLE),
        (peer is None and not local, Refusal.CALLING_TITLE),
        (not request.calling, Refusal.CALLING_TITLE),
        # there are no accounts yet, so an identity that is required cannot be verified, whatever it is
        (peer is not None and peer.require_identity, Refusal.IDENTITY),
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
    request: AssociateRequest, services: Mapping[str, Service], peer: Peer | None, limits: Limits
) -> tuple[AssociateAccept, dict[int, tuple[Context, Service]]]:
    """The acceptance, and its contexts by ID. The requestor's order of transfer syntaxes wins unless `peer` prefers."""
    results, contexts = [], {}
    for proposed in request.contexts:
        result, service = _answer(proposed, services, peer)
        results.append(result)
        if service is not None:
            context = Context(proposed.context_id, proposed.abstract_syntax, result.transfer_syntax)
            contexts[proposed.context_id] = (context, service)
    user = UserInformation(
        max_pdu=limits.max_pdu,
        implementation_class_uid=uids.IMPLEMENTATION_CLASS_UID,
        implementation_version=uids.IMPLEMENTATION_VERSION_NAME,
        window=_window(request.user.window, limits),
        roles=_roles(request.user.roles, {context.abstract_syntax for context, _ in contexts.values()}),
    )
    return AssociateAccept(request.called, request.calling, tuple(results), user), contexts


def _answer(
    proposed: ProposedContext, services: Mapping[str, Service], peer: Peer | None
) -> tuple[ContextResult, Service | None]:
    service = service_for(services, proposed.abstract_syntax, peer)
    if service is None:
        return _refused(proposed, Result.ABSTRACT_SYNTAX_NOT_SUPPORTED), None
    if peer is not None and service.name not in peer.services:
        return _refused(proposed, Result.USER_REJECTION), None
    syntax = _choose(proposed.transfer_syntaxes, service, peer)
    if syntax is None:
        return _refused(proposed, Result.TRANSFER_SYNTAXES_NOT_SUPPORTED), None
    return ContextResult(proposed.context_id, Result.ACCEPTANCE, syntax), service


def _refused(proposed: ProposedContext, result: Result) -> ContextResult:
    return ContextResult(proposed.context_id, result, IMPLICIT_LE)  # not significant, but must be there


def _choose(offered: tuple[str, ...], service: Service, peer: Peer | None) -> str | None:
    usable = [uid for uid in offered if uid in service.transfer_syntaxes]
    preferred = peer.transfer_syntaxes if peer is not None else ()
    return next((uid for uid in preferred if uid in usable), usable[0] if usable else None)


def _window(asked: tuple[int, int] | None, limits: Limits) -> tuple[int, int] | None:
    """They may invoke as many as asked and we can take; we invoke nothing but answers (PS3.7 D.3.3.3)."""
    if asked is None:
        return None
    return min(asked[0] or limits.operations, limits.operations), 1


def _roles(asked: tuple[Role, ...], accepted: set[str]) -> tuple[Role, ...]:
    """The requestor stays SCU where it asked to be; we send nothing yet, so nobody needs to be our SCP."""
    return tuple(Role(role.sop_class_uid, role.scu, False) for role in asked if role.sop_class_uid in accepted)
