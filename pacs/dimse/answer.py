"""A row of the index as the bytes of a C-FIND answer (PS3.5 7, PS3.4 C.4.1.1.3.2).

Written straight from DICOM JSON: a thousand answers through a library's data set cost half a second, so 20 ms.
"""

import base64
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pacs.domain.syntaxes import SYNTAXES

Row = Mapping[str, Mapping[str, Any]]
Wanted = tuple[str, str, tuple["Wanted", ...]]  # tag as DICOM JSON writes it, VR, keys of a sequence's item

SPECIFIC_CHARACTER_SET = "00080005"
UTF_8 = "ISO_IR 192"

_LONG_FORM = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"])
_NUMBERS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_BINARY = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "UN"])
_NUL_PADDED = frozenset(("UI",)) | _BINARY
_SHORT_LIMIT = 0xFFFE
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


def encode(row: Row, transfer_syntax: str) -> bytes:
    """The data set of `row`, its Specific Character Set added where a value needs it. Text is UTF-8."""
    syntax = SYNTAXES[transfer_syntax]
    writer = _Writer(explicit=syntax.explicit_vr, order="<" if syntax.little_endian else ">")
    if SPECIFIC_CHARACTER_SET not in row and not _is_ascii(row):
        row = {SPECIFIC_CHARACTER_SET: {"vr": "CS", "Value": [UTF_8]}, **row}
    data = writer.data_set(row)
    if not syntax.deflated:
        return data
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def _is_ascii(value: Any) -> bool:
    if isinstance(value, str):
        return value.isascii()
    if isinstance(value, Mapping):
        return all(_is_ascii(inner) for inner in value.values())
    return not isinstance(value, list) or all(_is_ascii(inner) for inner in value)


class _Writer:
    def __init__(self, *, explicit: bool, order: str) -> None:
        self._explicit = explicit
        self._order = order
        self._tag: Callable[[int, int], bytes] = struct.Struct(order + "HH").pack
        self._short: Callable[[int], bytes] = struct.Struct(order + "H").pack
        self._long: Callable[[int], bytes] = struct.Struct(order + "L").pack

    def data_set(self, row: Row) -> bytes:
        return b"".join(self._element(int(tag, 16), row[tag]) for tag in sorted(row))

    def _element(self, tag: int, element: Mapping[str, Any]) -> bytes:
        vr: str = element["vr"]
        value = self._value(vr, element)
        value += (b"\0" if vr in _NUL_PADDED else b" ") * (len(value) % 2)
        head = self._tag(tag >> 16, tag & 0xFFFF)
        if not self._explicit:
            return head + self._long(len(value)) + value
        if vr in _LONG_FORM or len(value) > _SHORT_LIMIT:
            name = vr if vr in _LONG_FORM else "UN"  # PS3.5 6.2.2, note on values too long for their VR
            return head + name.encode("ascii") + b"\0\0" + self._long(len(value)) + value
        return head + vr.encode("ascii") + self._short(len(value)) + value

    def _value(self, vr: str, element: Mapping[str, Any]) -> bytes:
        values: Sequence[Any] = element.get("Value") or ()
        if vr == "SQ":
            return b"".join(self._item(item) for item in values)
        if vr in _NUMBERS:
            values = [value for value in values if value is not None]
            return struct.pack(f"{self._order}{len(values)}{_NUMBERS[vr]}", *values)
        if vr == "AT":
            return b"".join(self._tag(int(tag, 16) >> 16, int(tag, 16) & 0xFFFF) for tag in values)
        if vr in _BINARY:
            return base64.b64decode(element.get("InlineBinary", ""))
        return "\\".join(_TEXT.get(vr, _plain)(value) for value in values).encode("utf-8")

    def _item(self, row: Row) -> bytes:
        body = self.data_set(row)
        return self._tag(0xFFFE, 0xE000) + self._long(len(body)) + body


def _plain(value: Any) -> str:
    return "" if value is None else str(value)


def _name(value: Mapping[str, str] | None) -> str:
    """Component groups joined by "=" (PS3.5 6.2.1.2)."""
    if not value:
        return ""
    return "=".join(value.get(group, "") for group in _GROUPS).rstrip("=")


def _decimal(value: Any) -> str:
    """At most 16 characters (PS3.5 table 6.2-1, DS)."""
    text = _plain(value)
    return text if len(text) <= 16 else f"{float(value):.10g}"


_TEXT: dict[str, Callable[[Any], str]] = {"PN": _name, "DS": _decimal}


def select(row: Row, wanted: Sequence[Wanted]) -> dict[str, Mapping[str, Any]]:
    """The wanted attributes of `row`; what it does not hold is there and empty (PS3.4 C.2.2.1.3)."""
    return {tag: _part(row.get(tag), vr, inner) for tag, vr, inner in wanted}


def _part(element: Mapping[str, Any] | None, vr: str, inner: tuple[Wanted, ...]) -> Mapping[str, Any]:
    if element is None:
        return {"vr": vr}
    if not inner:
        return element
    return {"vr": "SQ", "Value": [select(item, inner) for item in element.get("Value", ())]}
