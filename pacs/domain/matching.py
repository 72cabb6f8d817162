"""THE matching semantics of PS3.4 C.2.2.2, shared by C-FIND, QIDO and model selection.

A key's values become a `Predicate`, which `matches` applies to the normal forms of an attribute's values and
`pacs/index/compile.py` turns into SQL. What this node decides where the standard leaves it open:

- Several values of one key, of whatever VR, are joined by OR. An attribute of several values matches if any does.
- Padding does not count. Wildcards are honoured for the VRs that have them, and do not match an absent value; a value
  of asterisks only is universal matching for every VR.
- Names: case, accents and width do not count, nor do empty last components. A key of several component groups (`=`)
  needs each of its groups to match some group of the name. `Doe^*` also finds `Doe`.
- Fuzzy: every word of the key begins a word of the name, in any order. Keys with wildcards are taken as wildcards.
- A time of less precision is the whole interval that it names: `2230` is that minute. Ranges include both ends in full.
  A date and its time are matched one by one, unless the door asks for combined matching and both are ranges of one form
  (`pacs/index/moments.py`).
- `""` finds what is absent or empty, unless the door turns that off.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pacs.domain import normal
from pacs.domain.attributes import Rule
from pacs.domain.normal import SEPARATOR, normal_values, normalise
from pacs.domain.uids import is_uid
from pacs.errors import BadRequest

__all__ = [
    "AnyOf",
    "Between",
    "Either",
    "Empty",
    "Every",
    "Like",
    "Predicate",
    "Range",
    "Universal",
    "Words",
    "matches",
    "normal_values",
    "normalise",
    "parse",
    "words_of",
]

EMPTY = '""'
FIRST, LAST = "0", "~"  # sort before and after all digits, FIRST after nothing at all: the open ends of ranges
WILDCARDS = frozenset("*?")


@dataclass(frozen=True, slots=True)
class Universal:
    """Everything, absent values too."""


@dataclass(frozen=True, slots=True)
class Empty:
    """Only what is absent or empty (PS3.4 C.2.2.2.7)."""


@dataclass(frozen=True, slots=True)
class AnyOf:
    """A value equals one of these."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Like:
    """A value fits the pattern: `*` is any run of characters, `?` one character; nothing else is special."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Between:
    """A value lies between the two, both included."""

    low: str
    high: str


@dataclass(frozen=True, slots=True)
class Range(Between):
    """Between the two ends of a range as it was written, one of them maybe open: FIRST or LAST."""

    @property
    def form(self) -> tuple[bool, bool]:
        """Which of its ends are given."""
        return self.low != FIRST, self.high != LAST


@dataclass(frozen=True, slots=True)
class Words:
    """Each of these begins a word of the values, all groups together."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One of these holds."""

    options: "tuple[Predicate, ...]"


@dataclass(frozen=True, slots=True)
class Every:
    """All of these hold, each for some value."""

    parts: "tuple[Predicate, ...]"


Predicate = Universal | Empty | AnyOf | Like | Between | Words | Either | Every


def parse(
    rule: Rule, values: Sequence[str], *, fuzzy: bool = False, empty: bool = True, several: bool = True
) -> Predicate:
    """What a key asks for. Values are decoded text, already split where the door's syntax splits them.

    Without `empty` two quotation marks are text like any other; without `several` a backslash is, but between UIDs.
    Raises BadRequest for a UID, date, time, range or number that is malformed, and for a key that no rule can match.
    The message never quotes the value.
    """
    given = [value for text in values for value in _split(rule, normal.storable(text), several) if value]
    if not given or any(not value.strip("*") for value in given):
        return Universal()
    form = _fuzzy_name if fuzzy and rule is Rule.NAME else _PARSERS.get(rule)
    if form is None:
        raise BadRequest("A sequence is matched by the keys inside it.")
    return either([Empty() if empty and value == EMPTY else form(value) for value in given])


