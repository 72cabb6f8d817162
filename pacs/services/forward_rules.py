"""`config/rules.toml`: what is forwarded where. A rule matches instances as QIDO does, with the same code."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from psycopg.sql import SQL
from pydicom.datadict import tag_for_keyword

from pacs.domain.levels import Level
from pacs.domain.query import Condition, Query
from pacs.errors import BadRequest, SettingsError
from pacs.index.compile import compile_query


@dataclass(frozen=True, slots=True)
class Rule:
    """One table of the file. `destination` is an AE title of peers.toml or, for STOW, the URL of a service."""

    name: str
    destination: str
    conditions: tuple[Condition, ...] = ()
    sources: tuple[str, ...] = ()  # AE titles or users; none: from anybody
    results: bool = False  # also what our models wrote
    token_file: Path | None = None
    ca_file: Path | None = None

    @property
    def is_stow(self) -> bool:
        """Whether it goes by HTTP."""
        return "://" in self.destination

    def query(self, *more: Condition) -> Query:
        """The instances that it matches."""
        return Query(Level.INSTANCE, (*self.conditions, *more))


class RuleBook:
    """The file's present content; read again when it changes."""

    def __init__(self, file: Path, *, required: bool = False) -> None:
        """A missing file is an empty one unless `required`. Raises SettingsError naming the key at fault."""
        self._file, self._required = file, required
        self._stamp: tuple[int, int] | None = None
        self._rules: tuple[Rule, ...] = ()
        self._looked = False

    def rules(self) -> tuple[Rule, ...]:
        """The rules of now, in the file's order. Raises SettingsError when the file is wrong."""
        stamp = self._look()
        if stamp != self._stamp or not self._looked:
            self._rules = read(self._file) if stamp else ()
            self._stamp, self._looked = stamp, True
        return self._rules

    def _look(self) -> tuple[int, int] | None:
        try:
            status = self._file.stat()
        except FileNotFoundError:
            if self._required:
                raise SettingsError(f"There is no rules file {self._file}; correct DICOM_RULES or unset it.") from None
            return None
        return status.st_mtime_ns, status.st_size


def read(file: Path) -> tuple[Rule, ...]:
    """The rules of a file. Raises SettingsError naming file and key."""
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{file} cannot be read as TOML: {error}.") from error
    rules = table.pop("rules", {})
    if table or not isinstance(rules, dict):
        raise SettingsError(f"{file}: rules are tables named [rules.NAME], and nothing else stands there.")
    return tuple(_rule(file, name, entry) for name, entry in rules.items())


def _rule(file: Path, name: str, entry: object) -> Rule:
    where = f"{file}: rules.{name}"
    if not isinstance(entry, dict):
        raise SettingsError(f"{where} must be a table.")
    values: dict[str, Any] = {}
    for key, value in entry.items():
        if key not in _KEYS:
            raise SettingsError(f"{where}.{key} is unknown; the keys are {', '.join(_KEYS)}.")
        field, parse, wanted = _KEYS[key]
        try:
            values[field] = parse(value)
        except (ValueError, TypeError) as error:
            raise SettingsError(f"{where}.{key} must be {wanted}.") from error
    if ("destination" in entry) == ("stow" in entry):
        raise SettingsError(f"{where} needs destination, an AE title of the peers file, or stow, a URL; one of them.")
    for key in ("token_file", "ca_file"):
        if key in values:
            values[key] = file.parent / values[key]
    rule = Rule(name, **values)
    _require_matchable(where, rule)
    return rule


def _require_matchable(where: str, rule: Rule) -> None:
    """Every key must be one that the index can match: a key that is ignored would forward everything."""
    try:
        warnings = compile_query(rule.query(), SQL("i.pk"), limit=1).warnings
    except BadRequest as error:
        raise SettingsError(f"{where}.match: {error.message}") from error
    if warnings:
        raise SettingsError(f"{where}.match: {warnings[0]}")


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError


def _text(value: Any) -> str:
    _require(isinstance(value, str) and bool(value.strip()))
    return str(value).strip()


def _title(value: Any) -> str:
    text = _text(value)
    _require(len(text) <= 16 and "://" not in text)
    return text


def _url(value: Any) -> str:
    text = _text(value).rstrip("/")
    parts = urlsplit(text)
    _require(parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and not parts.username)
    return text


def _texts(value: Any) -> tuple[str, ...]:
    _require(isinstance(value, list))
    return tuple(_text(entry) for entry in value)


def _boolean(value: Any) -> bool:
    _require(isinstance(value, bool))
    return bool(value)


def _match(value: Any) -> tuple[Condition, ...]:
    _require(isinstance(value, dict) and bool(value))
    return tuple(Condition(_path(key), _values(given)) for key, given in value.items())


def _path(key: str) -> tuple[int, ...]:
    """The attribute of a keyword, eight hexadecimal digits, or several of them joined by dots."""
    return tuple(tag_for_keyword(piece) or int(piece, 16) for piece in key.split("."))


def _values(given: Any) -> tuple[str, ...]:
    if not isinstance(given, list):
        given = [given]
    _require(bool(given) and all(isinstance(one, str | int | float) and not isinstance(one, bool) for one in given))
    values = tuple(str(one) for one in given)
    _require(any(value.strip("* ") for value in values))
    return values


_KEYS: Mapping[str, tuple[str, Callable[[Any], Any], str]] = {
    "destination": ("destination", _title, "an AE title of the peers file"),
    "stow": ("destination", _url, "the root URL of a DICOMweb service, such as https://archive.example/dicom-web"),
    "match": ("conditions", _match, 'a table of keys as in QIDO, such as { Modality = "CT" }, each with a value'),
    "from": ("sources", _texts, "a list of AE titles or user names that objects come from"),
    "results": ("results", _boolean, "true or false"),
    "token_file": ("token_file", lambda value: Path(_text(value)), "the name of a file that holds a bearer token"),
    "ca_file": ("ca_file", lambda value: Path(_text(value)), "the name of a PEM file of authorities"),
}
