import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pacs.dimse import pdu, protocol
from pacs.dimse.associate import AssociateAccept, AssociateRequest, ContextResult, ProposedContext, UserInformation
from pacs.dimse.command import DATA_SET, NO_DATA_SET, Field, encode
from pacs.dimse.limits import Limits
from pacs.dimse.pdu import HEADER, PDV_HEADER, AbortReason, PduType, ProtocolError
from pacs.dimse.protocol import CommandReceived, DataReceived, Event, Protocol
from pacs.dimse.states import RECEIVED, SENT, Send, State, after_receiving

LIMITS = Limits(max_pdu=4_096)
USER = UserInformation(max_pdu=1_024, implementation_class_uid="1.2.3")
CONTEXTS = (ProposedContext(1, "1.2.840.10008.1.1", ("1.2.840.10008.1.2",)), ProposedContext(3, "1.2.3", ("1.2.4",)))
REQUEST = AssociateRequest("US", "THEM", CONTEXTS, USER)
ACCEPT = AssociateAccept("US", "THEM", (ContextResult(1, 0, "1.2.840.10008.1.2"), ContextResult(3, 3, "1.2")), USER)


def established() -> Protocol:
    acceptor, requestor = Protocol(LIMITS), Protocol(LIMITS, requestor=True)
    feed(acceptor, requestor.request(REQUEST))
    acceptor.accept(ACCEPT)
    return acceptor


def feed(side: Protocol, data: bytes, cuts: list[int] | None = None) -> list[Event]:
    """The events of `data` received in pieces of the given sizes."""
    events: list[Event] = []
    sizes = iter(cuts or ())
    while data:
        size = next(sizes, len(data))
        view, position = memoryview(bytearray(data[:size])), 0
        while position < len(view):
            event, position = side.receive(view, position)
            if isinstance(event, DataReceived):
                event = DataReceived(memoryview(bytes(event.data)), event.last)
            if event is not None:
                events.append(event)
        data = data[size:]
    return events


def joined(events: list[Event]) -> list[object]:
    """Events with each data set's pieces put together."""
    whole: list[object] = []
    data = b""
    for event in events:
        if isinstance(event, DataReceived):
            data += event.data
            if event.last:
                whole.append(data)
                data = b""
        else:
            whole.append(event)
    assert data == b""
    return whole


def store_message(data: bytes, max_pdu: int = 1_024) -> bytes:
    return pdu.message(1, encode({"CommandField": Field.C_STORE_RQ, "CommandDataSetType": DATA_SET}), data, max_pdu)


ECHO = pdu.message(1, encode({"CommandField": Field.C_ECHO_RQ, "CommandDataSetType": NO_DATA_SET}), None, 1_024)


@given(st.lists(st.integers(1, 700), max_size=60), st.binary(max_size=5_000), st.integers(20, 1_500))
def test_any_fragmentation_gives_the_same_events(cuts: list[int], data: bytes, max_pdu: int) -> None:
    stream = ECHO + store_message(data, max_pdu) + ECHO + pdu.RELEASE_RQ
    whole, cut = established(), established()
    assert joined(feed(whole, stream)) == joined(feed(cut, stream, cuts))
    assert whole.state is cut.state is State.PEER_RELEASING
    assert not cut.within_pdu
    assert not cut.within_message


@given(st.binary(max_size=5_000), st.integers(20, 1_500))
def test_a_data_set_arrives_byte_for_byte(data: bytes, max_pdu: int) -> None:
    command, received = joined(feed(established(), store_message(data, max_pdu)))
    assert isinstance(command, CommandReceived)
    assert received == data


@given(st.lists(st.integers(1, 90), max_size=20))
def test_an_association_is_requested_in_any_pieces(cuts: list[int]) -> None:
    acceptor = Protocol(LIMITS)
    stream = Protocol(LIMITS, requestor=True).request(REQUEST)
    assert feed(acceptor, stream, cuts) == [protocol.Requested(REQUEST)]
    assert acceptor.state is State.DECIDING


kinds = st.sampled_from([bytes([kind]) for kind in range(9)])


@settings(max_examples=300)
@given(st.lists(st.tuples(kinds, st.binary(max_size=120)), max_size=6), st.booleans(), st.lists(st.integers(1, 50)))
@example([(b"\x04", b"\0\0\0\0\0")], True, [])
def test_garbage_raises_nothing_but_protocol_errors(
    parts: list[tuple[bytes, bytes]], open_: bool, cuts: list[int]
) -> None:
    side = established() if open_ else Protocol(LIMITS)
    stream = b"".join(kind + b"\0" + len(rest).to_bytes(4, "big") + rest for kind, rest in parts)
    with suppress(ProtocolError):
        feed(side, stream, cuts)
    side.abort()
    assert side.state in (State.CLOSING, State.CLOSED)


@settings(max_examples=300)
@given(st.data())
def test_damaged_streams_raise_nothing_but_protocol_errors(data: st.DataObject) -> None:
    stream = bytearray(ECHO + store_message(b"x" * 300) + pdu.RELEASE_RQ)
    for _ in range(data.draw(st.integers(1, 5))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ProtocolError):
        feed(established(), bytes(stream), data.draw(st.lists(st.integers(1, 99), max_size=9)))


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_a_garbage_association_request_raises_nothing_but_protocol_errors(rest: bytes) -> None:
    body = REQUEST.called.encode() + rest
    with suppress(ProtocolError):
        feed(Protocol(LIMITS), HEADER.pack(PduType.ASSOCIATE_RQ, len(body)) + body)


