"""One frame as a code stream of another transfer syntax (PS3.5 8.2, A.4); all of them exact but JPEG Baseline.

The stream is what a frame of `/frames` or the fragment of a file holds: bare, without JP2 boxes or SPIFF headers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from struct import pack
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from pacs.domain import pixels
from pacs.domain.frames import Description
from pacs.domain.pixels import BUDGET, Decoded
from pacs.domain.syntaxes import RLE

Array = NDArray[Any]

QUALITY = 90
MOST_SEGMENTS = 15
JPEG_BASELINE, JPEG_14, JPEG_14_SV1, JPEG_LS, JPEG_2000, HTJ2K = (
    f"1.2.840.10008.1.2.4.{number}" for number in (50, 57, 70, 80, 90, 201)
)
_LS_FRAME = b"\xff\xf7"
_COLOUR_TRANSFORMED = {"RGB": "YBR_RCT"}


class Unencodable(Exception):
    """These samples have no form in the transfer syntax; the message is one sentence that says why, without values."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True, slots=True)
class Encoded:
    """The code stream of one frame, and the Photometric Interpretation that belongs to it in a file."""

    stream: bytes
    photometric_interpretation: str


@dataclass(frozen=True, slots=True)
class Encoder:
    """A row of the table. `most_bits`: of one sample; `labels`: what Photometric Interpretation becomes.

    `encode(samples, bits, label, quality)` has samples of (rows, columns) or (rows, columns, 3).
    """

    encode: Callable[[Array, int, str, int], Any]
    most_bits: int = 16
    labels: Callable[[str], str] = str
    signed: bool = False  # whether the codec knows negative numbers; else they go as two's complement
    lossy: bool = False


def recode(stream: bytes, about: Description, source: str, target: str, *, quality: int = QUALITY,
           budget: int = BUDGET) -> Encoded:  # fmt: skip
    """A stored frame in another transfer syntax; `source` is "" for native bytes.

    Raises pixels.Undecodable, Unencodable.
    """
    decoded = pixels.decode(stream, pixels.untrimmed(about, source), source, budget=budget)
    return encode(decoded, about, target, quality=quality)


def encode(decoded: Decoded, about: Description, target: str, *, quality: int = QUALITY) -> Encoded:
    """Samples, with all their allocated bits where they were stored plainly, as a code stream. Raises Unencodable."""
    label = decoded.photometric_interpretation
    if reason := unfit(about, target, label):
        raise Unencodable(reason)
    encoder = ENCODERS[target]
    samples = decoded.samples if target == RLE else _stored_bits(decoded.samples, about, signed=encoder.signed)
    try:
        made = encoder.encode(np.ascontiguousarray(samples), about.bits_stored, label, quality)
    except (RuntimeError, ValueError) as error:  # what the codecs raise is a RuntimeError
        raise Unencodable(f"the encoder does not take this frame ({type(error).__name__})") from None
    return Encoded(bytes(made), encoder.labels(label))


def unfit(about: Description, target: str, label: str) -> str:
    """Why frames of this description have no form in the transfer syntax; "" where they have one."""
    encoder = ENCODERS.get(target)
    if encoder is None:
        return "frames are not encoded in this transfer syntax here"
    if about.number_type != "integer" or about.bits_allocated % 8:
        return "real numbers and single bits have no form in this transfer syntax"
    if about.samples_per_pixel not in {1, 3} or about.bits_stored > encoder.most_bits:
        return (
            f"samples of {about.bits_stored} bits, {about.samples_per_pixel} a pixel, do not fit this transfer syntax"
        )
    if target == RLE:
        return ""
    if about.bits_allocated > 16 or about.high_bit != about.bits_stored - 1:
        return "the samples do not lie in the lower bits of one or two bytes"
    cannot_lose = encoder.lossy and (about.pixel_representation == 1 or label == "PALETTE COLOR")
    return "signed numbers and palette indices cannot be compressed with loss" if cannot_lose else ""


