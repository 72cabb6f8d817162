"""A row of the index as the bytes of a C-FIND answer (PS3.5 7, PS3.4 C.4.1.1.3.2).

Written straight from DICOM JSON: a thousand answers through a library's data set cost half a second, so 40 ms.
"""

import base64
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pacs.domain.syntaxes import SYNTAXES

Element = Mapping[str, Any]
Row = Mapping[str, Element]
Wanted = tuple[str, str, tuple["Wanted", ...]]  # tag as DICOM JSON writes it, VR, keys of a sequence's item

SPECIFIC_CHARACTER_SET = "00080005"
UTF_8: Element = {"vr": "CS", "Value": ["ISO_IR 192"]}

_LONG_FORM = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"])
_NUMBERS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_BINARY = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "UN"])
_NUL_PADDED = frozenset(["UI", *_BINARY])
_SHORT_LIMIT = 0xFFFE
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


class _Step(NamedTuple):
    tag: str  # empty: `otherwise` whatever the row holds
    inner: tuple[Wanted, ...]
    otherwise: bytes  # the element where the row has none


class AnswerWriter:
    """Writes the answers of one query: the wanted attributes of each row, and what all answers hold.

    An attribute that a row does not hold is there and empty (PS3.4 C.2.2.1.3). Text is UTF-8, and said to be where
    it is not ASCII.
    """

    def __init__(self, transfer_syntax: str, wanted: Sequence[Wanted], constant: Row) -> None:
        syntax = SYNTAXES[transfer_syntax]
        self._deflated = syntax.deflated
        self._writer = _Writer(explicit=syntax.explicit_vr, order="<" if syntax.little_endian else ">")
        element = self._writer.element
        self._character_set = element(SPECIFIC_CHARACTER_SET, UTF_8)
        steps = {tag: _Step(tag, inner, element(tag, {"vr": vr})) for tag, vr, inner in wanted}
        steps |= {tag: _Step("", (), element(tag, constant[tag])) for tag in constant}
        self._steps = [steps[tag] for tag in sorted(steps)]
        self._before = sum(tag < SPECIFIC_CHARACTER_SET for tag in steps)

    def write(self, row: Row) -> bytes:
        """The data set of one answer."""
        self._writer.beyond_ascii = False
        parts = []
        for tag, inner, otherwise in self._steps:
            element = row.get(tag)
            if element is None:
                parts.append(otherwise)
            else:
                parts.append(self._writer.element(tag, _chosen(element, inner) if inner else element))
        if self._writer.beyond_ascii:
            parts.insert(self._before, self._character_set)
        data = b"".join(parts)
        return _deflate(data) if self._deflated else data


def _chosen(sequence: Element, inner: tuple[Wanted, ...]) -> Element:
    """A sequence with the wanted attributes of its items only."""
    items = [{tag: item.get(tag, {"vr": vr}) for tag, vr, _ in inner} for item in sequence.get("Value", ())]
    return {"vr": "SQ", "Value": items}


def _deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


class _Writer:
    """Elements in one encoding. `beyond_ascii` tells whether a text needed more since it was last reset."""

    def __init__(self, *, explicit: bool, order: str) -> None:
        self.beyond_ascii = False
        self._explicit = explicit
        self._order = order
        self._tag: Callable[[int, int], bytes] = struct.Struct(order + "HH").pack
        self._short: Callable[[int], bytes] = struct.Struct(order + "H").pack
        self._long: Callable[[int], bytes] = struct.Struct(order + "L").pack
        self._heads: dict[tuple[str, str], bytes] = {}

    def element(self, tag: str, element: Element) -> bytes:
        """A whole element; `tag` as DICOM JSON writes it."""
        vr = element["vr"]
        value = self._value(vr, element)
        if len(value) % 2:
            value += b"\0" if vr in _NUL_PADDED else b" "
        if not self._explicit:
            return self._head(tag, "") + self._long(len(value)) + value
        if vr in _LONG_FORM:
            return self._head(tag, vr) + b"\0\0" + self._long(len(value)) + value
        if len(value) > _SHORT_LIMIT:  # PS3.5 6.2.2, note on values too long for their VR
            return self._head(tag, "UN") + b"\0\0" + self._long(len(value)) + value
        return self._head(tag, vr) + self._short(len(value)) + value

    def _head(self, tag: str, vr: str) -> bytes:
        head = self._heads.get((tag, vr))
        if head is None:
            number = int(tag, 16)
            head = self._heads[tag, vr] = self._tag(number >> 16, number & 0xFFFF) + vr.encode("ascii")
        return head

    def _value(self, vr: str, element: Element) -> bytes:
        values = element.get("Value")
        if vr in _BINARY:
            return base64.b64decode(str(element.get("InlineBinary", "")))
        if not values:
            return b""
        if vr == "SQ":
            return b"".join(self._item(item) for item in values)
        if vr in _NUMBERS:
            numbers = [value for value in values if value is not None]
            return struct.pack(f"{self._order}{len(numbers)}{_NUMBERS[vr]}", *numbers)
        if vr == "AT":
            return b"".join(self._head(tag, "") for tag in values)
        return self._text(vr, values)

    def _text(self, vr: str, values: Sequence[Any]) -> bytes:
        show = _TEXT.get(vr, _plain)
        text = show(values[0]) if len(values) == 1 else "\\".join(map(show, values))
        if not text.isascii():
            self.beyond_ascii = True
        return text.encode("utf-8")

    def _item(self, row: Row) -> bytes:
        body = b"".join(self.element(tag, row[tag]) for tag in sorted(row))
        return self._tag(0xFFFE, 0xE000) + self._long(len(body)) + body


def _plain(value: Any) -> str:
    return "" if value is None else str(value)


def _name(value: Mapping[str, str] | None) -> str:
    """Component groups joined by "=" (PS3.5 6.2.1.2)."""
    if not value:
        return ""
    return "=".join([value.get(group, "") for group in _GROUPS]).rstrip("=")


def _decimal(value: Any) -> str:
    """At most 16 characters (PS3.5 table 6.2-1, DS)."""
    text = _plain(value)
    return text if len(text) <= 16 else f"{float(value):.10g}"


_TEXT: dict[str, Callable[[Any], str]] = {"PN": _name, "DS": _decimal}
