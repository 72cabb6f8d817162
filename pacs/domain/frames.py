"""Where the frames of an object lie, found without decoding anything (PS3.5 8.2, A.4, PS3.3 C.7.6.3).

A `FrameTable` is made once, kept with the index, and then serves any frame with one or a few reads of the file.
"""

import json
from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise

from pacs.domain import values
from pacs.domain.admission import Admitted, Bytes
from pacs.domain.charsets import DEFAULT
from pacs.domain.header import declared_frames, native_frame_bits
from pacs.domain.jsonmodel import Reader
from pacs.domain.structure import Element, Item
from pacs.domain.syntaxes import EXPLICIT_LE, RLE, SYNTAXES

EXTENDED_OFFSETS = 0x7FE00001
FLOAT_PIXELS, DOUBLE_PIXELS = 0x7FE00008, 0x7FE00009
_NUMBERS = {
    "rows": (0x00280010, 0),
    "columns": (0x00280011, 0),
    "samples_per_pixel": (0x00280002, 1),
    "bits_allocated": (0x00280100, 0),
    "bits_stored": (0x00280101, 0),
    "high_bit": (0x00280102, 0),
    "pixel_representation": (0x00280103, 0),
    "planar_configuration": (0x00280006, 0),
}
PHOTOMETRIC = 0x00280004

Pread = Callable[[int, int], bytes]

# how a code stream begins: a fragment that begins so begins a frame
_JPEG_FAMILY = (b"\xff\xd8\xff",)
_JPEG_2000 = (b"\xff\x4f\xff\x51",)
_BEGINNINGS: dict[str, tuple[bytes, ...]] = {
    "image/jpeg": _JPEG_FAMILY,
    "image/jls": _JPEG_FAMILY,
    "image/jp2": (*_JPEG_2000, b"\0\0\0\x0cjP  "),
    "image/jpx": (*_JPEG_2000, b"\0\0\0\x0cjP  "),
    "image/jphc": (*_JPEG_2000, b"\0\0\0\x0cjP  "),
    "image/jxl": (b"\xff\x0a", b"\0\0\0\x0cJXL "),
}
END_MARKER = b"\xff\xd9"  # EOI and EOC are the same two bytes
_MARKED = frozenset({"image/jpeg", "image/jls", "image/jp2", "image/jphc"})


class NoSuchFrame(LookupError):
    """The frame is not there, or the frames of the object cannot be told apart. The message says which."""


@dataclass(frozen=True, slots=True)
class Description:
    """What the Image Pixel module says of every frame (PS3.3 C.7.6.3); `number_type` is integer, float or double."""

    rows: int
    columns: int
    samples_per_pixel: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    pixel_representation: int
    planar_configuration: int
    photometric_interpretation: str
    number_type: str = "integer"


