"""The PDUs of the DICOM upper layer other than A-ASSOCIATE-RQ and -AC (PS3.8 9.3). Bytes to values and back, no I/O."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from pacs.errors import FilmroomError

HEADER = struct.Struct(">BxL")  # PDU type, length of what follows
PDV_HEADER = struct.Struct(">LBB")  # item length, presentation context, message control header
PDV_OVERHEAD = 2  # context and control count into the item's length
COMMAND_BIT = 0x01
LAST_BIT = 0x02
UNLIMITED_PDU = 1_048_576  # what we send to a peer that announces 0, "no limit"


class PduType(IntEnum):
    """PS3.8 table 9-11 and following."""

    ASSOCIATE_RQ = 0x01
    ASSOCIATE_AC = 0x02
    ASSOCIATE_RJ = 0x03
    DATA = 0x04
    RELEASE_RQ = 0x05
    RELEASE_RP = 0x06
    ABORT = 0x07


class AbortReason(IntEnum):
    """Reasons of the service provider, PS3.8 table 9-26."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNIZED_PARAMETER = 4
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER = 6


class ProtocolError(FilmroomError):
    """The peer left the protocol; the association can only be aborted, with `reason`."""

    code = "protocol"

    def __init__(self, message: str, reason: AbortReason = AbortReason.INVALID_PARAMETER) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Rejection:
    """A-ASSOCIATE-RJ: result, source and reason of PS3.8 table 9-21."""

    result: int
    source: int
    reason: int


@dataclass(frozen=True, slots=True)
class Abort:
    """A-ABORT: source 0 is the user, 2 the provider (PS3.8 table 9-26)."""

    source: int
    reason: int


_FOUR = struct.Struct(">BxLxBBB")
RELEASE_RQ = _FOUR.pack(PduType.RELEASE_RQ, 4, 0, 0, 0)
RELEASE_RP = _FOUR.pack(PduType.RELEASE_RP, 4, 0, 0, 0)
FIXED_LENGTH = 4  # of RJ, RELEASE-RQ, RELEASE-RP and ABORT


def encode_rejection(rejection: Rejection) -> bytes:
    """The A-ASSOCIATE-RJ PDU (PS3.8 9.3.4)."""
    return _FOUR.pack(PduType.ASSOCIATE_RJ, 4, rejection.result, rejection.source, rejection.reason)


def decode_rejection(body: bytes) -> Rejection:
    """The four bytes behind an A-ASSOCIATE-RJ header."""
    return Rejection(body[1], body[2], body[3])


def encode_abort(abort: Abort) -> bytes:
    """The A-ABORT PDU (PS3.8 9.3.8)."""
    return _FOUR.pack(PduType.ABORT, 4, 0, abort.source, abort.reason)


def decode_abort(body: bytes) -> Abort:
    """The four bytes behind an A-ABORT header."""
    return Abort(body[2], body[3])


def fragments(context_id: int, data: memoryview, *, command: bool, max_pdu: int) -> Iterator[tuple[bytes, memoryview]]:
    """A message's command or data set as P-DATA-TF PDUs of one PDV each: (headers, slice of `data`), nothing copied.

    `max_pdu` is what the peer announced, 0 for no limit (PS3.8 9.3.5, D.1). An empty data set is one empty fragment.
    """
    room = (max_pdu or UNLIMITED_PDU) - PDV_HEADER.size
    control = COMMAND_BIT if command else 0
    for start in range(0, max(len(data), 1), room):
        part = data[start : start + room]
        last = LAST_BIT if start + room >= len(data) else 0
        item = len(part) + PDV_OVERHEAD
        yield HEADER.pack(PduType.DATA, item + 4) + PDV_HEADER.pack(item, context_id, control | last), part


def message(context_id: int, command: bytes, data: bytes | None, max_pdu: int) -> bytes:
    """A whole small message, command and data set, as the bytes of one send."""
    parts = list(fragments(context_id, memoryview(command), command=True, max_pdu=max_pdu))
    if data is not None:
        parts += fragments(context_id, memoryview(data), command=False, max_pdu=max_pdu)
    return b"".join(piece for part in parts for piece in part)
