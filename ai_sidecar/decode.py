"""Pixels of single-frame grey images, from whatever transfer syntax we can read with permissive codecs."""

import io
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame

from ai_sidecar.ports import RunFailed, SourceInstance
from pacs.domain.syntaxes import RLE, SYNTAXES

Array = NDArray[Any]
MOST_PIXELS = 1 << 28
_JPEG = "1.2.840.10008.1.2.4."


@dataclass(frozen=True, slots=True)
class Pixels:
    """How the pixels of an image are kept (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    allocated: int
    stored: int
    high_bit: int
    signed: bool

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(f"{'i' if self.signed else 'u'}{self.allocated // 8}")


def read(instance: SourceInstance) -> tuple[Dataset, Array]:
    """The data set, without its pixel data, and the stored values (row, column).

    Raises RunFailed for what cannot be decoded, and what `instance.read` raises.
    """
    try:
        dataset = dcmread(io.BytesIO(instance.read()), force=True)
        if str(dataset.get("SOPInstanceUID", "")) != instance.sop_instance_uid:
            raise RunFailed("wrong_instance", "The file holds another instance than the job names.")
        pixels = samples(dataset, instance.transfer_syntax_uid)
    except (ValueError, AttributeError, TypeError, KeyError, EOFError, zlib.error, OverflowError) as error:
        raise RunFailed(
            "undecodable", f"An image cannot be decoded: {type(error).__name__}.", permanent=True
        ) from error
    del dataset.PixelData
    return dataset, pixels


def samples(dataset: Dataset, transfer_syntax_uid: str) -> Array:
    """The stored values of a single-frame grey image, without what lies above Bits Stored."""
    form = _form(dataset)
    syntax = SYNTAXES.get(transfer_syntax_uid)
    if syntax is None or form.rows * form.columns > MOST_PIXELS:
        raise RunFailed("undecodable", "The image is too large, or in an unknown transfer syntax.", permanent=True)
    if not syntax.encapsulated:
        return _cut(_native(dataset.PixelData, form, little=syntax.little_endian), form)
    decode = _DECODERS.get(transfer_syntax_uid)
    if decode is None:
        raise RunFailed("undecodable", f"Images in {syntax.name} cannot be decoded.", permanent=True)
    try:
        decoded = decode(get_frame(dataset.PixelData, 0, number_of_frames=1), form)
    except (RuntimeError, NotImplementedError) as error:
        raise RunFailed("undecodable", f"An image in {syntax.name} cannot be decoded.", permanent=True) from error
    if decoded.shape != (form.rows, form.columns):
        raise RunFailed("undecodable", "The compressed image has another size than it states.", permanent=True)
    return _cut(decoded, form)


def _form(dataset: Dataset) -> Pixels:
    signed = bool(dataset.PixelRepresentation)
    stored = int(dataset.BitsStored)
    form = Pixels(
        int(dataset.Rows), int(dataset.Columns), int(dataset.BitsAllocated), stored, int(dataset.HighBit), signed
    )
    if form.allocated not in (8, 16, 32) or not 1 <= stored <= form.allocated or stored - 1 > form.high_bit:
        raise ValueError("bits that cannot be")
    return form


def _native(content: bytes, form: Pixels, *, little: bool) -> Array:
    count = form.rows * form.columns
    dtype = form.dtype.newbyteorder("<" if little else ">")
    return np.frombuffer(content, dtype, count).reshape(form.rows, form.columns)


def _cut(values: Array, form: Pixels) -> Array:
    """Only the stored bits, sign extended; decoders give unsigned, signed or wider integers."""
    native = values.astype(form.dtype, copy=False)
    if form.stored == form.allocated:
        return native.astype(form.dtype.newbyteorder("="), copy=False)
    above = form.allocated - 1 - form.high_bit
    return (native << above) >> (form.allocated - form.stored)


def _rle(frame: bytes, form: Pixels) -> Array:
    dtype = form.dtype.newbyteorder("<")
    flat = imagecodecs.dicomrle_decode(frame, dtype)
    return np.frombuffer(flat, dtype, form.rows * form.columns).reshape(form.rows, form.columns)


def _with(decoder: Callable[[bytes], Any]) -> Callable[[bytes, Pixels], Array]:
    return lambda frame, form: _low_bits(np.asarray(decoder(frame)), form)


def _low_bits(decoded: Array, form: Pixels) -> Array:
    """Codecs put the stored bits lowest, whatever High Bit says of native pixels."""
    return decoded.astype(form.dtype) << (form.high_bit + 1 - form.stored)


_DECODERS: Mapping[str, Callable[[bytes, Pixels], Array]] = {
    "1.2.840.10008.1.2.8.1": lambda frame, form: _native(zlib.decompress(frame, -15), form, little=True),
    "1.2.840.10008.1.2.1.98": lambda frame, form: _native(frame, form, little=True),
    RLE: _rle,
    **{_JPEG + n: _with(imagecodecs.jpeg_decode) for n in ("50", "51", "53", "55")},
    **{_JPEG + n: _with(imagecodecs.ljpeg_decode) for n in ("57", "70")},
    **{_JPEG + n: _with(imagecodecs.jpegls_decode) for n in ("80", "81")},
    **{_JPEG + n: _with(imagecodecs.jpeg2k_decode) for n in ("90", "91", "201", "202", "203")},
    **{_JPEG + n: _with(imagecodecs.jpegxl_decode) for n in ("110", "111", "112")},
}
