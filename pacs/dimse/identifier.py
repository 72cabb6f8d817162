"""The identifiers of C-FIND, C-MOVE and C-GET (PS3.4 C.4.1.1.3.1, C.4.2.1.4.1): from untrusted bytes to a `Query`."""

from dataclasses import dataclass

from pacs.dimse.answer import Wanted
from pacs.domain import admission, charsets, values
from pacs.domain.admission import Element
from pacs.domain.attributes import BY_KEYWORD, BY_TAG, Attribute, Rule
from pacs.domain.levels import Level
from pacs.domain.query import Condition, Query, TagPath
from pacs.errors import BadRequest, Reason, Refused

Elements = dict[int, Element]

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
_NUMBERS = frozenset(["US", "SS", "UL", "SL", "FL", "FD", "UV", "SV"])


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


def parse(
    data: bytes,
    transfer_syntax: str,
    root: Level,
    *,
    relational: bool = False,
    combined: bool = False,
    fuzzy: bool = False,
) -> Identifier:
    """The identifier of a query in the model whose highest level is `root` (PATIENT or STUDY).

    Hierarchical unless `relational` was negotiated; then no key of the levels above is demanded (PS3.4 C.4.1.2.2.1).
    Raises Refused(UNREADABLE) for bytes that are no data set and Mismatch for a level or key that the model forbids.
    """
    reader = _Reader(data, transfer_syntax)
    name, level = _level(reader, root)
    keys = _Keys(reader, level)
    for tag in _tags(reader.top):
        keys.add(tag)
    if not relational:
        _require_upper_keys(keys.conditions, root, level)
    query = Query(
        level, tuple(keys.conditions), include=frozenset(keys.include), fuzzy=fuzzy, combined=combined, parents=False
    )
    return Identifier(name, query, tuple(keys.wanted), keys.unsupported)


def parse_retrieval(data: bytes, transfer_syntax: str, root: Level, *, relational: bool = False) -> Query:
    """What C-MOVE or C-GET names, as a query for instances (PS3.4 C.4.2.2.1).

    The unique key of the level has a value, or a list of UIDs. Other keys of this level and above narrow; a key below,
    or one that nothing can be matched by, would give more than was asked for, so it is a Mismatch. Raises as `parse`.
    """
    reader = _Reader(data, transfer_syntax)
    _, level = _level(reader, root)
    conditions = [Condition((tag,), given) for tag in _tags(reader.top) if any(given := reader.values(reader.top, tag))]
    for condition in conditions:
        known = BY_TAG.get(condition.path[0])
        if known is None or known.level > level:
            raise Mismatch("A key is not one by which this level is retrieved.", condition.path[0])
    _require_unique_key(conditions, level, several=level > Level.PATIENT)
    if not relational:
        _require_upper_keys(conditions, root, level)
    return Query(Level.INSTANCE, tuple(conditions), show_hidden=level >= Level.SERIES)


def _level(reader: "_Reader", root: Level) -> tuple[str, Level]:
    name = next(iter(reader.values(reader.top, QUERY_RETRIEVE_LEVEL)), "")
    level = LEVELS.get(name)
    if level is None or level < root:
        raise Mismatch("The Query/Retrieve Level is missing or not one of this model.", QUERY_RETRIEVE_LEVEL)
    return name, level


