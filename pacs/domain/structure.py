"""The iterative walk over the element headers of an untrusted data set (PS3.5 chapter 7).

No recursion, nothing allocated from a declared length, every length checked against what is left. Tolerant where
real writers are sloppy (odd lengths, unknown VRs, implicit items in explicit sets, stray delimiters, padding),
strict where the bytes lie.
"""

from array import array
from collections.abc import Sequence
from functools import cache
from struct import Struct
from typing import NamedTuple

from pydicom._dicom_dict import DicomDictionary
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_DATA = 0x7FE00010

ODD_VR = "an element has a VR that the standard does not know"
MIXED = "implicit and explicit VR are mixed in one data set"
STRAY_DELIMITER = "a delimiter stands where nothing ends"
OUT_OF_ORDER = "elements are not in ascending order"
REPEATED = "an element occurs twice; the last one counts"
TRAILING = "padding follows the data set"


class Inadmissible(Exception):
    """The bytes cannot be taken in; the message is one sentence with tags and byte counts, never values."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Limits(NamedTuple):
    """What a single object may ask of us (storage.md 2.3)."""

    depth: int = 64  # sequences within sequences
    elements: int = 1_000_000  # elements, items and fragments together
    inflated: int = 512 << 20  # bytes of a deflated data set
    inflated_freely: int = 64 << 20  # below this the ratio does not matter: empty masks deflate a thousandfold
    ratio: int = 100


LIMITS = Limits()


class Encoding(NamedTuple):
    """How element headers and numbers of a data set are written."""

    explicit: bool
    little: bool
    element: Struct
    item: Struct  # also an element header of implicit VR
    long: Struct


def _encoding(explicit: bool, order: str) -> Encoding:
    item = Struct(order + "HHI")
    return Encoding(explicit, order == "<", Struct(order + "HH2sH") if explicit else item, item, Struct(order + "I"))


EXPLICIT_LITTLE, IMPLICIT_LITTLE = _encoding(True, "<"), _encoding(False, "<")
EXPLICIT_BIG, IMPLICIT_BIG = _encoding(True, ">"), _encoding(False, ">")
_IMPLICIT = {True: IMPLICIT_LITTLE, False: IMPLICIT_BIG}


class Element(NamedTuple):
    """Where an element's value lies. `vr` is empty where the encoding names none.

    `length` never counts a delimiter. `items` holds the items of a sequence where nested elements are kept;
    `fragments` the places of encapsulated fragments as offset, length, offset, length, ... (Basic Offset Table first).
    """

    tag: int
    vr: str
    value_offset: int
    length: int
    items: "tuple[Item, ...] | None" = None
    fragments: "Sequence[int] | None" = None


class Item(NamedTuple):
    """A data set, or one item of a sequence: elements by tag in the order of the file, and their byte order."""

    elements: dict[int, Element]
    little: bool


# VR as written -> (VR, whether 12 bytes of header with a long length precede the value)
VRS: dict[bytes, tuple[str, bool]] = {
    vr.encode(): (vr, vr in EXPLICIT_VR_LENGTH_32) for vr in map(str, VR) if len(vr) == 2
}
LONG_VRS = frozenset(vr for vr, is_long in VRS.values() if is_long)


@cache
def sequence_tags() -> frozenset[int]:
    """The tags whose VR is SQ in pydicom's dictionary."""
    return frozenset(tag for tag, entry in DicomDictionary.items() if entry[0] == "SQ")


@cache
def _binary_tags() -> frozenset[int]:
    return frozenset(tag for tag, entry in DicomDictionary.items() if entry[0] in {"OB", "OW", "OB or OW"})


