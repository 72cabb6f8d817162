"""Query -> one SQL statement: the only dynamic SQL of the index.

The inner half finds the page: primary keys only, in the stable order of the level. The outer half fetches what the
answer shows for these keys, so that what is skipped costs no more than its place in the index.

Keys of levels above match at the level asked; a key of a level below finds what holds such a thing, all keys below in
the same one. Results that are hidden (rejected or superseded, ai.md) do not exist for a query unless it asks for them:
they are neither found nor counted, nor is a series or study that holds nothing else.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal
from pydicom.datadict import keyword_for_tag

from pacs.domain.added import key_of, rule_for
from pacs.domain.attributes import BY_KEYWORD, BY_TAG, Attribute, Rule, rule_of
from pacs.domain.levels import Level
from pacs.domain.matching import AnyOf, Like, Predicate, Universal, parse
from pacs.domain.query import Condition, Query, TagPath
from pacs.index.computed import SHOWN, SHOWN_IN_LISTS, computed
from pacs.index.criteria import Column, Keys, Parameters, added_test, can_test_json, column_test, conjunction, keys_test
from pacs.index.moments import TIMEZONE, Moment, moment_test, offset, paired
from pacs.index.orders import NARROW, WIDE, asked, beyond, order_by
from pacs.index.visible import visible_test

TABLES: Mapping[Level, str] = {
    Level.PATIENT: "patient",
    Level.STUDY: "study",
    Level.SERIES: "series",
    Level.INSTANCE: "instance",
}
ALIASES: Mapping[Level, str] = {Level.PATIENT: "p", Level.STUDY: "t", Level.SERIES: "s", Level.INSTANCE: "i"}

# columns with an index that lists the rows with several values
LISTED = frozenset(
    {
        ("patient", "patient_id"),
        ("patient", "patient_name"),
        ("study", "patient_id"),
        ("study", "patient_name"),
        ("study", "study_date"),
        ("study", "accession_number"),
        ("series", "modality"),
    }
)
CHARACTER_SET = BY_KEYWORD["SpecificCharacterSet"].tag  # says how a request is written, is never matched
_SOURCES: Mapping[Level, Composable] = {
    Level.PATIENT: SQL("patient AS p"),
    Level.STUDY: SQL("study AS t"),
    Level.SERIES: SQL("series AS s JOIN study AS t ON t.pk = s.study_pk"),
    Level.INSTANCE: SQL("instance AS i JOIN series AS s ON s.pk = i.series_pk JOIN study AS t ON t.pk = s.study_pk"),
}


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement with its values. Its rows are the outputs.

    `steady`: one plan serves all values, so that the server may keep it. Lists that ranges and patterns narrow want a
    plan for their own values each time. `keys`: how many columns behind the outputs say where the row stands.
    """

    text: Composed
    values: dict[str, Any]
    warnings: tuple[str, ...]
    steady: bool
    keys: int


