"""Structured reports as people read them: the content tree as numbered lines (PS3.3 C.17.3, C.18), from DICOM JSON."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SR_CLASSES = "1.2.840.10008.5.1.4.1.1.88."  # SOP classes of structured reports begin so
Row = Mapping[str, Mapping[str, Any]]

CONTENT, CONCEPT_NAME, VALUE_TYPE = "0040A730", "0040A043", "0040A040"
CODES, MEASURED, NUMBER, UNITS = "0040A168", "0040A300", "0040A30A", "004008EA"
NO_NUMBER = "0040A301"  # why there is none
REFERENCES, OTHER_ITEM = "00081199", "0040DB73"
CODE_VALUE, MEANING = "00080100", "00080104"
LONG_CODE = ("00080119", "00080120")  # codes longer than 16 characters, and those that are URNs
INSTANCE, FRAMES = "00081155", "00081160"
GRAPHIC_TYPE, GRAPHIC_DATA, TIME_RANGE = "00700023", "00700022", "0040A130"
PLAIN = {  # value type -> where its value stands
    "TEXT": "0040A160",
    "DATETIME": "0040A120",
    "DATE": "0040A121",
    "TIME": "0040A122",
    "PNAME": "0040A123",
    "UIDREF": "0040A124",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One content item: how deep it lies (the title of the report is 0), its number, its name and its value."""

    depth: int
    number: str
    name: str
    value: str = ""


def is_report(sop_class_uid: str) -> bool:
    """Whether objects of this class are read as documents."""
    return sop_class_uid.startswith(SR_CLASSES)


def lines(row: Row) -> Iterator[Line]:
    """The title and all content items of a report, in the order of its tree."""
    yield Line(0, "", meaning(row, CONCEPT_NAME) or "Report")
    waiting = [(1, f"{place}", item) for place, item in _numbered(row)][::-1]
    while waiting:  # no recursion: how deep a peer's report goes is the peer's choice
        depth, number, item = waiting.pop()
        yield Line(depth, number, meaning(item, CONCEPT_NAME), value(item))
        waiting += [(depth + 1, f"{number}.{place}", inner) for place, inner in _numbered(item)][::-1]


def _numbered(item: Row) -> Iterator[tuple[int, Row]]:
    return enumerate(items(item, CONTENT), 1)


def items(row: Row, tag: str) -> list[Row]:
    """The items of a sequence; none where it is none."""
    entry = row.get(tag, {})
    return [item or {} for item in entry.get("Value", ())] if entry.get("vr") == "SQ" else []


def text(row: Row, tag: str) -> str:
    """The values of an attribute as one text; a name in its groups."""
    found = row.get(tag, {}).get("Value", ())
    return ", ".join(_plain(value) for value in found if value is not None and not isinstance(value, list))


def _plain(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    groups = [value.get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic")]
    return " = ".join(" ".join(part for part in str(group).split("^") if part) for group in groups if group)


def meaning(row: Row, tag: str) -> str:
    """What the first code of a sequence means, or the code where it says nothing."""
    for code in items(row, tag)[:1]:
        return next((found for key in (MEANING, CODE_VALUE, *LONG_CODE) if (found := text(code, key))), "")
    return ""


def value(item: Row) -> str:
    """The value of one content item; "" for containers."""
    kind = text(item, VALUE_TYPE)
    if kind in PLAIN:
        return text(item, PLAIN[kind])
    if others := text(item, OTHER_ITEM):
        return f"see item {others.replace(', ', '.')}"
    return _VALUES[kind](item) if kind in _VALUES else ""


def _measured(item: Row) -> str:
    for measured in items(item, MEASURED)[:1]:
        unit = text(next(iter(items(measured, UNITS)), {}), CODE_VALUE)
        return f"{text(measured, NUMBER)} {'' if unit == '1' else unit}".strip()
    return meaning(item, NO_NUMBER)


def _referenced(item: Row) -> str:
    found = []
    for reference in items(item, REFERENCES):
        numbers = text(reference, FRAMES)
        found.append(text(reference, INSTANCE) + (f" frame {numbers}" if numbers else ""))
    return "; ".join(found)


def _drawn(item: Row) -> str:
    data = item.get(GRAPHIC_DATA, {}).get("Value", ())
    return f"{text(item, GRAPHIC_TYPE)} {' '.join(f'{float(number):g}' for number in data[:24])}".strip()


_VALUES: dict[str, Callable[[Row], str]] = {
    "CODE": lambda item: meaning(item, CODES),
    "NUM": _measured,
    "IMAGE": _referenced,
    "COMPOSITE": _referenced,
    "WAVEFORM": _referenced,
    "SCOORD": _drawn,
    "SCOORD3D": _drawn,
    "TCOORD": lambda item: text(item, TIME_RANGE),
}
