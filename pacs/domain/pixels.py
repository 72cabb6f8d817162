"""One frame of an object as an array of samples (PS3.3 C.7.6.3, PS3.5 8), for rendering, transcoding and analysis.

Sizes are checked against the description and a budget before anything is allocated. Decoders parse untrusted
streams in C: run this in a process that may die (security.md 2).
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from pacs.domain import codestreams, frames
from pacs.domain.admission import Admitted, Bytes, admit
from pacs.domain.codestreams import Stream
from pacs.domain.frames import Description
from pacs.domain.syntaxes import OCTET_STREAM, SYNTAXES

BUDGET = 1 << 30  # bytes of one decoded frame
THREADS = 2  # of one JPEG 2000 frame: code blocks are independent, and somebody waits

Array = NDArray[Any]

_BIT_FOR_BIT = frozenset({OCTET_STREAM, "image/dicom-rle", "application/x-deflate"})


class Undecodable(Exception):
    """The frame cannot be decoded here; the message is one sentence that says why, without values."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True, slots=True)
class Decoded:
    """The samples of one frame, (rows, columns) or (rows, columns, samples), and what they mean now.

    Integers have their sign and no bits beyond Bits Stored. `photometric_interpretation` is that of the samples:
    YBR_FULL where chroma was shared, RGB where the codec itself undoes a colour transform.
    """

    samples: Array
    photometric_interpretation: str


def frame(buffer: Bytes, index: int, *, admitted: Admitted | None = None, budget: int = BUDGET) -> Decoded:
    """Frame `index` (from 0) of the object in `buffer` (a whole file: bytes or mmap).

    Raises Inadmissible, frames.NoSuchFrame, Undecodable.
    """
    admitted = admitted or admit(buffer)
    table = frames.table(admitted, buffer)
    source = buffer if admitted.data is None else admitted.data
    with memoryview(source) as view:
        stream = table.read(index + 1, lambda offset, length: bytes(view[offset : offset + length]))
    uid = table.transfer_syntax_uid if table.encapsulated else ""
    return decode(stream, table.description, uid, budget=budget)


def decode(stream: bytes, description: Description, transfer_syntax_uid: str, *, budget: int = BUDGET) -> Decoded:
    """The samples of one frame as `FrameTable.read` gave it. An empty `transfer_syntax_uid` means native.

    Raises Undecodable: for a stream that is damaged, too large, of another size than described, or of a kind that no
    decoder here reads.
    """
    syntax = SYNTAXES.get(transfer_syntax_uid)
    _check_budget(description, budget)
    if transfer_syntax_uid and (syntax is None or not syntax.decodable):
        raise Undecodable(f"frames of transfer syntax {transfer_syntax_uid} cannot be decoded here")
    if syntax is None or syntax.media_type == OCTET_STREAM:
        return _native(stream, description)
    try:
        return _CODECS[syntax.media_type](stream, description)
    except Undecodable:
        raise
    except Exception as error:
        raise Undecodable(f"the {syntax.media_type} stream of the frame is damaged ({type(error).__name__})") from None


def untrimmed(description: Description, transfer_syntax_uid: str) -> Description:
    """The description by which `decode` keeps every allocated bit, where the frame holds them all; else as it is."""
    syntax = SYNTAXES.get(transfer_syntax_uid)
    if syntax is not None and syntax.media_type not in _BIT_FOR_BIT:
        return description
    return replace(description, bits_stored=description.bits_allocated, high_bit=description.bits_allocated - 1)


def check(head: bytes, description: Description, transfer_syntax_uid: str) -> None:
    """Whether a frame can be decoded as far as the beginning of its code stream tells; raises Undecodable if not."""
    syntax = SYNTAXES.get(transfer_syntax_uid)
    parse = _PARSERS.get(syntax.media_type) if syntax is not None else None
    if parse is not None and (found := parse(head)) is not None:
        _checked(found, description)


def _check_budget(description: Description, budget: int) -> None:
    size = description.rows * description.columns * description.samples_per_pixel
    if size <= 0:
        raise Undecodable("the object says nothing of the size of its frames")
    if size * max(description.bits_allocated, 8) // 8 > budget:
        raise Undecodable(f"a frame of {description.rows} x {description.columns} is larger than {budget} bytes")


def _dtype(description: Description) -> np.dtype[Any]:
    if description.number_type != "integer":
        return np.dtype("<f4" if description.number_type == "float" else "<f8")
    width = {1: 1, 8: 1, 16: 2, 32: 4, 64: 8}.get(description.bits_allocated)
    if width is None:
        raise Undecodable(f"samples of {description.bits_allocated} bits are not decoded here")
    return np.dtype(f"<{'i' if description.pixel_representation == 1 else 'u'}{width}")


