"""The association's states as a table (PS3.8 9.2, table 9-10), for the side that accepts and the side that requests.

Transport events and timers are the reactor's: whatever their state, they end in CLOSED.
"""

from enum import Enum, auto

from pacs.dimse.pdu import PduType


class State(Enum):
    """PS3.8 9.2.1; the number of the standard's state behind each."""

    AWAITING_REQUEST = auto()  # 2: connection open, A-ASSOCIATE-RQ expected
    DECIDING = auto()  # 3: request received, our answer awaited
    CONNECTED = auto()  # 4: our side has connected and not yet asked
    AWAITING_ANSWER = auto()  # 5: our request is out
    ESTABLISHED = auto()  # 6
    RELEASING = auto()  # 7: our A-RELEASE-RQ is out
    PEER_RELEASING = auto()  # 8: their A-RELEASE-RQ is in, our answer awaited
    COLLISION_REQUESTOR = auto()  # 9: both asked for release; we opened the association and answer first
    COLLISION_ACCEPTOR = auto()  # 10: both asked; they opened it, their answer is awaited
    COLLISION_ANSWERED = auto()  # 11: requestor's answer is out, theirs awaited
    COLLISION_ANSWERING = auto()  # 12: acceptor has their answer and owes its own
    CLOSING = auto()  # 13: last word said, waiting for the peer to close
    CLOSED = auto()  # 1


class Send(Enum):
    """What our side may say."""

    REQUEST = auto()
    ACCEPT = auto()
    REJECT = auto()
    DATA = auto()
    RELEASE = auto()
    RELEASE_ANSWER = auto()
    ABORT = auto()


Input = PduType | Send

_S = State
RECEIVED: dict[tuple[State, PduType], State] = {
    (_S.AWAITING_REQUEST, PduType.ASSOCIATE_RQ): _S.DECIDING,
    (_S.AWAITING_ANSWER, PduType.ASSOCIATE_AC): _S.ESTABLISHED,
    (_S.AWAITING_ANSWER, PduType.ASSOCIATE_RJ): _S.CLOSED,
    (_S.ESTABLISHED, PduType.DATA): _S.ESTABLISHED,
    (_S.ESTABLISHED, PduType.RELEASE_RQ): _S.PEER_RELEASING,
    (_S.RELEASING, PduType.DATA): _S.RELEASING,
    (_S.RELEASING, PduType.RELEASE_RP): _S.CLOSED,
    (_S.COLLISION_ACCEPTOR, PduType.RELEASE_RP): _S.COLLISION_ANSWERING,
    (_S.COLLISION_ANSWERED, PduType.RELEASE_RP): _S.CLOSED,
    # RELEASE_RQ in RELEASING depends on who opened the association: see `after_receiving`
    **{(state, PduType.ABORT): _S.CLOSED for state in State if state is not _S.CLOSED},
}
SENT: dict[tuple[State, Send], State] = {
    (_S.DECIDING, Send.ACCEPT): _S.ESTABLISHED,
    (_S.DECIDING, Send.REJECT): _S.CLOSING,
    (_S.CONNECTED, Send.REQUEST): _S.AWAITING_ANSWER,
    (_S.ESTABLISHED, Send.DATA): _S.ESTABLISHED,
    (_S.ESTABLISHED, Send.RELEASE): _S.RELEASING,
    (_S.PEER_RELEASING, Send.DATA): _S.PEER_RELEASING,
    (_S.PEER_RELEASING, Send.RELEASE_ANSWER): _S.CLOSING,
    (_S.COLLISION_REQUESTOR, Send.RELEASE_ANSWER): _S.COLLISION_ANSWERED,
    (_S.COLLISION_ANSWERING, Send.RELEASE_ANSWER): _S.CLOSING,
    **{(state, Send.ABORT): _S.CLOSING for state in State if state not in (_S.CLOSED, _S.CLOSING)},
}
OVER = frozenset({State.CLOSING, State.CLOSED})


def after_receiving(state: State, kind: PduType, *, requestor: bool) -> State | None:
    """The state after this PDU, or None where the table forbids it (action AA-8: abort)."""
    if state is State.RELEASING and kind is PduType.RELEASE_RQ:
        return State.COLLISION_REQUESTOR if requestor else State.COLLISION_ACCEPTOR
    return RECEIVED.get((state, kind))
