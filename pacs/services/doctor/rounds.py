"""THE table of checks, and an examination: look at everything, then cure what can be cured."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import structlog

from pacs.errors import Conflict, FilmroomError
from pacs.services.doctor import configuration, files, host, marker, records, servers, structure, work
from pacs.services.doctor.case import Case
from pacs.services.doctor.finding import Check, Finding

CHECKS: tuple[Check, ...] = (
    *configuration.CHECKS,
    *host.CHECKS,
    *servers.CHECKS,
    *structure.CHECKS,
    *marker.CHECKS,
    *files.CHECKS,
    *records.CHECKS,
    *work.CHECKS,
)
log = structlog.get_logger()


@dataclass(slots=True)
class Diagnosis:
    """One finding of one check. `done`: what cured it; `failed`: why it could not be cured."""

    check: Check
    finding: Finding
    done: str = ""
    failed: str = ""

    @property
    def cure(self) -> str:
        return self.finding.cure or self.check.cure

    def as_json(self) -> dict[str, Any]:
        """Everything but what only `fix` wants to know."""
        facts = asdict(self.finding)
        facts.pop("items")
        return {
            "check": self.check.name,
            "kind": self.check.kind,
            **facts,
            "cure": self.cure,
            "fixable": self.check.fix is not None,
            "done": self.done,
            "failed": self.failed,
        }


@dataclass(slots=True)
class Report:
    """What an examination found. `skipped`: checks that could not look, and why; `broken`: checks that fell over."""

    looked: int = 0
    found: list[Diagnosis] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    @property
    def left(self) -> list[Diagnosis]:
        """What is still wrong."""
        return [one for one in self.found if not one.done]

    @property
    def well(self) -> bool:
        return not self.left and not self.broken

    def as_json(self) -> dict[str, Any]:
        return {
            "well": self.well,
            "looked": self.looked,
            "findings": [one.as_json() for one in self.found],
            "skipped": self.skipped,
            "broken": self.broken,
        }


def examine(case: Case, checks: Sequence[Check] = CHECKS, tell: Callable[[str], None] = lambda _name: None) -> Report:
    """Look at everything that can be looked at. Changes nothing. `tell` hears the name of each check before it runs."""
    report = Report()
    for check in checks:
        trouble = next((case.troubles[need] for need in check.needs if need in case.troubles), "")
        if trouble:
            report.skipped[check.name] = trouble
            continue
        tell(check.name)
        try:
            report.found += [Diagnosis(check, finding) for finding in check.look(case)]
            report.looked += 1
        except FilmroomError as error:
            report.broken[check.name] = error.message
        except Exception as error:  # a check that falls over must not hide what the others find
            log.error("doctor_check_failed", check=check.name, exc_info=error)
            report.broken[check.name] = f"The check failed ({type(error).__name__})."
    return report


def treat(case: Case, report: Report) -> Iterator[Diagnosis]:
    """Cure what can be cured, one finding after another; yields each when it is cured or could not be."""
    curable = [one for one in report.found if one.check.fix is not None]
    strange = any("store" in one.check.needs for one in curable) and any(marker.strange(case))
    for one in curable:
        try:
            if strange and "store" in one.check.needs:
                raise Conflict("Database and file store do not belong together (strange-store): cure that first.")
            assert one.check.fix is not None
            one.done = one.check.fix(case, one.finding)
        except FilmroomError as error:
            one.failed = error.message
        except Exception as error:
            log.error("doctor_cure_failed", check=one.check.name, exc_info=error)
            one.failed = f"It failed ({type(error).__name__}); the log says where."
        yield one
