"""Pictures cut, mirrored and scaled to a viewport (PS3.18 8.3.5.1.3)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacs.domain.render import Picture, Region, Viewport

Array = NDArray[Any]


class NothingSeen(Exception):
    """The region that was asked for lies outside the picture."""


def fit(image: Picture, viewport: Viewport) -> Picture:
    """The region of the viewport, as large as the viewport allows; its aspect stays. Raises NothingSeen."""
    part = image if viewport.region is None else cut(image, viewport.region)
    return scaled(part, *_size(part.shape[0], part.shape[1], viewport))


def cut(image: Picture, region: Region) -> Picture:
    """The part of a picture that a region covers, whole pixels, at least one. Raises NothingSeen."""
    rows, columns = image.shape[:2]
    y_unit, x_unit = (rows, columns) if region.relative else (1, 1)
    down = _span(region.y * y_unit, None if region.height is None else region.height * y_unit, rows)
    across = _span(region.x * x_unit, None if region.width is None else region.width * x_unit, columns)
    return image[down, across][:: _step(region.height), :: _step(region.width)]


def _step(length: float | None) -> int:
    return -1 if length is not None and length < 0 else 1


def _span(start: float, length: float | None, size: int) -> slice:
    """Where a part of this start and length lies; the length's sign tells its direction, not its place."""
    if not 0 <= start < size:
        raise NothingSeen
    first = int(start)
    end = size if length is None else min(max(round(start + abs(length)), first + 1), size)
    return slice(first, end)


def _size(rows: int, columns: int, viewport: Viewport) -> tuple[int, int]:
    ratios = [limit / size for limit, size in ((viewport.height, rows), (viewport.width, columns)) if limit]
    ratio = min(ratios, default=1.0)
    if not viewport.enlarge:
        ratio = min(ratio, 1.0)
    return max(round(rows * ratio), 1), max(round(columns * ratio), 1)


def scaled(image: Picture, rows: int, columns: int) -> Picture:
    """The picture in another size: averaged where it shrinks, interpolated where it grows."""
    if image.shape[:2] == (rows, columns):
        return image
    found = _along(_along(image, rows).swapaxes(0, 1), columns).swapaxes(0, 1)
    return np.rint(found).clip(0, 255).astype(np.uint8)


def _along(image: Array, wanted: int) -> Array:
    """The first axis in another length."""
    size = image.shape[0]
    if size == wanted:
        return image.astype(np.float32)
    if size >= 4 * wanted:  # most of the way by plain averages, which cost least
        starts = np.arange(2 * wanted) * size // (2 * wanted)
        counts = np.diff(starts, append=size).astype(np.float32).reshape(-1, *[1] * (image.ndim - 1))
        image = np.add.reduceat(image, starts, axis=0, dtype=np.float32) / counts
    if image.shape[0] > wanted:
        shrunk: Array = np.tensordot(_weights(image.shape[0], wanted), image.astype(np.float32), 1)
        return shrunk
    places = np.clip(_centers(size, wanted), 0, size - 1)
    below = places.astype(np.int32)
    share = (places - below).astype(np.float32).reshape(-1, *[1] * (image.ndim - 1))
    grown: Array = image[below] * (1 - share) + image[np.minimum(below + 1, size - 1)] * share
    return grown


def _centers(size: int, wanted: int) -> Array:
    return (np.arange(wanted) + 0.5) * (size / wanted) - 0.5


def _weights(size: int, wanted: int) -> Array:
    """What each of `size` places gives to each of `wanted` ones: a triangle as wide as two of them."""
    distance = np.abs(np.arange(size)[None, :] - _centers(size, wanted)[:, None]) * (wanted / size)
    found = np.clip(1.0 - distance, 0.0, None)
    weights: Array = (found / found.sum(axis=1, keepdims=True)).astype(np.float32)
    return weights
