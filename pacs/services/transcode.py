"""Stored objects as Explicit VR Little Endian files (PS3.18 8.7.3, PS3.5 A): rewritten from the walk, value by value.

Native objects keep every value's bytes (turned where they were big endian) and stream through: nothing large is held.
Compressed pixel data is decoded frame by frame; the attributes that describe it then say what the bytes are.
"""

import mmap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from struct import Struct
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from pacs.domain import frames, pixels, values
from pacs.domain.admission import Admitted, Bytes, Inadmissible, admit
from pacs.domain.frames import Description, FrameTable
from pacs.domain.header import declared_frames
from pacs.domain.jsonmodel import Reader
from pacs.domain.structure import LONG_VRS, PIXEL_DATA, Element, Item
from pacs.domain.syntaxes import EXPLICIT_LE, SYNTAXES, TransferSyntax
from pacs.domain.values import Context
from pacs.errors import Damaged, NotAcceptable
from pacs.services import part10

Decode = Callable[[bytes, Description, str], pixels.Decoded]

CHUNK = 1 << 20
GATHER = 1 << 16
HEAD = 4096  # bytes of a frame that are looked at before the answer begins
LONGEST = 0xFFFFFFFE  # bytes of one value: all ones would mean undefined
SOURCE_AE = 0x00020016
PHOTOMETRIC, PLANAR, LOSSY = 0x00280004, 0x00280006, 0x00282110
_DESCRIBES_FRAGMENTS = frozenset({0x7FE00001, 0x7FE00002, 0x7FE00003})
_SPACE_PADDED = values.TEXTUAL - {"UI"}

_SHORT_HEAD, _LONG_HEAD, _ITEM_HEAD = Struct("<HH2sH"), Struct("<HH2sHI"), Struct("<HHI")
UNDEFINED = 0xFFFFFFFF
_ITEM_BEGINS = _ITEM_HEAD.pack(0xFFFE, 0xE000, UNDEFINED)
_ITEM_ENDS = _ITEM_HEAD.pack(0xFFFE, 0xE00D, 0)
SEQUENCE_ENDS = _ITEM_HEAD.pack(0xFFFE, 0xE0DD, 0)


class Instance(Protocol):
    """What the file meta information needs of a stored instance."""

    @property
    def sop_class_uid(self) -> str: ...

    @property
    def sop_instance_uid(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Replacement:
    """An element whose value the transcoder makes: `length` bytes, in `parts`."""

    vr: str
    length: int
    parts: Iterable[bytes]


def explicit_le(file: BinaryIO, instance: Instance, *, decode: Decode = pixels.decode) -> Iterator[bytes]:
    """The whole object as an Explicit VR Little Endian Part 10 file, in chunks.

    `decode` turns a frame into samples: here, or in a process that may die (`pacs.services.decoders`).
    Raises NotAcceptable at once when the object cannot be so written (no decoder, or a decoded value beyond 4 GB), and
    Damaged when the file is not what was stored. A frame that turns out damaged later raises Damaged while iterating:
    the answer must then be cut off, not ended. The file stays open until the iterator ends; closing it is the caller's.
    """
    buffer, admitted = walked(file, instance)
    if admitted.transfer_syntax_uid == EXPLICIT_LE and admitted.meta and admitted.encoding.explicit:
        return _chunks(buffer, 0, admitted.size)
    head = part10.head(instance.sop_class_uid, instance.sop_instance_uid, EXPLICIT_LE, admitted.meta.get(SOURCE_AE, ""))
    source = buffer if admitted.data is None else admitted.data
    if admitted.data is not None:
        return gathered([head], _chunks(source, 0, len(admitted.data)))
    return gathered([head], Rewriting(source, admitted, decode).run())


def native_data_set(
    file: BinaryIO, instance: Instance, *, explicit: bool, decode: Decode = pixels.decode
) -> Iterator[bytes]:
    """The data set alone, without file meta information, as Explicit or Implicit VR Little Endian, in chunks.

    For DIMSE, whose messages carry no file meta information (PS3.7 9.3.1). Raises as `explicit_le`.
    """
    buffer, admitted = walked(file, instance)
    if admitted.data is not None and explicit:
        return _chunks(admitted.data, 0, len(admitted.data))
    source = buffer if admitted.data is None else admitted.data
    return gathered([], Rewriting(source, admitted, decode, explicit=explicit).run())


def walked(file: BinaryIO, instance: Instance) -> tuple[Bytes, Admitted]:
    """The bytes of a stored file and its walk, sequences included. Raises Damaged."""
    buffer = _mapped(file)
    try:
        return buffer, admit(buffer, nested=True)
    except Inadmissible as reason:
        raise Damaged(f"The stored file of instance {instance.sop_instance_uid} is not readable: {reason}.") from None


def _mapped(file: BinaryIO) -> Bytes:
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError, AttributeError):
        file.seek(0)
        return file.read()


