"""What the index needs of an admitted object: the attributes of `pacs.domain.attributes`, and no other.

Only those elements are decoded, so this is cheap enough for the path of the answer (performance.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from pacs.domain import uids, values
from pacs.domain.admission import Admitted, Bytes
from pacs.domain.attributes import ATTRIBUTES, STORED, Attribute, Rule
from pacs.domain.charsets import DEFAULT, Decoder
from pacs.domain.jsonmodel import CHARACTER_SET, Reader, uid_of
from pacs.domain.levels import Level
from pacs.domain.matching import normal_values, normalise
from pacs.domain.structure import Element, Item
from pacs.domain.syntaxes import SYNTAXES
from pacs.domain.values import Context, Json

SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_UID, SERIES_UID = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
DEVICE_UID, NUMBER_OF_FRAMES = 0x00181002, 0x00280008
ROWS, COLUMNS, SAMPLES, BITS_ALLOCATED = 0x00280010, 0x00280011, 0x00280002, 0x00280100
PHOTOMETRIC = 0x00280004

VALUE_MOST = 64 << 10  # bytes of one value that the index looks at
SEQUENCE_MOST = 1 << 20  # bytes of a sequence that the index takes; none of a longer one
COLUMN_MOST = 500  # characters of a search column: an index entry must fit a database page
REMEMBERED_SERIES = 256
REMEMBERED_BYTES = 2048  # of one value; a longer one is not kept
REMEMBERED_VALUES = 8192
SHORT = 64  # bytes of a value that is remembered by itself
FRAMES_MOST = 2**31 - 1

SHORT_PIXELS = "the pixel data is shorter than its description says"
LEADING_ZERO = "a UID has a component with a leading zero"
CUT = "a value is too long for the index and was cut there"

OWN_DEVICES = frozenset({uids.AI_DEVICE_UID})

# results and annotations: storing one never calls for analysis (ai.md 3)
_NOT_ORIGINAL = (
    "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
    "1.2.840.10008.5.1.4.1.1.66.5",  # Surface Segmentation
    "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation
    "1.2.840.10008.5.1.4.1.1.91.1",  # Microscopy Bulk Simple Annotations
    "1.2.840.10008.5.1.4.1.1.481.3",  # RT Structure Set
)
_NOT_ORIGINAL_FAMILIES = (
    "1.2.840.10008.5.1.4.1.1.88.",  # Structured Reports, Key Object Selection
    "1.2.840.10008.5.1.4.1.1.11.",  # Presentation States
)


_OF_PARENTS = tuple(attribute for attribute in STORED if attribute.level is not Level.INSTANCE or attribute.also)
_OF_INSTANCE = tuple(attribute for attribute in STORED if attribute not in _OF_PARENTS)
_PARENT_TAGS = frozenset({CHARACTER_SET, *(attribute.tag for attribute in _OF_PARENTS)})


@dataclass(frozen=True, slots=True)
class Value:
    """What one element says: in DICOM JSON, as single texts (None: it has none), in its column, in normal forms."""

    shown: Json
    texts: list[str] | None
    column: str = ""
    normal: list[Json] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What some of the attributes say: the fields of a Header, for their levels. Shared: nobody changes it."""

    values: dict[str, list[str]]
    attrs: dict[Level, dict[str, Json]]
    columns: dict[Level, dict[str, str]]
    warnings: dict[str, None]


class Memory:
    """What the last series said of their patients, studies and themselves, by the very bytes that said it.

    All objects of a series say the same, so most of an object's header need not be decoded. `values` does the same for
    single values. Thread-safe.
    """

    def __init__(self) -> None:
        self._parts: dict[tuple[object, ...], Part] = {}
        self.values: dict[tuple[int, str, bool, bytes], Value] = {}

    def get(self, key: tuple[object, ...]) -> Part | None:
        """The part that these bytes gave, if it is still known."""
        return self._parts.get(key)

    def keep(self, key: tuple[object, ...], part: Part) -> None:
        """Remember a part; the oldest is forgotten."""
        while len(self._parts) >= REMEMBERED_SERIES:
            self._parts.pop(next(iter(self._parts)), None)
        self._parts[key] = part


