"""Answers of the index as DICOM JSON: which attributes a row shows, and where each comes from.

A row is put together from the `attrs` of its levels, from what the index computes, and, only when an instance is asked
for an attribute that the index does not know, from the instance's whole metadata where it has been derived already.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
from psycopg import Connection
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Composable
from psycopg.types.json import set_json_loads

from pacs.domain.attributes import ATTRIBUTES, BY_KEYWORD, BY_TAG, Attribute, Rule, Shown
from pacs.domain.levels import Level
from pacs.domain.query import Query
from pacs.index.compile import attributes_of, compile_query
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


def find(connection: Connection[Any], query: Query, *, limit: int) -> tuple[list[Row], tuple[str, ...]]:
    """Up to `limit` rows of a query and its warnings, in one statement. Rows may share elements: do not change them.

    Raises BadRequest for a malformed key.
    """
    plan = _Plan(query)
    statement = compile_query(query, plan.outputs, limit=limit, joins=_DERIVED if plan.unknown else None)
    with connection.cursor(row_factory=tuple_row) as cursor:
        set_json_loads(lru_cache(_PARENTS)(orjson.loads), cursor)  # rows of one parent come one after another
        # every text is another one and wants a plan for its own values
        cursor.execute(statement.text, statement.values, prepare=False)
        rows = [plan.row(found) for found in cursor]
    return rows, statement.warnings


class _Plan:
    """Which output expressions a query needs, and the fields of its rows in ascending order."""

    def __init__(self, query: Query) -> None:
        self.outputs: list[Composable] = []
        self._query = query
        asked = {path[0] for path in (*query.include, *(condition.path for condition in query.conditions))}
        self.unknown = sorted(asked - BY_TAG.keys() - NOT_OURS) if query.level is Level.INSTANCE else []
        fields = [self._field(attribute) for attribute in ATTRIBUTES if self._is_shown(attribute, asked)]
        if query.level > Level.PATIENT:
            fields.append(Field(f"{INSTANCE_AVAILABILITY:08X}", lambda _: ONLINE))
        self._fields = sorted(fields, key=lambda field: field.hex)
        self._metadata = self._output(SQL("d.metadata")) if self.unknown else 0

    def row(self, found: Sequence[Any]) -> Row:
        """A row of the answer, its keys ascending."""
        row = {field.hex: element for field in self._fields if (element := field.take(found)) is not None}
        if self.unknown and found[self._metadata] is not None:
            row |= _from_metadata(found[self._metadata], self.unknown)
            return dict(sorted(row.items()))
        return row

    def _is_shown(self, attribute: Attribute, asked: set[int]) -> bool:
        level = self._query.level
        if attribute.level > level:
            return False
        if attribute.level is Level.PATIENT and level is not Level.PATIENT and not attribute.stored:
            return False  # counts of the whole patient: below its level no statement joins the patient
        above = max(attribute.level, Level.STUDY) < level  # a study's answer has its patient's attributes as its own
        by_default = attribute.shown is not Shown.ASKED or self._query.include_all
        named = attribute in NAMES or attribute.tag in asked
        return named or (by_default and (self._query.parents or not above))

    def _field(self, attribute: Attribute) -> Field:
        if attribute in NAMES:
            return Field(attribute.hex, _listed(attribute, self._output(SQL(NAMES[attribute]))))
        if not attribute.stored:
            expression = computed(attribute, self._query.level, show_hidden=self._query.show_hidden)
            take = _counted if attribute.rule is Rule.NUMBER else _listed
            return Field(attribute.hex, take(attribute, self._output(expression)))
        alias = attributes_of(attribute.level, self._query.level)
        return Field(attribute.hex, _kept(attribute, self._output(SQL("{}.attrs").format(SQL(alias)))))

    def _output(self, expression: Composable) -> int:
        """The place of an expression in the rows of the database; asked for twice it stands there once."""
        if expression not in self.outputs:
            self.outputs.append(expression)
        return self.outputs.index(expression)


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
