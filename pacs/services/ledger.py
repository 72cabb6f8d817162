"""The ledger: for each study whether it counts as complete, and by what evidence (ai.md 3)."""

from collections.abc import Iterable

from pacs.index.named import queries
from pacs.services.books import Books
from pacs.settings import Settings

SQL = queries("ledger")


class Ledger:
    """States open, likely, confirmed, reopened. Methods raise Unavailable when the database is away."""

    def __init__(self, books: Books, settings: Settings) -> None:
        self.books = books
        self.series_quiet = settings.ai_series_quiet_seconds
        self.study_quiet = max(settings.ai_study_quiet_seconds, settings.ai_series_quiet_seconds)
        self.max_wait = max(settings.ai_max_wait_minutes * 60, self.study_quiet)

    def note(self, study_uids: Iterable[str]) -> None:
        """Originals of these studies arrived: they are open, or reopened when they had been planned before."""
        with self.books.transaction() as cursor:
            cursor.execute(SQL["note"], {"study_uids": sorted(set(study_uids))})

    def judge(self) -> list[str]:
        """Move on what the clock allows; returns the studies that are complete by now, and wakes the planner for them.

        A study whose missing parts may still come is waited for, at most AI_MAX_WAIT_MINUTES after its last plan; so
        long, too, is one waited for that never goes quiet.
        """
        limits = {"series_quiet": self.series_quiet, "study_quiet": self.study_quiet, "max_wait": self.max_wait}
        with self.books.transaction() as cursor:
            cursor.execute(SQL["likely"], limits)
            confirmed = [row["study_uid"] for row in cursor.execute(SQL["confirm"], limits).fetchall()]
            if confirmed:
                cursor.execute(SQL["wake_planner"])
            return confirmed

    def counts(self) -> dict[str, int]:
        """How many studies are in which state."""
        with self.books.transaction() as cursor:
            return {row["state"]: row["studies"] for row in cursor.execute(SQL["states"]).fetchall()}
