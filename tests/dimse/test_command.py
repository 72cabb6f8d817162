from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode as their_decode
from pynetdicom.dsutils import encode as their_encode

from pacs.dimse import command
from pacs.dimse.command import Command, Field
from pacs.dimse.pdu import ProtocolError


@given(st.binary(max_size=300))
def test_garbage_raises_nothing_but_protocol_errors(data: bytes) -> None:
    with suppress(ProtocolError):
        command.decode(data)


@given(
    st.integers(0, 65_535),
    st.from_regex(r"[0-9.]{1,64}", fullmatch=True),
    st.lists(st.integers(0, 2**32 - 1), max_size=4).map(tuple),
)
def test_a_command_comes_back_as_it_was(number: int, uid: str, tags: tuple[int, ...]) -> None:
    values = {
        "CommandField": number,
        "CommandDataSetType": 0x0101,
        "MessageID": number,
        "AffectedSOPInstanceUID": uid,
        "OffendingElement": tags,
        "ErrorComment": "why",
    }
    assert command.decode(command.encode(values)).values == values


def test_another_library_reads_and_writes_the_same_bytes() -> None:
    values = {
        "CommandField": 0x8001,
        "CommandDataSetType": 0x0101,
        "MessageIDBeingRespondedTo": 7,
        "Status": 0xC000,
        "ErrorComment": "unreadable",
        "AffectedSOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        "AffectedSOPInstanceUID": "1.2.3",
    }
    ours = command.encode(values)
    theirs = their_decode(BytesIO(ours), True, True)
    assert {keyword: getattr(theirs, keyword) for keyword in values} == values
    rest = Dataset({element.tag: element for element in theirs if element.tag != 0})
    assert their_encode(rest, True, True) == ours[12:]
    assert theirs.CommandGroupLength == len(ours) - 12


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0\1\2\0\0\0",
        command.encode({"CommandField": 1}),
        b"\x08\0\0\1\2\0\0\0\1\0" + command.encode({"CommandField": 1, "CommandDataSetType": 1}),
        command.encode({"CommandField": 1, "CommandDataSetType": 1}) + b"\0\0\0\x09\xff\xff\xff\xff",
        command.encode({"CommandDataSetType": 1}) + b"\0\0\0\1\1\0\0\0\1",
    ],
    ids=["empty", "value missing", "no data set type", "another group", "four gigabytes", "number of one byte"],
)
def test_a_malformed_command_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        command.decode(data)


def test_a_response_echoes_only_what_is_a_uid() -> None:
    request = Command({"CommandField": 1, "AffectedSOPClassUID": "1.2.3", "AffectedSOPInstanceUID": "../../etc/x"})
    answer = command.decode(command.response(request, 0x0117))
    assert answer.field == Field.C_STORE_RSP
    assert answer.text("AffectedSOPClassUID") == "1.2.3"
    assert "AffectedSOPInstanceUID" not in answer.values