def _native(raw: bytes, description: Description) -> Decoded:
    """Samples of an uncompressed frame, planes interleaved, shared chroma spread (PS3.3 C.7.6.3.1.2 and .3)."""
    rows, columns, samples = description.rows, description.columns, description.samples_per_pixel
    label = description.photometric_interpretation
    count = rows * columns * samples
    if description.bits_allocated == 1:
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), count=min(count, len(raw) * 8), bitorder="little")
        return Decoded(_shaped(bits, description, planar=False), label)
    found = np.frombuffer(
        raw[: len(raw) // _dtype(description).itemsize * _dtype(description).itemsize], _dtype(description)
    )
    if label in {"YBR_FULL_422", "YBR_PARTIAL_422"} and samples == 3 and found.size < count:
        return Decoded(_spread_422(found, rows, columns), label.replace("_422", ""))
    array = _shaped(found, description, planar=description.planar_configuration == 1)
    return Decoded(_trimmed(array, description), label)


def _shaped(flat: Array, description: Description, *, planar: bool) -> Array:
    rows, columns, samples = description.rows, description.columns, description.samples_per_pixel
    if flat.size < rows * columns * samples:
        raise Undecodable("the frame is shorter than its description says")
    flat = flat[: rows * columns * samples]
    if samples == 1:
        return flat.reshape(rows, columns)
    return flat.reshape(samples, rows, columns).transpose(1, 2, 0) if planar else flat.reshape(rows, columns, samples)


def _spread_422(flat: Array, rows: int, columns: int) -> Array:
    """Y1 Y2 Cb Cr for two pixels -> Y Cb Cr for each."""
    if columns % 2 or flat.size < rows * columns * 2:
        raise Undecodable("the frame is shorter than its description says")
    quads = flat[: rows * columns * 2].reshape(rows, columns // 2, 4)
    out = np.empty((rows, columns, 3), flat.dtype)
    out[:, ::2, 0], out[:, 1::2, 0] = quads[:, :, 0], quads[:, :, 1]
    for pixel in (0, 1):
        out[:, pixel::2, 1], out[:, pixel::2, 2] = quads[:, :, 2], quads[:, :, 3]
    return out


def _trimmed(array: Array, description: Description) -> Array:
    """Integers without the bits beyond Bits Stored (overlays once lived there), with their sign."""
    if description.number_type != "integer":
        return array
    allocated = array.dtype.itemsize * 8
    stored = description.bits_stored
    if not 0 < stored < allocated:
        return array
    above = allocated - 1 - max(description.high_bit, stored - 1)
    if above < 0:
        return array
    return (array << above) >> (allocated - stored)  # the right shift of a signed dtype carries the sign


def _checked(stream: Stream | None, description: Description) -> Stream:
    if stream is None:
        raise Undecodable("the frame does not begin with a code stream of its transfer syntax")
    if (stream.rows, stream.columns) != (description.rows, description.columns):
        raise Undecodable(
            f"the code stream holds {stream.rows} x {stream.columns} pixels where the object says "
            f"{description.rows} x {description.columns}"
        )
    if stream.samples not in {0, description.samples_per_pixel}:
        raise Undecodable(
            f"the code stream holds {stream.samples} samples a pixel where the object says "
            f"{description.samples_per_pixel}"
        )
    return stream


def _as_described(array: Array, description: Description) -> Array:
    """Decoded integers in the object's own type: codecs of unsigned samples hand out two's complement as it is."""
    wanted = _dtype(description)
    if description.samples_per_pixel == 1 and array.ndim == 3:
        array = array[..., 0]
    if array.dtype.itemsize > wanted.itemsize:
        raise Undecodable("the code stream holds more bits than the object allocates")
    if description.pixel_representation == 1 and array.dtype.kind == "u":
        bits = wanted.itemsize * 8 - description.bits_stored
        moved = array.astype(f"<u{wanted.itemsize}").view(wanted)
        return (moved << bits) >> bits if bits > 0 else moved
    return array.astype(wanted, copy=False)


def _require_end(raw: bytes) -> None:
    """JPEG decoders make up what is missing (libjpeg), or look for it for half a minute (CharLS)."""
    if not raw[-64:].rstrip(b"\0\xff").endswith(frames.END_MARKER):
        raise Undecodable("the code stream has no end: it is cut short")


def _jpeg(raw: bytes, description: Description) -> Decoded:
    _require_end(raw)
    stream = _checked(codestreams.jpeg(raw), description)
    label = description.photometric_interpretation
    if stream.samples == 3 and stream.marker == 0xC3:  # lossless: components are what they are
        return Decoded(_as_described(imagecodecs.ljpeg_decode(raw), description), label)
    if stream.samples == 3:
        # the same colour space in and out: components as coded, chroma spread
        array = imagecodecs.jpeg8_decode(raw, colorspace="YCBCR", outcolorspace="YCBCR")
        is_ybr = stream.ybr or (label.startswith("YBR") and not stream.rgb)
        return Decoded(_as_described(array, description), "YBR_FULL" if is_ybr else "RGB")
    return Decoded(_as_described(imagecodecs.jpeg_decode(raw), description), label)


def _jpeg_ls(raw: bytes, description: Description) -> Decoded:
    _require_end(raw)
    _checked(codestreams.jpeg(raw), description)
    return Decoded(_as_described(imagecodecs.jpegls_decode(raw), description), description.photometric_interpretation)


def _jpeg_2000(raw: bytes, description: Description) -> Decoded:
    """JPEG 2000, high throughput included: OpenJPEG refuses a damaged stream, where imagecodecs' OpenJPH hands out
    whatever the memory held."""
    _checked(codestreams.jpeg_2000(raw), description)
    array = imagecodecs.jpeg2k_decode(raw, numthreads=THREADS)
    return Decoded(_as_described(array, description), _inverted(description))


def _inverted(description: Description) -> str:
    """The component transforms of JPEG 2000 are undone by every decoder."""
    label = description.photometric_interpretation
    return "RGB" if label in {"YBR_RCT", "YBR_ICT"} else label


def _jpeg_xl(raw: bytes, description: Description) -> Decoded:
    _checked(codestreams.jpeg_xl(raw), description)
    array = imagecodecs.jpegxl_decode(raw, index=0)
    label = "RGB" if description.samples_per_pixel == 3 else description.photometric_interpretation
    return Decoded(_as_described(array, description), label)


def _rle(raw: bytes, description: Description) -> Decoded:
    """Byte planes, most significant first, each a run-length segment (PS3.5 G)."""
    if description.bits_allocated == 1:
        size = -(-description.rows * description.columns * description.samples_per_pixel // 8)
        return _native(_segments(raw, 1, size)[0].tobytes(), description)
    wanted = _dtype(description)
    rows, columns, samples = description.rows, description.columns, description.samples_per_pixel
    planes = _segments(raw, wanted.itemsize * samples, rows * columns)
    out = np.empty((samples, rows * columns, wanted.itemsize), np.uint8)
    for number, plane in enumerate(planes):
        sample, byte = divmod(number, wanted.itemsize)
        out[sample, :, wanted.itemsize - 1 - byte] = plane
    array = out.reshape(-1).view(wanted)
    return Decoded(
        _trimmed(_shaped(array, description, planar=True), description), description.photometric_interpretation
    )


def _segments(raw: bytes, count: int, size: int) -> list[Array]:
    """The `count` segments of an RLE frame, each unpacked to exactly `size` bytes."""
    offsets = np.frombuffer(raw[:64], "<u4")
    if offsets.size < 16 or int(offsets[0]) != count or count > 15:
        raise Undecodable("the RLE header does not have the segments that the object's description needs")
    starts = [int(offset) for offset in offsets[1 : count + 1]]
    ends = [*starts[1:], len(raw)]
    planes = []
    for start, end in zip(starts, ends, strict=True):
        if not 64 <= start <= end <= len(raw):
            raise Undecodable("the RLE header points outside its frame")
        if end - start > 2 * size + 1024:  # two bytes may stand for 128: never unpack what no plane needs
            raise Undecodable("an RLE segment is too long for its plane")
        plane = np.frombuffer(imagecodecs.packbits_decode(raw[start:end]), np.uint8)
        if plane.size < size:
            raise Undecodable("an RLE segment is too short for its plane")
        planes.append(plane[:size])
    return planes


def _deflated(raw: bytes, description: Description) -> Decoded:
    """A frame of Deflated Image Frame Compression: native bytes in a deflate stream (PS3.5 A.4.13)."""
    bits = description.rows * description.columns * description.samples_per_pixel * description.bits_allocated
    return _native(zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, -(-bits // 8)), description)


_CODECS: dict[str, Callable[[bytes, Description], Decoded]] = {
    "image/jpeg": _jpeg,
    "image/jls": _jpeg_ls,
    "image/jp2": _jpeg_2000,
    "image/jphc": _jpeg_2000,
    "image/jxl": _jpeg_xl,
    "image/dicom-rle": _rle,
    "application/x-deflate": _deflated,
}

_PARSERS: dict[str, Callable[[bytes], Stream | None]] = {
    "image/jpeg": codestreams.jpeg,
    "image/jls": codestreams.jpeg,
    "image/jp2": codestreams.jpeg_2000,
    "image/jphc": codestreams.jpeg_2000,
    "image/jxl": codestreams.jpeg_xl,
}
