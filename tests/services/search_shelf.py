"""Objects without pixels on the shelf: written byte by byte, through header extraction into the index, no files."""

import hashlib
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from pydicom.datadict import dictionary_VR, tag_for_keyword

from pacs.domain import admission, header
from pacs.domain.syntaxes import EXPLICIT_LE
from pacs.index import write

LONG = frozenset({"SQ", "UT", "UC", "UR", "UN"})


@dataclass(slots=True)
class Object:
    """One instance: keyword -> the texts of its values (or its items) as its maker wrote them, valid or not."""

    values: dict[str, Any] = field(default_factory=dict)
    hidden: bool = False

    def uid(self, keyword: str) -> str:
        return str(self.values[keyword][0])


def encoded(values: Mapping[str, Any]) -> bytes:
    """A data set in Explicit VR Little Endian and UTF-8."""
    return b"".join(_element(tag, vr, given) for tag, vr, given in sorted(_tagged(values)))


def _tagged(values: Mapping[str, Any]) -> Iterable[tuple[int, str, Any]]:
    for keyword, given in values.items():
        yield tag_for_keyword(keyword) or 0, dictionary_VR(keyword), given


def _element(tag: int, vr: str, given: Any) -> bytes:
    if vr == "SQ":
        data = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in map(encoded, given))
    elif vr == "US":
        data = b"".join(struct.pack("<H", int(value)) for value in given)
    else:
        data = "\\".join(given).encode()
        data += (b"\0" if vr == "UI" else b" ") * (len(data) % 2)
    length = struct.pack("<HI", 0, len(data)) if vr in LONG else struct.pack("<H", len(data))
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode() + length + data


def line(made: Object) -> bytes:
    """The object as the index's writing function takes it."""
    data = encoded({"SpecificCharacterSet": ["ISO_IR 192"], **made.values})
    admitted = admission.admit(memoryview(data), raw_syntax=EXPLICIT_LE)
    digest = hashlib.sha256(data).digest()
    name = hashlib.sha256(made.uid("SOPInstanceUID").encode()).hexdigest()
    file = write.File(name, len(data), 0, digest, digest, EXPLICIT_LE)
    return write.item(header.extract(admitted, data), file, "dimse", "TEST", "127.0.0.1").line


def fill(connection: psycopg.Connection[Any], objects: Iterable[Object]) -> None:
    """Put objects into the index in their order, hide those that are to be hidden, and commit."""
    objects = list(objects)
    lines = b"\n".join(map(line, objects)).decode()
    outcomes = {row[0] for row in connection.execute("SELECT outcome FROM store_objects(%s)", (lines,))}
    assert outcomes <= {"stored"}, outcomes
    hidden = [made.uid("SOPInstanceUID") for made in objects if made.hidden]
    connection.execute("UPDATE instance SET hidden = true WHERE sop_instance_uid = ANY(%s)", (hidden,))
    connection.commit()