def either(options: Sequence[Predicate]) -> Predicate:
    """The options joined by OR, equalities as one list."""
    equal = tuple(dict.fromkeys(value for option in options if isinstance(option, AnyOf) for value in option.values))
    others = tuple(dict.fromkeys(option for option in options if not isinstance(option, AnyOf)))
    merged: tuple[Predicate, ...] = (AnyOf(equal), *others) if equal else others
    if any(isinstance(option, Universal) for option in merged):
        return Universal()
    return merged[0] if len(merged) == 1 else Either(merged)


def matches(predicate: Predicate, values: Sequence[str]) -> bool:
    """Whether an attribute whose values have these normal forms (`normal_values`) satisfies the predicate."""
    present = [value for value in values if value]
    return _EVALUATORS[type(predicate)](predicate, present)


def _split(rule: Rule, text: str, several: bool) -> list[str]:
    """The values in one text: a backslash separates except in narrative text, a comma too between UIDs."""
    if rule is Rule.UID:
        text = text.replace(",", SEPARATOR)
    whole = rule is Rule.NARRATIVE or not (several or rule is Rule.UID)
    pieces = [text] if whole else text.split(SEPARATOR)
    return [piece.strip(normal.PADDING) for piece in pieces]


def _uid(text: str) -> Predicate:
    if not is_uid(text):
        raise BadRequest("A UID key must hold digits and dots only, at most 64 characters.")
    return AnyOf((text,))


def _text(text: str) -> Predicate:
    return Like(_squeezed(text)) if WILDCARDS & set(text) else AnyOf((text,))


def _exact(text: str) -> Predicate:
    return AnyOf((text,))


def _name(text: str) -> Predicate:
    if not text.strip("*^= "):
        return Like("?*") if "^" in text and "*" in text else Universal()
    groups = [group for group in map(normal.name_group, text.split("=")) if group.strip("*^")]
    parts = tuple(_group(group) for group in groups)
    return parts[0] if len(parts) == 1 else Every(parts)


def _group(group: str) -> Predicate:
    """One component group; components at the end that may be anything may be absent from the name altogether."""
    options = [_text(group)]
    while "^" in group and not (cut := group.rpartition("^"))[2].strip("*"):
        group = cut[0]
        options.append(_text(group.rstrip("^")))
    return either(options)


def _fuzzy_name(text: str) -> Predicate:
    if WILDCARDS & set(text):
        return _name(text)
    words = words_of(normal.fold(text.replace("=", " ")))
    return Words(tuple(dict.fromkeys(words))) if words else Universal()


def _date(text: str) -> Predicate:
    return _range_or_value(text, _whole_date, "A date key must be YYYYMMDD or a range of such dates.")


def _time(text: str) -> Predicate:
    message = "A time key must be HH, HHMM, HHMMSS or HHMMSS.FFFFFF or a range of such times within one day."
    return _range_or_value(text, _time_interval, message)


def _moment(text: str) -> Predicate:
    message = "A date-time key must be YYYYMMDDHHMMSS.FFFFFF&ZZXX, cut anywhere, or a range of such values."
    return _range_or_value(text, _moment_interval, message)


def _number(text: str) -> Predicate:
    value = normal.number(text)
    if not value:
        raise BadRequest("A numeric key must be a number.")
    return AnyOf((value,))


Interval = tuple[str, str]


def _range_or_value(text: str, interval: Callable[[str], Interval | None], message: str) -> Predicate:
    """A value, or a range: a hyphen with such values on both sides or on one (PS3.4 C.2.2.2.5)."""
    if found := interval(text):
        return AnyOf((found[0],)) if found[0] == found[1] else Between(*found)
    for hyphen in re.finditer("-", text):
        low, high = _ends(text[: hyphen.start()], text[hyphen.end() :], interval)
        if low and high and (low, high) != (FIRST, LAST):
            if low > high:
                raise BadRequest("A range key must begin before it ends.")
            return Range(low, high)
    raise BadRequest(message)


def _ends(before: str, after: str, interval: Callable[[str], Interval | None]) -> Interval:
    """The ends of a range, an open one as far as digits can sort; an end that is malformed is empty."""
    low = interval(before) if before.strip() else (FIRST, FIRST)
    high = interval(after) if after.strip() else (LAST, LAST)
    return (low[0] if low else "", high[1] if high else "")


