"""Admission of untrusted objects (storage.md 2.3, security.md 2): the one walk that stands before every parser.

`admit` reads Part 10 files with or without preamble, bare data sets of a known or guessed encoding, deflated data
sets within a cap. It answers where things lie and never reads values beyond the file meta information.
"""

import mmap
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from pacs.domain import structure
from pacs.domain.structure import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_BIG,
    IMPLICIT_LITTLE,
    LIMITS,
    PIXEL_DATA,
    UNDEFINED,
    VRS,
    Element,
    Encoding,
    Inadmissible,
    Item,
    Limits,
    Walk,
)
from pacs.domain.syntaxes import DEFLATED_LE, EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, SYNTAXES
from pacs.domain.values import public_vr

__all__ = ["LIMITS", "Admitted", "Element", "Inadmissible", "Item", "Limits", "admit"]

Bytes = bytes | bytearray | memoryview | mmap.mmap

TRANSFER_SYNTAX = 0x00020010
PIXEL_TAGS = (PIXEL_DATA, 0x7FE00008, 0x7FE00009)

NO_PREAMBLE = "the file has no preamble"
NO_META = "the file has no file meta information; its encoding is a guess"
NO_SYNTAX = "the file meta information names no transfer syntax; the encoding is a guess"
WRONG_SYNTAX = "the data set is not encoded as its transfer syntax says"
UNKNOWN_SYNTAX = "the transfer syntax is unknown; the data set was read as explicit VR little endian"
AFTER_DEFLATE = "bytes follow the deflated data set"
ACTIVE_PREAMBLE = "the preamble is not empty"
WRONG_META_LENGTH = "the length of the file meta information is wrong"

_SYNTAX_OF = {
    EXPLICIT_LITTLE: EXPLICIT_LE,
    IMPLICIT_LITTLE: IMPLICIT_LE,
    EXPLICIT_BIG: EXPLICIT_BE,
    IMPLICIT_BIG: IMPLICIT_LE,
}
_ENCODINGS = {(e.explicit, e.little): e for e in (EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG, IMPLICIT_BIG)}
_META_GROUP = b"\x02\0"
_META_VALUE = 1024  # longer values of the file meta information are not kept


@dataclass(slots=True)
class Admitted:
    """An object whose structure has been walked.

    `meta`: file meta information, tag -> text (binary and oversized values left out). `data_offset`: where the data set
    begins in the file. All places in `elements` and `pixel_data` are offsets into `data` when that is not None
    (a deflated data set, inflated within the cap), else into the file. `encoding`: how the data set really is written.
    `size`: bytes of the whole file.
    `transfer_syntax_uid`: the one declared, or the true one where the declared one is missing or plainly wrong.
    """

    meta: dict[int, str]
    transfer_syntax_uid: str
    data_offset: int
    encoding: Encoding
    elements: dict[int, Element]
    data: bytes | None = None
    warnings: tuple[str, ...] = ()
    size: int = 0

    @property
    def pixel_data(self) -> Element | None:
        """Pixel Data, Float Pixel Data or Double Float Pixel Data of the top level."""
        for tag in PIXEL_TAGS:
            if (element := self.elements.get(tag)) is not None:
                return element
        return None

    @property
    def encapsulated(self) -> bool:
        """Whether the pixel data is cut into fragments."""
        pixels = self.pixel_data
        return pixels is not None and pixels.fragments is not None


def admit(
    buffer: Bytes,
    *,
    raw_syntax: str | None = None,
    limits: Limits = LIMITS,
    nested: bool = False,
    before_inflating: Callable[[], object] = bool,
) -> Admitted:
    """Walks the object in `buffer` once and answers where its elements lie.

    `raw_syntax`: the transfer syntax of a bare data set (no preamble, no file meta information); None reads a
    Part 10 file and guesses where its beginning is missing. `nested`: keep the elements inside sequences too.
    `before_inflating` is called when the data set is a deflated one, which may take much more memory than its bytes.
    Raises Inadmissible and nothing else, whatever the bytes.
    """
    with memoryview(buffer) as view, view.cast("B") as data:
        return _admit(data, raw_syntax, limits, nested, before_inflating)


def _admit(
    data: memoryview, raw_syntax: str | None, limits: Limits, nested: bool, before_inflating: Callable[[], object]
) -> Admitted:
    warnings: dict[str, None] = {}
    meta: dict[int, str] = {}
    offset = 0
    if raw_syntax is None:
        offset = _after_preamble(data, warnings)
        meta, offset = _file_meta(data, offset, warnings)
    uid = raw_syntax or meta.get(TRANSFER_SYNTAX, "")
    size = len(data)
    if uid == DEFLATED_LE:
        before_inflating()
        inflated = _inflate(data[offset:], limits, warnings)
        with memoryview(inflated) as view:
            elements = _walk(Walk(view, nested=nested, limits=limits), 0, EXPLICIT_LITTLE, warnings)
        return Admitted(meta, uid, offset, EXPLICIT_LITTLE, elements, inflated, tuple(warnings), size)
    encoding, uid = _encoding_of(data, offset, uid, warnings)
    elements = _walk(Walk(data, nested=nested, limits=limits), offset, encoding, warnings)
    return Admitted(meta, uid, offset, encoding, elements, None, tuple(warnings), size)


def _walk(walk: Walk, offset: int, encoding: Encoding, warnings: dict[str, None]) -> dict[int, Element]:
    elements = walk.data_set(offset, len(walk.data), encoding).elements
    if not elements:
        raise Inadmissible("the data set is empty")
    warnings.update(walk.warnings)
    return elements


