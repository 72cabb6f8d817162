"""Elements in Explicit VR Little Endian (PS3.5 7.1.2), where a data set object for each would take too long."""

import io
import struct
from collections.abc import Iterable

from pydicom.dataset import Dataset
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset

ITEM = struct.pack("<2H", 0xFFFE, 0xE000)


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    """An element of a VR with a short length field; `value` has an even length."""
    return struct.pack("<2H2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def text_element(tag: int, vr: bytes, *values: str) -> bytes:
    """ASCII values, padded as their VR asks (PS3.5 6.2)."""
    text = "\\".join(values).encode("ascii")
    return element(tag, vr, text + (b"\0" if vr == b"UI" else b" ") * (len(text) % 2))


def long_element(tag: int, vr: bytes, value: bytes) -> bytes:
    """An element of a VR with a long length field (OB, OW, SQ, UN, ...)."""
    return struct.pack("<2H2s2xI", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def sequence(tag: int, items: Iterable[bytes]) -> bytes:
    """A sequence of encoded items, all lengths explicit."""
    return long_element(tag, b"SQ", b"".join(ITEM + struct.pack("<I", len(item)) + item for item in items))


def encoded(dataset: Dataset) -> bytes:
    """The elements of a small data set of ASCII text."""
    buffer = io.BytesIO()
    stream = DicomIO(buffer)
    stream.is_little_endian, stream.is_implicit_VR = True, False
    write_dataset(stream, dataset)
    return buffer.getvalue()