def _whole_date(text: str) -> Interval | None:
    value = normal.date(text)
    return (value, value) if value and len(text.strip()) in (8, 10) else None


def _time_interval(text: str) -> Interval | None:
    first = normal.time(text)
    if not first:
        return None
    whole, _, fraction = text.strip().replace(":", "").replace(",", ".").partition(".")
    return first, _end_of_second(whole, fraction) if fraction else whole + _REST[len(whole) + 8]


def _moment_interval(text: str) -> Interval | None:
    first = normal.moment(text)
    if not first:
        return None
    text = text.strip()
    offset = normal.OFFSET.search(text)
    whole, _, fraction = text[: offset.start() if offset else None].partition(".")
    last = _end_of_second(whole, fraction) if fraction else whole + _REST[len(whole)]
    return first, _in_utc(last, offset[0]) if offset else last


def _end_of_second(whole: str, fraction: str) -> str:
    return f"{whole}.{fraction[:6]:9<6}"


def _in_utc(last: str, offset: str) -> str:
    """The end of an interval in UTC, where there are neither 31 days in every month nor leap seconds."""
    day, clock = last[:8], last[8:].replace("60.", "59.")
    ends = (normal.moment(f"{day[:6]}{number}{clock}{offset}") for number in (day[6:], "30", "29", "28"))
    return next(filter(None, ends))


# what ends the interval that a date-time names, by the number of digits given; a minute has a leap second
_REST = {
    4: "1231235960.999999",
    6: "31235960.999999",
    8: "235960.999999",
    10: "5960.999999",
    12: "60.999999",
    14: ".999999",
}

_PARSERS: Mapping[Rule, Callable[[str], Predicate]] = {
    Rule.UID: _uid,
    Rule.TEXT: _text,
    Rule.NARRATIVE: _text,
    Rule.EXACT: _exact,
    Rule.NAME: _name,
    Rule.DATE: _date,
    Rule.TIME: _time,
    Rule.MOMENT: _moment,
    Rule.NUMBER: _number,
}


def _squeezed(pattern: str) -> str:
    """The same pattern without runs of asterisks, which would cost a matcher dearly."""
    return re.sub(r"\*+", "*", pattern)


def words_of(text: str) -> list[str]:
    """The words of a folded name: what stands between carets, spaces and separators of values."""
    return text.replace("^", " ").replace(SEPARATOR, " ").split()


def _fits(pattern: str, value: str) -> bool:
    """Whether the whole value fits the pattern; in time of the product of their lengths at worst."""
    at = star = mark = 0
    position = 0
    stars = False
    while position < len(value):
        if at < len(pattern) and pattern[at] == "*":
            stars, star, mark, at = True, at, position, at + 1
        elif at < len(pattern) and pattern[at] in ("?", value[position]):
            at, position = at + 1, position + 1
        elif stars:
            mark += 1
            at, position = star + 1, mark
        else:
            return False
    return not pattern[at:].strip("*")


def _any_of(predicate: AnyOf, values: Sequence[str]) -> bool:
    return not set(predicate.values).isdisjoint(values)


def _like(predicate: Like, values: Sequence[str]) -> bool:
    return any(_fits(predicate.pattern, value) for value in values)


def _between(predicate: Between, values: Sequence[str]) -> bool:
    return any(predicate.low <= value <= predicate.high for value in values)


def _words(predicate: Words, values: Sequence[str]) -> bool:
    present = [word for value in values for word in words_of(value)]
    return all(any(word.startswith(wanted) for word in present) for wanted in predicate.words)


_EVALUATORS: Mapping[type, Callable[[Any, Sequence[str]], bool]] = {
    Universal: lambda _, __: True,
    Empty: lambda _, values: not values,
    AnyOf: _any_of,
    Like: _like,
    Between: _between,
    Range: _between,
    Words: _words,
    Either: lambda predicate, values: any(matches(option, values) for option in predicate.options),
    Every: lambda predicate, values: all(matches(part, values) for part in predicate.parts),
}