@pytest.mark.parametrize("kind", [PduType.ASSOCIATE_RQ, PduType.DATA])
def test_a_length_of_four_gigabytes_is_refused_with_nothing_allocated(kind: PduType) -> None:
    side = established() if kind is PduType.DATA else Protocol(LIMITS)
    tracemalloc.start()
    with pytest.raises(ProtocolError):
        feed(side, HEADER.pack(kind, 0xFFFF_FFFF) + b"x" * 100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


def test_a_pdu_one_byte_over_the_announced_maximum_is_refused() -> None:
    fits = HEADER.pack(PduType.DATA, LIMITS.max_pdu) + PDV_HEADER.pack(LIMITS.max_pdu - 4, 1, pdu.COMMAND_BIT)
    feed(established(), fits)
    with pytest.raises(ProtocolError):
        feed(established(), HEADER.pack(PduType.DATA, LIMITS.max_pdu + 1))


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", AbortReason.UNRECOGNIZED_PDU),
        (b"\x16\x03\x01\x02\x00\x01", AbortReason.UNRECOGNIZED_PDU),
        (pdu.RELEASE_RP, AbortReason.UNEXPECTED_PDU),
        (HEADER.pack(PduType.RELEASE_RQ, 5) + b"12345", AbortReason.INVALID_PARAMETER),
        (HEADER.pack(PduType.DATA, 10) + PDV_HEADER.pack(9, 1, 1) + b"1234", AbortReason.INVALID_PARAMETER),
        (HEADER.pack(PduType.DATA, 10) + PDV_HEADER.pack(1, 1, 1) + b"1234", AbortReason.INVALID_PARAMETER),
        (HEADER.pack(PduType.DATA, 10) + PDV_HEADER.pack(5, 1, 1) + b"1234", AbortReason.INVALID_PARAMETER),
        (HEADER.pack(PduType.DATA, 8) + PDV_HEADER.pack(4, 3, 1) + b"12", AbortReason.INVALID_PARAMETER),
        (HEADER.pack(PduType.DATA, 8) + PDV_HEADER.pack(4, 1, 0) + b"12", AbortReason.INVALID_PARAMETER),
        (HEADER.pack(PduType.DATA, 8) + PDV_HEADER.pack(4, 1, 3) + b"12", AbortReason.INVALID_PARAMETER),
    ],
    ids=[
        "http", "tls", "unexpected", "release of five bytes", "value longer than pdu", "value without its header",
        "rest too short for a value", "context not accepted", "data without command", "garbage command",
    ],
)  # fmt: skip
def test_a_peer_that_leaves_the_protocol_is_told_why(stream: bytes, reason: AbortReason) -> None:
    side = established()
    with pytest.raises(ProtocolError) as caught:
        feed(side, stream)
    assert caught.value.reason is reason
    assert side.abort(reason) == bytes([7, 0, 0, 0, 0, 4, 0, 0, 2, reason])
    assert side.abort(reason) == b""


def test_a_command_that_never_ends_is_refused() -> None:
    side = established()
    piece = HEADER.pack(PduType.DATA, 1_006) + PDV_HEADER.pack(1_002, 1, pdu.COMMAND_BIT) + bytes(1_000)
    with pytest.raises(ProtocolError, match="too long"):
        feed(side, piece * (LIMITS.max_command // 1_000 + 1))


def test_a_release_in_the_middle_of_a_message_is_refused() -> None:
    stream = store_message(b"x" * 3_000)
    _, length = HEADER.unpack_from(stream)
    with pytest.raises(ProtocolError):
        feed(established(), stream[: HEADER.size + length] + pdu.RELEASE_RQ)


def test_a_second_association_request_is_refused() -> None:
    with pytest.raises(ProtocolError):
        feed(established(), Protocol(LIMITS, requestor=True).request(REQUEST))


def test_both_sides_may_ask_for_release_at_once() -> None:
    acceptor, requestor = Protocol(LIMITS), Protocol(LIMITS, requestor=True)
    feed(acceptor, requestor.request(REQUEST))
    feed(requestor, acceptor.accept(ACCEPT))
    ours, theirs = requestor.release(), acceptor.release()
    feed(acceptor, ours)
    feed(requestor, theirs)
    feed(acceptor, requestor.release_answer())
    feed(requestor, acceptor.release_answer())
    assert requestor.state is State.CLOSED
    assert acceptor.state is State.CLOSING


def test_every_state_ends_by_abort() -> None:
    for state in set(State) - {State.CLOSED}:
        assert after_receiving(state, PduType.ABORT, requestor=False) is State.CLOSED
        assert state is State.CLOSING or SENT[state, Send.ABORT] is State.CLOSING


def test_every_state_but_the_first_ones_is_reached() -> None:
    reached = {*RECEIVED.values(), *SENT.values(), State.COLLISION_REQUESTOR, State.COLLISION_ACCEPTOR}
    assert reached | {State.AWAITING_REQUEST, State.CONNECTED} == set(State)


def test_what_the_state_forbids_is_a_bug_of_ours_and_said_so() -> None:
    with pytest.raises(ValueError, match="AWAITING_REQUEST"):
        Protocol(LIMITS).message(1, b"")
