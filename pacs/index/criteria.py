"""One predicate of `pacs.domain.matching` as SQL: on a search column, on attributes kept as DICOM JSON, on items.

A search column holds all values of an attribute joined by backslashes, so a test of one value must not reach across
them. Where the column has an index the test has two arms: the column as one value, which the index answers, and the
few rows that hold several values, which a partial index lists (`<table>_many_<column>` in migrations).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg.sql import SQL, Composable, Identifier, Placeholder

from pacs.domain.attributes import NORMAL_FORMS_KEPT, Rule
from pacs.domain.matching import AnyOf, Between, Either, Empty, Every, Like, Predicate, Universal, Words

TRUE = SQL("true")
ESCAPES = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_", "*": "%", "?": "_"})


class Parameters:
    """The values of a statement under construction, by the names of their placeholders."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def add(self, value: object) -> Placeholder:
        """The placeholder of one more value."""
        name = f"p{len(self.values)}"
        self.values[name] = value
        return Placeholder(name)


@dataclass(frozen=True, slots=True)
class Column:
    """A search column, or an expression that reads like one.

    `single`: it never holds several values. `listed_in`: the table whose partial index lists the rows where it does.
    """

    alias: str
    sql: Composable
    single: bool = False
    listed_in: str = ""


@dataclass(slots=True)
class Keys:
    """What one item of a sequence, or one level, must satisfy: its own keys by tag, and keys within its sequences."""

    rules: list[tuple[str, Rule, Predicate]] = field(default_factory=list)
    sequences: "dict[str, Keys]" = field(default_factory=dict)

    def add(self, path: Sequence[str], rule: Rule, predicate: Predicate) -> None:
        """Add the key at a path of hexadecimal tags."""
        keys = self
        for tag in path[:-1]:
            keys = keys.sequences.setdefault(tag, Keys())
        keys.rules.append((path[-1], rule, predicate))


def conjunction(parts: list[Composable]) -> Composable:
    """All parts joined by AND; true for none."""
    return SQL(" AND ").join(parts) if parts else TRUE


def _combined(
    predicate: Predicate, empty: Callable[[], Composable], single: Callable[[Predicate], Composable]
) -> Composable:
    """The test of any predicate, by those for nothing and for one value."""
    match predicate:
        case Universal():
            return TRUE
        case Empty():
            return empty()
        case Either(options):
            return SQL("({})").format(SQL(" OR ").join(_combined(option, empty, single) for option in options))
        case Every(parts):
            return conjunction([_combined(part, empty, single) for part in parts])
    return single(predicate)


def like(pattern: str) -> str:
    """The pattern in SQL's words, everything else literal."""
    return pattern.translate(ESCAPES)


# --- one value ------------------------------------------------------------------------------------------------------


def value_test(parameters: Parameters, predicate: Predicate, value: Composable) -> Composable:
    """The test of a single value in normal form."""
    match predicate:
        case AnyOf(values):
            return SQL("{} = ANY({}::text[])").format(value, parameters.add(list(values)))
        case Like(pattern):
            return SQL("{} LIKE {}").format(value, parameters.add(like(pattern)))
        case Between(low, high):
            return SQL("{} BETWEEN {} AND {}").format(value, parameters.add(low), parameters.add(high))
    raise TypeError(f"{type(predicate).__name__} is no test of one value")


# --- a search column ------------------------------------------------------------------------------------------------


def column_test(parameters: Parameters, predicate: Predicate, column: Column) -> Composable:
    """The test of a whole search column."""
    return _combined(
        predicate,
        lambda: SQL("{} = ''").format(column.sql),
        lambda simple: _simple_test(parameters, simple, column),
    )


def _simple_test(parameters: Parameters, predicate: Predicate, column: Column) -> Composable:
    if isinstance(predicate, Words):
        return conjunction([_word_test(parameters, word, column) for word in predicate.words])
    if column.single:
        return value_test(parameters, predicate, column.sql)
    if column.listed_in and _reaches_index(predicate):
        return _two_arms(parameters, predicate, column)
    return _scan(parameters, predicate, column)


def _word_test(parameters: Parameters, word: str, column: Column) -> Composable:
    """A word of the column begins so; its mere presence comes first, which is cheap and can use an index."""
    inside, begins = parameters.add(f"%{like(word)}%"), parameters.add(f"% {like(word)}%")
    form = SQL("({0} LIKE {1} AND (' ' || translate({0}, {3}, '  ')) LIKE {2})")
    return form.format(column.sql, inside, begins, parameters.add("^\\"))


def _reaches_index(predicate: Predicate) -> bool:
    return not isinstance(predicate, Like) or predicate.pattern[0] not in "*?"


def _two_arms(parameters: Parameters, predicate: Predicate, column: Column) -> Composable:
    first = value_test(parameters, predicate, column.sql)
    if isinstance(predicate, Like):  # its asterisk would reach across values
        first = SQL("({} AND position('\\' in {}) = 0)").format(first, column.sql)
    form = SQL(
        "({first} OR {alias}.pk = ANY(ARRAY(SELECT {alias}.pk FROM {table} AS {alias} WHERE {many} AND {some})))"
    )
    return form.format(
        first=first,
        alias=Identifier(column.alias),
        table=Identifier(column.listed_in),
        many=SQL("position('\\' in {}) > 0").format(column.sql),
        some=_some_value(parameters, predicate, column.sql),
    )


