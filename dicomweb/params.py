"""A QIDO query string -> Query (PS3.18 8.3.4, 10.6). Unknown names are ignored, malformed values are BadRequest.

How values are split, in one table: codes, UIDs, numbers and dates hold neither comma nor backslash, so both separate
values (OHIF sends `CT%2CMR` and doubled backslashes); names and free text may hold a comma, so only a backslash does;
long text may hold both. Percent-decoding comes before splitting.

A key that is repeated narrows (AND). Only where an object can hold no more than one of them, a UID or code of
multiplicity 1, are repeats a list (OR), because AND could match nothing.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword

from pacs.domain.levels import Level
from pacs.domain.query import Condition, Order, Query, TagPath
from pacs.errors import BadRequest

LIMIT, OFFSET, FUZZY, INCLUDE = "limit", "offset", "fuzzymatching", "includefield"
EMPTY, SEVERAL = "emptyvaluematching", "multiplevaluematching"
ORDER, COUNT = "orderby", "count"  # not of the standard
_LARGEST = 2**53 - 1
_COMMA_SEPARATES = frozenset({"UI", "CS", "IS", "DS", "US", "SS", "UL", "SL", "FL", "FD", "DA", "TM", "AT"})
_NOTHING_SEPARATES = frozenset({"ST", "LT", "UT", "UR"})
_LISTS_WHEN_REPEATED = frozenset({"UI", "CS"})
_PLUS_IS_A_SIGN = "DT"  # and (0008,0201): here a plus is an offset's sign, elsewhere form-encoding's space
_TIMEZONE = 0x00080201
_BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Pair:
    """One `name=value`; the value is still percent-encoded, for its meaning decides what a plus is."""

    name: str
    encoded: str

    def value(self, *, plus: str = " ") -> str:
        """The decoded value. Raises BadRequest where it is no UTF-8 or holds a NUL."""
        return _decode(self.encoded.replace("+", plus))


def pairs(query_string: bytes) -> list[Pair]:
    """The parameters of a URL in their order; empty ones are skipped (Weasis sends `?&`)."""
    pieces = (piece.partition("=") for piece in query_string.decode("latin-1").split("&"))
    return [Pair(_decode(name.replace("+", " ")).strip(), value) for name, _, value in pieces if name]


def first(found: Iterable[Pair], name: str) -> str | None:
    """The decoded value of the first parameter of this name."""
    return next((pair.value() for pair in found if pair.name == name), None)


def query(query_string: bytes, level: Level, fixed: Iterable[Condition] = (), *, parents: bool = True) -> Query:
    """The Query of a search at `level` below what the path fixes. Raises BadRequest (PS3.18 8.3.4.4).

    Empty value and multiple value matching are done unless turned off: clients that never heard of these parameters
    send lists of modalities.
    """
    found = pairs(query_string)
    fields = [field.strip() for pair in found if pair.name == INCLUDE for field in pair.value().split(",")]
    several = _boolean(found, SEVERAL, default=True)
    return Query(
        level=level,
        conditions=(*fixed, *_conditions(found, several)),
        include=frozenset(path for field in fields if (path := tag_path(field)) is not None),
        include_all="all" in fields,
        fuzzy=_boolean(found, FUZZY),
        empty_values=_boolean(found, EMPTY, default=True),
        multiple_values=several,
        combined=True,
        order=tuple(_orders(found)),
        limit=_unsigned(found, LIMIT),
        offset=_unsigned(found, OFFSET) or 0,
        parents=parents,
    )


def wants_count(query_string: bytes) -> bool:
    """Whether X-Total-Count is to be exact on every page. Raises BadRequest."""
    return _boolean(pairs(query_string), COUNT)


def _orders(found: list[Pair]) -> Iterator[Order]:
    """The attributes of `orderby=-StudyDate,PatientName`; a minus turns the order around."""
    for name in (first(found, ORDER) or "").split(","):
        if name.strip():
            path = tag_path(name.strip().removeprefix("-"))
            if path is None or len(path) > 1:
                raise BadRequest("orderby must name attributes by keyword or tag, each maybe after a minus.")
            yield Order(path[0], descending=name.strip().startswith("-"))


def tag_path(name: str) -> TagPath | None:
    """The attribute that a keyword, eight hexadecimal digits or a dotted mix of both names, or None."""
    tags = [_tag(piece) for piece in name.split(".")]
    return tuple(tag for tag in tags if tag is not None) if all(tags) else None


def _tag(name: str) -> int | None:
    known = tag_for_keyword(name) if name else None  # the dictionary has attributes whose keyword is empty
    if known is not None:
        return known
    hexadecimal = len(name) == 8 and name.isascii() and all(char in "0123456789abcdefABCDEF" for char in name)
    return int(name, 16) if hexadecimal else None


def _conditions(found: list[Pair], several: bool) -> Iterator[Condition]:
    lists: dict[TagPath, list[str]] = {}
    for pair in found:
        path = tag_path(pair.name)
        if path is None:
            continue
        vr, multiplicity = _vr(path[-1])
        values = _values(pair, path[-1], vr, several)
        if vr in _LISTS_WHEN_REPEATED and multiplicity == "1":
            lists.setdefault(path, []).extend(values)
        else:
            yield Condition(path, values)
    yield from (Condition(path, tuple(values)) for path, values in lists.items())


def _values(pair: Pair, tag: int, vr: str, several: bool) -> tuple[str, ...]:
    text = pair.value(plus="+" if vr == _PLUS_IS_A_SIGN or tag == _TIMEZONE else " ")
    if vr in _NOTHING_SEPARATES or not (several or vr == "UI"):
        return (text,)
    if vr in _COMMA_SEPARATES:
        text = text.replace(",", "\\")
    return tuple(value for value in text.split("\\") if value)


def _vr(tag: int) -> tuple[str, str]:
    try:
        return dictionary_VR(tag), dictionary_VM(tag)
    except KeyError:  # private or of a newer edition
        return "UN", "1-n"


def _unsigned(found: list[Pair], name: str) -> int | None:
    text = first(found, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()):
        raise BadRequest(f"{name} must be a whole number, zero or more.")
    return min(int(text[:20]), _LARGEST)


def _boolean(found: list[Pair], name: str, default: bool = False) -> bool:
    text = first(found, name)
    if text is None:
        return default
    if text.lower() not in _BOOLEANS:
        raise BadRequest(f"{name} must be true or false.")
    return _BOOLEANS[text.lower()]


def _decode(text: str) -> str:
    try:
        decoded = unquote(text.encode("latin-1").decode("utf-8"), errors="strict")
    except UnicodeDecodeError as error:
        raise BadRequest("A query parameter is not UTF-8 in percent-encoding.") from error
    if "\x00" in decoded:
        raise BadRequest("A query parameter holds a NUL character.")
    return decoded
