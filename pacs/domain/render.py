"""Stored samples -> what is seen, in 8 bits a sample: modality LUT, VOI, colour, then cut and scaled (PS3.4 N.2)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacs.domain.pixels import Decoded, Undecodable
from pacs.domain.presentation import LINEAR, LINEAR_EXACT, SIGMOID, Presentation, Window

Array = NDArray[Any]
Picture = NDArray[np.uint8]

JPEG, PNG, GIF, WEBP = "image/jpeg", "image/png", "image/gif", "image/webp"
QUALITY = 90
LEAST_WIDTH = 1e-30  # of a frame that has only one value

# Y Cb Cr -> R G B (PS3.3 C.7.6.3.1.2): rows are R, G, B
_FULL = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]], np.float32)
_PARTIAL = np.array([[1.1644, 0, 1.5960], [1.1644, -0.3917, -0.8130], [1.1644, 2.0173, 0]], np.float32)
_COLOURS: dict[str, tuple[Array, int]] = {  # matrix, and the luminance that is black
    "YBR_FULL": (_FULL, 0),
    "YBR_FULL_422": (_FULL, 0),
    "YBR_PARTIAL": (_PARTIAL, 16),
    "YBR_PARTIAL_422": (_PARTIAL, 16),
    "YBR_PARTIAL_420": (_PARTIAL, 16),
}


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a picture: its corner and size in pixels, or in parts of the whole where `relative`. A negative width
    or height is that of a part that is mirrored (PS3.18 8.3.5.1.3)."""

    x: float = 0.0
    y: float = 0.0
    width: float | None = None
    height: float | None = None
    relative: bool = False


@dataclass(frozen=True, slots=True)
class Viewport:
    """The largest size of a picture, in pixels, whose aspect stays; None does not limit. `enlarge`: fill it."""

    width: int | None = None
    height: int | None = None
    region: Region | None = None
    enlarge: bool = True


WHOLE = Viewport()


@dataclass(frozen=True, slots=True)
class Look:
    """How a picture is wanted. `window` stands before the object's own; `quality` is 1 to 100, for lossy types."""

    media_type: str = JPEG
    viewport: Viewport = WHOLE
    window: Window | None = None
    quality: int = QUALITY


def picture(decoded: Decoded, shown: Presentation, window: Window | None = None) -> Picture:
    """The frame as (rows, columns) of gray or (rows, columns, 3) of RGB. `window` stands before the object's own.

    Raises Undecodable for samples of a kind that has no meaning to the eye.
    """
    samples = decoded.samples
    if samples.ndim == 3:
        return _colour(samples, decoded.photometric_interpretation, shown.bits_stored)
    if shown.photometric_interpretation == "PALETTE COLOR":
        return _palette(samples, shown)
    return _gray(samples, shown, window)


def _gray(samples: Array, shown: Presentation, window: Window | None) -> Picture:
    """Whole numbers of up to 16 bits go through one table of all their values."""
    if samples.dtype.kind == "f" or samples.dtype.itemsize > 2:
        return _levels(samples, shown, window or _window(samples, shown))
    low, high = int(samples.min()), int(samples.max())
    table = _levels(np.arange(low, high + 1), shown, window or _window(samples, shown))
    return table[np.subtract(samples, low, dtype=np.int32)]


def _window(samples: Array, shown: Presentation) -> Window | None:
    """The object's own window; None where its VOI LUT stands; else a window on all of its values."""
    if shown.voi_lut is not None or shown.window is not None:
        return None if shown.voi_lut is not None else shown.window
    low, high = shown.extent or _extremes(samples, shown)
    return Window((low + high) / 2, max(high - low, LEAST_WIDTH), LINEAR_EXACT)


def _extremes(samples: Array, shown: Presentation) -> tuple[float, float]:
    """The least and the greatest modality value of a frame, padding left out."""
    kept = samples if shown.padding is None else samples[~_is_padding(samples, shown.padding)]
    if kept.dtype.kind == "f":
        kept = kept[np.isfinite(kept)]
    if kept.size == 0:
        return 0.0, 1.0
    ends = np.array([kept.min(), kept.max()])
    found = _modality(ends if shown.modality_lut is None else np.unique(kept), shown)
    return float(found.min()), float(found.max())


def _is_padding(samples: Array, padding: tuple[int, int]) -> Array:
    return (samples >= padding[0]) & (samples <= padding[1])


def _modality(stored: Array, shown: Presentation) -> Array:
    """Modality values (PS3.3 C.11.1)."""
    if shown.modality_lut is not None:
        return shown.modality_lut.at(stored).astype(np.float64)
    return stored.astype(np.float64) * shown.slope + shown.intercept


def _levels(stored: Array, shown: Presentation, window: Window | None) -> Picture:
    found = _modality(stored, shown)
    if window is not None:
        levels = _FUNCTIONS[window.function](found, window)
    elif shown.voi_lut is not None:
        levels = shown.voi_lut.levels(found)
    else:
        levels = found
    levels = np.clip(np.nan_to_num(levels, nan=0.0), 0.0, 1.0)
    seen: Picture = np.rint((1.0 - levels if shown.inverted else levels) * 255.0).astype(np.uint8)
    if shown.padding is not None:
        seen[_is_padding(stored, shown.padding)] = 0
    return seen


def _linear(found: Array, window: Window) -> Array:
    """PS3.3 C.11.2.1.2.1."""
    if window.width <= 1:
        return (found > window.center - 0.5).astype(np.float64)
    return (found - (window.center - 0.5)) / (window.width - 1) + 0.5


def _linear_exact(found: Array, window: Window) -> Array:
    """PS3.3 C.11.2.1.3.2."""
    return (found - window.center) / window.width + 0.5


def _sigmoid(found: Array, window: Window) -> Array:
    """PS3.3 C.11.2.1.3.1."""
    return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (found - window.center) / window.width, -700.0, 700.0)))


_FUNCTIONS: dict[str, Callable[[Array, Window], Array]] = {
    LINEAR: _linear,
    LINEAR_EXACT: _linear_exact,
    SIGMOID: _sigmoid,
}


def _palette(samples: Array, shown: Presentation) -> Picture:
    if not shown.palette:
        raise Undecodable("the object has no whole palette for its colours")
    return np.stack([_bytes(lut.at(samples), lut.bits) for lut in shown.palette], axis=-1)


def _colour(samples: Array, label: str, bits: int) -> Picture:
    if samples.shape[2] != 3:
        raise Undecodable(f"pixels of {samples.shape[2]} samples are not shown here")
    if samples.dtype.kind != "u":
        raise Undecodable("colours of signed or real numbers are not shown here")
    seen = _bytes(samples, bits)
    if label not in _COLOURS:
        return seen
    matrix, black = _COLOURS[label]
    found = (seen - np.array([black, 128, 128], np.float32)) @ matrix.T
    return np.clip(np.rint(found), 0, 255).astype(np.uint8)


def _bytes(samples: Array, bits: int) -> Picture:
    """Unsigned samples of so many bits as bytes: 16 bits by their upper half."""
    bits = min(bits, samples.dtype.itemsize * 8)
    if bits == 8:
        return samples.astype(np.uint8)
    return (samples >> (bits - 8) if bits > 8 else samples * (255 // ((1 << bits) - 1))).astype(np.uint8)