@dataclass(frozen=True, slots=True)
class Header:
    """What the index stores of one object.

    `values`: keyword -> the single values as text (PN with its `=` groups), without sequences. `attrs`: per level the
    attributes that have a place there, in DICOM JSON by hexadecimal tag. `columns`: per level the search columns,
    normalised, all of them present. UIDs are as they stand in the object, maybe empty or malformed: the caller decides.
    `number_of_frames` is 0 without pixel data and never more than the pixel data can hold. `parents` is the part about
    patient, study and series: one and the same for all objects of a series while it is remembered.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    values: dict[str, list[str]]
    attrs: dict[Level, dict[str, Json]]
    columns: dict[Level, dict[str, str]]
    number_of_frames: int
    original: bool
    parents: Part
    warnings: tuple[str, ...] = ()


def extract(
    admitted: Admitted,
    buffer: Bytes,
    *,
    door: str = "",
    own_devices: frozenset[str] = OWN_DEVICES,
    memory: Memory | None = None,
) -> Header:
    """The header of an admitted object; `buffer` is the file that was admitted.

    `door` and `own_devices` (Device UIDs of our AI results) tell originals from our own results. Never raises for
    what an element holds.
    """
    with memoryview(buffer if admitted.data is None else admitted.data) as view, view.cast("B") as data:
        return _extract(admitted, Reader(data, admitted.encoding), door, own_devices, memory or Memory())


def _extract(admitted: Admitted, reader: Reader, door: str, own_devices: frozenset[str], memory: Memory) -> Header:
    top = Item(admitted.elements, admitted.encoding.little)
    decode, context = reader.decoder(top, DEFAULT), reader.context(top, Context())
    extraction = _Extraction(reader, top, decode, context, memory)
    key = _said_of_parents(reader, top, context)
    parents = memory.get(key) if key else None
    if parents is None:
        parents = extraction.part(_OF_PARENTS)
        if key:
            memory.keep(key, parents)
    own = extraction.part(_OF_INSTANCE)
    warnings = {**parents.warnings, **own.warnings}
    names = [uid_of(reader, top, tag) for tag in (SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_UID, SERIES_UID)]
    if any(map(uids.has_leading_zero, names)):
        warnings[LEADING_ZERO] = None
    frames = _number_of_frames(admitted, reader, top, warnings)
    original = not (
        door == "ai"
        or names[0] in _NOT_ORIGINAL
        or names[0].startswith(_NOT_ORIGINAL_FAMILIES)
        or uid_of(reader, top, DEVICE_UID) in own_devices
    )
    return Header(
        names[0],
        names[1],
        names[2],
        names[3],
        values={**parents.values, **own.values},
        attrs={**parents.attrs, Level.INSTANCE: parents.attrs[Level.INSTANCE] | own.attrs[Level.INSTANCE]},
        columns={**parents.columns, Level.INSTANCE: own.columns[Level.INSTANCE]},
        number_of_frames=frames,
        original=original,
        parents=parents,
        warnings=tuple(warnings),
    )


def _said_of_parents(reader: Reader, top: Item, context: Context) -> tuple[object, ...] | None:
    """The bytes of all that is not about the instance itself; None where they are too many to keep."""
    data = reader.data
    said: list[object] = [reader.encoding, context]
    for tag, element in top.elements.items():
        if tag in _PARENT_TAGS:
            start, length = element.value_offset, element.length
            if length > REMEMBERED_BYTES:
                return None
            said += (tag, element.vr, bytes(data[start : start + length]))
    return tuple(said)


@dataclass(frozen=True, slots=True)
class _Extraction:
    """The data set that is read, and how."""

    reader: Reader
    top: Item
    decode: Decoder
    context: Context
    memory: Memory

    def part(self, attributes: tuple[Attribute, ...]) -> Part:
        texts: dict[str, list[str]] = {}
        attrs: dict[Level, dict[str, Json]] = {level: {} for level in Level}
        columns = {level: dict(_empty_columns()[level]) for level in dict.fromkeys(a.level for a in attributes)}
        warnings: dict[str, None] = {}
        for attribute in attributes:
            element = self.top.elements.get(attribute.tag)
            if element is None:
                continue
            if element.length > (SEQUENCE_MOST if attribute.rule is Rule.SEQUENCE else VALUE_MOST):
                warnings[CUT] = None
                element = element._replace(length=0 if attribute.rule is Rule.SEQUENCE else VALUE_MOST, items=())
            value = self._value(attribute, element)
            for level in (attribute.level, *attribute.also):
                attrs[level][attribute.hex] = value.shown
            if value.texts is None:
                continue
            texts[attribute.keyword] = value.texts
            if value.normal is not None:
                attrs[attribute.level][attribute.normal_key] = value.normal
            if attribute.column is not None:
                columns[attribute.level][attribute.column] = value.column
        return Part(texts, attrs, columns, warnings)

    def _value(self, attribute: Attribute, element: Element) -> Value:
        """What an element says; of a short value it is remembered, if it means the same in every character set."""
        vr = self.reader.vr(element, self.top, self.context)
        textual = vr in values.TEXTUAL and attribute.tag != CHARACTER_SET
        if element.length > SHORT or not (textual or vr in values.NUMBERED):
            return self._read(attribute, element, vr, textual)
        raw = self.reader.raw(element)
        if textual and not (raw.isascii() and b"\x1b" not in raw):
            return self._read(attribute, element, vr, textual)
        key = attribute.tag, vr, self.top.little, raw
        remembered = self.memory.values
        found = remembered.get(key)
        if found is None:
            if len(remembered) >= REMEMBERED_VALUES:
                remembered.clear()
            found = remembered[key] = self._read(attribute, element, vr, textual)
        return found

    def _read(self, attribute: Attribute, element: Element, vr: str, textual: bool) -> Value:
        if textual:
            texts = values.split(self.reader.raw(element), vr, self.decode)
            listed = values.shown(texts, vr)
            shown: Json = {"vr": vr, "Value": listed} if listed and listed != [None] else {"vr": vr}
        else:
            shown = self.reader.element(element, self.top, "", self.decode, self.context)
            if vr not in values.NUMBERED:
                return Value(shown, None)
            texts = [str(number) for number in values.numbers(self.reader.raw(element), vr, self.top.little)]
        normal: list[Json] | None = list(normal_values(attribute.rule, texts)) if attribute.folded and texts else None
        column = normalise(attribute.rule, texts)[:COLUMN_MOST] if attribute.column is not None and texts else ""
        return Value(shown, texts, column, normal)


@cache
def _empty_columns() -> Mapping[Level, Mapping[str, str]]:
    return {level: {a.column: "" for a in ATTRIBUTES if a.level is level and a.column and a.stored} for level in Level}


def _number_of_frames(admitted: Admitted, reader: Reader, top: Item, warnings: dict[str, None]) -> int:
    """Frames that can be asked for: as declared, but never more than the pixel data can hold."""
    pixels = admitted.pixel_data
    if pixels is None or pixels.length == 0:
        return 0
    declared = declared_frames(reader, top)
    if pixels.fragments is not None:
        syntax = SYNTAXES.get(admitted.transfer_syntax_uid)
        if syntax is not None and syntax.video:
            return 1  # one stream, from which no frame can be cut
        room = max(1, len(pixels.fragments) // 2 - 1)
    else:
        size = native_frame_bits(reader, top)
        room = pixels.length * 8 // size if size else 1
    if declared > room:
        warnings[SHORT_PIXELS] = None
    return max(min(declared, room, FRAMES_MOST), 1) if room else 0


def declared_frames(reader: Reader, top: Item) -> int:
    """Number of Frames as declared; 1 where it is absent or no number."""
    element = top.elements.get(NUMBER_OF_FRAMES)
    found = [] if element is None else values.split(reader.raw(element, 64), "IS", DEFAULT)
    if found and found[0].isascii() and found[0].isdecimal() and len(found[0]) < 12:
        return max(1, int(found[0]))
    return 1


def native_frame_bits(reader: Reader, top: Item) -> int:
    """Bits of one native frame by its description; in YBR_FULL_422 two pixels share chroma (PS3.3 C.7.6.3.1.2)."""
    found, little = top.elements, top.little
    rows, columns, samples, bits = (
        reader.number(found.get(tag), little, default)
        for tag, default in ((ROWS, 0), (COLUMNS, 0), (SAMPLES, 1), (BITS_ALLOCATED, 8))
    )
    size = rows * columns * samples * bits
    if samples == 3 and (element := found.get(PHOTOMETRIC)) is not None:
        label = DEFAULT(reader.raw(element, 64)).strip(" ")
        if label in {"YBR_FULL_422", "YBR_PARTIAL_422"}:
            return size * 2 // 3
        if label == "YBR_PARTIAL_420":
            return size // 2
    return size
