"""Answers of the index as DICOM JSON: which attributes a row shows, and where each comes from.

A row is put together from the `attrs` of its levels, from what the index computes, and, only when an instance is asked
for an attribute that the index does not know, from the instance's whole metadata where it has been derived already.
"""

import gc
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
from psycopg import Connection
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Composable

from pacs.domain.attributes import ATTRIBUTES, BY_KEYWORD, BY_TAG, Attribute, Rule, Shown
from pacs.domain.levels import Level
from pacs.domain.query import Query
from pacs.index.compile import ALIASES, attributes_of, compile_count, compile_query
from pacs.index.computed import computed

Element = dict[str, Any]
Row = dict[str, Element]

INSTANCE_AVAILABILITY = 0x00080056
ONLINE: Element = {"vr": "CS", "Value": ["ONLINE"]}
PLACEHOLDER = b"%BASE%"  # in derived metadata, where the door's root URL goes
# an empty ModalitiesInStudy makes OHIF's study list fail: better none
NEVER_EMPTY = frozenset({BY_KEYWORD["ModalitiesInStudy"]})
# what names a row and everything above it; in every answer
NAMES: Mapping[Attribute, str] = {
    BY_KEYWORD["StudyInstanceUID"]: "t.study_uid",
    BY_KEYWORD["SeriesInstanceUID"]: "s.series_uid",
    BY_KEYWORD["SOPInstanceUID"]: "i.sop_instance_uid",
}
# attributes of these are answered by the doors, or not at all
NOT_OURS = frozenset({INSTANCE_AVAILABILITY, 0x00080052, 0x00080054, 0x00081190})
_PARENTS = 64
_DERIVED = SQL("LEFT JOIN instance_derived AS d ON d.instance_pk = i.pk")


@dataclass(frozen=True, slots=True)
class Field:
    """One attribute of the answer: how its element is taken from a row of the database; None leaves it out."""

    hex: str
    take: Callable[[Sequence[Any]], Element | None]


@dataclass(frozen=True, slots=True)
class Found:
    """Rows, which may share elements: do not change them. `last`: where the last one stands in the order.

    `underived`: keys of instances of which something was asked that only their whole metadata would tell.
    """

    rows: list[Row]
    warnings: tuple[str, ...]
    last: tuple[Any, ...]
    underived: tuple[int, ...]


def find(connection: Connection[Any], query: Query, *, limit: int, after: Sequence[Any] = ()) -> Found:
    """Up to `limit` rows of a query, in one statement, those behind `after` where it is given.

    Raises BadRequest for a malformed key.
    """
    plan = _plan(query.level, _asked(query), query.include_all, query.parents, query.show_hidden)
    joins = _DERIVED if plan.unknown else None
    statement = compile_query(query, plan.outputs, limit=limit, joins=joins, after=after)
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(statement.text, statement.values, prepare=statement.steady)
        with collector_paused():
            found = cursor.fetchall()
            last = found[-1][-statement.keys :] if found else ()
            underived = plan.underived(found)
            return Found([plan.row(list(columns)) for columns in found], statement.warnings, last, underived)


def count(connection: Connection[Any], query: Query) -> int:
    """How many rows a query has on all its pages. Raises BadRequest."""
    statement = compile_count(query)
    row = connection.execute(statement.text, statement.values, prepare=False).fetchone()
    return int(row[0]) if row else 0


@lru_cache(_PARENTS)  # rows of one parent come one after another
def _attributes(text: str) -> Row:
    """The attributes kept of one row of a table. Shared: do not change them."""
    found: Row = orjson.loads(text)
    return found


