"""DICOM JSON in the order the standard writes it: tags ascending, `vr` before the value (PS3.18 F.2.2)."""

from collections.abc import Mapping
from typing import Any


def in_order(found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same attributes, ordered, items of sequences included."""
    return {tag: _element(found[tag]) for tag in sorted(found)}


def _element(element: Mapping[str, Any]) -> dict[str, Any]:
    ordered = {"vr": element["vr"], **element}
    if element["vr"] == "SQ" and "Value" in element:
        ordered["Value"] = [in_order(item) for item in element["Value"]]
    return ordered
