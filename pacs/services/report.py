"""Reading of measurement reports (PS3.16 TID 1500): what was measured where, as rows for a table."""

from collections.abc import Iterator
from dataclasses import dataclass

import pydicom
from pydicom.dataset import Dataset

from pacs.domain.levels import Scope
from pacs.services.retrieve import Retrieve

MEASUREMENT_GROUP = ("125007", "DCM")
FINDING = {("121071", "DCM")}
CATEGORY = {("276214006", "SCT")}
FINDING_SITES = {("363698007", "SCT"), ("G-C0E3", "SRT")}
NAMING = FINDING | CATEGORY | FINDING_SITES  # items that say what a group is about; the others are what it found
LATERALITY = ("272741003", "SCT")


@dataclass(frozen=True, slots=True)
class Measurement:
    """One line: what was found, where, which quantity, its value and unit; for an evaluation, value is its meaning."""

    finding: str
    site: str
    quantity: str
    value: str
    unit: str


class Report:
    """Reads stored reports."""

    def __init__(self, retrieve: Retrieve) -> None:
        self.retrieve = retrieve

    def measurements(self, scope: Scope) -> list[Measurement]:
        """The measurements of one stored report, in its order. Raises NotFound, Damaged."""
        found: list[Measurement] = []
        for instance in self.retrieve.locate(scope):
            with self.retrieve.open(instance) as file:
                found += read(pydicom.dcmread(file, defer_size=1024))
        return found


def read(report: Dataset) -> list[Measurement]:
    """The measurements of a report data set: numeric values and qualitative evaluations of each measurement group."""
    return [line for group in _groups(report) for line in _lines(group)]


def _groups(container: Dataset) -> Iterator[Dataset]:
    for item in container.get("ContentSequence", []):
        if _code(item, "ConceptNameCodeSequence") == MEASUREMENT_GROUP:
            yield item
        else:
            yield from _groups(item)


def _lines(group: Dataset) -> Iterator[Measurement]:
    items = group.get("ContentSequence", [])
    finding = _first_meaning(items, FINDING)
    site = " ".join(filter(None, (_laterality(items), _first_meaning(items, FINDING_SITES))))
    for item in items:
        name = _meaning(item, "ConceptNameCodeSequence")
        if item.ValueType == "NUM" and item.get("MeasuredValueSequence"):
            measured = item.MeasuredValueSequence[0]
            unit = measured.MeasurementUnitsCodeSequence[0].CodeValue
            yield Measurement(finding, site, name, str(measured.NumericValue), unit)
        elif item.ValueType == "CODE" and _code(item, "ConceptNameCodeSequence") not in NAMING:
            yield Measurement(finding, site, name, _meaning(item, "ConceptCodeSequence"), "")


def _laterality(items: list[Dataset]) -> str:
    for item in items:
        if _code(item, "ConceptNameCodeSequence") in FINDING_SITES:
            for modifier in item.get("ContentSequence", []):
                if _code(modifier, "ConceptNameCodeSequence") == LATERALITY:
                    return _meaning(modifier, "ConceptCodeSequence")
    return ""


def _first_meaning(items: list[Dataset], names: set[tuple[str, str]]) -> str:
    matching = (i for i in items if _code(i, "ConceptNameCodeSequence") in names)
    return next((_meaning(item, "ConceptCodeSequence") for item in matching), "")


def _code(item: Dataset, keyword: str) -> tuple[str, str]:
    codes = item.get(keyword)
    return (codes[0].get("CodeValue", ""), codes[0].get("CodingSchemeDesignator", "")) if codes else ("", "")


def _meaning(item: Dataset, keyword: str) -> str:
    codes = item.get(keyword)
    return str(codes[0].get("CodeMeaning", "")) if codes else ""