@contextmanager
def collector_paused() -> Iterator[None]:
    """No garbage collection meanwhile: it would look at the growing answer again and again, half of the whole time."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _asked(query: Query) -> frozenset[int]:
    """The attributes that the caller names, as fields or as keys."""
    return frozenset(path[0] for path in (*query.include, *(condition.path for condition in query.conditions)))


@lru_cache(maxsize=128)  # clients ask in few forms
def _plan(level: Level, asked: frozenset[int], include_all: bool, parents: bool, show_hidden: bool) -> "_Plan":
    return _Plan(level, asked, include_all=include_all, parents=parents, show_hidden=show_hidden)


class _Plan:
    """Which outputs of a statement an answer needs, and the fields of its rows in ascending order."""

    def __init__(
        self, level: Level, asked: frozenset[int], *, include_all: bool, parents: bool, show_hidden: bool
    ) -> None:
        self._level, self._asked = level, asked
        self._all, self._parents, self._show_hidden = include_all, parents, show_hidden
        self._expressions: list[Composable] = []
        self._kept: set[int] = set()  # which of them are attributes in JSON
        self.unknown = sorted(asked - BY_TAG.keys() - NOT_OURS) if level is Level.INSTANCE else []
        fields = [self._field(attribute) for attribute in ATTRIBUTES if self._is_shown(attribute)]
        if level > Level.PATIENT:
            fields.append(Field(f"{INSTANCE_AVAILABILITY:08X}", lambda _: ONLINE))
        self._fields = sorted(fields, key=lambda field: field.hex)
        self._metadata = self._output(SQL("d.metadata")) if self.unknown else 0
        self._pk = self._output(SQL("i.pk")) if self.unknown else 0
        self.outputs = SQL(SQL(", ").join(self._expressions).as_string(None))

    def row(self, found: list[Any]) -> Row:
        """A row of the answer, its keys ascending."""
        for place in self._kept:
            found[place] = _attributes(found[place])
        row = {field.hex: element for field in self._fields if (element := field.take(found)) is not None}
        if self.unknown and found[self._metadata] is not None:
            row |= _from_metadata(found[self._metadata], self.unknown)
            return dict(sorted(row.items()))
        return row

    def underived(self, rows: Sequence[Sequence[Any]]) -> tuple[int, ...]:
        """The keys of instances whose metadata was asked for and has not been derived yet."""
        return tuple(row[self._pk] for row in rows if row[self._metadata] is None) if self.unknown else ()

    def _is_shown(self, attribute: Attribute) -> bool:
        if self._level not in attribute.also and attribute.level > self._level:
            return False
        above = (
            max(attribute.level, Level.STUDY) < self._level
        )  # a study's answer has its patient's attributes as its own
        by_default = attribute.shown is not Shown.ASKED or self._all
        named = attribute in NAMES or attribute.tag in self._asked
        return named or (by_default and (self._parents or not above))

    def _field(self, attribute: Attribute) -> Field:
        if attribute in NAMES:
            return Field(attribute.hex, _listed(attribute, self._output(SQL(NAMES[attribute]))))
        if not attribute.stored:
            expression = computed(attribute, self._level, show_hidden=self._show_hidden)
            take = _counted if attribute.rule is Rule.NUMBER else _listed
            return Field(attribute.hex, take(attribute, self._output(expression)))
        own = self._level in attribute.also
        alias = ALIASES[self._level] if own else attributes_of(attribute.level, self._level)
        place = self._output(SQL("{}.attrs::text").format(SQL(alias)))
        self._kept.add(place)
        return Field(attribute.hex, _kept(attribute, place))

    def _output(self, expression: Composable) -> int:
        """The place of an expression in the rows of the statement; asked for twice it stands there once."""
        if expression not in self._expressions:
            self._expressions.append(expression)
        return self._expressions.index(expression)


def _kept(attribute: Attribute, place: int) -> Callable[[Sequence[Any]], Element | None]:
    """An attribute as it was stored; only a type R attribute is shown empty."""
    hexadecimal = attribute.hex
    blank: Element | None = {"vr": attribute.vr} if attribute.shown is Shown.ALWAYS else None

    def take(found: Sequence[Any]) -> Element | None:
        element: Element | None = found[place].get(hexadecimal)
        return element if element and len(element) > 1 else blank

    return take


def _counted(attribute: Attribute, place: int) -> Callable[[Sequence[Any]], Element | None]:
    return lambda found: {"vr": attribute.vr, "Value": [found[place]]}


def _listed(attribute: Attribute, place: int) -> Callable[[Sequence[Any]], Element | None]:
    """Values that the index joins by backslashes."""
    vr = attribute.vr
    blank: Element | None = None if attribute in NEVER_EMPTY else {"vr": vr}

    def take(found: Sequence[Any]) -> Element | None:
        return {"vr": vr, "Value": found[place].split("\\")} if found[place] else blank

    return take


def _from_metadata(compressed: bytes, tags: Sequence[int]) -> Row:
    """Attributes of a whole instance; private ones with the creator of their block, without bulk data."""
    whole: Row = orjson.loads(zlib.decompress(compressed))
    creators = {tag & 0xFFFF0000 | (tag >> 8 & 0xFF) for tag in tags if tag >> 16 & 1 and tag & 0xFFFF >= 0x1000}
    wanted = (f"{tag:08X}" for tag in sorted({*tags, *creators}))
    found = {name: whole[name] for name in wanted if name in whole}
    return {name: element for name, element in found.items() if PLACEHOLDER not in orjson.dumps(element)}
