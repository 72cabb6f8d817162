"""What each page shows, fetched from the node as plain values."""

from dataclasses import dataclass
from typing import Any

from dicomweb.console.present import Row, text
from pacs.domain.attributes import BY_KEYWORD
from pacs.domain.levels import Level, Scope
from pacs.domain.query import Condition, Query
from pacs.errors import NotFound
from pacs.node import Node
from pacs.services.report import Measurement

SHOWN = 50
SEARCHED = ("PatientName", "PatientID", "AccessionNumber", "StudyDescription")
EXTRA = frozenset({(BY_KEYWORD["StudyDescription"].tag,)})
NO_PATTERN = str.maketrans("", "", "*?\\")


@dataclass(frozen=True, slots=True)
class StudyList:
    """Study rows, whether there are more, and whether the node holds anything at all."""

    rows: list[Row]
    more: bool
    empty_node: bool

    @property
    def study_uids(self) -> list[str]:
        """What the list shows."""
        return [text(row, "StudyInstanceUID") for row in self.rows]


@dataclass(frozen=True, slots=True)
class StudyPage:
    """One study with its series, the AI's timeline (ai.md 5) and the measurements by report."""

    study: Row
    series: list[Row]
    timeline: dict[str, Any]
    measurements: list[Measurement]

    @property
    def study_uids(self) -> list[str]:
        """What the page shows."""
        return [text(self.study, "StudyInstanceUID")]


class Lookup:
    """Fetches; blocking, so pages call it in a thread."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def studies(self, wanted: str, modality: str) -> StudyList:
        """Studies whose name, ID, accession number or description contains the text, of the modality if given."""
        found: dict[str, Row] = {}
        narrowed = (_condition("ModalitiesInStudy", modality),) if modality else ()
        for conditions in _alternatives(wanted):
            query = Query(Level.STUDY, conditions + narrowed, include=EXTRA, limit=SHOWN + 1)
            found |= {text(row, "StudyInstanceUID"): row for row in self.node.search.find(query).rows}
        rows = sorted(found.values(), key=_newest_first, reverse=True)
        nothing_at_all = not rows and not wanted and not modality
        return StudyList(rows[:SHOWN], len(rows) > SHOWN, nothing_at_all)

    def study(self, study_uid: str) -> StudyPage:
        """Everything about one study. Raises NotFound."""
        of_study = (_condition("StudyInstanceUID", study_uid),)
        studies = self.node.search.find(Query(Level.STUDY, of_study, include=EXTRA, show_hidden=True)).rows
        if not studies:
            raise NotFound("There is no such study here.")
        series = self.node.search.find(Query(Level.SERIES, of_study, show_hidden=True)).rows
        timeline = self.node.jobs.timeline(study_uid)
        return StudyPage(studies[0], list(series), timeline, self._measurements(study_uid, timeline))

    def _measurements(self, study_uid: str, timeline: dict[str, Any]) -> list[Measurement]:
        reports = [r for r in timeline["results"] if r["role"] == "sr" and r["state"] != "superseded"]
        found: list[Measurement] = []
        for report in reports:
            scope = Scope(study_uid, report["series_uid"], report["sop_instance_uid"])
            found += self.node.report.measurements(scope)
        return found


def _alternatives(wanted: str) -> list[tuple[Condition, ...]]:
    """One set of conditions for each attribute searched; a single empty set when nothing is wanted."""
    plain = wanted.translate(NO_PATTERN)
    return [(_condition(keyword, f"*{plain}*"),) for keyword in SEARCHED] if plain else [()]


def _condition(keyword: str, value: str) -> Condition:
    return Condition((BY_KEYWORD[keyword].tag,), (value,))


def _newest_first(row: Row) -> tuple[str, str]:
    return text(row, "StudyDate"), text(row, "StudyTime")
