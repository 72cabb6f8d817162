"""What a compressed code stream says of itself before it is decoded: size, precision, colour (ISO 10918, 14495, 15444).

Decoders allocate what a stream declares; so the declaration is read first, in pure Python, and checked.
"""

from dataclasses import dataclass
from struct import unpack_from

_FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}  # SOF0..15 without DHT, JPG, DAC; JPEG-LS
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
_SCAN = 0xDA


@dataclass(frozen=True, slots=True)
class Stream:
    """The declared form of one code stream. `marker` is the JPEG frame marker (0xC3: lossless), 0 for others.

    `rgb` and `ybr`: the JPEG stream says by its own markers that its components are RGB, or YCbCr; often neither.
    """

    rows: int
    columns: int
    samples: int
    precision: int
    signed: bool = False
    marker: int = 0
    rgb: bool = False
    ybr: bool = False


def jpeg(stream: bytes) -> Stream | None:
    """The frame header of a JPEG or JPEG-LS stream; None when there is none."""
    pos, jfif, transform = 2, False, -1
    while pos + 4 <= len(stream):
        if stream[pos] != 0xFF:
            return None
        marker = stream[pos + 1]
        if marker == 0xFF:
            pos += 1
            continue
        if marker in _ALONE:
            pos += 2
            continue
        (length,) = unpack_from(">H", stream, pos + 2)
        body = stream[pos + 4 : pos + 2 + length]
        if marker == 0xE0 and body.startswith(b"JFIF"):
            jfif = True
        elif marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
            transform = body[11]
        elif marker in _FRAME_MARKERS and len(body) >= 6:
            return _frame(marker, body, jfif, transform)
        elif marker == _SCAN:
            return None
        pos += 2 + length
    return None


def _frame(marker: int, body: bytes, jfif: bool, transform: int) -> Stream:
    precision, rows, columns, samples = unpack_from(">BHHB", body)
    names = bytes(body[6 : 6 + 3 * samples : 3])
    rgb = samples == 3 and (transform == 0 or (transform < 0 and names == b"RGB"))
    ybr = samples == 3 and not rgb and (transform == 1 or jfif)
    return Stream(rows, columns, samples, precision, False, marker, rgb, ybr)


def jpeg_2000(stream: bytes) -> Stream | None:
    """The SIZ marker of a JPEG 2000 (or HTJ2K) code stream, also inside JP2 boxes; None when there is none."""
    start = 0 if stream.startswith(b"\xff\x4f\xff\x51") else stream.find(b"\xff\x4f\xff\x51", 0, 1 << 16)
    if start < 0 or len(stream) < start + 43:
        return None
    columns, rows, left, top = unpack_from(">IIII", stream, start + 8)
    (samples,) = unpack_from(">H", stream, start + 40)
    depth = stream[start + 42]
    return Stream(rows - top, columns - left, samples, (depth & 0x7F) + 1, bool(depth & 0x80))


def jpeg_xl(stream: bytes) -> Stream | None:
    """The size header of a JPEG XL stream (bare, or the first code stream box); samples and precision are not read."""
    start = 0
    if stream.startswith(b"\0\0\0\x0cJXL "):
        box = max(stream.find(b"jxlc", 0, 1 << 16) + 4, stream.find(b"jxlp", 0, 1 << 16) + 8)
        start = stream.find(b"\xff\x0a", box, box + 2)
    if start < 0 or stream[start : start + 2] != b"\xff\x0a":
        return None
    bits = int.from_bytes(stream[start + 2 : start + 18], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    def size(small: int) -> int:
        return (take(5) + 1) * 8 if small else take((9, 13, 18, 30)[take(2)]) + 1

    small = take(1)
    rows = size(small)
    ratio = take(3)
    parts = ((0, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio]
    columns = rows * parts[0] // parts[1] if ratio else size(small)
    return Stream(rows, columns, 0, 0)
