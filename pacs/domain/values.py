"""Element values: which VR an element has, and its bytes as the values that DICOM JSON shows (PS3.5 6.2, PS3.18 F.2).

Text comes without insignificant padding, an empty value within several is None, an empty element is an empty list.
Nothing here raises on odd bytes: numbers that do not fit their VR stay text, incomplete numbers are left out.
"""

import math
import re
import struct
from base64 import b64encode
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from pydicom.datadict import dictionary_VR, private_dictionary_VR

from pacs.domain.charsets import DEFAULT, Decoder
from pacs.domain.structure import Element

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

TEXT_ONE = frozenset({"ST", "LT", "UT", "UR"})  # a backslash is part of the text
TEXT_MANY = frozenset({"AE", "AS", "CS", "DA", "DT", "LO", "SH", "TM", "UC", "UI"})
DECODED = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})  # those that Specific Character Set is about
BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
# bytes of one number, so that big endian values can be turned
WIDTHS = {"US": 2, "SS": 2, "OW": 2, "AT": 2, "UL": 4, "SL": 4, "FL": 4, "OF": 4, "OL": 4,
          "FD": 8, "OD": 8, "OV": 8, "SV": 8, "UV": 8}  # fmt: skip
VR_OF_WORD = {2: "OW", 4: "OL", 8: "OV"}
_CODES = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "SV": "q", "UV": "Q"}

SAFE_INTEGER = 2**53
_DS = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_IS = re.compile(r"[+-]?\d+", re.ASCII)


class Context(NamedTuple):
    """What the VR of ambiguous elements depends on (PS3.5 8, PS3.6): of the nearest set that says so."""

    signed: bool = False
    bits_allocated: int = 16
    waveform_bits: int = 16


@lru_cache(maxsize=8192)
def public_vr(tag: int) -> str:
    """The dictionary's VR of a standard tag, ambiguous ones included; UN when it is not in the dictionary."""
    if tag & 0xFFFF == 0:
        return "UL"
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


@lru_cache(maxsize=8192)
def private_vr(tag: int, creator: str) -> str:
    """The VR of a private tag by its creator, from pydicom's private dictionary; UN when it is not there."""
    if 0x10 <= tag & 0xFFFF <= 0xFF:
        return "LO"
    try:
        vr = private_dictionary_VR(tag, creator) if creator else "UN"
    except KeyError:
        return "UN"
    return vr if len(vr) == 2 else "UN"


def resolve(vr: str, element: Element, context: Context) -> str:
    """One VR for an ambiguous one of the dictionary ("US or SS", "OB or OW", ...)."""
    if len(vr) == 2:
        return vr
    tag = element.tag
    if "OB" in vr:
        if element.fragments is not None:
            return "OB"
        bits = context.waveform_bits if tag >> 16 == 0x5400 else 16
        return "OB" if bits <= 8 else "OW"
    if element.length > 0xFFFE:  # a table that no short VR could carry
        return "OW"
    return "SS" if context.signed else "US"


def numbers(raw: bytes | memoryview, vr: str, little: bool) -> tuple[int | float, ...]:
    """The binary numbers of a value (US SS UL SL FL FD SV UV); a rest too short for a number is left out."""
    count = len(raw) // WIDTHS[vr]
    order = "<" if little else ">"
    values: tuple[int | float, ...] = struct.unpack_from(f"{order}{count}{_CODES[vr]}", raw)
    return values


def text(raw: bytes, vr: str, decode: Decoder) -> str:
    """The whole value as text, trailing padding cut."""
    raw = raw.rstrip(b" \0")
    if raw.isascii() and (plain := raw.decode("ascii")).isprintable():
        return plain  # the same in every character set: what most values are
    return (decode if vr in DECODED else DEFAULT)(raw).rstrip(" ")


