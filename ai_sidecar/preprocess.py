"""From the source grid to the tensor that a model takes: resample, orient, operate on the values (ai.md 2, 5)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ai_sidecar import graphs
from ai_sidecar.manifest import Input, Window
from ai_sidecar.operations import Op
from ai_sidecar.runtime import Halt, Runtime
from ai_sidecar.volume import Grid, Volume

Floats = NDArray[np.float32]
SLAB_BYTES = 64 << 20  # of float32 at the source's resolution, at a time
SAME_SCALE = 1e-4
PATIENT = "LPS"
DIRECTIONS = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}


@dataclass(frozen=True, slots=True)
class Mapped:
    """How the source grid and the model's grid hang together.

    `axes`: the source axis of each tensor axis; `flips`: which of them run backwards; `scales`: model voxels for one
    source voxel, by source axis; `shape` (tensor axes) and `spacing` (tensor axes, mm) of the model's grid.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    scales: tuple[float, float, float]
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]

    @property
    def voxel_ml(self) -> float:
        return float(np.prod(self.spacing)) / 1000

    def back(self, axis: int, length: int) -> NDArray[np.intp]:
        """The model's index for each index of a source axis: the nearest voxel."""
        tensor_axis = self.axes.index(axis)
        most = self.shape[tensor_axis] - 1
        index = np.minimum(np.floor(np.arange(length) * self.scales[axis] + 0.5), most).astype(np.intp)
        backwards: NDArray[np.intp] = most - index
        return backwards if self.flips[tensor_axis] else index


def mapping(grid: Grid, tensor: Input, window: Window) -> Mapped:
    """How a grid comes to the orientation and spacing that a manifest asks for."""
    orientation = tensor.orientation or (PATIENT if tensor.layout == "NCDHW" else "")
    axes, flips = _oriented(grid, orientation) if orientation else ((0, 1, 2), (False, False, False))
    scales = [1.0, 1.0, 1.0]
    wanted = _wanted(grid, tensor, window, axes)
    for axis, size in enumerate(grid.shape):
        scales[axis] = _scale(size, wanted[axis])
    sizes = [max(1, int(np.floor(size * np.float32(scale)))) for size, scale in zip(grid.shape, scales, strict=True)]
    return Mapped(
        axes,
        flips,
        (scales[0], scales[1], scales[2]),
        (sizes[axes[0]], sizes[axes[1]], sizes[axes[2]]),
        _three([grid.spacing[axis] / scales[axis] for axis in axes]),
    )


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    return values[0], values[1], values[2]


def _oriented(grid: Grid, orientation: str) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """The source axis that runs closest to each axis of the tensor, and whether it runs the other way."""
    cosines = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    taken: dict[int, tuple[int, bool]] = {}
    free = set(range(3))
    letters = list(enumerate(reversed(orientation)))  # tensor order: the last letter names the slowest axis
    letters.sort(key=lambda entry: -float(np.abs(cosines[DIRECTIONS[entry[1]][0]]).max()))
    for place, letter in letters:
        world, sign = DIRECTIONS[letter]
        axis = max(free, key=lambda one: abs(float(cosines[world, one])))
        free.remove(axis)
        taken[place] = (axis, bool(cosines[world, axis] * sign < 0))
    axes, flips = ([taken[place][part] for place in range(3)] for part in (0, 1))
    return (axes[0], axes[1], axes[2]), (bool(flips[0]), bool(flips[1]), bool(flips[2]))


def _wanted(grid: Grid, tensor: Input, window: Window, axes: Sequence[int]) -> list[float]:
    """Model voxels for one source voxel, by source axis, before rounding; 1 where the native grid stays."""
    wanted = [1.0, 1.0, 1.0]
    if window.roi and window.mode != "sliding":
        for axis, size in zip(axes[-len(window.roi) :], window.roi, strict=True):
            wanted[axis] = size / grid.shape[axis]
    elif tensor.spacing_mm:
        for axis, spacing in zip(axes[-len(tensor.spacing_mm) :], tensor.spacing_mm, strict=True):
            wanted[axis] = grid.spacing[axis] / spacing if spacing else 1.0
    return wanted


