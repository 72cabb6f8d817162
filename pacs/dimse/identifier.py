"""A C-FIND request's identifier (PS3.4 C.4.1.1.3.1): from untrusted bytes to a `Query` and the keys to answer."""

import struct
from dataclasses import dataclass
from io import BytesIO

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS

from pacs.dimse.answer import Wanted
from pacs.domain import admission
from pacs.domain.attributes import BY_KEYWORD, BY_TAG, Rule
from pacs.domain.levels import Level
from pacs.domain.query import Condition, Query, TagPath
from pacs.errors import BadRequest, Reason, Refused

QUERY_RETRIEVE_LEVEL = 0x00080052
RETRIEVE_AE_TITLE = 0x00080054
INSTANCE_AVAILABILITY = 0x00080056
_CHARACTER_SET = 0x00080005
_NO_KEYS = frozenset({QUERY_RETRIEVE_LEVEL, RETRIEVE_AE_TITLE, INSTANCE_AVAILABILITY, _CHARACTER_SET, 0x00080201})

LEVELS = {"PATIENT": Level.PATIENT, "STUDY": Level.STUDY, "SERIES": Level.SERIES, "IMAGE": Level.INSTANCE}
UNIQUE_KEYS = {
    Level.PATIENT: BY_KEYWORD["PatientID"],
    Level.STUDY: BY_KEYWORD["StudyInstanceUID"],
    Level.SERIES: BY_KEYWORD["SeriesInstanceUID"],
    Level.INSTANCE: BY_KEYWORD["SOPInstanceUID"],
}
_LIMITS = admission.Limits(depth=8, elements=10_000)
_CODED = frozenset(["SH", "LO", "ST", "LT", "UC", "UT", "PN"])  # what Specific Character Set applies to
_SINGLE = frozenset(["ST", "LT", "UT", "UR"])  # a backslash is a character there
_NUMBERS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}


class Mismatch(BadRequest):
    """The identifier does not fit the information model (0xA900); `offending` names the attributes at fault."""

    def __init__(self, message: str, *offending: int) -> None:
        super().__init__(message)
        self.offending = offending


@dataclass(frozen=True, slots=True)
class Identifier:
    """What is looked for, what each answer holds, and whether a key was asked for that we do not know."""

    level_name: str
    query: Query
    wanted: tuple[Wanted, ...]
    unsupported: bool


def parse(data: bytes, transfer_syntax: str, root: Level) -> Identifier:
    """The identifier of a query in the model whose highest level is `root` (PATIENT or STUDY), hierarchical.

    Raises Refused(UNREADABLE) for bytes that are no data set and Mismatch for a level or key that the model forbids.
    """
    dataset, big_endian = _read(data, transfer_syntax)
    reader = _Reader(dataset, big_endian=big_endian)
    name = (reader.values(dataset, QUERY_RETRIEVE_LEVEL) or ("",))[0]
    level = LEVELS.get(name)
    if level is None or level < root:
        raise Mismatch("The Query/Retrieve Level is missing or not one of this model.", QUERY_RETRIEVE_LEVEL)
    conditions: list[Condition] = []
    wanted: list[Wanted] = []
    unsupported = False
    for tag in _keys(dataset):
        known = BY_TAG.get(tag)
        if known is None or known.level > level:
            unsupported = True
            wanted.append((f"{tag:08X}", known.vr if known else reader.vr(dataset, tag), ()))
        elif known.rule is Rule.SEQUENCE:
            inner = reader.item(dataset, tag)
            conditions += _item_conditions(reader, inner, tag)
            wanted.append((known.hex, "SQ", _item_wanted(reader, inner)))
        else:
            conditions.append(Condition((tag,), reader.values(dataset, tag)))
            wanted.append((known.hex, known.vr, ()))
    _require_upper_keys(conditions, root, level)
    return Identifier(name, Query(level, tuple(conditions)), tuple(wanted), unsupported)


