"""What a search must find, in plain Python over the raw texts, written from PS3.4 C.2.2.2 and not from our code."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from pydicom.datadict import dictionary_VR, keyword_for_tag

from pacs.domain.levels import Level
from pacs.domain.query import Query
from tests.services.search_shelf import Object

WILD = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
NUMERIC = {"IS", "DS", "US"}
UID_OF = {
    Level.STUDY: "StudyInstanceUID",
    Level.SERIES: "SeriesInstanceUID",
    Level.INSTANCE: "SOPInstanceUID",
}
LEVEL_OF: dict[str, Level] = {}


def folded(text: str) -> str:
    """Without case, without the accents of Latin, Greek and Cyrillic letters."""
    text = unicodedata.normalize("NFKD", text.casefold())
    text = "".join(c for c in text if not 0x300 <= ord(c) <= 0x36F)
    for stroke, plain in (("ø", "o"), ("ł", "l"), ("đ", "d"), ("ı", "i")):
        text = text.replace(stroke, plain)
    return unicodedata.normalize("NFKC", text)


def wild(pattern: str, text: str) -> bool:
    """Whether the whole text fits a pattern of `*` and `?`."""
    parts = {"*": ".*", "?": "."}
    return re.fullmatch("".join(parts.get(c, re.escape(c)) for c in pattern), text, re.DOTALL) is not None


def day(text: str) -> int | None:
    digits = re.match(r"^(\d\d\d\d)([-./]?)(\d\d)\2(\d\d)", text.strip())
    if not digits or not 1 <= int(digits[3]) <= 12 or not 1 <= int(digits[4]) <= 31:
        return None
    return int(digits[1] + digits[3] + digits[4])


def clock(text: str) -> tuple[Decimal, Decimal] | None:
    """The first moment of the interval that a time names, and the first one after it, read as HHMMSS.FFF.

    As written, not in seconds: a leap second comes after 59 and before the next minute.
    """
    found = re.fullmatch(r"(\d\d)(?::?(\d\d)(?::?(\d\d)(\.\d+)?)?)?", text.strip())
    if not found or int(found[1]) > 23 or int(found[2] or 0) > 59 or int(found[3] or 0) > 60:
        return None
    start = Decimal(found[1] + (found[2] or "00") + (found[3] or "00") + (found[4] or ""))
    width = Decimal(5961) if not found[2] else Decimal(61) if not found[3] else Decimal(1)
    if found[4]:
        width = Decimal(10) ** -(len(found[4]) - 1)
    return start, start + width


def number(text: str) -> Decimal | None:
    try:
        return Decimal(text.strip())
    except InvalidOperation:
        return None


def pieces(key: str, vr: str) -> list[str]:
    return [piece.strip() for piece in re.split(r"[\\,]" if vr == "UI" else r"\\", key)]


def name_matches(key: str, value: str) -> bool:
    groups = [trimmed(folded(group)) for group in key.split("=")]
    groups = [group for group in groups if group.strip("*^")]
    if not groups:
        return bool(value.strip("^= ")) or "^" not in key
    return all(any(group_matches(group, trimmed(folded(have))) for have in value.split("=")) for group in groups)


def trimmed(group: str) -> str:
    return re.sub(r"\^+$", "", "^".join(re.sub(r"\s+", " ", part).strip() for part in group.split("^")))


def group_matches(key: str, value: str) -> bool:
    if not value:
        return False
    padding = 5 if re.search(r"\^\**$", key) else 0
    return any(wild(key, value + "^" * count) for count in range(padding + 1))


def words_match(key: str, values: Sequence[str]) -> bool:
    """Each word of the key begins a word of the name."""
    have = [word for value in values for word in re.split(r"[\s^=]+", folded(value)) if word]
    return all(any(word.startswith(w) for word in have) for w in re.split(r"[\s^=]+", folded(key)) if w)


def ends(key: str) -> tuple[str, str]:
    """The two ends of a range, empty where it is open; a single value is both."""
    low, hyphen, high = key.partition("-")
    return (low, high) if hyphen else (key, key)


def one_matches(key: str, vr: str, value: str) -> bool:
    value = value.strip()
    if vr == "PN":
        return name_matches(key, value)
    if vr in WILD and ("*" in key or "?" in key):
        return bool(value) and wild(key, value)
    if vr in NUMERIC:
        return number(value) is not None and number(value) == number(key)
    if vr == "DA":
        have = day(value)
        low, high = ends(key)
        return have is not None and (day(low) or 0) <= have <= (day(high) or 99999999)
    if vr == "TM":
        have_time = clock(value)
        low, high = ends(key)
        first, last = clock(low) or (Decimal(-1), None), clock(high) or (None, Decimal(99999999))
        if have_time is None:
            return False
        return first[0] <= have_time[0] < last[1]
    return value == key


def is_range(keys: Sequence[str]) -> tuple[bool, bool] | None:
    """Which ends of a range are given; None where the key is no single range."""
    if len(keys) != 1 or "-" not in keys[0] or "\\" in keys[0]:
        return None
    low, _, high = keys[0].partition("-")
    return bool(low.strip()), bool(high.strip())


def one_interval(
    plain: list[tuple[str, Sequence[str]]],
) -> tuple[list[tuple[str, Sequence[str]]], list[tuple[str, str, str]]]:
    """Keys without those pairs of a date and its time that are ranges of one form; and these pairs (C.2.2.2.5)."""
    found = []
    for name in ("Study", "Series", "Content", "PerformedProcedureStepStart"):
        days = [key for keyword, key in plain if keyword == f"{name}Date" and not universal(key)]
        clocks = [key for keyword, key in plain if keyword == f"{name}Time" and not universal(key)]
        if len(days) == len(clocks) == 1 and is_range(days[0]) and is_range(days[0]) == is_range(clocks[0]):
            found.append((name, days[0][0], clocks[0][0]))
            plain = [(keyword, key) for keyword, key in plain if keyword not in (f"{name}Date", f"{name}Time")]
    return plain, found


def moment_between(date: str, time: str, days: str, clocks: str) -> bool:
    """Whether the moment is in the interval from one day's time to the other's."""
    have_day, have_clock = day(date), clock(time)
    assert have_day is not None
    assert have_clock is not None
    (low, high), (early, late) = ends(days), ends(clocks)
    first, last = clock(early), clock(late)
    after = first is None or (have_day, have_clock[0]) >= (day(low) or 0, first[0])
    return after and (last is None or (have_day, have_clock[0]) < (day(high) or 0, last[1]))


def universal(key: Sequence[str]) -> bool:
    return not any(key) or any(part.strip() and not part.strip("* ") for part in key)


def key_matches(key: Sequence[str], vr: str, values: Sequence[str], fuzzy: bool) -> bool:
    """Whether an attribute with these values (none: absent) matches a key."""
    keys = [piece for text in key for piece in pieces(text, vr) if piece]
    if not keys or any(set(piece) == {"*"} for piece in keys):
        return True
    present = [value for value in values if usable(value, vr)]
    for piece in keys:
        if piece == '""':
            if not present:
                return True
        elif vr == "PN" and fuzzy and not {"*", "?"} & set(piece):
            if words_match(piece, present):
                return True
        elif vr == "PN" and not (piece.strip("^= ") and piece.strip("*= ")):
            return True  # no name at all, or any name: universal
        elif any(one_matches(piece, vr, value) for value in present):
            return True
    return False


def usable(value: str, vr: str) -> bool:
    """Malformed dates, times and numbers count as absent."""
    tests = {"DA": day, "TM": clock, **dict.fromkeys(NUMERIC, number)}
    if vr == "PN":
        return bool(value.strip("^= "))
    return tests[vr](value) is not None if vr in tests else bool(value.strip())


class Oracle:
    """All objects, and what a query finds among them."""

    def __init__(self, objects: Sequence[Object]) -> None:
        self.objects = objects
        first: dict[tuple[Level, str], Object] = {}
        for made in objects:
            for level in Level:
                first.setdefault((level, self.name(made, level)), made)
        self._first = first
        self._names = {(id(made), level): self.name(made, level) for made in objects for level in Level}
        self._studies: dict[tuple[str, bool], list[Object]] = {}
        for made in objects:
            for show_hidden in {True, made.hidden}:  # hidden ones only where they are shown
                self._studies.setdefault((made.uid("StudyInstanceUID"), show_hidden), []).append(made)

    @staticmethod
    def name(made: Object, level: Level) -> str:
        if level is not Level.PATIENT:
            return made.uid(UID_OF[level])
        parts = [
            "\\".join(value.strip() for value in made.values.get(keyword, []) if value.strip())
            for keyword in ("PatientID", "IssuerOfPatientID")
        ]
        return "\\".join(parts) if parts[0] else "study " + made.uid("StudyInstanceUID")

    def values(self, made: Object, keyword: str, level: Level, query: Query) -> list[Any]:
        """The values of an attribute for an object's ancestor at the level: those of the first object stored there."""
        study = self._studies.get((made.uid("StudyInstanceUID"), query.show_hidden), [])
        if keyword in ("ModalitiesInStudy", "SOPClassesInStudy"):
            source = {"ModalitiesInStudy": "Modality", "SOPClassesInStudy": "SOPClassUID"}[keyword]
            where = Level.SERIES if source == "Modality" else Level.INSTANCE
            return [v for o in study for v in self.values(o, source, where, query)]
        if keyword == "NumberOfStudyRelatedSeries":
            return [str(len({o.uid("SeriesInstanceUID") for o in study}))]
        if keyword == "NumberOfStudyRelatedInstances":
            return [str(len(study))]
        holder = Level.STUDY if level is Level.PATIENT and query.level > Level.PATIENT else level
        found = self._first[holder, self._names[id(made), holder]].values.get(keyword, [])
        return list(found)

    def find(self, query: Query) -> set[str]:
        """The names of what the query must find."""
        conditions = [([keyword_for_tag(tag) for tag in c.path], c.values) for c in query.conditions]
        plain = [(path[0], key) for path, key in conditions if len(path) == 1]
        plain, intervals = one_interval(plain) if query.combined else (plain, [])
        known: dict[tuple[int, str], bool] = {}
        found = set()
        for made in self.objects:
            if made.hidden and not query.show_hidden:
                continue
            holds = (self._holds(known, made, number, plain[number], query) for number in range(len(plain)))
            if all(holds) and self._items(made, conditions, query) and self._within(made, intervals, query):
                found.add(self.name(made, query.level))
        return found

    def _within(self, made: Object, intervals: Iterable[tuple[str, str, str]], query: Query) -> bool:
        """For each date with its time: the moment lies in the interval; without one time, the day does."""
        for name, days, clocks in intervals:
            level = LEVEL_OF[f"{name}Date"]
            dates = self.values(made, f"{name}Date", level, query)
            times = [text for text in self.values(made, f"{name}Time", level, query) if usable(text, "TM")]
            if not key_matches((days,), "DA", dates, False):
                return False
            known = [text for text in dates if usable(text, "DA")]
            if len(known) == len(times) == 1 and not moment_between(known[0], times[0], days, clocks):
                return False
        return True

    def _holds(
        self,
        known: dict[tuple[int, str], bool],
        made: Object,
        number: int,
        key: tuple[str, Sequence[str]],
        query: Query,
    ) -> bool:
        keyword, wanted = key
        level = LEVEL_OF[keyword]
        at = number, self._names[id(made), max(level, Level.STUDY) if query.level > Level.PATIENT else level]
        if at not in known:
            values = self.values(made, keyword, level, query)
            known[at] = key_matches(wanted, dictionary_VR(keyword), values, query.fuzzy)
        return known[at]

    def _items(self, made: Object, conditions: Iterable[tuple[list[str], Sequence[str]]], query: Query) -> bool:
        """For each sequence: one item satisfies all keys inside it."""
        sequences: dict[str, list[tuple[str, Sequence[str]]]] = {}
        for path, key in conditions:
            if len(path) == 2 and not universal(key):
                sequences.setdefault(path[0], []).append((path[1], key))
        for sequence, keys in sequences.items():
            items = self.values(made, sequence, LEVEL_OF[sequence], query)
            if not any(
                all(key_matches(key, dictionary_VR(inner), item.get(inner, []), False) for inner, key in keys)
                for item in items
            ):
                return False
        return True