def split(raw: bytes, vr: str, decode: Decoder) -> list[str]:
    """The single values as text without insignificant spaces; empty for an element without value."""
    whole = text(raw, vr, decode)
    if not whole or whole.isspace():
        return []
    if vr in TEXT_ONE:
        return [whole]
    if "\\" not in whole:
        return [whole if vr == "UC" else whole.strip(" ")]
    return [value.rstrip(" ") if vr == "UC" else value.strip(" ") for value in whole.split("\\")]


def decimal_number(value: str) -> Json:
    """A DS or IS value as a number when that is exact, else as its text (PS3.18 F.2.3)."""
    if _IS.fullmatch(value):
        number = int(value) if len(value) < 20 else SAFE_INTEGER + 1
        return number if -SAFE_INTEGER <= number <= SAFE_INTEGER else value
    if not _DS.fullmatch(value):
        return value
    real = float(value)
    if len(value) <= 15 and "e" not in value and "E" not in value:
        return real  # up to 15 digits every decimal comes back from a double
    if not math.isfinite(real) or len(value) > 64:
        return value
    return real if Decimal(repr(real)) == Decimal(value) else value


def name(value: str) -> Json:
    """A person name as an object of its component groups, without the empty ones; None when all are empty."""
    groups = zip(("Alphabetic", "Ideographic", "Phonetic"), value.split("="), strict=False)
    found: dict[str, Json] = {key: group.strip(" ") for key, group in groups if group.strip(" ^")}
    return found or None


def real_number(number: float) -> Json:
    """A finite number, or the word that stands for it: JSON has none of its own for these."""
    if math.isfinite(number):
        return number
    if math.isnan(number):
        return "NaN"
    return "Infinity" if number > 0 else "-Infinity"


def integer(number: int) -> Json:
    """A 64-bit integer as a number where every JSON reader can hold it, else as text (PS3.18 F.2.3)."""
    return number if -SAFE_INTEGER <= number <= SAFE_INTEGER else str(number)


def _word(value: str) -> Json:
    return value


def _number(value: float) -> Json:
    return value


# how one text, or one binary number, is shown
_TEXTS: dict[str, Callable[[str], Json]] = {
    **dict.fromkeys(TEXT_MANY | TEXT_ONE, _word),
    "PN": name,
    "DS": decimal_number,
    "IS": decimal_number,
}
_NUMBERS: dict[str, Callable[[Any], Json]] = {
    **dict.fromkeys(("US", "SS", "UL", "SL"), _number),
    **dict.fromkeys(("SV", "UV"), integer),
    **dict.fromkeys(("FL", "FD"), real_number),
}
TEXTUAL = frozenset(_TEXTS)
NUMBERED = frozenset(_NUMBERS)
VALUED = TEXTUAL | NUMBERED | {"AT"}


def shown(texts: list[str], vr: str) -> list[Json]:
    """The values of a text VR, already split, as DICOM JSON shows them."""
    show = _TEXTS[vr]
    return [show(value) if value else None for value in texts]


def read(raw: bytes, vr: str, little: bool, decode: Decoder) -> list[Json]:
    """The values of an element of one of the VRs in VALUED, as DICOM JSON shows them."""
    if vr in TEXTUAL:
        return shown(split(raw, vr, decode), vr)
    if vr == "AT":
        parts = numbers(raw[: len(raw) // 4 * 4], "US", little)
        return [f"{group:04X}{number:04X}" for group, number in zip(parts[::2], parts[1::2], strict=True)]
    show_number = _NUMBERS[vr]
    return [show_number(number) for number in numbers(raw, vr, little)]


def turned(raw: bytes, vr: str, little: bool) -> bytes:
    """The value in little endian byte order."""
    width = WIDTHS.get(vr, 1)
    if little or width == 1:
        return raw
    usable = len(raw) // width * width
    out = bytearray(raw)
    for byte in range(width):
        out[byte:usable:width] = raw[width - 1 - byte : usable : width]
    return bytes(out)


def inline(raw: bytes, vr: str, little: bool) -> str:
    """A binary value in base64, little endian (PS3.18 F.2.7)."""
    return b64encode(turned(raw, vr, little)).decode("ascii")