class _Keys:
    """The keys of an identifier sorted into what is matched, what is fetched and what is answered."""

    def __init__(self, reader: "_Reader", level: Level) -> None:
        self.conditions: list[Condition] = []
        self.include: list[TagPath] = []
        self.wanted: list[Wanted] = []
        self.unsupported = False
        self._reader = reader
        self._level = level

    def add(self, tag: int) -> None:
        known = BY_TAG.get(tag)
        if known is None:
            self._add_unknown(tag)
        elif known.rule is Rule.SEQUENCE and known.level <= self._level:
            self._add_sequence(known)
        else:
            self._add_known(known)

    def _add_known(self, known: Attribute) -> None:
        """A key of a lower level finds what holds such a thing, but has no one value to be answered with."""
        self.conditions.append(Condition((known.tag,), self._reader.values(self._reader.top, known.tag)))
        self.wanted.append((known.hex, known.vr, ()))
        self.unsupported |= known.level > self._level

    def _add_sequence(self, known: Attribute) -> None:
        """All keys of the one item (PS3.4 C.2.2.2.6); none is universal matching."""
        item = self._reader.item(known.tag)
        inner = _tags(item)
        if not inner:
            self.conditions.append(Condition((known.tag,), ()))
        self.conditions += [Condition((known.tag, tag), self._reader.values(item, tag)) for tag in inner]
        shown = tuple((f"{tag:08X}", self._reader.vr(item[tag]), ()) for tag in inner)
        self.wanted.append((known.hex, "SQ", shown))

    def _add_unknown(self, tag: int) -> None:
        """Not in the index: an instance's answer can hold it, nothing can be matched by it."""
        top = self._reader.top
        self.wanted.append((f"{tag:08X}", self._reader.vr(top[tag]), ()))
        at_hand = self._level is Level.INSTANCE
        if at_hand:
            self.include.append((tag,))
        self.unsupported |= not at_hand or any(self._reader.values(top, tag))


def _tags(elements: Elements) -> list[int]:
    return [tag for tag in sorted(elements) if tag not in _NO_KEYS and tag & 0xFFFF]


def _require_upper_keys(conditions: list[Condition], root: Level, level: Level) -> None:
    """PS3.4 C.4.1.2.2.1: below the root each level above is named by one unique key value."""
    for upper in Level:
        if root <= upper < level:
            _require_unique_key(conditions, upper, several=False)


def _require_unique_key(conditions: list[Condition], level: Level, *, several: bool) -> None:
    key = UNIQUE_KEYS[level]
    found = next((condition.values for condition in conditions if condition.path == (key.tag,)), ())
    if not found or (len(found) > 1 and not several) or not all(map(_names_one, found)):
        raise Mismatch(f"{key.keyword} must have one value at this level.", key.tag)


def _names_one(value: str) -> bool:
    return bool(value) and not any(sign in value for sign in "*?")


class _Reader:
    """The elements of an identifier, and their values as text."""

    def __init__(self, data: bytes, transfer_syntax: str) -> None:
        """Walks the bytes once. Raises Refused(UNREADABLE)."""
        self._data, self.top, self._little = data, Elements(), True
        if data:
            try:
                admitted = admission.admit(data, raw_syntax=transfer_syntax, limits=_LIMITS, nested=True)
            except admission.Inadmissible as error:
                raise Refused(Reason.UNREADABLE, "The identifier is not a readable data set.") from error
            self.top, self._little = admitted.elements, admitted.encoding.little
        self._decode = charsets.decoder(self._raw(self.top, _CHARACTER_SET))

    def vr(self, element: Element) -> str:
        """Of the index's table, the data set, or the dictionary."""
        known = BY_TAG.get(element.tag)
        written = element.vr if element.vr != "UN" else ""
        return known.vr if known else written or values.public_vr(element.tag)[:2]

    def values(self, elements: Elements, tag: int) -> tuple[str, ...]:
        """The key's values; none, or only empty ones, is universal matching."""
        raw = self._raw(elements, tag)
        vr = self.vr(elements[tag]) if raw else ""
        if not raw or vr == "SQ":
            return ()
        if vr in _NUMBERS:
            return tuple(str(number) for number in values.numbers(raw, vr, self._little))
        return tuple(values.split(raw, vr, self._decode))

    def item(self, tag: int) -> Elements:
        """The first item of a sequence key, empty where there is none."""
        items = self.top[tag].items or ()
        return items[0].elements if items else Elements()

    def _raw(self, elements: Elements, tag: int) -> bytes:
        element = elements.get(tag)
        return self._data[element.value_offset : element.value_offset + element.length] if element else b""