def _stored_bits(samples: Array, about: Description, *, signed: bool) -> Array:
    """The samples in Bits Stored, as two's complement unless `signed`.

    Raises Unencodable where the bits above say something else than the sign.
    """
    width = samples.dtype.itemsize
    spare = width * 8 - about.bits_stored
    kept = (samples << spare) >> spare if spare > 0 else samples
    is_clear = spare == 0 or (samples.view(f"u{width}") >> about.bits_stored) == 0
    if not np.all((kept == samples) | is_clear):
        raise Unencodable("the bits above Bits Stored are in use, and a code stream would lose them")
    if not signed and kept.dtype.kind == "i":
        kept = kept.view(f"u{width}") & ((1 << about.bits_stored) - 1)
    narrow = np.dtype(f"{kept.dtype.kind}{1 if about.bits_stored <= 8 else 2}")
    return kept.astype(narrow, copy=False)


def _rle(samples: Array, _bits: int, _label: str, _quality: int) -> bytes:
    """Byte planes, most significant first, row by row (PS3.5 G)."""
    planes = np.moveaxis(samples.reshape(*samples.shape[:2], -1), -1, 0)
    octets = np.ascontiguousarray(planes).view(np.uint8).reshape(*planes.shape, -1)
    segments = []
    for plane in octets:
        for place in reversed(range(plane.shape[-1])):
            packed = bytes(imagecodecs.packbits_encode(np.ascontiguousarray(plane[..., place])))
            segments.append(packed + b"\0" * (len(packed) % 2))
    starts = [64]
    for segment in segments[:-1]:
        starts.append(starts[-1] + len(segment))
    head = pack("<16I", len(segments), *starts, *[0] * (MOST_SEGMENTS - len(starts)))
    return head + b"".join(segments)


def _jpeg_lossless(samples: Array, bits: int, label: str, _quality: int) -> Any:
    """Process 14 with the predictor of Selection Value 1; components stay what they are."""
    space = _space(samples, label)
    return imagecodecs.jpeg8_encode(
        samples, lossless=True, predictor=1, bitspersample=max(bits, 2), colorspace=space, outcolorspace=space
    )


def _space(samples: Array, label: str) -> str | None:
    """The same colour space in and out: nothing is converted, and the stream's own markers say what it holds."""
    return None if samples.ndim == 2 else "YCBCR" if label.startswith("YBR") else "RGB"


def _jpeg_baseline(samples: Array, _bits: int, label: str, quality: int) -> Any:
    if samples.ndim == 2:
        return imagecodecs.jpeg8_encode(samples, level=quality)
    return imagecodecs.jpeg8_encode(
        samples, level=quality, colorspace=_space(samples, label), outcolorspace="YCBCR", subsampling="422"
    )


def _jpeg_ls(samples: Array, _bits: int, _label: str, _quality: int) -> Any:
    made = bytes(imagecodecs.jpegls_encode(samples))
    return made[:2] + made[made.index(_LS_FRAME) :]  # without the SPIFF header, which not every reader skips


def _jpeg_2000(samples: Array, bits: int, label: str, _quality: int) -> Any:
    return imagecodecs.jpeg2k_encode(
        samples, level=0, codecformat="j2k", reversible=True, mct=label == "RGB", bitspersample=bits
    )


def _htj2k(samples: Array, _bits: int, label: str, _quality: int) -> Any:
    return imagecodecs.htj2k_encode(samples, reversible=True, rgb=None if samples.ndim == 2 else label == "RGB")


def _transformed(label: str) -> str:
    return _COLOUR_TRANSFORMED.get(label, label)


def _shared_chroma(label: str) -> str:
    return "YBR_FULL_422" if label in {"RGB", "YBR_FULL", "YBR_FULL_422"} else label


ENCODERS: dict[str, Encoder] = {
    RLE: Encoder(_rle, most_bits=32),
    JPEG_BASELINE: Encoder(_jpeg_baseline, most_bits=8, labels=_shared_chroma, lossy=True),
    JPEG_14: Encoder(_jpeg_lossless),
    JPEG_14_SV1: Encoder(_jpeg_lossless),
    JPEG_LS: Encoder(_jpeg_ls),
    JPEG_2000: Encoder(_jpeg_2000, labels=_transformed, signed=True),
    HTJ2K: Encoder(_htj2k, labels=_transformed, signed=True),
}