def _read(data: bytes, transfer_syntax: str) -> tuple[Dataset, bool]:
    """The admitted data set and whether it is big endian: no parser sees bytes that the walk has not passed."""
    if not data:
        return Dataset(), False
    try:
        encoding = admission.admit(data, raw_syntax=transfer_syntax, limits=_LIMITS).encoding
    except admission.Inadmissible as error:
        raise Refused(Reason.UNREADABLE, "The identifier is not a readable data set.") from error
    return read_dataset(BytesIO(data), not encoding.explicit, encoding.little), not encoding.little


def _keys(dataset: Dataset) -> list[int]:
    return [int(tag) for tag in sorted(dataset.keys()) if tag not in _NO_KEYS and tag & 0xFFFF]


def _require_upper_keys(conditions: list[Condition], root: Level, level: Level) -> None:
    """PS3.4 C.4.1.2.2.1: below the root each level above is named by one unique key value."""
    given = {condition.path: condition.values for condition in conditions}
    for upper in Level:
        if not root <= upper < level:
            continue
        key = UNIQUE_KEYS[upper]
        values = given.get((key.tag,), ())
        if len(values) != 1 or not values[0] or any(sign in values[0] for sign in "*?"):
            raise Mismatch(f"{key.keyword} must have one value at this level.", key.tag)


def _item_conditions(reader: "_Reader", item: Dataset | None, sequence: int) -> list[Condition]:
    if item is None or not len(item):
        return [Condition((sequence,), ())]
    return [Condition(_path(sequence, tag), reader.values(item, tag)) for tag in _keys(item)]


def _path(sequence: int, tag: int) -> TagPath:
    return (sequence, tag)


def _item_wanted(reader: "_Reader", item: Dataset | None) -> tuple[Wanted, ...]:
    return () if item is None else tuple((f"{tag:08X}", reader.vr(item, tag), ()) for tag in _keys(item))


class _Reader:
    """Key values as text, taken from the raw elements: no conversion that could refuse a wildcard or log a value."""

    def __init__(self, dataset: Dataset, *, big_endian: bool) -> None:
        self._order = ">" if big_endian else "<"
        raw = self._raw(dataset, _CHARACTER_SET)
        self._encodings = convert_encodings(raw.decode("ascii", "replace").strip(" \0").split("\\"))

    def vr(self, dataset: Dataset, tag: int) -> str:
        element = dataset.get_item(tag)
        known = BY_TAG.get(tag)
        if known is not None:
            return known.vr
        if element is not None and element.VR is not None and element.VR != "UN":
            return str(element.VR)
        try:
            return dictionary_VR(tag)[:2]
        except KeyError:
            return "UN"

    def values(self, dataset: Dataset, tag: int) -> tuple[str, ...]:
        """The key's values; none, or only empty ones, is universal matching."""
        vr, raw = self.vr(dataset, tag), self._raw(dataset, tag)
        if vr in _NUMBERS:
            return self._numbers(raw, vr)
        if vr == "SQ" or not raw:
            return ()
        if vr in _CODED:
            text = decode_bytes(raw, self._encodings, PN_DELIMS if vr == "PN" else TEXT_VR_DELIMS)
        else:
            text = raw.decode("ascii", "replace")
        parts = [text] if vr in _SINGLE else text.split("\\")
        return tuple(part.strip(" \0") for part in parts)

    def item(self, dataset: Dataset, tag: int) -> Dataset | None:
        """The one item of a sequence key (PS3.4 C.2.2.2.6)."""
        try:
            items = dataset[tag].value
        except Exception as error:  # the library's own exceptions are many; the bytes are at fault
            raise Refused(Reason.UNREADABLE, "A sequence of the identifier is not readable.") from error
        return items[0] if items else None

    def _numbers(self, raw: bytes, vr: str) -> tuple[str, ...]:
        form = struct.Struct(self._order + _NUMBERS[vr])
        whole = len(raw) // form.size * form.size
        return tuple(str(value) for (value,) in form.iter_unpack(raw[:whole]))

    @staticmethod
    def _raw(dataset: Dataset, tag: int) -> bytes:
        element = dataset.get_item(tag) if tag in dataset else None
        value = element.value if isinstance(element, RawDataElement) else None
        return value or b""