def tag_text(tag: int) -> str:
    """The tag as people write it: (0028,0010)."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _lies(tag: int, length: int, left: int) -> Inadmissible:
    return Inadmissible(f"element {tag_text(tag)} claims {length} bytes where {left} are left")


def _cut(left: int) -> Inadmissible:
    return Inadmissible(f"the data set ends in the middle of an element header ({left} bytes are left)")


class _Set:
    """A data set or item that is being walked; without `end` of its own it ends with a delimiter."""

    __slots__ = ("delimited", "elements", "encoding", "end", "keep", "last")

    def __init__(self, end: int, delimited: bool, encoding: Encoding, keep: bool) -> None:
        self.end = end
        self.delimited = delimited
        self.encoding = encoding
        self.keep = keep
        self.elements: dict[int, Element] = {}
        self.last = -1


class _Sequence:
    """A sequence that is being walked, inside `parent`."""

    __slots__ = ("delimited", "encoding", "end", "items", "offset", "parent", "tag")

    def __init__(self, parent: _Set, tag: int, offset: int, end: int, encoding: Encoding, *, delimited: bool) -> None:
        self.parent = parent
        self.tag = tag
        self.offset = offset
        self.end = end
        self.delimited = delimited
        self.encoding = encoding
        self.items: list[Item] = []


class Walk:
    """Walks over `data`, read in place; `nested` keeps the elements inside sequences too.

    `budget` is what is left of the elements that may be seen, `warnings` collects each remark once.
    All methods raise Inadmissible and nothing else.
    """

    def __init__(self, data: memoryview, *, nested: bool = False, limits: Limits = LIMITS) -> None:
        self.data = data
        self.nested = nested
        self.limits = limits
        self.budget = limits.elements
        self.warnings: dict[str, None] = {}

    def data_set(self, start: int, end: int, encoding: Encoding) -> Item:
        """The data set in data[start:end]."""
        top = _Set(end, False, encoding, True)
        self._run(start, top, [])
        return Item(top.elements, encoding.little)

    def sequence(self, start: int, end: int, encoding: Encoding) -> tuple[Item, ...]:
        """The items of the sequence value in data[start:end]; empty unless `nested`."""
        top = _Set(end, False, encoding, True)
        self._run(start, top, [_Sequence(top, 0, start, end, encoding, delimited=False)])
        return top.elements[0].items or ()

    def _run(self, pos: int, current: _Set, open_sequences: list[_Sequence]) -> None:
        if open_sequences:
            pos, current = self._next_item(pos, open_sequences)
        while True:
            pos, opened = self._elements(pos, current, not open_sequences)
            if opened is not None:
                if len(open_sequences) >= self.limits.depth:
                    raise Inadmissible(f"sequences are nested deeper than {self.limits.depth}")
                open_sequences.append(opened)
            elif not open_sequences:
                return
            elif self.nested:
                open_sequences[-1].items.append(Item(current.elements, current.encoding.little))
            pos, current = self._next_item(pos, open_sequences)

    def _next_item(self, pos: int, open_sequences: list[_Sequence]) -> tuple[int, _Set]:
        """The next item of the innermost sequence, or the rest of its parent when the sequence ends here."""
        sequence = open_sequences[-1]
        end, read = sequence.end, sequence.encoding.item.unpack_from
        while pos < end:
            if end - pos < 8:
                raise _cut(end - pos)
            group, number, length = read(self.data, pos)
            tag, pos = group << 16 | number, pos + 8
            if tag == ITEM:
                self._spend(1)
                if length == UNDEFINED:
                    return pos, _Set(end, True, sequence.encoding, self.nested)
                if length > end - pos:
                    raise _lies(ITEM, length, end - pos)
                return pos, _Set(pos + length, False, sequence.encoding, self.nested)
            if length or tag not in {ITEM_END, SEQUENCE_END}:
                raise Inadmissible(f"sequence {tag_text(sequence.tag)} holds {tag_text(tag)} where an item must stand")
            if tag == SEQUENCE_END and sequence.delimited:
                return self._close(pos, pos - 8, open_sequences)
            self._spend(1)
            self.warnings[STRAY_DELIMITER] = None
        if sequence.delimited:
            raise Inadmissible(f"sequence {tag_text(sequence.tag)} does not end")
        return self._close(pos, pos, open_sequences)

    def _close(self, pos: int, value_end: int, open_sequences: list[_Sequence]) -> tuple[int, _Set]:
        sequence = open_sequences.pop()
        parent = sequence.parent
        if parent.keep:
            items = tuple(sequence.items) if self.nested else None
            parent.elements[sequence.tag] = Element(
                sequence.tag, "SQ", sequence.offset, value_end - sequence.offset, items
            )
        return pos, parent

    def _elements(self, pos: int, current: _Set, is_top: bool) -> tuple[int, _Sequence | None]:  # noqa: PLR0912, PLR0915
        """Walks elements until `current` ends or a sequence opens. The hot loop: everything rare is elsewhere."""
        data, end, elements, keep = self.data, current.end, current.elements, current.keep
        encoding = current.encoding
        explicit, read, read_long = encoding.explicit, encoding.element.unpack_from, encoding.long.unpack_from
        vrs, sequences, last, seen = VRS, sequence_tags(), current.last, 0
        budget, make = self.budget, tuple.__new__  # the named constructor costs as much as the rest of the loop
        while end - pos >= 8:
            if explicit:
                group, number, raw, length = read(data, pos)
                tag = group << 16 | number
                value = pos + 8
                known = vrs.get(raw)
                if known is None:
                    vr, length = self._odd_header(tag, pos, end, encoding)
                else:
                    vr, is_long = known
                    if is_long:
                        if end - pos < 12:
                            raise _cut(end - pos)
                        (length,) = read_long(data, value)
                        value += 4
            else:
                group, number, length = read(data, pos)
                tag = group << 16 | number
                value = pos + 8
                vr = ""
                if length > end - value and length != UNDEFINED:
                    vr, length, value = self._named_header(tag, pos, end, encoding)
            seen += 1
            if seen > budget:
                raise self._too_many()
            if tag <= last and is_top:
                self.warnings[REPEATED if tag in elements else OUT_OF_ORDER] = None
            last = tag
            if length <= end - value:
                if vr == "SQ" or (vr == "" and tag in sequences):
                    self.budget, current.last = budget - seen, tag
                    return value, _Sequence(current, tag, value, value + length, encoding, delimited=False)
                if group == 0xFFFE:
                    pos = value
                    if self._ends(tag, length, current):
                        self.budget = budget - seen
                        return pos, None
                    continue
                if tag == 0 and is_top:
                    if not self._is_padding(pos, end):
                        raise Inadmissible("command elements stand in the data set")
                    self.budget = budget - seen
                    return end, None
                if keep:
                    elements[tag] = make(Element, (tag, vr, value, length, None, None))
                pos = value + length
            elif length != UNDEFINED:
                raise _lies(tag, length, end - value)
            elif vr in {"SQ", "UN"} or (vr == "" and tag not in _binary_tags()):
                # items inside UN are implicit VR little endian whatever surrounds them (PS3.5 6.2.2)
                inner = IMPLICIT_LITTLE if vr == "UN" else encoding
                self.budget, current.last = budget - seen, tag
                return value, _Sequence(current, tag, value, end, inner, delimited=True)
            elif vr in {"OB", "OW", ""}:
                self.budget = budget - seen
                pos, places = self._fragments(tag, value, end, encoding)
                budget, seen = self.budget, 0
                if keep:
                    elements[tag] = Element(tag, vr, value, pos - 8 - value, None, places)
            else:
                raise Inadmissible(f"element {tag_text(tag)} of VR {vr} has no length")
        self.budget = budget - seen
        if current.delimited:
            raise Inadmissible("an item does not end")
        if pos < end:
            if not is_top:
                raise _cut(end - pos)
            if not self._is_padding(pos, end):
                raise _cut(end - pos)
        return end, None

    def _fragments(self, tag: int, pos: int, end: int, encoding: Encoding) -> tuple[int, Sequence[int]]:
        """The places of the fragments from `pos` on, and where the next element begins (PS3.5 A.4)."""
        data, read, places = self.data, encoding.item.unpack_from, array("Q")
        left = self.budget
        while end - pos >= 8:
            group, number, length = read(data, pos)
            item, pos = group << 16 | number, pos + 8
            if item == SEQUENCE_END and length == 0:
                self.budget = left
                return pos, places
            if item != ITEM or length == UNDEFINED:
                raise Inadmissible(f"element {tag_text(tag)} holds {tag_text(item)} where a fragment must stand")
            if length > end - pos:
                raise Inadmissible(f"a fragment of {tag_text(tag)} claims {length} bytes where {end - pos} are left")
            left -= 1
            if left < 0:
                raise self._too_many()
            places.append(pos)
            places.append(length)
            pos += length
        raise Inadmissible(f"the fragments of {tag_text(tag)} do not end: the object is truncated")

    def _ends(self, tag: int, length: int, current: _Set) -> bool:
        """Whether this delimiter ends the current item; a stray empty one is stepped over."""
        if length or tag == ITEM:
            raise Inadmissible(f"{tag_text(tag)} stands where an element must stand")
        if tag == ITEM_END and current.delimited:
            return True
        if current.delimited:
            raise Inadmissible(f"{tag_text(tag)} stands where an item must end")
        self.warnings[STRAY_DELIMITER] = None
        return False

    def _odd_header(self, tag: int, pos: int, end: int, encoding: Encoding) -> tuple[str, int]:
        """VR and length of an element whose VR is unknown: a delimiter, an implicit element, or a VR to come."""
        _group, _number, length = encoding.item.unpack_from(self.data, pos)
        if tag >> 16 == 0xFFFE:
            return "", length
        raw = bytes(self.data[pos + 4 : pos + 6])
        if not (raw.isalpha() and raw.isupper()) and (length <= end - pos - 8 or length == UNDEFINED):
            self.warnings[MIXED] = None
            return "", length
        self.warnings[ODD_VR] = None
        return "UN", encoding.element.unpack_from(self.data, pos)[3]

    def _named_header(self, tag: int, pos: int, end: int, encoding: Encoding) -> tuple[str, int, int]:
        """VR, length and place of the value of an explicit element in an implicit set, where nothing else fits."""
        explicit = EXPLICIT_LITTLE if encoding.little else EXPLICIT_BIG
        _group, _number, raw, length = explicit.element.unpack_from(self.data, pos)
        known = VRS.get(raw)
        left = end - pos
        if known is None or (known[1] and left < 12):
            raise _lies(tag, encoding.item.unpack_from(self.data, pos)[2], left - 8)
        self.warnings[MIXED] = None
        if not known[1]:
            return known[0], length, pos + 8
        return known[0], encoding.long.unpack_from(self.data, pos + 8)[0], pos + 12

    def _is_padding(self, pos: int, end: int) -> bool:
        """Whether nothing but zero bytes is left; that is worth a remark."""
        for start in range(pos, end, 1 << 16):
            chunk = bytes(self.data[start : min(end, start + (1 << 16))])
            if chunk.strip(b"\0"):
                return False
        self.warnings[TRAILING] = None
        return True

    def _spend(self, count: int) -> None:
        self.budget -= count
        if self.budget < 0:
            raise self._too_many()

    def _too_many(self) -> Inadmissible:
        return Inadmissible(f"the object has more than {self.limits.elements} elements")
