"""A data set on disk as the P-DATA-TF PDUs of one message (PS3.8 9.3.5), ready for a send each; nothing is decoded.

The file is read straight into the places between the headers, so each byte is copied once on its way to the socket.
"""

import os
import struct
from collections.abc import Iterator

import numpy as np

from pacs.dimse.pdu import COMMAND_BIT, LAST_BIT, PDV_HEADER, UNLIMITED_PDU, PduType
from pacs.errors import Damaged
from pacs.services.outgoing import Body

CHUNK = 1 << 20  # bytes of a data set that are held at a time
_HEADER = struct.Struct(">BxLLBB")  # of a PDU with one PDV: type, length, item length, context, control
_VECTORS = 1_000  # IOV_MAX is 1,024


def pieces(context_id: int, command: bytes, body: Body, max_pdu: int) -> Iterator[memoryview]:
    """The message whose data set is `body`; the command goes with the first piece.

    `max_pdu` is what the receiver announced, 0 for no limit. Raises Damaged when the file ends too early: the message
    must then be cut off.
    """
    room, step = _sizes(max_pdu)
    head = _framed_command(context_id, command, room)
    for place in range(0, max(body.length, 1), step):
        part = Body(body.file, body.offset + place, min(step, body.length - place), body.stored)
        yield _filled(head, context_id, part, room, last=place + part.length == body.length)
        head = b""


def is_one_piece(body: Body, max_pdu: int) -> bool:
    """Whether the message with this data set is one piece."""
    return body.length <= _sizes(max_pdu)[1]


def _sizes(max_pdu: int) -> tuple[int, int]:
    """Bytes of a data set in one PDU, an even number (PS3.8 9.3.5.1), and in one piece."""
    room = (max_pdu or UNLIMITED_PDU) - PDV_HEADER.size & ~1
    return room, max(CHUNK // room, 1) * room


def _framed_command(context_id: int, command: bytes, room: int) -> bytes:
    parts = []
    for start in range(0, len(command), room):
        part = command[start : start + room]
        control = COMMAND_BIT | (LAST_BIT if start + room >= len(command) else 0)
        parts.append(_HEADER.pack(PduType.DATA, len(part) + 6, len(part) + 2, context_id, control) + part)
    return b"".join(parts)


def _filled(head: bytes, context_id: int, body: Body, room: int, *, last: bool) -> memoryview:
    """The head, then PDUs around the bytes of the body."""
    number, offset, length = body.file.fileno(), body.offset, body.length
    count = max(-(-length // room), 1)
    # not a bytearray, which would be zeroed first: a tenth of the whole work
    view = np.empty(len(head) + length + count * _HEADER.size, np.uint8).data
    view[: len(head)] = head
    place, left = len(head), length
    slots = []
    for _ in range(count):
        part = min(room, left)
        left -= part
        control = LAST_BIT if last and not left else 0
        _HEADER.pack_into(view, place, PduType.DATA, part + 6, part + 2, context_id, control)
        place += _HEADER.size
        slots.append(view[place : place + part])
        place += part
    for start in range(0, count, _VECTORS):
        offset += _read(number, offset, slots[start : start + _VECTORS])
    return view


def _read(number: int, offset: int, slots: list[memoryview]) -> int:
    """Fill the slots from a place of the file; how many bytes."""
    wanted = sum(map(len, slots))
    found = os.preadv(number, slots, offset)
    if found < wanted:  # a signal, or a network file system; rare
        for slot in slots:
            skipped = min(found, len(slot))
            found -= skipped
            _read_slot(number, offset + skipped, slot[skipped:])
            offset += len(slot)
    return wanted


def _read_slot(number: int, offset: int, slot: memoryview) -> None:
    while slot:
        found = os.preadv(number, [slot], offset)
        if not found:
            raise Damaged("The file of this object ends too early; restore it from a backup.")
        slot, offset = slot[found:], offset + found
