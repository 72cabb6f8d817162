"""A strict reader of TOML tables into frozen dataclasses: every unknown, missing or wrong key becomes a finding.

A field's annotation says what its key holds; `rule(...)` adds what an annotation cannot say.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar, get_type_hints

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a package: a machine word and a sentence."""

    reason: str
    sentence: str

    def __str__(self) -> str:
        return self.sentence


class Code(NamedTuple):
    """A coded concept (PS3.3 8): code value, coding scheme designator, code meaning."""

    value: str
    scheme: str
    meaning: str


class Range(NamedTuple):
    """From `low` to `high`, both included."""

    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


class Wrong(ValueError):
    """A value is not what its key holds; the text says what would be."""


def rule(
    default: Any = dataclasses.MISSING,
    *,
    choices: tuple[str, ...] = (),
    check: Callable[[Any], str | None] | None = None,
) -> Any:
    """A field with allowed words, or with a check that returns what the value must be, or None."""
    metadata = {"choices": choices, "check": check}
    return field(metadata=metadata) if default is dataclasses.MISSING else field(default=default, metadata=metadata)


class Reader:
    """Reads tables and collects findings; `found` is empty when all was well."""

    def __init__(self) -> None:
        self.found: list[Finding] = []

    def add(self, reason: str, sentence: str) -> None:
        """Note a finding."""
        self.found.append(Finding(reason, sentence))

    def table(self, kind: type[T], table: object, where: str) -> T | None:
        """One table as a dataclass; None when something in it was wrong."""
        if not isinstance(table, Mapping):
            self.add("bad_value", f"[{where}] must be a table.")
            return None
        fields = {f.name.rstrip("_"): f for f in dataclasses.fields(kind) if f.init}  # type: ignore[arg-type]
        before = len(self.found)
        for key in table:
            if key not in fields:
                self.add("unknown_key", f"[{where}] has an unknown key {key!r}; it knows {', '.join(fields)}.")
        values = self._values(kind, fields, table, where)
        return kind(**values) if len(self.found) == before else None

    def _values(self, kind: type, fields: Mapping[str, Any], table: Mapping[str, Any], where: str) -> dict[str, Any]:
        hints = get_type_hints(kind)
        values: dict[str, Any] = {}
        for key, one in fields.items():
            if key in table:
                try:
                    values[one.name] = _checked(one, _value(hints[one.name], table[key]))
                except Wrong as wrong:
                    self.add("bad_value", f"[{where}] {key} must be {wrong}.")
            elif one.default is dataclasses.MISSING:
                self.add("missing_key", f"[{where}] lacks the key {key!r}.")
        return values


def _checked(one: Any, value: Any) -> Any:
    choices, check = one.metadata.get("choices"), one.metadata.get("check")
    for word in value if isinstance(value, tuple) and choices else [value]:
        if choices and word not in choices:
            raise Wrong(f"{'among' if isinstance(value, tuple) else 'one of'} {', '.join(choices)}")
    wanted = check(value) if check else None
    if wanted:
        raise Wrong(wanted)
    return value


def _value(kind: Any, value: Any) -> Any:
    convert = _CONVERTERS.get(kind)
    if convert is None:
        raise Wrong(f"of a kind that has no reader ({kind})")
    return convert(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Wrong("text")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Wrong("a whole number")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Wrong("a number")
    if not math.isfinite(value):
        raise Wrong("a finite number")
    return float(value)


def _yes_or_no(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Wrong("true or false")
    return value


def _list(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise Wrong("a list")
    return tuple(value)


def _texts(value: Any) -> tuple[str, ...]:
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise Wrong("text or a list of texts")
    return tuple(given)


def _numbers(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise Wrong("a list of numbers")
    return tuple(map(_number, value))


def _wholes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise Wrong("a list of whole numbers")
    return tuple(map(_whole, value))


def _range(value: Any) -> Range:
    ends = _numbers(value)
    if len(ends) != 2 or ends[0] > ends[1]:
        raise Wrong("[low, high]")
    return Range(*ends)


def code(value: Any) -> Code:
    """A code from `[value, scheme, meaning]`, within the limits of SH and LO."""
    if not isinstance(value, list) or len(value) != 3 or not all(isinstance(one, str) and one for one in value):
        raise Wrong("[value, scheme, meaning]")
    if len(value[0]) > 16 or len(value[1]) > 16 or len(value[2]) > 64 or any("\\" in one for one in value):
        raise Wrong("[value, scheme, meaning] of at most 16, 16 and 64 characters without backslash")
    return Code(*value)


_CONVERTERS: Mapping[Any, Callable[[Any], Any]] = {
    str: _text,
    int: _whole,
    float: _number,
    bool: _yes_or_no,
    tuple[str, ...]: _texts,
    tuple[float, ...]: _numbers,
    tuple[int, ...]: _wholes,
    Range | None: _range,
    Code: code,
    Code | None: code,
    tuple[Any, ...]: _list,
}
