"""Modality worklist (PS3.4 K): what an item must hold, and which items a query finds. Items and keys are DICOM JSON."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pacs.domain.attributes import Rule, rule_of
from pacs.domain.matching import Between, Predicate, Universal, matches, normal_values, parse
from pacs.domain.uids import is_uid
from pacs.errors import BadRequest

Element = Mapping[str, Any]
Row = Mapping[str, Element]

STEPS = "00400100"  # Scheduled Procedure Step Sequence
STATION, MODALITY, STEP_ID, STATUS = "00400001", "00080060", "00400009", "00400020"
START_DATE, START_TIME = "00400002", "00400003"
PATIENT_NAME, PATIENT_ID, STUDY_UID = "00100010", "00100020", "0020000D"
CHARACTER_SET, TIMEZONE = "00080005", "00080201"
NO_KEYS = frozenset({CHARACTER_SET, TIMEZONE})
GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
MOST_DEPTH = 8

# type 1 of table K.6-1, without which no modality can work; the words are for whoever fills the list
NEEDED = {PATIENT_NAME: "PatientName", PATIENT_ID: "PatientID"}
NEEDED_OF_STEP = {
    STATION: "ScheduledStationAETitle",
    START_DATE: "ScheduledProcedureStepStartDate",
    START_TIME: "ScheduledProcedureStepStartTime",
    MODALITY: "Modality",
}


@dataclass(frozen=True, slots=True)
class Key:
    """One attribute of a query: the sequences that it stands in, itself, and what its value must be."""

    path: tuple[str, ...]
    rule: Rule
    predicate: Predicate


@dataclass(frozen=True, slots=True)
class WorklistQuery:
    """The keys, those of one sequence for one item. `low`, `high`: start dates outside cannot match."""

    keys: tuple[Key, ...]
    low: str = ""
    high: str = "~"
    moment: tuple[str, str] | None = None  # start date and time as one range

    def finds(self, item: Row) -> bool:
        """Whether an item satisfies every key (PS3.4 K.4.1.1.3)."""
        return _satisfies(item, self.keys, 0) and (self.moment is None or self._at_the_moment(item))

    def _at_the_moment(self, item: Row) -> bool:
        assert self.moment is not None
        low, high = self.moment
        return any(low <= when <= high for when in map(_moment, items_of(item, STEPS)))


def compiled(keys: Row) -> WorklistQuery:
    """The query of an identifier. Raises BadRequest for a malformed value, without quoting it.

    Ranges of both start date and start time are one range of moments (PS3.4 table K.6-1, remark).
    """
    found = tuple(_keys(keys, (), 0))
    by_path = {key.path: key.predicate for key in found}
    date, time = by_path.get((STEPS, START_DATE)), by_path.get((STEPS, START_TIME))
    low, high = (date.low, date.high) if isinstance(date, Between) else ("", "~")
    if isinstance(date, Between) and isinstance(time, Between) and _are_ranges(keys):
        kept = tuple(key for key in found if key.path not in {(STEPS, START_DATE), (STEPS, START_TIME)})
        return WorklistQuery(kept, low, high, (date.low + time.low, date.high + time.high))
    return WorklistQuery(found, low, high)


def _keys(keys: Row, path: tuple[str, ...], depth: int) -> Iterator[Key]:
    for tag, element in keys.items():
        rule = rule_of(int(tag, 16))
        if tag in NO_KEYS or rule is None or depth > MOST_DEPTH:
            continue
        if rule is Rule.SEQUENCE:
            for inner in element.get("Value", ())[:1]:
                yield from _keys(inner, (*path, tag), depth + 1)
            continue
        predicate = parse(rule, texts(element))
        if not isinstance(predicate, Universal):
            yield Key((*path, tag), rule, predicate)


def _are_ranges(keys: Row) -> bool:
    step = next(iter(items_of(keys, STEPS)), {})
    return all("-" in "".join(texts(step.get(tag, {}))) for tag in (START_DATE, START_TIME))


def _moment(step: Row) -> str:
    date = normal_values(Rule.DATE, texts(step.get(START_DATE, {})))
    time = normal_values(Rule.TIME, texts(step.get(START_TIME, {})))
    return date[0] + time[0] if date and time else ""


def _satisfies(item: Row, keys: Sequence[Key], depth: int) -> bool:
    own = [key for key in keys if len(key.path) == depth + 1]
    if not all(matches(key.predicate, normal_values(key.rule, texts(item.get(key.path[-1], {})))) for key in own):
        return False
    below: dict[str, list[Key]] = {}
    for key in keys:
        if len(key.path) > depth + 1:
            below.setdefault(key.path[depth], []).append(key)
    return all(any(_satisfies(inner, some, depth + 1) for inner in items_of(item, tag)) for tag, some in below.items())


def items_of(row: Row, tag: str) -> Sequence[Row]:
    """The items of a sequence, none where it is absent."""
    found: Sequence[Row] = row.get(tag, {}).get("Value", ())
    return [item for item in found if isinstance(item, Mapping)]


def texts(element: Element) -> list[str]:
    """The values of an element as text, names with their groups joined."""
    found = []
    for value in element.get("Value", ()):
        if isinstance(value, Mapping):
            found.append("=".join(str(value.get(group, "")) for group in GROUPS).rstrip("="))
        elif value is not None:
            found.append(str(value))
    return found


def text(row: Row, tag: str) -> str:
    """The first value of an attribute as text, empty where there is none."""
    return next(iter(texts(row.get(tag, {}))), "")


def step_of(item: Row) -> Row:
    """The one scheduled step of an item. Raises BadRequest where there is none or are several."""
    steps = items_of(item, STEPS)
    if len(steps) != 1:
        raise BadRequest("An item has one scheduled step: ScheduledProcedureStepSequence (00400100) holds one item.")
    return steps[0]


def require_whole(item: Row) -> None:
    """What a modality cannot do without must be there and well formed. Raises BadRequest naming what is not."""
    step = step_of(item)
    for place, needed in ((item, NEEDED), (step, NEEDED_OF_STEP)):
        missing = [f"{word} ({tag})" for tag, word in needed.items() if not text(place, tag).strip()]
        if missing:
            raise BadRequest(f"A worklist item needs {', '.join(missing)}.")
    for tag, rule in ((START_DATE, Rule.DATE), (START_TIME, Rule.TIME)):
        if not normal_values(rule, [text(step, tag)]):
            raise BadRequest(f"{NEEDED_OF_STEP[tag]} ({tag}) is malformed.")
    if not is_uid(text(item, STUDY_UID)):
        raise BadRequest("StudyInstanceUID (0020000D) is not a UID.")


def require_dicom_json(value: object) -> dict[str, Any]:
    """The value, if it has the form of a DICOM JSON object without bulk data (PS3.18 F.2). Raises BadRequest."""
    if not isinstance(value, dict) or not value:
        raise BadRequest("A worklist item is a DICOM JSON object: tags of eight hexadecimal digits, each with its vr.")
    _check(value, 0)
    return value


def _check(row: dict[str, Any], depth: int) -> None:
    if depth > MOST_DEPTH:
        raise BadRequest(f"Sequences of a worklist item are nested {MOST_DEPTH} deep at most.")
    for tag, element in row.items():
        _check_element(tag, element)
        if element["vr"] == "SQ":
            for item in element.get("Value", ()):
                if not isinstance(item, dict):
                    raise BadRequest("The items of a sequence are JSON objects.")
                _check(item, depth + 1)


def _check_element(tag: object, element: object) -> None:
    hexadecimal = isinstance(tag, str) and len(tag) == 8 and set(tag) <= set("0123456789ABCDEF")
    if not hexadecimal or not isinstance(element, dict) or not isinstance(element.get("vr"), str):
        raise BadRequest("A key is a tag of eight upper-case hexadecimal digits, its value an object with vr.")
    if not set(element) <= {"vr", "Value"} or not isinstance(element.get("Value", []), list):
        raise BadRequest("Besides vr an element has a list Value and nothing else; a worklist item holds no bulk data.")
