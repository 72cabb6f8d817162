"""In which order answers come, and where a page goes on: by the keys of the last row, not by counting rows.

Going on by keys costs the same on every page, and stays exact while objects arrive and go: what was there all the time
is listed once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.sql import SQL, Composable, Identifier

from pacs.domain.attributes import BY_TAG, Attribute, Rule
from pacs.domain.levels import Level
from pacs.domain.query import Query
from pacs.errors import BadRequest
from pacs.index.computed import computed
from pacs.index.criteria import Parameters

LAST_NUMBER = 2**31 - 1  # where the number is missing or none


@dataclass(frozen=True, slots=True)
class Key:
    """One expression that rows are sorted by; never null."""

    sql: Composable
    descending: bool = False


def _number(column: str) -> Composable:
    form = "coalesce(substring({} from '^-?[0-9]{{1,9}}')::integer, {})"
    return SQL(form).format(SQL(column), SQL(str(LAST_NUMBER)))


_SERIES, _SERIES_PK = Key(_number("s.series_number")), Key(SQL("s.pk"))
# over the whole archive in the order of arrival, within one study or series in that of the numbers
WIDE: Mapping[Level, tuple[Key, ...]] = {
    Level.PATIENT: (Key(SQL("p.patient_name")), Key(SQL("p.pk"))),
    Level.STUDY: (Key(SQL("t.study_date"), True), Key(SQL("t.study_time"), True), Key(SQL("t.pk"), True)),
    Level.SERIES: (_SERIES_PK,),
    Level.INSTANCE: (Key(SQL("i.pk")),),
}
NARROW: Mapping[Level, tuple[Key, ...]] = {
    **WIDE,
    Level.SERIES: (_SERIES, _SERIES_PK),
    Level.INSTANCE: (_SERIES, _SERIES_PK, Key(_number("i.instance_number")), Key(SQL("i.pk"))),
}


def asked(query: Query, aliases: Mapping[Level, str]) -> tuple[Key, ...]:
    """The keys that the query itself asks for. Raises BadRequest for what the index cannot sort by at this level."""
    return tuple(Key(_expression(BY_TAG.get(order.tag), query, aliases), order.descending) for order in query.order)


def _expression(attribute: Attribute | None, query: Query, aliases: Mapping[Level, str]) -> Composable:
    if attribute is None or attribute.column is None or attribute.level > query.level:
        raise BadRequest("Answers can be sorted by attributes of their level or above that have a search column.")
    if not attribute.stored:
        return computed(attribute, query.level, show_hidden=query.show_hidden)
    level = Level.STUDY if attribute.level is Level.PATIENT and query.level > Level.PATIENT else attribute.level
    if attribute.rule is Rule.NUMBER:
        return _number(f"{aliases[level]}.{attribute.column}")
    return Identifier(aliases[level], attribute.column)


def order_by(keys: Sequence[Key]) -> Composable:
    """The list after ORDER BY."""
    return SQL(", ").join(SQL("{} DESC" if key.descending else "{}").format(key.sql) for key in keys)


def beyond(parameters: Parameters, keys: Sequence[Key], last: Sequence[Any]) -> Composable:
    """The test for rows that come after the one with these values of the keys."""
    values = [parameters.add(value) for value in last]
    if len({key.descending for key in keys}) == 1:  # one comparison of rows, which an index can begin at
        row, place = SQL(", ").join(key.sql for key in keys), SQL(", ").join(values)
        return SQL("({}) {} ({})").format(row, SQL("<" if keys[0].descending else ">"), place)
    test: Composable = SQL("false")
    for key, value in reversed(list(zip(keys, values, strict=True))):
        form = "({key} < {value} OR ({key} = {value} AND {rest}))"
        form = form if key.descending else form.replace("<", ">")
        test = SQL(form).format(key=key.sql, value=value, rest=test)
    return test
