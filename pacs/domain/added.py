"""Attributes that the configuration adds to the index: named as searches name them, matched as their VR says.

They belong to instances; a study or series is found by them when it holds such an instance. The values in all items of
a sequence are taken together: keys within it need not meet in one item, as they must for attributes of the table.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydicom.datadict import tag_for_keyword

from pacs.domain.attributes import Rule, rule_of
from pacs.domain.normal import normal_values
from pacs.domain.query import TagPath
from pacs.errors import SettingsError

VALUE_MOST = 500  # characters of one value in normal form: an index entry must fit a database page
GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
HEX = frozenset("0123456789abcdefABCDEF")


def added_paths(names: Iterable[str]) -> frozenset[TagPath]:
    """The attributes of the setting. Raises SettingsError for what names none, or what cannot be matched."""
    return frozenset(_path(name.strip()) for name in names if name.strip())


def _path(name: str) -> TagPath:
    tags = tuple(_tag(piece, name) for piece in name.split("."))
    if rule_for(tags) is Rule.SEQUENCE:
        raise SettingsError(f"INDEX_ATTRIBUTES: {name} is a sequence; name an attribute within it, after a dot.")
    return tags


def _tag(piece: str, name: str) -> int:
    known = tag_for_keyword(piece) if piece else None
    if known is None and len(piece) == 8 and set(piece) <= HEX:
        known = int(piece, 16)
    if known is None:
        raise SettingsError(
            f"INDEX_ATTRIBUTES: {name} is neither a keyword nor eight hexadecimal digits, dotted or not."
        )
    return known


def rule_for(path: TagPath) -> Rule:
    """How an added attribute matches: by its VR, private and unknown ones as text."""
    return rule_of(path[-1]) or Rule.TEXT


def key_of(path: TagPath) -> str:
    """The name of an attribute among indexed values."""
    return ".".join(f"{tag:08X}" for tag in path)


def values_at(row: Mapping[str, Any], path: TagPath) -> list[str]:
    """The values of an attribute in DICOM JSON, in normal form, each once; of all items together."""
    texts = [text for entry in _entries(row, path) for value in entry.get("Value", ()) for text in _texts(value)]
    return list(dict.fromkeys(value[:VALUE_MOST] for value in normal_values(rule_for(path), texts)))


def _entries(row: Mapping[str, Any], path: TagPath) -> Iterator[Mapping[str, Any]]:
    entry = row.get(f"{path[0]:08X}")
    if entry is None:
        return
    if len(path) == 1:
        yield entry
        return
    for item in entry.get("Value", ()) if entry["vr"] == "SQ" else ():
        yield from _entries(item or {}, path[1:])


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):  # a person name
        yield "=".join(value.get(group, "") for group in GROUPS)
    elif value is not None:
        yield str(value)
