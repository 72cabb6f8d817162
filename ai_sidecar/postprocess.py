"""From what a model gives to labels on the source grid (ai.md 2, 5)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai_sidecar import components, graphs
from ai_sidecar.manifest import Label, Output
from ai_sidecar.ports import RunFailed
from ai_sidecar.preprocess import Mapped
from ai_sidecar.runtime import Halt, Runtime
from ai_sidecar.volume import Grid

Array = NDArray[Any]
Mask = NDArray[np.bool_]


def activate(scores: Array, output: Output, runtime: Runtime, halt: Halt) -> Array:
    """The output through its activation, float32 (n, channel, ...)."""
    values = scores.astype(np.float32, copy=False)
    if output.activation == "none":
        return values
    rank = values.ndim
    build = partial(graphs.activation, output.activation, rank)
    return runtime.session(f"{output.activation}-{rank}", build, cpu=True).run({"x": values}, halt)[0]


def decode(scores: Array, output: Output, runtime: Runtime, halt: Halt) -> Array:
    """Label numbers (uint8), or one bit for each label where labels may overlap (uint32): (D, H, W).

    `scores` is (1, channel, D, H, W), or (D, channel, H, W) of slices; label maps may lack the channel.
    """
    if output.decode == "labels":
        return _labels(scores)
    if scores.ndim == 5 and len(scores) != 1:
        raise RunFailed("output_shape", "The model gave more than one volume.", permanent=True)
    if output.decode == "argmax":
        build = partial(graphs.argmax, scores.ndim)
        found = runtime.session(f"argmax-{scores.ndim}", build, cpu=True).run({"x": scores}, halt)[0]
        return found[0] if scores.ndim == 5 else found
    return _bits(scores, output.threshold)


def _labels(scores: Array) -> Array:
    labels = scores
    while labels.ndim > 3:
        if labels.ndim == 5 or labels.shape[1] == 1:
            labels = labels[0] if labels.shape[0] == 1 and labels.ndim == 5 else labels[:, 0]
        elif labels.shape[0] == 1:
            labels = labels[0]
        else:
            raise RunFailed("output_shape", "The model gave no label map of one volume.", permanent=True)
    if labels.dtype.kind == "f":
        labels = np.rint(labels)
    return labels.astype(np.uint8, copy=False)


def _bits(scores: Array, threshold: float) -> Array:
    over = np.moveaxis(scores, 1, 0)  # channel first
    bits = np.zeros(over.shape[2:] if scores.ndim == 5 else over.shape[1:], np.uint32)
    for channel in range(min(len(over), 32)):
        one = over[channel, 0] if scores.ndim == 5 else over[channel]
        bits |= (one > threshold).astype(np.uint32) << np.uint32(channel)
    return bits


def clean(labels: Array, wanted: Sequence[Label], output: Output, voxel_ml: float) -> Array:
    """Without small components, and with only the largest of each label, where the manifest asks for it."""
    if not output.largest_component and not output.min_volume_ml:
        return labels
    labels = labels.copy()
    for label in wanted:
        mask = select(labels, label.index)
        found = components.runs(mask)
        sizes = found.sizes
        keep = sizes * voxel_ml >= output.min_volume_ml
        if output.largest_component and len(sizes):
            keep &= np.arange(len(sizes)) == int(np.argmax(sizes))
        if not keep.all():
            _remove(labels, mask & ~found.mask(keep), label.index)
    return labels


def select(labels: Array, index: int) -> Mask:
    """Where a label is."""
    bit = labels >> np.uint32(index - 1) & np.uint32(1) if labels.dtype != np.uint8 else labels == index
    return bit.astype(bool, copy=False)


def _remove(labels: Array, where: Mask, index: int) -> None:
    if labels.dtype == np.uint8:
        labels[where] = 0
    else:
        labels[where] &= ~np.uint32(1 << (index - 1))


@dataclass(frozen=True, slots=True)
class Segmentation:
    """Labels on the model's grid, read slice by slice on the source grid: the whole is never held at full size."""

    labels: Array  # (k, j, i) in source axis order, on the model's grid
    index: tuple[Array, Array, Array]  # the model's index for each source index, by source axis
    grid: Grid

    @classmethod
    def of(cls, labels: Array, mapped: Mapped, grid: Grid) -> "Segmentation":
        """Labels in tensor order, seen from the source grid."""
        back = np.argsort(mapped.axes)
        index = tuple(mapped.back(axis, grid.shape[axis]) for axis in range(3))
        return cls(np.ascontiguousarray(labels.transpose(back)), (index[0], index[1], index[2]), grid)

    def slice(self, k: int) -> Array:
        """The labels of one source slice (row, column)."""
        plane: Array = self.labels[self.index[0][k]]
        seen: Array = plane.take(self.index[1], axis=0).take(self.index[2], axis=1)
        return seen
