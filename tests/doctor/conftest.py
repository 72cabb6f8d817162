"""Examinations of a node that no clerk looks after, without waiting for what is on its way."""

import pytest

from pacs.services.doctor import case as cases
from pacs.services.doctor import records
from pacs.services.doctor.case import Case
from pacs.services.doctor.rounds import CHECKS, examine, treat


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(cases, "YOUNG_SECONDS", 0.3)
    monkeypatch.setattr(cases, "MOMENT_SECONDS", 0.05)
    monkeypatch.setattr(records, "PROGRESS_SECONDS", 0.05)


@pytest.fixture
def damage():
    return tuple(check for check in CHECKS if check.kind == "damage")


@pytest.fixture
def looked(settings, node):
    """Examine the node; the report. `fix` cures as well."""

    def look(checks=CHECKS, *, fix=False, **given):
        case = Case(given.pop("settings", settings), given.pop("node", node), environ=given.pop("environ", {}), **given)
        report = examine(case, checks)
        assert report.broken == {}
        if fix:
            list(treat(case, report))
        return report

    return look


def names(report):
    """The names of the checks that found something, each once."""
    return sorted({one.check.name for one in report.found})
