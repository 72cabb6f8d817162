"""What an object says of how its stored values are seen: modality LUT, VOI, palette, padding (PS3.3 C.11, C.7.6.3).

Functional groups of enhanced objects say it frame by frame (PS3.3 C.7.6.16); plain objects say it once.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacs.domain import frames, luts, values
from pacs.domain.admission import Admitted, Bytes
from pacs.domain.charsets import DEFAULT
from pacs.domain.frames import Description
from pacs.domain.jsonmodel import Reader
from pacs.domain.luts import Lut
from pacs.domain.structure import Item
from pacs.domain.values import Context

LINEAR, LINEAR_EXACT, SIGMOID = "LINEAR", "LINEAR_EXACT", "SIGMOID"
FUNCTIONS = frozenset({LINEAR, LINEAR_EXACT, SIGMOID})

SHARED_GROUPS, FRAME_GROUPS = 0x52009229, 0x52009230
TRANSFORMATION, FRAME_VOI = 0x00289145, 0x00289132
INTERCEPT, SLOPE, MODALITY_LUTS = 0x00281052, 0x00281053, 0x00283000
CENTER, WIDTH, FUNCTION, VOI_LUTS = 0x00281050, 0x00281051, 0x00281056, 0x00283010
PADDING, PADDING_LIMIT = 0x00280120, 0x00280121
SHAPE, SEGMENTATION_TYPE, LARGEST_FRACTION = 0x20500020, 0x00620001, 0x0062000E
DESCRIPTOR, ENTRIES = 0x00283002, 0x00283006
# descriptor, entries and segmented entries of red, green and blue
PALETTE = tuple((0x00281101 + n, 0x00281201 + n, 0x00281221 + n) for n in range(3))


@dataclass(frozen=True, slots=True)
class Window:
    """A window on modality values: its function is one of FUNCTIONS (PS3.3 C.11.2.1.2)."""

    center: float
    width: float
    function: str = LINEAR


@dataclass(frozen=True, slots=True)
class Presentation:
    """What one frame's stored values mean to the eye.

    `padding`: the closed range of stored values that stand for no pixel. `extent`: the modality values that are black
    and white where there is neither window nor VOI LUT; None means those of the frame. `inverted`: low is white.
    """

    photometric_interpretation: str
    bits_stored: int
    slope: float = 1.0
    intercept: float = 0.0
    modality_lut: Lut | None = None
    window: Window | None = None
    voi_lut: Lut | None = None
    padding: tuple[int, int] | None = None
    extent: tuple[float, float] | None = None
    inverted: bool = False
    palette: tuple[Lut, ...] = ()


def read(admitted: Admitted, buffer: Bytes) -> tuple[Presentation, ...]:
    """The presentation of each frame, or a single one for all frames. `admitted` with `nested=True`."""
    with memoryview(buffer if admitted.data is None else admitted.data) as view, view.cast("B") as data:
        found = _Object(Reader(data, admitted.encoding), Item(admitted.elements, admitted.encoding.little))
        return tuple(found.presentations())


class Attributes:
    """Reads attributes of one object. What is malformed counts as absent: a picture is better than none."""

    def __init__(self, reader: Reader, top: Item) -> None:
        self.reader, self.top = reader, top
        self.context = reader.context(top, Context())

    def window(self, item: Item) -> Window | None:
        """The first window of a data set or item."""
        pair = self.numbers(item, CENTER)[:1] + self.numbers(item, WIDTH)[:1]
        if len(pair) < 2 or pair[1] <= 0:
            return None
        named = self.text(item, FUNCTION)
        function = named if named in FUNCTIONS else LINEAR
        if function == LINEAR and pair[1] < 1:  # not allowed, and yet seen on images of real numbers
            function = LINEAR_EXACT
        return Window(pair[0], pair[1], function)

    def lut(self, item: Item, tag: int) -> Lut | None:
        """The first LUT of a Modality or VOI LUT Sequence."""
        found = next(iter(self.items(item, tag)), None)
        if found is None or DESCRIPTOR not in found.elements or ENTRIES not in found.elements:
            return None
        return luts.table(self.descriptor(found, DESCRIPTOR), self.octets(found, ENTRIES))

    def descriptor(self, item: Item, tag: int) -> tuple[int, int, int]:
        """Number of entries, first value mapped (with its sign) and bits of an entry; zeros where it is cut."""
        element = item.elements[tag]
        words = self.octets(item, tag)[:6].view("<u2")[:3].tolist()
        number, first, bits = words if len(words) == 3 else (0, 0, 0)
        is_signed = element.vr == "SS" or (element.vr != "US" and self.context.signed)
        return number or 65536 if len(words) == 3 else 0, first - 65536 if is_signed and first > 32767 else first, bits

    def octets(self, item: Item, tag: int) -> NDArray[Any]:
        """A value of 16-bit words as bytes, little endian, of an even number."""
        element = item.elements[tag]
        word = 1 if self.reader.little(element, item) or element.vr == "OB" else 2
        raw = values.turned(self.reader.raw(element), values.VR_OF_WORD.get(word, "OB"), little=False)
        return np.frombuffer(raw[: len(raw) // 2 * 2], np.uint8)

    def items(self, item: Item, tag: int) -> tuple[Item, ...]:
        """The items of a sequence."""
        element = item.elements.get(tag)
        return () if element is None else self.reader.items(element) or ()

    def numbers(self, item: Item, tag: int, most: int = 1024) -> list[float]:
        """The finite numbers of an element (of its first `most` bytes), whatever VR it was written with."""
        element = item.elements.get(tag)
        if element is None:
            return []
        vr = self.reader.vr(element, item, self.context)
        if vr not in values.TEXTUAL | values.NUMBERED:
            return []
        found = values.read(self.reader.raw(element, most), vr, self.reader.little(element, item), DEFAULT)
        return [number for value in found if (number := _number(value)) is not None]

    def words(self, item: Item, tag: int) -> list[str]:
        """The values of an element of code strings or UIDs."""
        element = item.elements.get(tag)
        if element is None:
            return []
        return [word.strip(" \0").upper() for word in DEFAULT(self.reader.raw(element, 256)).split("\\")]

    def text(self, item: Item, tag: int) -> str:
        """The first of them."""
        return next(iter(self.words(item, tag)), "")


class _Object(Attributes):
    """One image being read."""

    def __init__(self, reader: Reader, top: Item) -> None:
        super().__init__(reader, top)
        self.description = frames.describe(reader, top)

    def presentations(self) -> Iterator[Presentation]:
        base = self._common()
        shared = self.items(self.top, SHARED_GROUPS)[:1]
        groups = [[item, *shared] for item in self.items(self.top, FRAME_GROUPS)]
        for group in groups or [[*shared]]:
            yield self._of_frame(base, group)

    def _common(self) -> Presentation:
        about = self.description
        label = about.photometric_interpretation
        return Presentation(
            label,
            about.bits_stored,
            padding=self._padding(),
            inverted=label == "MONOCHROME1" or self.text(self.top, SHAPE) == "INVERSE",
            palette=self._palette() if label == "PALETTE COLOR" else (),
        )

    def _padding(self) -> tuple[int, int] | None:
        """The range of padding (PS3.3 C.7.5.1.1.2), with the sign of the samples: it is often written with another."""
        found = self.numbers(self.top, PADDING)[:1]
        if not found or self.description.number_type != "integer":
            return None
        half = 0x8000 if self.description.pixel_representation == 1 else 0
        words = [int(number) & 0xFFFF for number in found + self.numbers(self.top, PADDING_LIMIT)[:1]]
        ends = [(word ^ half) - half for word in words]
        return min(ends), max(ends)

    def _of_frame(self, base: Presentation, groups: Sequence[Item]) -> Presentation:
        transformed = self._macro(groups, TRANSFORMATION) or self.top
        seen = self._macro(groups, FRAME_VOI) or self.top
        slope = self.numbers(transformed, SLOPE)[:1] or [1.0]
        intercept = self.numbers(transformed, INTERCEPT)[:1] or [0.0]
        shown = replace(
            base,
            slope=slope[0],
            intercept=intercept[0],
            modality_lut=self.lut(self.top, MODALITY_LUTS),
            window=self.window(seen),
            voi_lut=self.lut(seen, VOI_LUTS),
        )
        return replace(shown, extent=self._extent(self.description, shown))

    def _extent(self, about: Description, shown: Presentation) -> tuple[float, float] | None:
        """Masks and 8-bit samples have a range of their own."""
        if about.bits_allocated == 1:
            return 0.0, 1.0
        if largest := self.numbers(self.top, LARGEST_FRACTION)[:1]:
            return 0.0, largest[0]
        if self.text(self.top, SEGMENTATION_TYPE) == "LABELMAP":
            return None
        is_plain = (shown.slope, shown.intercept, shown.modality_lut) == (1.0, 0.0, None)
        if is_plain and about.bits_stored == 8 and about.pixel_representation == 0 and about.number_type == "integer":
            return 0.0, 255.0
        return None

    def _macro(self, groups: Sequence[Item], tag: int) -> Item | None:
        """The first item of a functional group: the frame's own, or that of all frames."""
        return next((items[0] for group in groups if (items := self.items(group, tag))), None)

    def _palette(self) -> tuple[Lut, ...]:
        found = [self._colour(*tags) for tags in PALETTE]
        return tuple(lut for lut in found if lut is not None) if all(found) else ()

    def _colour(self, descriptor: int, entries: int, segments: int) -> Lut | None:
        if descriptor not in self.top.elements:
            return None
        described = self.descriptor(self.top, descriptor)
        if entries in self.top.elements:
            return luts.table(described, self.octets(self.top, entries))
        if segments in self.top.elements:
            return luts.segmented(described, self.octets(self.top, segments))
        return None


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
