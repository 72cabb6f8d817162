"""THE table of services: which abstract syntaxes we serve, in which transfer syntaxes, by which operations.

A service that is not built has no row, so its contexts are refused and never half answered.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pacs.dimse import get, move, mpps, worklist
from pacs.dimse.command import Command, Field
from pacs.dimse.commit import PUSH_MODEL, Commit
from pacs.dimse.echo import Echo
from pacs.dimse.find import MODELS, Find
from pacs.dimse.get import Get
from pacs.dimse.move import Move
from pacs.dimse.mpps import CreateStep, SetStep
from pacs.dimse.operation import Context, Link, Operation
from pacs.dimse.store import Store
from pacs.dimse.worklist import FindWorklist
from pacs.domain import syntaxes, uids
from pacs.services.peers import Peer

PLAIN = (syntaxes.IMPLICIT_LE, syntaxes.EXPLICIT_LE, syntaxes.EXPLICIT_BE)


@dataclass(frozen=True, slots=True)
class Service:
    """`name` is the word of peers.toml; `operations` says which requests a context of the service carries.

    `options`: what extended negotiation may grant, by the place of its byte (PS3.4 C.5); empty: not this one.
    """

    name: str
    operations: Mapping[int, Callable[[Link, Context, Command], Operation]]
    transfer_syntaxes: frozenset[str]
    options: tuple[str, ...] = ()


ECHO = Service("echo", {Field.C_ECHO_RQ: Echo}, frozenset(PLAIN))
STORE = Service("store", {Field.C_STORE_RQ: Store}, frozenset(syntaxes.presentable()))
# for a peer that may not store here: it is sent objects by C-GET
RECEIVE = Service("store", {}, frozenset(syntaxes.presentable()))
# PS3.4 C.5.1.1, C.5.2.1: relational queries, combined date and time, fuzzy matching of names
FIND = Service("find", {Field.C_FIND_RQ: Find}, frozenset(PLAIN), ("relational", "combined", "fuzzy"))
MOVE = Service("move", {Field.C_MOVE_RQ: Move}, frozenset(PLAIN), ("relational",))
COMMIT = Service("commit", {Field.N_ACTION_RQ: Commit}, frozenset(PLAIN))
WORKLIST = Service("worklist", {Field.C_FIND_RQ: FindWorklist}, frozenset(PLAIN))
MPPS = Service("mpps", {Field.N_CREATE_RQ: CreateStep, Field.N_SET_RQ: SetStep}, frozenset(PLAIN))
GET = Service("get", {Field.C_GET_RQ: Get}, frozenset(PLAIN), ("relational",))


def catalogue() -> dict[str, Service]:
    """Abstract syntax -> service, for every peer."""
    return {
        uids.VERIFICATION: ECHO,
        **dict.fromkeys(uids.storage_classes(), STORE),
        **dict.fromkeys(MODELS, FIND),
        **dict.fromkeys(move.MODELS, MOVE),
        **dict.fromkeys(get.MODELS, GET),
        PUSH_MODEL: COMMIT,
        worklist.MODEL: WORKLIST,
        mpps.SOP_CLASS: MPPS,
    }


def service_for(services: Mapping[str, Service], abstract_syntax: str, peer: Peer | None) -> Service | None:
    """The service of an abstract syntax, private storage classes of the peer included."""
    private = peer is not None and abstract_syntax in peer.storage_classes
    return STORE if private else services.get(abstract_syntax)