def _scale(size: int, wanted: float) -> float:
    """The factor as the runtime computes with it: float32, and never a voxel short of a whole result."""
    if abs(wanted - 1) < SAME_SCALE:
        return 1.0
    scale = np.float32(max(wanted, 1 / size))
    if round(size * wanted) - size * wanted == 0 and np.floor(size * scale) < round(size * wanted):
        scale = np.nextafter(scale, np.float32(np.inf))
    return float(scale)


def prepare(volume: Volume, tensor: Input, mapped: Mapped, runtime: Runtime, halt: Halt) -> Floats:
    """The model's volume, float32, in tensor order (three axes). At most a slab is held at full resolution."""
    session = runtime.session(f"resize-{tensor.resample}", partial(graphs.resize, tensor.resample), cpu=True)

    def scaled(slab: Floats, rows: float, columns: float) -> Floats:
        if rows == columns == 1:
            return slab
        feeds = {"x": slab[:, None], "scales": np.array([1, 1, rows, columns], np.float32)}
        return session.run(feeds, halt)[0][:, 0]

    slabs = [scaled(slab, *mapped.scales[1:]) for slab in _slabs(volume, tensor)]
    values = slabs[0] if len(slabs) == 1 else np.concatenate(slabs)
    if mapped.scales[0] != 1:
        flat = values.reshape(1, values.shape[0], -1)
        values = scaled(flat, mapped.scales[0], 1.0)[0].reshape(-1, *values.shape[1:])
    values = values.transpose(mapped.axes)[tuple(slice(None, None, -1 if flip else 1) for flip in mapped.flips)]
    return operate(np.ascontiguousarray(values), tensor.steps)


def _slabs(volume: Volume, tensor: Input) -> Iterator[Floats]:
    slices, rows, columns = volume.grid.shape
    thick = max(1, SLAB_BYTES // (4 * rows * columns))
    for start in range(0, slices, thick):
        yield _slab(volume, tensor, start, min(start + thick, slices))


def _slab(volume: Volume, tensor: Input, start: int, stop: int) -> Floats:
    slab = volume.values(start, stop, rescale=tensor.values == "hu")
    if tensor.photometric == "invert_monochrome1" and volume.inverted:
        slab = np.float32(volume.stored.max() + volume.stored.min()) - slab
    padding = volume.is_padding(start, stop)
    if padding is not None:
        slab[padding] = tensor.pad_value
    return slab


def operate(values: Floats, steps: Sequence[Op]) -> Floats:
    """The operations of a manifest, in order, in place where that is possible."""
    for step in steps:
        values = _OPERATIONS[step.kind](values, step)
    return values


def _clip(values: Floats, step: Op) -> Floats:
    return np.clip(values, step.numbers[0], step.numbers[1], out=values)


def _linear(values: Floats, low: float, high: float, to_low: float, to_high: float) -> Floats:
    factor = (to_high - to_low) / (high - low) if high > low else 0.0
    values -= np.float32(low)
    values *= np.float32(factor)
    values += np.float32(to_low)
    return values


def _scaled(values: Floats, step: Op) -> Floats:
    return _linear(values, *step.numbers)


def _zscore(values: Floats, step: Op) -> Floats:
    if step.over:
        counted = values[values != 0] if step.over == "nonzero" else values
        mean = float(counted.mean(dtype=np.float64)) if counted.size else 0.0
        deviation = float(counted.std(dtype=np.float64)) if counted.size else 1.0
        where = values != 0 if step.over == "nonzero" else slice(None)
        values[where] = (values[where] - np.float32(mean)) / np.float32(deviation or 1.0)
        return values
    mean, deviation = step.numbers
    values -= np.float32(mean)
    values /= np.float32(deviation)
    return values


def _percentile(values: Floats, step: Op) -> Floats:
    low, high = (float(end) for end in np.percentile(values, step.numbers[:2]))
    np.clip(values, low, high, out=values)
    return _linear(values, low, high, *step.numbers[2:]) if len(step.numbers) == 4 else values


def _window(values: Floats, step: Op) -> Floats:
    centre, width = step.numbers
    low, high = centre - width / 2, centre + width / 2
    return _linear(np.clip(values, low, high, out=values), low, high, 0.0, 1.0)


_OPERATIONS: Mapping[str, Callable[[Floats, Op], Floats]] = {
    "clip": _clip,
    "scale": _scaled,
    "zscore": _zscore,
    "percentile": _percentile,
    "window": _window,
}
