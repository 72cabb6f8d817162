"""Boxes that a detection gives, brought from the model's grid to millimetres in the patient (ai.md 2).

A box is (x, y, z, x, y, z), x along the last axis of the tensor: in voxels of the input tensor (a whole number is a
voxel's centre), or in LPS millimetres.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai_sidecar.manifest import Label, Output
from ai_sidecar.ports import RunFailed
from ai_sidecar.preprocess import Mapped
from ai_sidecar.volume import Grid

Array = NDArray[Any]
MOST_BOXES = 1000
# corners are numbered by their bits (z, y, x); each face is a closed polygon
FACES = ((0, 1, 3, 2, 0), (4, 5, 7, 6, 4), (0, 1, 5, 4, 0), (2, 3, 7, 6, 2), (0, 2, 6, 4, 0), (1, 3, 7, 5, 1))


@dataclass(frozen=True, slots=True)
class Box:
    """One finding: its label, how sure the model is (0 to 1), its 8 corners in LPS millimetres (8, 3)."""

    label: Label
    score: float
    corners: Array

    @property
    def faces(self) -> list[Array]:
        """Six closed polygons (5, 3)."""
        return [self.corners[list(face)] for face in FACES]


def boxes(
    found: Array, scores: Array, classes: Array | None, output: Output, *, labels: Sequence[Label], place: "Place"
) -> list[Box]:
    """The boxes at or above the threshold, surest first. Raises RunFailed for tensors that do not belong together."""
    flat, sure = found.reshape(-1, 6).astype(np.float64), scores.reshape(-1).astype(np.float64)
    kinds = np.full(len(sure), labels[0].index) if classes is None else classes.reshape(-1)
    if not len(flat) == len(sure) == len(kinds):
        raise RunFailed("output_shape", "The model gave other numbers of boxes, scores and classes.", permanent=True)
    by_index = {label.index: label for label in labels}
    order = [n for n in np.argsort(-sure, kind="stable") if sure[n] >= output.threshold and int(kinds[n]) in by_index]
    if len(order) > MOST_BOXES or not np.isfinite(flat[order]).all():
        raise RunFailed("output_values", "The model gave too many boxes, or boxes without end.", permanent=True)
    return [Box(by_index[int(kinds[n])], float(sure[n]), place.corners(flat[n], output.unit)) for n in order]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the model's grid lies."""

    grid: Grid
    mapped: Mapped

    def corners(self, box: Array, unit: str) -> Array:
        """The corners of a box in LPS millimetres, numbered by their bits (z, y, x)."""
        ends = box.reshape(2, 3)
        points = np.array([[ends[x, 0], ends[y, 1], ends[z, 2]] for z, y, x in product((0, 1), repeat=3)])
        return points if unit == "mm" else self.millimetres(points[:, ::-1])

    def millimetres(self, indices: Array) -> Array:
        """Tensor indices (n, 3), slowest axis first, to LPS millimetres."""
        source = np.zeros((len(indices), 4))
        source[:, 3] = 1
        for tensor_axis, axis in enumerate(self.mapped.axes):
            along = indices[:, tensor_axis]
            if self.mapped.flips[tensor_axis]:
                along = self.mapped.shape[tensor_axis] - 1 - along
            source[:, axis] = along / self.mapped.scales[axis]
        points: Array = (source @ self.grid.affine.T)[:, :3]
        return points