def _scan(parameters: Parameters, predicate: Predicate, column: Column) -> Composable:
    if isinstance(predicate, AnyOf):
        wanted = parameters.add(list(predicate.values))
        return SQL("string_to_array({}, '\\') && {}::text[]").format(column.sql, wanted)
    test = SQL("CASE WHEN position('\\' in {0}) = 0 THEN {1} ELSE {2} END").format(
        column.sql, value_test(parameters, predicate, column.sql), _some_value(parameters, predicate, column.sql)
    )
    if not isinstance(predicate, Like):
        return test
    # somewhere in the column: all that the planner can estimate and a trigram index can answer
    loose = parameters.add(f"%{like(predicate.pattern)}%")
    return SQL("({} LIKE {} AND {})").format(column.sql, loose, test)


def _some_value(parameters: Parameters, predicate: Predicate, column: Composable) -> Composable:
    test = value_test(parameters, predicate, SQL("v"))
    return SQL("EXISTS (SELECT FROM unnest(string_to_array({}, '\\')) AS v WHERE {})").format(column, test)


# --- added attributes -----------------------------------------------------------------------------------------------


def added_test(parameters: Parameters, attribute: str, predicate: Predicate) -> Composable:
    """The test of an attribute whose values stand in `indexed_value`, for the instance `i`."""
    form = SQL("EXISTS (SELECT FROM indexed_value AS x WHERE x.instance_pk = i.pk AND x.attribute = {} AND {})")
    value = SQL("x.value")

    def some(test: Composable) -> Composable:
        return form.format(parameters.add(attribute), test)

    def single(simple: Predicate) -> Composable:
        if isinstance(simple, Words):
            return conjunction([some(_word_test(parameters, word, Column("", value))) for word in simple.words])
        return some(value_test(parameters, simple, value))

    return _combined(predicate, lambda: SQL("NOT {}").format(some(TRUE)), single)


# --- DICOM JSON -----------------------------------------------------------------------------------------------------


def keys_test(parameters: Parameters, keys: Keys, attributes: Composable) -> Composable:
    """The test of an object of DICOM JSON attributes: all keys, and for each sequence one item that satisfies its."""
    parts = [
        _element_test(parameters, rule, predicate, _values_of(attributes, rule, parameters.add(tag)))
        for tag, rule, predicate in keys.rules
    ]
    for tag, inner in keys.sequences.items():
        item = SQL("item_{}").format(SQL(str(len(parameters.values))))
        values = SQL("{} -> {}::text -> 'Value'").format(attributes, parameters.add(tag))
        form = SQL("EXISTS (SELECT FROM jsonb_array_elements({}) AS {} WHERE {})")
        parts.append(form.format(values, item, keys_test(parameters, inner, item)))
    return conjunction(parts)


def _values_of(attributes: Composable, rule: Rule, tag: Composable) -> Composable:
    """The JSON array of an attribute's values, or of the normal forms that are kept beside it."""
    return SQL("{} -> {}::text" if rule in NORMAL_FORMS_KEPT else "{} -> {}::text -> 'Value'").format(attributes, tag)


def can_test_json(rule: Rule) -> bool:
    """Whether values of this rule can be matched in JSON as they were; others need their normal forms beside them."""
    return rule in _JSON_FORMS and rule not in NORMAL_FORMS_KEPT


def _element_test(parameters: Parameters, rule: Rule, predicate: Predicate, values: Composable) -> Composable:
    def single(simple: Predicate) -> Composable:
        if isinstance(simple, Words):
            tests = [_word_test(parameters, word, Column("", _FORM)) for word in simple.words]
        else:
            tests = [value_test(parameters, simple, _FORM)]
        return conjunction([_some_element(rule, values, test) for test in tests])

    return _combined(
        predicate, lambda: SQL("NOT {}").format(_some_element(rule, values, SQL("{} <> ''").format(_FORM))), single
    )


_FORM = SQL("normal.form")


def _some_element(rule: Rule, values: Composable, test: Composable) -> Composable:
    form = SQL(
        "EXISTS (SELECT FROM jsonb_array_elements_text({values}) AS given (v), "
        "LATERAL (SELECT coalesce({form}, '') AS form) AS normal WHERE {test})"
    )
    return form.format(values=values, form=_JSON_FORMS[rule], test=test)


# the normal forms of `pacs.domain.normal` for one value `v` of a JSON array
_TRIMMED = SQL("btrim(v, E' \\t\\r\\n\\f')")
_NUMBER = SQL(
    "CASE WHEN {0} ~ '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{{1,3}})?$' "
    "THEN trim_scale({0}::numeric)::text END"
).format(_TRIMMED)
_DATE = SQL(
    "(SELECT d[1] || d[3] || d[4] FROM regexp_match({}, "
    "'^([0-9]{{4}})([./-]?)(0[1-9]|1[0-2])\\2(0[1-9]|[12][0-9]|3[01])') AS d)"
).format(_TRIMMED)
_TIME = SQL(
    "(SELECT t[1] || coalesce(t[3], '00') || coalesce(t[5], '00') || '.' || rpad(left(coalesce(t[7], ''), 6), 6, '0') "
    "FROM regexp_match({}, '^([01][0-9]|2[0-3])(:?([0-5][0-9])(:?([0-5][0-9]|60)([.,]([0-9]{{1,9}}))?)?)?$') AS t)"
).format(_TRIMMED)
_JSON_FORMS: Mapping[Rule, Composable] = {
    Rule.UID: _TRIMMED,
    Rule.TEXT: _TRIMMED,
    Rule.NARRATIVE: _TRIMMED,
    Rule.EXACT: _TRIMMED,
    Rule.NUMBER: _NUMBER,
    Rule.DATE: _DATE,
    Rule.TIME: _TIME,
    **dict.fromkeys(NORMAL_FORMS_KEPT, SQL("v")),
}