def _chunks(source: Bytes, offset: int, length: int) -> Iterator[bytes]:
    for start in range(offset, offset + length, CHUNK):
        yield bytes(source[start : min(start + CHUNK, offset + length)])


def gathered(head: list[bytes], pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces with small ones joined."""
    small, size = head, sum(map(len, head))
    for piece in pieces:
        if len(piece) < GATHER:
            small.append(piece)
            size += len(piece)
            if size < GATHER:
                continue
            yield b"".join(small)
        else:
            yield b"".join([*small, piece]) if len(piece) < CHUNK else b"".join(small)
            if len(piece) >= CHUNK:
                yield piece
        small, size = [], 0
    yield b"".join(small)


class Rewriting:
    """One object being rewritten, element by element, in ascending order."""

    def __init__(self, source: Bytes, admitted: Admitted, decode: Decode, *, explicit: bool = True) -> None:
        self.source = source
        self.header = _header if explicit else _implicit_header
        self.decode = decode
        self.view = memoryview(source)
        self.reader = Reader(self.view, admitted.encoding)
        self.syntax = SYNTAXES.get(admitted.transfer_syntax_uid)
        self.admitted = admitted
        self.top = Item(admitted.elements, admitted.encoding.little)
        self.replaced = self.replaced_pixels()

    def run(self) -> Iterator[bytes]:
        yield from self._elements(self.top, Context(), self.replaced)

    def _elements(self, item: Item, outer: Context, replaced: dict[int, Replacement]) -> Iterator[bytes]:
        context = self.reader.context(item, outer)
        for tag in sorted({*item.elements, *replaced}):
            if tag >> 16 in {0, 2} or tag & 0xFFFF == 0 or (replaced and tag in _DESCRIBES_FRAGMENTS):
                continue
            if tag in replaced:
                made = replaced[tag]
                yield self.header(tag, made.vr, made.length)
                yield from made.parts
            else:
                yield from self._element(item.elements[tag], item, context)

    def _element(self, element: Element, item: Item, context: Context) -> Iterator[bytes]:
        if element.items is not None:
            yield from self._sequence(element, context)
        elif element.fragments is not None:
            yield from self._fragments(element)
        else:
            yield from self._value(element, item, self._vr(element, context))

    def _vr(self, element: Element, context: Context) -> str:
        """The VR to write: the written one, the dictionary's for implicit VR; private elements stay unknown."""
        tag, vr = element.tag, element.vr
        if not vr:
            vr = "UN"
            if not tag >> 16 & 1:
                vr = values.resolve(values.public_vr(tag), element, context)
            elif 0x10 <= tag & 0xFFFF <= 0xFF:
                vr = "LO"
        return vr if vr in LONG_VRS or element.length <= 0xFFFE else "UN"

    def _value(self, element: Element, item: Item, vr: str) -> Iterator[bytes]:
        offset, length = element.value_offset, element.length
        odd = length % 2
        if length + odd > LONGEST:
            raise NotAcceptable("A value of this object is too long for Explicit VR Little Endian.")
        yield self.header(element.tag, vr, length + odd)
        if item.little or element.vr == "UN":
            yield from _chunks(self.source, offset, length)
        else:
            word = self._word(element, item, vr)
            for chunk in _chunks(self.source, offset, length):
                yield values.turned(chunk, values.VR_OF_WORD[word], little=False) if word > 1 else chunk
        if odd:
            yield b" " if vr in _SPACE_PADDED else b"\0"

    def _word(self, element: Element, item: Item, vr: str) -> int:
        if element.tag == PIXEL_DATA:
            return frames.word_of(element, frames.describe(self.reader, item))
        return values.WIDTHS.get(vr, 1)

    def _sequence(self, element: Element, context: Context) -> Iterator[bytes]:
        if not element.items:
            yield self.header(element.tag, "SQ", 0)
            return
        yield self.header(element.tag, "SQ", UNDEFINED)
        for item in element.items:
            yield _ITEM_BEGINS
            yield from self._elements(item, context, self._replaced_nested(item))
            yield _ITEM_ENDS
        yield SEQUENCE_ENDS

    def _fragments(self, element: Element) -> Iterator[bytes]:
        """Fragments of an element that is no pixel data: as they are."""
        places = element.fragments or ()
        yield self.header(element.tag, "OB", UNDEFINED)
        for offset, length in zip(places[::2], places[1::2], strict=True):
            yield item_head(length)
            yield from _chunks(self.source, offset, length)
        yield SEQUENCE_ENDS

    def replaced_pixels(self) -> dict[int, Replacement]:
        """The elements that change when the pixel data of the top level is decoded; none for native pixel data."""
        if not self.admitted.encapsulated:
            return {}
        table = frames.table(self.admitted, self.source)
        declared = declared_frames(self.reader, self.top)
        if self.syntax is not None and not self.syntax.decodable:
            raise NotAcceptable(f"Objects of transfer syntax {self.syntax.name} are served only as they are stored.")
        if table.number_of_frames != declared:
            raise NotAcceptable(f"The object says {declared} frames and holds {table.number_of_frames}.")
        return self._replaced(self.top, table)

    def _replaced_nested(self, item: Item) -> dict[int, Replacement]:
        """The same for an image inside a sequence (an icon), whose frames are compressed as those of the object."""
        element = item.elements.get(PIXEL_DATA)
        if element is None or element.fragments is None:
            return {}
        description = frames.describe(self.reader, item)
        places = element.fragments[2:]
        uid = self.admitted.transfer_syntax_uid
        table = FrameTable(1, uid, description, fragments=places, firsts=(0,) if places else ())
        return self._replaced(item, table)

    def _replaced(self, item: Item, table: FrameTable) -> dict[int, Replacement]:
        description = table.description
        try:
            first = self._decoded(table, 1)
            for number in range(2, table.number_of_frames + 1):
                offset, length = table.ranges(number)[0]
                head = bytes(self.view[offset : offset + min(length, HEAD)])
                pixels.check(head, description, table.transfer_syntax_uid)
        except (pixels.Undecodable, frames.NoSuchFrame) as reason:
            raise NotAcceptable(f"The pixel data cannot be decoded: {reason}.") from None
        bits = description.rows * description.columns * description.samples_per_pixel * description.bits_allocated
        size = -(-bits * table.number_of_frames // 8)
        if size + size % 2 > LONGEST:
            raise NotAcceptable("The decoded pixel data is too long for one value; ask for single frames.")
        vr = "OW" if description.bits_allocated > 8 else "OB"
        made = {PIXEL_DATA: Replacement(vr, size + size % 2, self._native(table, first, size))}
        made[PHOTOMETRIC] = text_of("CS", first.photometric_interpretation)
        if description.samples_per_pixel > 1:
            made[PLANAR] = Replacement("US", 2, [b"\0\0"])
        if is_surely_lossy(self.syntax) and LOSSY not in item.elements and item is self.top:
            made[LOSSY] = text_of("CS", "01")
        return made

    def _decoded(self, table: FrameTable, number: int) -> pixels.Decoded:
        stream = table.read(number, lambda offset, length: bytes(self.view[offset : offset + length]))
        uid = table.transfer_syntax_uid
        return self.decode(stream, pixels.untrimmed(table.description, uid), uid)

    def _native(self, table: FrameTable, first: pixels.Decoded, size: int) -> Iterator[bytes]:
        """All frames as native bytes, in order, padded to an even length."""
        rest: NDArray[np.uint8] = np.empty(0, np.uint8)
        for number in range(1, table.number_of_frames + 1):
            try:
                decoded = first if number == 1 else self._decoded(table, number)
            except (pixels.Undecodable, frames.NoSuchFrame) as reason:
                raise Damaged(f"Frame {number} cannot be decoded: {reason}.") from None
            if decoded.photometric_interpretation != first.photometric_interpretation:
                raise Damaged(f"Frame {number} is in another colour space than the first.")
            if table.description.bits_allocated > 1:
                yield decoded.samples.tobytes()
                continue
            whole = np.concatenate([rest, decoded.samples.reshape(-1)])  # frames of single bits share bytes
            cut = whole.size // 8 * 8
            yield np.packbits(whole[:cut], bitorder="little").tobytes()
            rest = whole[cut:]
        if rest.size:
            yield np.packbits(rest, bitorder="little").tobytes()
        if size % 2:
            yield b"\0"


def item_head(length: int) -> bytes:
    """How an item of so many bytes begins (PS3.5 7.5)."""
    return _ITEM_HEAD.pack(0xFFFE, 0xE000, length)


def is_surely_lossy(syntax: TransferSyntax | None) -> bool:
    """Whether every image of this syntax has lost something: the processes of JPEG other than the lossless."""
    return syntax is not None and syntax.lossy and syntax.media_type == "image/jpeg"


def text_of(vr: str, text: str) -> Replacement:
    """An element of this text, padded to an even length."""
    raw = text.encode("ascii", "replace")
    raw += b" " * (len(raw) % 2)
    return Replacement(vr, len(raw), [raw])


def _implicit_header(tag: int, _vr: str, length: int) -> bytes:
    return _ITEM_HEAD.pack(tag >> 16, tag & 0xFFFF, length)


def _header(tag: int, vr: str, length: int) -> bytes:
    if vr in LONG_VRS:
        return _LONG_HEAD.pack(tag >> 16, tag & 0xFFFF, vr.encode("ascii"), 0, length)
    return _SHORT_HEAD.pack(tag >> 16, tag & 0xFFFF, vr.encode("ascii"), length)
