"""Dates and times that belong together: combined ranges, and keys in a zone of their own (PS3.4 C.2.2.2.5).

A pair of ranges of one form is one interval when the door asks for combined matching: `20240101-20240103` with
`1000-1200` is from ten o'clock on the first day to noon on the third. What has no time of its own, or several, counts
with its day.

Where a query names TimezoneOffsetFromUTC, its dates and times are in that zone: those kept are moved into it before
they are compared, from the zone of their object, or from this node's where the object names none.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from psycopg.sql import SQL, Composable, Identifier

from pacs.domain.attributes import BY_KEYWORD, Attribute
from pacs.domain.levels import Level
from pacs.domain.matching import FIRST, LAST, AnyOf, Between, Predicate, Range
from pacs.errors import BadRequest
from pacs.index.criteria import Column, Parameters, column_test, conjunction

TIMEZONE = BY_KEYWORD["TimezoneOffsetFromUTC"]
_OFFSET = re.compile(r"([+-])(0\d|1[0-4])([0-5]\d)", re.ASCII)
PAIRS = tuple(
    (BY_KEYWORD[f"{name}Date"], BY_KEYWORD[f"{name}Time"])
    for name in ("Study", "Series", "PerformedProcedureStepStart", "Content")
)
Keyed = list[tuple[Attribute, Predicate]]


@dataclass(frozen=True, slots=True)
class Moment:
    """The keys of one date and its time; `minutes` is the zone they are in, None for that of what is kept."""

    day: Attribute
    clock: Attribute
    days: tuple[Predicate, ...]
    clocks: tuple[Predicate, ...]
    minutes: int | None
    combined: bool

    @property
    def level(self) -> Level:
        """Where both are kept."""
        return self.day.level


def offset(text: str) -> int:
    """The minutes of a Timezone Offset From UTC. Raises BadRequest."""
    found = _OFFSET.fullmatch(text.strip())
    if found is None:
        raise BadRequest("TimezoneOffsetFromUTC must be +HHMM or -HHMM; write the plus as %2B or as it is.")
    return (int(found[2]) * 60 + int(found[3])) * (-1 if found[1] == "-" else 1)


def paired(columns: Keyed, minutes: int | None, combined: bool) -> tuple[Keyed, list[Moment]]:
    """The keys that stand for themselves, and those that have to be looked at in pairs."""
    moments = []
    for day, clock in PAIRS:
        days = tuple(predicate for attribute, predicate in columns if attribute is day)
        clocks = tuple(predicate for attribute, predicate in columns if attribute is clock)
        together = combined and _one_interval(days, clocks)
        if together or (minutes is not None and (days or clocks)):
            moments.append(Moment(day, clock, days, clocks, minutes, together))
            columns = [keyed for keyed in columns if keyed[0] not in (day, clock)]
    return columns, moments


def _one_interval(days: Sequence[Predicate], clocks: Sequence[Predicate]) -> bool:
    both = (*days, *clocks)
    return (
        len(days) == len(clocks) == 1
        and all(isinstance(predicate, Range) for predicate in both)
        and len({predicate.form for predicate in both if isinstance(predicate, Range)}) == 1
    )


def moment_test(parameters: Parameters, moment: Moment, alias: str) -> Composable:
    """The test of a pair, over the columns of this alias."""
    day, clock = (Identifier(alias, column.column or "") for column in (moment.day, moment.clock))
    parts: list[Composable] = []
    days: Composable = day
    clocks: Composable = clock
    if moment.minutes is not None:
        shift = _shift(parameters, moment.minutes, alias)
        form = SQL("{}({}, {}, {})")
        days = form.format(SQL("shifted_day"), day, clock, shift)
        clocks = form.format(SQL("shifted_clock"), day, clock, shift)
        # a day more at each end of what is kept, which an index may find
        parts += [column_test(parameters, wide, Column(alias, day)) for wide in map(_widened, moment.days) if wide]
    parts += [column_test(parameters, predicate, Column(alias, days)) for predicate in moment.days]
    if moment.combined:
        parts.append(_interval_test(parameters, moment, days, clocks))
    else:
        parts += [column_test(parameters, predicate, Column(alias, clocks)) for predicate in moment.clocks]
    return conjunction(parts)


def _interval_test(parameters: Parameters, moment: Moment, day: Composable, clock: Composable) -> Composable:
    [days], [clocks] = moment.days, moment.clocks
    assert isinstance(days, Range)
    assert isinstance(clocks, Range)
    low = FIRST if days.low == FIRST else days.low + clocks.low
    high = LAST if days.high == LAST else days.high + clocks.high
    form = SQL("({clock} = '' OR position('\\' in {day} || {clock}) > 0 OR {day} || {clock} BETWEEN {low} AND {high})")
    return form.format(day=day, clock=clock, low=parameters.add(low), high=parameters.add(high))


def _shift(parameters: Parameters, minutes: int, alias: str) -> Composable:
    """The minutes that take what is kept into the zone of the query."""
    kept = SQL("offset_minutes({}.attrs -> {} -> 'Value' ->> 0)").format(SQL(alias), parameters.add(TIMEZONE.hex))
    here = time.localtime().tm_gmtoff // 60
    return SQL("({}::integer - coalesce({}, {}::integer))").format(parameters.add(minutes), kept, parameters.add(here))


def _widened(predicate: Predicate) -> Predicate | None:
    """The days around; None for what is no such key."""
    match predicate:
        case AnyOf(values):
            return Between(_moved(min(values), -1), _moved(max(values), 1))
        case Between(low, high):
            return Between(_moved(low, -1), _moved(high, 1))
    return None


def _moved(day: str, by: int) -> str:
    """Another day; an open end stays open, and one that no calendar has becomes it."""
    if day in {FIRST, LAST}:
        return day
    try:
        return f"{date(int(day[:4]), int(day[4:6]), int(day[6:])) + timedelta(by):%Y%m%d}".zfill(8)
    except (ValueError, OverflowError):
        return FIRST if by < 0 else LAST