@dataclass(slots=True)
class _Criteria:
    """The keys of a query sorted by the level they are tested at; `tests` are SQL already."""

    columns: list[tuple[Attribute, Predicate]] = field(default_factory=list)
    json: dict[Level, Keys] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    added: list[tuple[TagPath, Predicate]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def levels(self) -> Iterable[Level]:
        at = {attribute.level for attribute, _ in self.columns} | set(self.json)
        at |= {moment.level for moment in self.moments}
        return at | {Level.INSTANCE} if self.added else at


def compile_query(
    query: Query, outputs: Composable, *, limit: int, joins: Composable | None = None, after: Sequence[Any] = ()
) -> Statement:
    """The statement that answers a query with these outputs, a list over p, t, s and i, `limit` rows at most.

    Behind the outputs stand the keys of the order; `after` are those of the row to go on behind, in place of the
    query's offset. Raises BadRequest for a key whose value is malformed (`pacs.domain.matching.parse`).
    """
    criteria = _criteria(query)
    parameters = Parameters()
    level = query.level
    where = _where(parameters, criteria, query)
    keys = (*asked(query, ALIASES), *(NARROW if _names(criteria, UIDS) else WIDE)[level])
    if after:
        where = conjunction([where, beyond(parameters, keys, after)])
    skipped = 0 if after else query.offset
    text = SQL(
        "SELECT {outputs}, {keys} FROM (SELECT {alias}.pk AS page_pk FROM {source} WHERE {where} ORDER BY {order} "
        "LIMIT {limit} OFFSET {offset}) AS page JOIN {source} ON {alias}.pk = page.page_pk {joins} ORDER BY {order}"
    ).format(
        outputs=outputs,
        keys=SQL(", ").join(key.sql for key in keys),
        alias=SQL(ALIASES[level]),
        source=_SOURCES[level],
        where=where,
        order=order_by(keys),
        limit=Literal(limit),
        offset=Literal(skipped),
        joins=joins or SQL(""),
    )
    steady = not skipped and _is_steady(criteria)
    return Statement(text, parameters.values, tuple(dict.fromkeys(criteria.warnings)), steady, len(keys))


def compile_count(query: Query) -> Statement:
    """The statement that counts all matches of a query, whatever its page. Raises BadRequest as above."""
    criteria, parameters = _criteria(query), Parameters()
    where = _where(parameters, criteria, query)
    text = SQL("SELECT count(*) FROM {} WHERE {}").format(_SOURCES[query.level], where)
    return Statement(text, parameters.values, (), steady=False, keys=0)


# --- keys -----------------------------------------------------------------------------------------------------------


def _criteria(query: Query) -> _Criteria:
    criteria = _Criteria()
    minutes = None
    for condition in query.conditions:
        if not any(value.strip("* ") for value in condition.values):
            continue
        attribute = BY_TAG.get(condition.path[0])
        if condition.path in query.added:
            criteria.added.append((condition.path, _parsed(rule_for(condition.path), condition, query)))
        elif condition.path == (TIMEZONE.tag,):
            minutes = offset(condition.values[0])
        elif condition.path != (CHARACTER_SET,) and not (attribute and _take(criteria, attribute, condition, query)):
            criteria.warnings.append(f"{_name(condition)} is not a key of this index and was ignored.")
    if minutes is not None or query.combined:
        criteria.columns, criteria.moments = paired(criteria.columns, minutes, query.combined)
    return criteria


def _parsed(rule: Rule, condition: Condition, query: Query) -> Predicate:
    return parse(rule, condition.values, fuzzy=query.fuzzy, empty=query.empty_values, several=query.multiple_values)


def _take(criteria: _Criteria, attribute: Attribute, condition: Condition, query: Query) -> bool:
    """Add a condition to the criteria; False when the index cannot match it."""
    nested = len(condition.path) > 1
    rule = rule_of(condition.path[-1])
    if rule is None or nested != (attribute.rule is Rule.SEQUENCE):
        return False
    predicate = _parsed(rule, condition, query)
    if isinstance(predicate, Universal):
        return True
    if attribute.column is not None:
        criteria.columns.append((attribute, predicate))
        return True
    if can_test_json(rule) or attribute.folded:
        path = [attribute.normal_key] if attribute.folded else [f"{tag:08X}" for tag in condition.path]
        criteria.json.setdefault(attribute.level, Keys()).add(path, rule, predicate)
        return True
    return False


def _name(condition: Condition) -> str:
    return ".".join(keyword_for_tag(tag) or f"{tag:08X}" for tag in condition.path)


UIDS = frozenset({"study_uid", "series_uid", "sop_instance_uid"})
FEW = UIDS | {"patient_id", "accession_number"}  # columns of which one value finds few rows


def _names(criteria: _Criteria, columns: frozenset[str]) -> bool:
    """Whether a key names one value of one of these columns."""
    return any(
        attribute.column in columns and isinstance(predicate, AnyOf) and len(predicate.values) == 1
        for attribute, predicate in criteria.columns
    )


def _is_steady(criteria: _Criteria) -> bool:
    """Whether the keys are none, or such that few rows answer each."""
    return not (criteria.json or criteria.moments or criteria.added) and all(
        attribute.column in FEW and isinstance(predicate, AnyOf) for attribute, predicate in criteria.columns
    )


# --- conditions -----------------------------------------------------------------------------------------------------


def _where(parameters: Parameters, criteria: _Criteria, query: Query) -> Composable:
    here = [level for level in Level if level <= query.level]
    parts = [test for level in here for test in _tests(parameters, criteria, level, query)]
    if any(level > query.level for level in criteria.levels()):
        parts.append(_below(parameters, criteria, query))
    if not query.show_hidden:
        parts.append((SHOWN if _names(criteria, FEW) else SHOWN_IN_LISTS)[query.level])
    if query.visible is not None:
        parts.append(visible_test(parameters, query.visible, query.level))
    return conjunction(parts)


def _tests(parameters: Parameters, criteria: _Criteria, level: Level, query: Query) -> list[Composable]:
    """The tests of the keys of one level."""
    tests = [
        _column_test(parameters, attribute, predicate, query)
        for attribute, predicate in criteria.columns
        if attribute.level is level
    ]
    if level in criteria.json:
        attributes = SQL("{}.attrs").format(SQL(attributes_of(level, query.level)))
        tests.append(keys_test(parameters, criteria.json[level], attributes))
    if level is Level.INSTANCE:
        tests += [added_test(parameters, key_of(path), predicate) for path, predicate in criteria.added]
    moments = [moment for moment in criteria.moments if moment.level is level]
    return tests + [moment_test(parameters, moment, attributes_of(level, query.level)) for moment in moments]


def attributes_of(level: Level, asked: Level) -> str:
    """The alias of the row that holds the attributes of a level: a study repeats those of its patient."""
    return ALIASES[Level.STUDY if level is Level.PATIENT and asked > Level.PATIENT else level]


def _column_test(parameters: Parameters, attribute: Attribute, predicate: Predicate, query: Query) -> Composable:
    if not attribute.stored:
        return _computed_test(parameters, attribute, predicate, query)
    assert attribute.column is not None
    alias = attributes_of(attribute.level, query.level)
    table = next(TABLES[level] for level, name in ALIASES.items() if name == alias)
    column = Column(
        alias,
        Identifier(alias, attribute.column),
        single=attribute.rule is Rule.UID,
        listed_in=table if (table, attribute.column) in LISTED else "",
    )
    return column_test(parameters, predicate, column)


def _computed_test(parameters: Parameters, attribute: Attribute, predicate: Predicate, query: Query) -> Composable:
    everything, shown = (
        column_test(parameters, predicate, Column("", SQL("({})::text").format(expression)))
        for expression in (computed(attribute, query.level, show_hidden=hidden) for hidden in (True, False))
    )
    if query.show_hidden:
        return everything
    # what is shown is a part of everything, so that a value can be looked for in the cheaper one first
    narrows = isinstance(predicate, AnyOf | Like) and attribute.rule is not Rule.NUMBER
    return conjunction([everything, shown]) if narrows else shown


_LINKS: Mapping[Level, str] = {
    Level.STUDY: "t.patient_pk = p.pk",
    Level.SERIES: "s.study_pk = t.pk",
    Level.INSTANCE: "i.series_pk = s.pk",
}


def _below(parameters: Parameters, criteria: _Criteria, query: Query) -> Composable:
    """Something below exists that satisfies the keys of the levels below."""
    deepest = max(criteria.levels())
    levels = [level for level in Level if query.level < level <= deepest]
    tables = SQL(", ").join(SQL(f"{TABLES[level]} AS {ALIASES[level]}") for level in levels)
    parts: list[Composable] = [SQL(_LINKS[level]) for level in levels]
    parts += [test for level in levels for test in _tests(parameters, criteria, level, query)]
    if not query.show_hidden:
        parts.append(SHOWN[deepest])
    return SQL("EXISTS (SELECT FROM {} WHERE {})").format(tables, conjunction(parts))