@dataclass(frozen=True, slots=True)
class FrameTable:
    """The frames of one object.

    Native: the pixel data lies at `offset`, `length` bytes, `frame_bits` bits a frame, in words of `word` bytes when
    big endian (else `word` is 1). Encapsulated: `fragments` are offset, length, ... of all fragments, `firsts[k]` is
    the fragment that frame k begins with. Where `inflated` is set, places refer to the inflated data set.
    """

    number_of_frames: int
    transfer_syntax_uid: str
    description: Description
    inflated: bool = False
    offset: int = 0
    length: int = 0
    frame_bits: int = 0
    word: int = 1
    fragments: Sequence[int] = ()
    firsts: Sequence[int] = field(default=())

    @property
    def encapsulated(self) -> bool:
        """Whether frames are code streams in fragments."""
        return bool(self.fragments)

    def ranges(self, number: int) -> tuple[tuple[int, int], ...]:
        """The byte ranges (offset, length) that hold frame `number`, counted from 1. Raises NoSuchFrame.

        For native frames that share bytes or words with their neighbours the range covers those whole.
        """
        self._check(number)
        if not self.fragments:
            return (self._native_range(number),)
        first = self.firsts[number - 1]
        last = self.firsts[number] if number < len(self.firsts) else len(self.fragments) // 2
        return tuple((self.fragments[2 * i], self.fragments[2 * i + 1]) for i in range(first, last))

    def read(self, number: int, pread: Pread) -> bytes:
        """Frame `number`, counted from 1, as stored: native in little endian and cut out at its bits, a code stream
        joined from its fragments without padding. `pread(offset, length)` reads the file (or the inflated data set).
        Raises NoSuchFrame.
        """
        parts = [pread(offset, length) for offset, length in self.ranges(number)]
        if not self.fragments:
            return self._cut(number, parts[0])
        stream = parts[0] if len(parts) == 1 else b"".join(parts)
        media_type = SYNTAXES[self.transfer_syntax_uid].media_type if self.transfer_syntax_uid in SYNTAXES else ""
        if media_type in _MARKED and stream[-3:-1] == END_MARKER and stream[-1:] == b"\0":
            return stream[:-1]
        return stream

    def _check(self, number: int) -> None:
        if not 1 <= number <= self.number_of_frames:
            raise NoSuchFrame(f"the object has {self.number_of_frames} frames; frame {number} was asked for")
        if self.fragments and not self.firsts:
            raise NoSuchFrame("the frames of this object cannot be told apart: it has no usable offset table")

    def _native_range(self, number: int) -> tuple[int, int]:
        begin, end = (number - 1) * self.frame_bits, number * self.frame_bits
        first = begin // 8 // self.word * self.word
        last = min(-(-end // 8 // self.word) * self.word if self.word > 1 else -(-end // 8), self.length)
        return self.offset + first, last - first

    def _cut(self, number: int, raw: bytes) -> bytes:
        """The frame's own bits, moved to the beginning of the first byte (PS3.5 8.1.1), rest bits zero."""
        if self.word > 1:
            raw = values.turned(raw, values.VR_OF_WORD[self.word], little=False)
        begin = (number - 1) * self.frame_bits
        skip = begin - begin // 8 // self.word * self.word * 8
        size = -(-self.frame_bits // 8)
        if self.frame_bits % 8 == 0 and skip % 8 == 0:
            return raw[skip // 8 : skip // 8 + size]
        number_of_bits = int.from_bytes(raw, "little") >> skip & ((1 << self.frame_bits) - 1)
        return number_of_bits.to_bytes(size, "little")

    def encode(self) -> bytes:
        """The table as bytes, for `decode`."""
        head = {
            "frames": self.number_of_frames,
            "syntax": self.transfer_syntax_uid,
            "description": asdict(self.description),
            "inflated": self.inflated,
            "native": [self.offset, self.length, self.frame_bits, self.word],
            "fragments": len(self.fragments),
            "firsts": len(self.firsts),
        }
        numbers = array("Q", [*self.fragments, *self.firsts])
        return json.dumps(head, separators=(",", ":")).encode() + b"\n" + numbers.tobytes()

    @classmethod
    def decode(cls, raw: bytes) -> "FrameTable":
        """The table that `encode` wrote."""
        line, _newline, rest = raw.partition(b"\n")
        head = json.loads(line)
        numbers = array("Q", rest)
        offset, length, frame_bits, word = head["native"]
        return cls(
            head["frames"],
            head["syntax"],
            Description(**head["description"]),
            head["inflated"],
            offset,
            length,
            frame_bits,
            word,
            numbers[: head["fragments"]],
            numbers[head["fragments"] :],
        )


def table(admitted: Admitted, buffer: Bytes) -> FrameTable:
    """The frame table of an admitted object; `buffer` is the file that was admitted.

    An object without pixel data has a table of no frames. Frames that the pixel data cannot hold are not in it.
    """
    with memoryview(buffer if admitted.data is None else admitted.data) as view, view.cast("B") as data:
        return _table(admitted, data)


def describe(reader: Reader, top: Item) -> Description:
    """The Image Pixel module of the top level."""
    numbers = {
        name: reader.number(top.elements.get(tag), top.little, default) for name, (tag, default) in _NUMBERS.items()
    }
    label = top.elements.get(PHOTOMETRIC)
    number_type = "float" if FLOAT_PIXELS in top.elements else "double" if DOUBLE_PIXELS in top.elements else "integer"
    numbers["bits_allocated"] = numbers["bits_allocated"] or {"float": 32, "double": 64}.get(number_type, 8)
    numbers["bits_stored"] = numbers["bits_stored"] or numbers["bits_allocated"]
    text = "" if label is None else DEFAULT(reader.raw(label, 64)).strip(" ").upper()
    return Description(**numbers, photometric_interpretation=text, number_type=number_type)


def _table(admitted: Admitted, data: memoryview) -> FrameTable:
    reader = Reader(data, admitted.encoding)
    top = Item(admitted.elements, admitted.encoding.little)
    description, uid = describe(reader, top), admitted.transfer_syntax_uid
    inflated, pixels = admitted.data is not None, admitted.pixel_data
    if pixels is None or pixels.length == 0:
        return FrameTable(0, uid, description, inflated)
    declared = declared_frames(reader, top)
    if pixels.fragments is None:
        bits = native_frame_bits(reader, top) or pixels.length * 8
        count = min(declared, pixels.length * 8 // bits)
        word = 1 if top.little else word_of(pixels, description)
        if uid in SYNTAXES and SYNTAXES[uid].encapsulated:  # native all the same, whatever the file says
            uid = EXPLICIT_LE
        return FrameTable(count, uid, description, inflated, pixels.value_offset, pixels.length, bits, word)
    places = pixels.fragments[2:]
    firsts = _first_fragments(reader, top, pixels, declared, uid)
    count = len(firsts) or (declared if places else 0)
    return FrameTable(count, uid, description, inflated, fragments=places, firsts=firsts)


def word_of(pixels: Element, description: Description) -> int:
    """Bytes that big endian swaps together: words of OW, larger samples whole."""
    if pixels.vr == "OB":
        return 1
    return {32: 4, 64: 8}.get(description.bits_allocated, 2)


def _first_fragments(reader: Reader, top: Item, pixels: Element, declared: int, uid: str) -> Sequence[int]:
    """The fragment each frame begins with; empty where the frames cannot be told apart."""
    fragments = pixels.fragments or ()
    places, count = fragments[2:], len(fragments) // 2 - 1
    syntax = SYNTAXES.get(uid)
    if count <= 0:
        return ()
    if declared == 1 or (syntax is not None and syntax.video):
        return (0,)
    offsets = _extended_offsets(reader, top) or _basic_offsets(reader.data, fragments, top.little)
    if len(offsets) == declared and (firsts := _by_offsets(offsets, places)):
        return firsts
    if count <= declared:
        return range(count)
    return _by_beginnings(reader.data, places, declared, uid)


def _extended_offsets(reader: Reader, top: Item) -> Sequence[int]:
    """The Extended Offset Table (PS3.3 C.7.6.3.1.8): 64-bit offsets like those of the basic one."""
    element = top.elements.get(EXTENDED_OFFSETS)
    return () if element is None else [int(n) for n in values.numbers(reader.raw(element), "UV", top.little)]


def _basic_offsets(data: memoryview, fragments: Sequence[int], little: bool) -> Sequence[int]:
    start, length = fragments[0], fragments[1]
    return [int(n) for n in values.numbers(data[start : start + length], "UL", little)]


def _by_offsets(offsets: Sequence[int], places: Sequence[int]) -> Sequence[int]:
    """Frames by offsets from the first fragment's item tag; empty unless each offset is one fragment's, ascending."""
    index = {places[2 * i] - places[0]: i for i in range(len(places) // 2)}
    firsts = [index.get(offset, -1) for offset in offsets]
    fits = firsts[0] == 0 and all(a < b for a, b in pairwise(firsts))
    return array("Q", firsts) if fits else ()


def _by_beginnings(data: memoryview, places: Sequence[int], declared: int, uid: str) -> Sequence[int]:
    """Frames by how their code streams begin, and where the one before has ended."""
    starts = [i for i in range(len(places) // 2) if _begins(data, places[2 * i], places[2 * i + 1], uid)]
    if len(starts) != declared and uid != RLE:
        starts = [i for i in starts if i == 0 or _has_ended(data, places[2 * i - 2], places[2 * i - 1])]
    return array("Q", starts) if len(starts) == declared and starts[0] == 0 else ()


def _begins(data: memoryview, offset: int, length: int, uid: str) -> bool:
    head = bytes(data[offset : offset + min(length, 16)])
    if uid == RLE:  # the header of an RLE frame: 1 to 15 segments, the first right behind it (PS3.5 G.5)
        return length >= 64 and 1 <= head[0] <= 15 and head[1:8] == b"\0\0\0\x40\0\0\0"
    syntax = SYNTAXES.get(uid)
    return head.startswith(_BEGINNINGS.get(syntax.media_type if syntax else "", _JPEG_FAMILY + _JPEG_2000))


def _has_ended(data: memoryview, offset: int, length: int) -> bool:
    tail = bytes(data[offset + max(0, length - 3) : offset + length])
    return tail.endswith(END_MARKER) or (tail[:2] == END_MARKER and tail[2:] == b"\0")
