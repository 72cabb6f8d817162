"""DIMSE command sets (PS3.7 6.3, E): Implicit VR Little Endian, group 0000 only. Bytes to values and back, no I/O."""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from pydicom.datadict import dictionary_VR, tag_for_keyword

from pacs.dimse.pdu import ProtocolError
from pacs.domain.uids import is_uid

Value = int | str | tuple[int, ...]

NO_DATA_SET = 0x0101
DATA_SET = 0x0001
RESPONSE = 0x8000  # a response's command field is its request's with this bit

KEYWORDS = (
    "AffectedSOPClassUID",
    "RequestedSOPClassUID",
    "CommandField",
    "MessageID",
    "MessageIDBeingRespondedTo",
    "MoveDestination",
    "Priority",
    "CommandDataSetType",
    "Status",
    "OffendingElement",
    "ErrorComment",
    "ErrorID",
    "AffectedSOPInstanceUID",
    "RequestedSOPInstanceUID",
    "EventTypeID",
    "AttributeIdentifierList",
    "ActionTypeID",
    "NumberOfRemainingSuboperations",
    "NumberOfCompletedSuboperations",
    "NumberOfFailedSuboperations",
    "NumberOfWarningSuboperations",
    "MoveOriginatorApplicationEntityTitle",
    "MoveOriginatorMessageID",
)


class Field(IntEnum):
    """Command Field (0000,0100), PS3.7 E.1."""

    C_STORE_RQ = 0x0001
    C_GET_RQ = 0x0010
    C_FIND_RQ = 0x0020
    C_MOVE_RQ = 0x0021
    C_ECHO_RQ = 0x0030
    N_EVENT_REPORT_RQ = 0x0100
    N_GET_RQ = 0x0110
    N_SET_RQ = 0x0120
    N_ACTION_RQ = 0x0130
    N_CREATE_RQ = 0x0140
    N_DELETE_RQ = 0x0150
    C_CANCEL_RQ = 0x0FFF
    C_STORE_RSP = C_STORE_RQ | RESPONSE
    C_FIND_RSP = C_FIND_RQ | RESPONSE
    C_ECHO_RSP = C_ECHO_RQ | RESPONSE


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"{keyword} is not in the DICOM dictionary")
    return tag


_BY_ELEMENT = {_tag(keyword): (keyword, dictionary_VR(_tag(keyword))) for keyword in KEYWORDS}
_BY_KEYWORD = {keyword: (element, vr) for element, (keyword, vr) in _BY_ELEMENT.items()}
_ELEMENT = struct.Struct("<HHL")
_GROUP_LENGTH = struct.Struct("<HHLL")
_SHORT = struct.Struct("<H")
_PAIR = struct.Struct("<HH")


@dataclass(frozen=True, slots=True)
class Command:
    """A command set by keyword: numbers for US, tuples of tags for AT, text for the rest."""

    values: Mapping[str, Value]

    @property
    def field(self) -> int:
        """Command Field, 0 where it is missing."""
        return self.number("CommandField")

    @property
    def message_id(self) -> int:
        """Message ID of a request."""
        return self.number("MessageID")

    @property
    def has_data_set(self) -> bool:
        """A data set follows on the same context (PS3.7 9.1)."""
        return self.number("CommandDataSetType", NO_DATA_SET) != NO_DATA_SET

    def number(self, keyword: str, default: int = 0) -> int:
        """The value of a US element."""
        value = self.values.get(keyword, default)
        return value if isinstance(value, int) else default

    def text(self, keyword: str) -> str:
        """The value of a UI, AE, LO or SH element, empty where it is missing."""
        value = self.values.get(keyword, "")
        return value if isinstance(value, str) else ""


def decode(data: bytes | bytearray) -> Command:
    """A whole command set. Raises ProtocolError when lengths, the group or a number are wrong."""
    values: dict[str, Value] = {}
    offset, end = 0, len(data)
    while offset < end:
        if offset + 8 > end:
            raise ProtocolError("A command set ends within an element header.")
        group, element, length = _ELEMENT.unpack_from(data, offset)
        offset += 8
        if group != 0 or offset + length > end:
            raise ProtocolError("A command set holds another group or an element longer than itself.")
        keyword, read = _READERS.get(element, _UNKNOWN)
        if read is not None:
            values[keyword] = read(data[offset : offset + length])
        offset += length
    if "CommandField" not in values or "CommandDataSetType" not in values:
        raise ProtocolError("A command set lacks its Command Field or its Command Data Set Type.")
    return Command(values)


def _read_number(raw: bytes | bytearray) -> int:
    if len(raw) < 2:
        raise ProtocolError("A number of a command set is too short.")
    return raw[0] | raw[1] << 8


def _read_tags(raw: bytes | bytearray) -> tuple[int, ...]:
    return tuple(group << 16 | element for group, element in _PAIR.iter_unpack(raw[: len(raw) // 4 * 4]))


def _read_text(raw: bytes | bytearray) -> str:
    return raw.decode("ascii", "replace").strip("\0 ")


_READER_OF: dict[str, Callable[[bytes | bytearray], Value]] = {"US": _read_number, "AT": _read_tags}
_READERS = {element: (keyword, _READER_OF.get(vr, _read_text)) for element, (keyword, vr) in _BY_ELEMENT.items()}
_UNKNOWN = ("", None)


def encode(values: Mapping[str, Value]) -> bytes:
    """A command set with its group length; elements are put in order. Text is ASCII."""
    parts = []
    for keyword, value in sorted(values.items(), key=_element_of):
        element, vr = _BY_KEYWORD[keyword]
        raw = _encode_value(vr, value)
        parts.append(_ELEMENT.pack(0, element, len(raw)) + raw)
    body = b"".join(parts)
    return _GROUP_LENGTH.pack(0, 0, 4, len(body)) + body


def _element_of(item: tuple[str, Value]) -> int:
    return _BY_KEYWORD[item[0]][0]


def _encode_value(vr: str, value: Value) -> bytes:
    if isinstance(value, int):
        return _SHORT.pack(value)
    if isinstance(value, tuple):
        return b"".join(_PAIR.pack(tag >> 16, tag & 0xFFFF) for tag in value)
    raw = value.encode("ascii", "replace")
    return raw + (b"\0" if vr == "UI" else b" ") * (len(raw) % 2)


def response(
    request: Command, status: int, more: Mapping[str, Value] | None = None, *, data_set: bool = False
) -> bytes:
    """The encoded response to `request` with its class and instance echoed (PS3.7 9.3), `more` by keyword."""
    values: dict[str, Value] = {
        "CommandField": request.field | RESPONSE,
        "MessageIDBeingRespondedTo": request.message_id,
        "CommandDataSetType": DATA_SET if data_set else NO_DATA_SET,
        "Status": status,
        **(more or {}),
    }
    for keyword in ("AffectedSOPClassUID", "AffectedSOPInstanceUID"):
        uid = request.text(keyword)
        if keyword not in values and is_uid(uid):  # what is no UID at all is not sent back
            values[keyword] = uid
    return encode(values)
