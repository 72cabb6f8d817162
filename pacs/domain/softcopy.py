"""Softcopy presentation states: how somebody saw certain images (PS3.3 A.33, C.10, C.11), applied to one frame of one.

Applied are modality and VOI transforms, presentation LUT shape, shutters, graphics, the displayed area, rotation and
flip. Text objects, overlays and bitmap shutters are not drawn.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacs.domain.admission import Admitted, Bytes
from pacs.domain.jsonmodel import Reader
from pacs.domain.presentation import INTERCEPT, MODALITY_LUTS, SHAPE, SLOPE, VOI_LUTS, Attributes, Presentation
from pacs.domain.render import Picture
from pacs.domain.structure import Item

STATES = frozenset({"1.2.840.10008.5.1.4.1.1.11.1", "1.2.840.10008.5.1.4.1.1.11.2"})  # grayscale, colour
SERIES, IMAGES, SERIES_UID = 0x00081115, 0x00081140, 0x0020000E
INSTANCE, FRAMES = 0x00081155, 0x00081160
SOFTCOPY_VOI, AREAS, ANNOTATIONS, GRAPHICS = 0x00283110, 0x0070005A, 0x00700001, 0x00700009
TOP_LEFT, BOTTOM_RIGHT = 0x00700052, 0x00700053
FLIP, ROTATION = 0x00700041, 0x00700042
UNITS, POINTS, GRAPHIC, FILLED = 0x00700005, 0x00700022, 0x00700023, 0x00700024
SHUTTER, EDGES, CENTER, RADIUS = 0x00181600, (0x00181602, 0x00181604, 0x00181606, 0x00181608), 0x00181610, 0x00181612
MOST_POINTS = 100_000  # of all graphics of a frame
STEPS = 128  # of a circle or an ellipse
Points = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Reference:
    """An image that a state is about; no frame numbers mean all of its frames."""

    series_uid: str
    sop_instance_uid: str
    frames: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """What a state says of one frame. `area`: left, top, right, bottom in pixels from 1; `lines`: column, row pairs."""

    presentation: dict[str, Any] | None = None  # fields of Presentation that it sets
    area: tuple[int, int, int, int] | None = None
    lines: tuple[Points, ...] = ()
    rotation: int = 0
    flipped: bool = False
    edges: tuple[int, int, int, int] | None = None  # of a rectangular shutter: left, right, upper, lower
    circle: tuple[int, int, int] | None = None  # of a circular one: row, column, radius


def references(admitted: Admitted, buffer: Bytes) -> tuple[Reference, ...]:
    """The images that a state is about, in its order."""
    with memoryview(buffer if admitted.data is None else admitted.data) as view, view.cast("B") as data:
        return tuple(_Reading(data, admitted).references())


def read(admitted: Admitted, buffer: Bytes, reference: Reference, number: int) -> State:
    """What a state says of frame `number` (from 1) of an image."""
    with memoryview(buffer if admitted.data is None else admitted.data) as view, view.cast("B") as data:
        return _Reading(data, admitted).state(reference, number)


class _Reading:
    def __init__(self, data: memoryview, admitted: Admitted) -> None:
        self.top = Item(admitted.elements, admitted.encoding.little)
        self.found = Attributes(Reader(data, admitted.encoding), self.top)

    def references(self) -> Iterator[Reference]:
        for series in self.found.items(self.top, SERIES):
            for image in self.found.items(series, IMAGES):
                numbers = tuple(int(number) for number in self.found.numbers(image, FRAMES))
                yield Reference(self.found.text(series, SERIES_UID), self.found.text(image, INSTANCE), numbers)

    def state(self, reference: Reference, number: int) -> State:
        found, top = self.found, self.top
        voi = next(self._about(SOFTCOPY_VOI, reference, number), None)
        area = next(self._about(AREAS, reference, number), None)
        sets: dict[str, Any] = {"inverted": found.text(top, SHAPE) == "INVERSE"}
        if SLOPE in top.elements or INTERCEPT in top.elements:
            sets |= {"slope": (found.numbers(top, SLOPE) or [1.0])[0], "modality_lut": None}
            sets["intercept"] = (found.numbers(top, INTERCEPT) or [0.0])[0]
        elif (lut := found.lut(top, MODALITY_LUTS)) is not None:
            sets["modality_lut"] = lut
        if voi is not None:
            sets |= {"window": found.window(voi), "voi_lut": found.lut(voi, VOI_LUTS)}
        shapes = found.words(top, SHUTTER)
        return State(
            presentation=sets,
            area=None if area is None else self._area(area),
            lines=tuple(self._lines(reference, number)),
            rotation=int((found.numbers(top, ROTATION) or [0])[0]) // 90 % 4,
            flipped=found.text(top, FLIP) == "Y",
            edges=self._whole(EDGES) if "RECTANGULAR" in shapes else None,
            circle=self._whole((CENTER, RADIUS)) if "CIRCULAR" in shapes else None,
        )

    def _about(self, tag: int, reference: Reference, number: int) -> Iterator[Item]:
        """The items of a sequence that are about this frame, or about all images."""
        for item in self.found.items(self.top, tag):
            images = self.found.items(item, IMAGES)
            if not images or any(self._names(image, reference, number) for image in images):
                yield item

    def _names(self, image: Item, reference: Reference, number: int) -> bool:
        numbers = self.found.numbers(image, FRAMES)
        return self.found.text(image, INSTANCE) == reference.sop_instance_uid and (not numbers or number in numbers)

    def _area(self, item: Item) -> tuple[int, int, int, int] | None:
        ends = self.found.numbers(item, TOP_LEFT)[:2] + self.found.numbers(item, BOTTOM_RIGHT)[:2]
        if len(ends) < 4:
            return None
        (left, top, right, bottom) = (int(end) for end in ends)
        return min(left, right), min(top, bottom), max(left, right), max(top, bottom)

    def _whole(self, tags: Sequence[int]) -> Any:
        numbers = [int(number) for tag in tags for number in self.found.numbers(self.top, tag)]
        wanted = 4 if tags == EDGES else 3
        return tuple(numbers[:wanted]) if len(numbers) >= wanted else None

    def _lines(self, reference: Reference, number: int) -> Iterator[Points]:
        left = MOST_POINTS
        for annotation in self._about(ANNOTATIONS, reference, number):
            for graphic in self.found.items(annotation, GRAPHICS):
                data = self.found.numbers(graphic, POINTS, most=left * 8)
                points = np.array(data[: len(data) // 2 * 2]).reshape(-1, 2)
                left -= len(points)
                if self.found.text(graphic, UNITS) == "PIXEL" and len(points) and left > 0:
                    yield _outline(self.found.text(graphic, GRAPHIC), points)


def _outline(kind: str, points: Points) -> Points:
    """The line of a graphic (PS3.3 C.10.5.1.2)."""
    angles = np.linspace(0, 2 * np.pi, STEPS)
    circle = np.stack([np.cos(angles), np.sin(angles)], -1)
    found: Points = points
    if kind == "CIRCLE" and len(points) >= 2:
        found = points[0] + circle * float(np.hypot(*(points[1] - points[0])))
    elif kind == "ELLIPSE" and len(points) >= 4:  # ends of the major axis, then of the minor one
        major, minor = (points[1] - points[0]) / 2, (points[3] - points[2]) / 2
        found = points[:4].mean(axis=0) + circle[:, :1] * major + circle[:, 1:] * minor
    elif kind == "POINT":
        found = points[:1] + np.array([[-2, 0], [2, 0], [0, 0], [0, -2], [0, 2]])
    return found


def presented(own: Presentation, state: State) -> Presentation:
    """An image's own presentation with what the state says instead."""
    return replace(own, **(state.presentation or {}))


