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
    found = _along(_along(image, 0, rows), 1, columns)
    return (found + np.float32(0.5)).clip(0, 255).astype(np.uint8)


def _along(image: Array, axis: int, wanted: int) -> Array:
    """One axis in another length."""
    size = image.shape[axis]
    if size == wanted:
        return image
    if size >= 4 * wanted:  # most of the way by plain averages, which cost least
        image = _averaged(image, axis, 2 * wanted)
    return _weighed(image, axis, wanted)


def _averaged(image: Array, axis: int, wanted: int) -> Array:
    size = image.shape[axis]
    starts = np.arange(wanted) * size // wanted
    counts = np.diff(starts, append=size).astype(np.float32)
    return np.add.reduceat(image, starts, axis=axis, dtype=np.float32) / _upright(counts, axis, image.ndim)


def _weighed(image: Array, axis: int, wanted: int) -> Array:
    """Each new place is a weighted mean of the old ones around it: a triangle, twice as wide as the longer step."""
    size = image.shape[axis]
    step = size / wanted
    reach = max(step, 1.0)
    centers = (np.arange(wanted) + 0.5) * step - 0.5
    first = np.ceil(centers - reach).astype(np.int32)
    places = first[None, :] + np.arange(int(2 * reach) + 1, dtype=np.int32)[:, None]
    weights = np.clip(1.0 - np.abs(places - centers) / reach, 0.0, None) * ((places >= 0) & (places < size))
    weights = (weights / weights.sum(axis=0)).astype(np.float32)
    found = np.float32(0)
    for place, weight in zip(np.clip(places, 0, size - 1), weights, strict=True):
        found = found + image.take(place, axis) * _upright(weight, axis, image.ndim)
    return np.asarray(found)


def _upright(numbers: Array, axis: int, dimensions: int) -> Array:
    """A row of numbers so that each goes with its place along an axis."""
    return numbers.reshape([-1 if dimension == axis else 1 for dimension in range(dimensions)])