def _after_preamble(data: memoryview, warnings: dict[str, None]) -> int:
    """Where the file meta information (or a bare data set) begins (PS3.10 7.1)."""
    if bytes(data[128:132]) == b"DICM" and (bytes(data[132:134]) == _META_GROUP or not _begins(data)):
        if bytes(data[:128]).strip(b"\0"):
            warnings[ACTIVE_PREAMBLE] = None
        return 132
    warnings[NO_PREAMBLE] = None
    return 4 if bytes(data[:4]) == b"DICM" else 0


def _begins(data: memoryview) -> bool:
    """Whether the very first bytes are a data set: four letters at 128 may also be part of a value."""
    return bytes(data[:2]) in {b"\x08\0", b"\0\x08"}


def _file_meta(data: memoryview, offset: int, warnings: dict[str, None]) -> tuple[dict[int, str], int]:
    """The file meta information as text by tag, and where the data set begins.

    It is what carries group 0002, always explicit VR little endian; its declared group length is not trusted.
    """
    meta: dict[int, str] = {}
    pos, end, declared = offset, len(data), 0
    while end - pos >= 8 and bytes(data[pos : pos + 2]) == _META_GROUP:
        group, number, raw, length = EXPLICIT_LITTLE.element.unpack_from(data, pos)
        tag, value = group << 16 | number, pos + 8
        vr, is_long = VRS.get(raw, ("", False))
        if not vr:
            raise Inadmissible(f"{structure.tag_text(tag)} of the file meta information has no VR")
        if is_long:
            if end - pos < 12:
                raise Inadmissible("the file ends in its file meta information")
            (length,) = EXPLICIT_LITTLE.long.unpack_from(data, value)
            value += 4
        if length > end - value:
            raise Inadmissible(f"element {structure.tag_text(tag)} claims {length} bytes where {end - value} are left")
        if number == 0 and length == 4:
            declared = value + 4 + EXPLICIT_LITTLE.long.unpack_from(data, value)[0]
        elif vr not in {"OB", "UN", "UL"} and length <= _META_VALUE:
            meta[tag] = bytes(data[value : value + length]).decode("latin-1").strip(" \0")
        pos = value + length
    if not meta:
        warnings[NO_META] = None
    elif TRANSFER_SYNTAX not in meta:
        warnings[NO_SYNTAX] = None
    if declared and declared != pos:
        warnings[WRONG_META_LENGTH] = None
    return meta, pos


def _encoding_of(data: memoryview, offset: int, uid: str, warnings: dict[str, None]) -> tuple[Encoding, str]:
    """How the data set is written: as its transfer syntax says unless its first element plainly says otherwise."""
    if len(data) - offset < 8:
        raise Inadmissible("the object ends before its data set")
    syntax = SYNTAXES.get(uid)
    if syntax is None:
        found = _guess(data, offset)
        if uid:
            warnings[UNKNOWN_SYNTAX] = None
        return found, uid or _SYNTAX_OF[found]
    declared = _ENCODINGS[syntax.explicit_vr, syntax.little_endian]
    found = next((e for e in (declared, *_ENCODINGS.values()) if _fits(data, offset, e)), declared)
    if found is declared:
        return declared, uid
    warnings[WRONG_SYNTAX] = None
    return found, uid if syntax.encapsulated else _SYNTAX_OF[found]


def _guess(data: memoryview, offset: int) -> Encoding:
    for encoding in _ENCODINGS.values():
        if _fits(data, offset, encoding):
            return encoding
    raise Inadmissible("this is not a DICOM object: no file meta information and no data set were found")


def _fits(data: memoryview, offset: int, encoding: Encoding) -> bool:
    """Whether the first element may be so encoded: a group as data sets begin with, a VR or none, a length."""
    group, number, length = encoding.item.unpack_from(data, offset)
    if group > 0x00FF and public_vr(group << 16 | number) == "UN":
        return False
    known = VRS.get(bytes(data[offset + 4 : offset + 6]))
    if encoding.explicit:
        return known is not None
    return known is None and (length <= len(data) - offset - 8 or length == UNDEFINED)


def _inflate(data: memoryview, limits: Limits, warnings: dict[str, None]) -> bytes:
    """The inflated data set (PS3.5 A.5, RFC 1951), within the limits on size and ratio.

    Its size is found out first, in flat memory: a bomb is refused before it takes any, and the rest takes what it
    needs once and gives it back whole.
    """
    cap = min(limits.inflated, max(limits.inflated_freely, limits.ratio * len(data)))
    size, used = _measure(data, cap)
    if len(data) - used > 8:  # a pad byte, or the trailer of a gzip library
        warnings[AFTER_DEFLATE] = None
    return zlib.decompress(data[:used], -zlib.MAX_WBITS, max(size, 1))


def _measure(data: memoryview, cap: int) -> tuple[int, int]:
    """Bytes that come out, `cap` at most, and bytes that go in. Raises Inadmissible."""
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    total, pos = 0, 0
    pending: bytes | memoryview = b""
    try:
        while not engine.eof:
            if not pending:
                pending = data[pos : pos + (1 << 16)]
                pos += len(pending)
            part = engine.decompress(pending, 1 << 20)
            if not (part or pending or engine.eof):  # the engine may hold output when there is no more input
                raise Inadmissible("the deflated data set ends too early: the object is truncated")
            pending = engine.unconsumed_tail
            total += len(part)
            if total > cap:
                raise Inadmissible(f"the deflated data set inflates to more than {cap} bytes")
    except zlib.error:
        raise Inadmissible("the deflated data set is damaged") from None
    return total, pos - len(engine.unused_data)
