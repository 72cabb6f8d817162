"""Geometry of a series: which slices form one even grid in patient space, and where that grid lies (ai.md 5).

Slices are ordered by their position along the normal, never by instance number. Axes are (k, j, i): slice, row, column;
patient space is LPS in millimetres (PS3.3 C.7.6.2.1.1).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai_sidecar.facts import numbers, texts
from ai_sidecar.ports import Unsuitable, derived_uid

Attributes = Mapping[str, tuple[Any, ...]]
Vector = NDArray[np.float64]

UNEVEN = 0.01  # of the spacing
ROUNDING_MM = 0.002  # positions are text, often cut after a few digits
SAME_PLACE_MM = 0.01
SAME_DIRECTION = 1e-3
TILT_DEGREES = 0.5
NAMED_MOST = 5  # positions that a sentence names
UNIFORM, SINGLE, UNTILTED = "uniform_spacing", "single_orientation", "no_gantry_tilt"
ALL_REQUIRED = (UNIFORM, SINGLE, UNTILTED)
NO_PLACES = "The images were taken one by one; where they lie in the patient was not used."


@dataclass(frozen=True, slots=True)
class Grid:
    """Voxels in patient space. `affine` (4 x 4) takes (k, j, i, 1) to LPS millimetres, at voxel centres."""

    shape: tuple[int, int, int]
    affine: Vector

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between neighbours along (k, j, i)."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(lengths[0]), float(lengths[1]), float(lengths[2])

    @property
    def voxel_ml(self) -> float:
        """Millilitres of one voxel, tilted grids too."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000


@dataclass(frozen=True, slots=True)
class Layout:
    """How the instances of a series form a grid. `order`: indices of the instances, along the normal."""

    order: tuple[int, ...]
    grid: Grid
    frame_of_reference: str
    evidence: tuple[str, ...]


def arrange(instances: Sequence[Attributes], series_uid: str, require: Sequence[str] = ALL_REQUIRED) -> Layout:
    """The grid that these images form. Raises Unsuitable with the reason where they form none."""
    _single_frames(instances)
    planes = [_plane(attributes) for attributes in instances]
    _one_matrix(planes)
    _one_orientation(planes)
    normal = np.cross(planes[0].row, planes[0].column)
    along = np.array([plane.position @ normal for plane in planes])
    order = np.argsort(along, kind="stable")
    _no_duplicates(along[order])
    if UNIFORM in require:
        _even(along[order])
    ordered = [planes[n] for n in order]
    step = _step(ordered, normal, instances[0])
    if UNTILTED in require:
        _untilted(step, normal)
    _in_line(ordered, step)
    uid, evidence = _frame(series_uid, [instances[n] for n in order])
    return Layout(tuple(map(int, order)), _grid(ordered, step), uid, evidence)


def line_up(instances: Sequence[Attributes]) -> Layout:
    """Images that need no place in the patient, as they come: the affine only holds the pixel spacing, or 1 mm."""
    _single_frames(instances)
    matrices = {tuple(_matrix(attributes)) for attributes in instances}
    if len(matrices) != 1 or len(next(iter(matrices))) != 2:
        raise Unsuitable("mixed_sizes", "The images of the series differ in rows or columns.")
    rows, columns = (int(size) for size in next(iter(matrices)))
    spacing = numbers(instances[0], "PixelSpacing") or [1.0, 1.0]
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = 1.0, spacing[0], spacing[-1], 1.0
    return Layout(tuple(range(len(instances))), Grid((len(instances), rows, columns), affine), "", (NO_PLACES,))


@dataclass(frozen=True, slots=True)
class _Plane:
    position: Vector
    row: Vector  # direction in which columns grow
    column: Vector  # direction in which rows grow
    spacing: tuple[float, float]  # between rows, between columns
    shape: tuple[int, int]


def _single_frames(instances: Sequence[Attributes]) -> None:
    if not instances:
        raise Unsuitable("no_images", "The series has no images.")
    for attributes in instances:
        if (numbers(attributes, "NumberOfFrames") or [1])[0] > 1:
            raise Unsuitable("multi_frame", "The series holds multi-frame images, which models cannot take yet.")
        if (numbers(attributes, "SamplesPerPixel") or [1])[0] != 1:
            raise Unsuitable("colour", "The images are in colour; the model takes grey values.")


def _plane(attributes: Attributes) -> _Plane:
    position, cosines = numbers(attributes, "ImagePositionPatient"), numbers(attributes, "ImageOrientationPatient")
    spacing, shape = numbers(attributes, "PixelSpacing"), _matrix(attributes)
    sizes = (len(position), len(cosines), len(spacing), len(shape))
    if sizes != (3, 6, 2, 2) or not np.isfinite([*position, *cosines, *spacing]).all():
        raise Unsuitable("no_position", "An image does not say where it lies (position, orientation or pixel spacing).")
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    right = abs(np.linalg.norm(row) - 1) < 0.01 and abs(np.linalg.norm(column) - 1) < 0.01 and abs(row @ column) < 0.01
    if not right or min(spacing) <= 0 or min(shape) < 1:
        raise Unsuitable("bad_geometry", "An image states an orientation or a pixel spacing that cannot be.")
    return _Plane(np.array(position), row, column, (spacing[0], spacing[1]), (int(shape[0]), int(shape[1])))


def _matrix(attributes: Attributes) -> list[float]:
    return numbers(attributes, "Rows") + numbers(attributes, "Columns")


def _one_matrix(planes: Sequence[_Plane]) -> None:
    first = planes[0]
    for plane in planes:
        same = np.allclose(plane.spacing, first.spacing, rtol=UNEVEN / 10)
        if plane.shape != first.shape or not same:
            raise Unsuitable("mixed_sizes", "The images of the series differ in rows, columns or pixel spacing.")


