"""Framing of files: whatever the sizes, the receiver's protocol reads the very bytes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs.dimse import command, framing
from pacs.dimse.associate import AssociateAccept, AssociateRequest, ContextResult, ProposedContext, UserInformation
from pacs.dimse.command import DATA_SET, Field
from pacs.dimse.limits import Limits
from pacs.dimse.protocol import CommandReceived, DataReceived, Protocol
from pacs.errors import Damaged
from pacs.services.outgoing import Body

COMMAND = command.encode({"CommandField": Field.C_STORE_RQ, "MessageID": 7, "CommandDataSetType": DATA_SET})


def established(max_pdu: int) -> Protocol:
    """The receiving half of an association with context 1."""
    receiver = Protocol(Limits(max_pdu=max_pdu or 1 << 20))
    sender = Protocol(Limits(), requestor=True)
    proposed = (ProposedContext(1, "1.2.840.10008.5.1.4.1.1.2", ("1.2.840.10008.1.2.1",)),)
    receiver.receive(memoryview(sender.request(AssociateRequest("B", "A", proposed, UserInformation(0, "1.2")))), 0)
    receiver.accept(AssociateAccept("B", "A", (ContextResult(1, 0, "1.2.840.10008.1.2.1"),), UserInformation()))
    return receiver


def received(receiver: Protocol, sent: bytes) -> tuple[int, bytes]:
    """Message ID and data set of the one message in `sent`."""
    number, data, position, last = 0, b"", 0, False
    while position < len(sent):
        event, position = receiver.receive(memoryview(sent), position)
        if isinstance(event, CommandReceived):
            number = event.command.message_id
        elif isinstance(event, DataReceived):
            assert not last, "something follows the last fragment"
            data, last = data + bytes(event.data), event.last
    assert last
    return number, data


@given(
    size=st.sampled_from([0, 2, 3, 57, 58, 59, 4_000, 70_001]) | st.integers(0, 5_000),
    max_pdu=st.sampled_from([0, 64, 65, 128, 4_096, 16_384, 131_072]),
    offset=st.integers(0, 300),
)
def test_a_file_arrives_byte_for_byte(tmp_path_factory: pytest.TempPathFactory, size: int, max_pdu: int, offset: int):
    path = tmp_path_factory.getbasetemp() / "framed"
    content = bytes(number * 31 % 251 for number in range(offset + size))
    path.write_bytes(content)
    with path.open("rb", buffering=0) as file:
        sent = b"".join(framing.pieces(1, COMMAND, Body(file, offset, size, True), max_pdu))
    assert received(established(max_pdu), sent) == (7, content[offset:])


def test_a_large_file_comes_in_pieces_of_bounded_size(tmp_path: Path) -> None:
    path = tmp_path / "large"
    content = bytes(range(256)) * 20_000
    path.write_bytes(content)
    with path.open("rb", buffering=0) as file:
        sent = list(framing.pieces(1, COMMAND, Body(file, 0, len(content), True), 16_384))
    assert len(sent) == 5
    assert max(map(len, sent)) < framing.CHUNK + 64 * 12 + 200
    assert received(established(16_384), b"".join(sent)) == (7, content)


def test_a_file_that_is_cut_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "cut"
    path.write_bytes(b"x" * 1_000)
    with path.open("rb", buffering=0) as file, pytest.raises(Damaged):
        list(framing.pieces(1, COMMAND, Body(file, 0, 2_000, True), 256))