def applied(image: Picture, state: State) -> Picture:
    """A picture of the frame with shutters, graphics, area, rotation and flip of the state, in this order."""
    seen = _drawn(_shut(image.copy(), state), state.lines)
    if state.area is not None:
        seen = _cut(seen, state.area)
    seen = np.rot90(seen, -state.rotation)  # clockwise
    return np.ascontiguousarray(seen[:, ::-1] if state.flipped else seen)


def _shut(image: Picture, state: State) -> Picture:
    rows, columns = np.indices(image.shape[:2]) + 1
    if state.edges is not None:
        left, right, upper, lower = state.edges
        image[(columns <= left) | (columns >= right) | (rows <= upper) | (rows >= lower)] = 0
    if state.circle is not None:
        row, column, radius = state.circle
        image[(rows - row) ** 2 + (columns - column) ** 2 > radius**2] = 0
    return image


def _drawn(image: Picture, lines: Sequence[Points]) -> Picture:
    """White lines, one pixel wide; the corner of the first pixel is (0, 0) (PS3.3 C.10.5.1.2)."""
    rows, columns = image.shape[:2]
    for line in lines:
        for begin, end in zip(line[:-1] if len(line) > 1 else line, line[1:] if len(line) > 1 else line, strict=True):
            length = float(np.abs(end - begin).max())
            if not np.isfinite(length) or length > 4 * max(rows, columns):
                continue
            places = begin + (end - begin) * np.linspace(0, 1, int(length) + 2)[:, None]
            x, y = np.floor(places).astype(np.int64).T
            inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
            image[y[inside], x[inside]] = 255
    return image


def _cut(image: Picture, area: tuple[int, int, int, int]) -> Picture:
    """The displayed area, at most twice as large as the image each way; what is outside the image is black."""
    rows, columns = image.shape[:2]
    left, top, right, bottom = area
    left, top = max(left, 1 - columns), max(top, 1 - rows)
    right, bottom = min(right, 2 * columns), min(bottom, 2 * rows)
    if right < left or bottom < top:
        return image
    seen: Picture = np.zeros((bottom - top + 1, right - left + 1, *image.shape[2:]), np.uint8)
    x0, y0, x1, y1 = max(left, 1), max(top, 1), min(right, columns), min(bottom, rows)
    if x1 >= x0 and y1 >= y0:
        seen[y0 - top : y1 - top + 1, x0 - left : x1 - left + 1] = image[y0 - 1 : y1, x0 - 1 : x1]
    return seen