def _one_orientation(planes: Sequence[_Plane]) -> None:
    first = planes[0]
    for plane in planes:
        apart = max(np.abs(plane.row - first.row).max(), np.abs(plane.column - first.column).max())
        if apart > SAME_DIRECTION:
            raise Unsuitable("several_orientations", "The images of the series lie in several orientations.")


def _no_duplicates(along: Vector) -> None:
    again = along[1:][np.diff(along) < SAME_PLACE_MM]
    if len(again):
        where = _places(np.unique(again.round(2)))
        sentence = f"{len(again)} of {len(along)} images share their position with another ({where} along the normal)."
        raise Unsuitable("duplicate_positions", f"{sentence} One image for each position is needed.")


def _even(along: Vector) -> None:
    gaps = np.diff(along)
    if not len(gaps):
        return
    usual = float(np.median(gaps))
    ratio = gaps / usual
    allowed = np.maximum(UNEVEN * np.maximum(ratio.round(), 1), 2 * ROUNDING_MM / usual)
    whole = (np.abs(ratio - ratio.round()) <= allowed) & (ratio.round() >= 1)
    if not whole.all():
        at = float(along[:-1][~whole][0])
        sentence = (
            f"The slices are not evenly spaced: mostly {usual:.3g} mm, but {gaps[~whole][0]:.3g} mm at {at:.1f} mm."
        )
        raise Unsuitable("uneven_spacing", sentence)
    missing = [float(low + usual * n) for low, count in zip(along[:-1], ratio.round(), strict=True)
               for n in range(1, int(count))]  # fmt: skip
    if missing:
        sentence = f"{len(missing)} slices are missing: {_places(missing)} along the normal."
        raise Unsuitable("missing_slices", sentence.replace("1 slices are", "1 slice is"), may_come=True)


def _places(positions: Sequence[float] | Vector) -> str:
    named = ", ".join(f"{float(place):.1f}" for place in positions[:NAMED_MOST])
    more = len(positions) - NAMED_MOST
    return f"at {named} mm" + (f" and {more} more" if more > 0 else "")


def _step(planes: Sequence[_Plane], normal: Vector, attributes: Attributes) -> Vector:
    """From one slice to the next, in millimetres."""
    if len(planes) > 1:
        step: Vector = (planes[-1].position - planes[0].position) / (len(planes) - 1)
        return step
    thickness = numbers(attributes, "SliceThickness")
    return normal * (thickness[0] if thickness and thickness[0] > 0 else 1.0)


def _untilted(step: Vector, normal: Vector) -> None:
    across = float(np.linalg.norm(np.cross(step, normal)))
    degrees = float(np.degrees(np.arctan2(across, step @ normal)))
    if degrees > TILT_DEGREES:
        sentence = f"The slices are sheared by {degrees:.1f} degrees (gantry tilt); the model needs an upright grid."
        raise Unsuitable("gantry_tilt", sentence)


def _in_line(planes: Sequence[_Plane], step: Vector) -> None:
    allowed = max(0.1 * min(planes[0].spacing), 2 * ROUNDING_MM)
    for n, plane in enumerate(planes):
        off = plane.position - planes[0].position - n * step
        sideways = max(abs(off @ plane.row), abs(off @ plane.column))
        if sideways > allowed:
            raise Unsuitable("shifted_slices", f"A slice lies {sideways:.1f} mm beside the line of the others.")


def _grid(planes: Sequence[_Plane], step: Vector) -> Grid:
    first = planes[0]
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = step, first.column * first.spacing[0], first.row * first.spacing[1]
    affine[:3, 3] = first.position
    return Grid((len(planes), *first.shape), affine)


def _frame(series_uid: str, instances: Sequence[Attributes]) -> tuple[str, tuple[str, ...]]:
    """The Frame of Reference UID of the grid. Even positions are better evidence than anonymised UIDs."""
    given = [uid for attributes in instances for uid in texts(attributes, "FrameOfReferenceUID") if uid]
    different = len(set(given))
    if not given:
        uid = derived_uid(series_uid, "frame-of-reference")
        return uid, ("The images name no frame of reference; their positions form one even grid, so one was derived.",)
    if different > 1 or len(given) < len(instances):
        sentence = f"{len(given)} of {len(instances)} images name {different} frames of reference"
        return given[0], (f"{sentence}, but their positions form one even grid; the first is used.",)
    return given[0], ()


@dataclass(frozen=True, slots=True)
class Volume:
    """The pixels of a series on its grid. `stored` is (k, j, i), as stored; rescaled by slice (PS3.3 C.11.1)."""

    layout: Layout
    stored: NDArray[Any]
    slopes: NDArray[np.float32]
    intercepts: NDArray[np.float32]
    padding: tuple[int, int] | None = None  # stored values from, to, that are no image
    inverted: bool = False  # MONOCHROME1: high values are dark

    @property
    def grid(self) -> Grid:
        return self.layout.grid

    def values(self, start: int, stop: int, *, rescale: bool = True) -> NDArray[np.float32]:
        """Slices as float32: modality values (HU in CT), or as stored."""
        slab = self.stored[start:stop].astype(np.float32)
        if rescale:
            slab *= self.slopes[start:stop, None, None]
            slab += self.intercepts[start:stop, None, None]
        return slab

    def is_padding(self, start: int, stop: int) -> NDArray[np.bool_] | None:
        """Where there is no image; None when nothing is marked."""
        if self.padding is None:
            return None
        slab = self.stored[start:stop]
        low, high = self.padding
        marked: NDArray[np.bool_] = slab == low if low == high else (slab >= low) & (slab <= high)
        return marked
