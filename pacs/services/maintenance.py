"""Maintenance windows: AI jobs wait, and if wanted storing too; what still runs ends, and nothing is lost.

The switch is one row that every lease of a job looks at, so that no job starts once `on` is committed, wherever its
worker is. Processes hear of the rest within a second (pacs/services/gate.py).
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from psycopg.types.json import Jsonb

from pacs.domain.events import Source
from pacs.errors import BadRequest
from pacs.index.named import queries
from pacs.services import audit
from pacs.services.books import Books, Cursor
from pacs.services.gate import LOCK_CLASS, STORES, Maintenance, read

SQL = queries("maintenance")
LOOK_SECONDS = 1.0
QUIET_LOOKS = 3  # one after another must find nothing: a process may have been about to hear of the switch
LONGEST_MESSAGE = 500


@dataclass(frozen=True, slots=True)
class Since:
    """What happened since maintenance began, and how many jobs wait now."""

    stored: int = 0
    refused: int = 0
    jobs_planned: int = 0
    jobs_queued: int = 0


@dataclass(frozen=True, slots=True)
class Remaining:
    """What still runs: jobs in workers' hands, and, where storing is refused, processes that still store."""

    jobs: tuple[dict[str, Any], ...] = ()
    storing: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        return not self.jobs and not self.storing

    def lines(self) -> list[str]:
        """One line each, for people."""
        jobs = [
            f"job {job['id']} ({job['model']}) {job['state']} for {job['seconds'] or 0:.0f} s"
            + (", its worker is gone: the clerk will queue it again" if job["abandoned"] else f" at {job['owner']}")
            for job in self.jobs
        ]
        return jobs + [f"{process} still stores" for process in self.storing]


class Windows:
    """Turns the switch and watches what still runs. Methods raise Unavailable when the database is away."""

    def __init__(self, books: Books) -> None:
        self.books = books

    def now(self) -> Maintenance:
        """The state of the switch."""
        with self.books.transaction() as cursor:
            return _state(cursor, "state")

    def on(self, source: Source, *, message: str = "", refuse_stores: bool = False) -> Maintenance:
        """Begin, or change the words and the refusing of a window that is open. Raises BadRequest."""
        if len(message) > LONGEST_MESSAGE or not (message.isprintable() or message == ""):
            raise BadRequest(f"The message must be one printable line of at most {LONGEST_MESSAGE} characters.")
        with self.books.transaction() as cursor:
            before = _state(cursor, "hold")
            since = before.since if before.on and before.since else datetime.now(UTC).isoformat(timespec="seconds")
            state = Maintenance("on", message, refuse_stores, since, source.peer)
            _turn(cursor, state, source)
        return state

    def off(self, source: Source) -> tuple[Maintenance, Since]:
        """End; the window that was open, and what happened in it. Nothing when none was."""
        with self.books.transaction() as cursor:
            before = _state(cursor, "hold")
            if not before.on:
                return before, Since()
            happened = _since(cursor, before)
            _turn(cursor, replace(before, state="off", refuse_stores=False), source)
        return before, happened

    def since(self, window: Maintenance) -> Since:
        """What happened since a window was opened; nothing when it is not open."""
        if not window.on:
            return Since()
        with self.books.transaction() as cursor:
            return _since(cursor, window)

    def remaining(self) -> Remaining:
        """What still runs at this moment."""
        with self.books.transaction() as cursor:
            jobs = tuple(cursor.execute(SQL["running"]).fetchall())
            state, storing = _state(cursor, "state"), []
            if state.on and state.refuse_stores:
                rows = cursor.execute(SQL["storing"], {"class": LOCK_CLASS, "key": STORES}).fetchall()
                storing = [f"{row['process'].removesuffix(' gate')} (backend {row['pid']})" for row in rows]
        return Remaining(jobs, tuple(storing))

    def drain(self, seconds: float) -> Iterator[Remaining]:
        """What still runs, once a second, until nothing does or the time is over; the last one says which it was."""
        deadline, quiet = time.monotonic() + seconds, 0
        while True:
            remaining = self.remaining()
            quiet = quiet + 1 if remaining.nothing else 0
            yield remaining
            if quiet >= QUIET_LOOKS or (quiet == 0 and time.monotonic() >= deadline):
                return
            time.sleep(LOOK_SECONDS)

    def as_json(self) -> dict[str, Any]:
        """The body of `/api/v1/maintenance`."""
        state, remaining = self.now(), self.remaining()
        running = {"jobs": list(remaining.jobs), "storing": list(remaining.storing)}
        return state.as_json() | {"running": running, "happened": asdict(self.since(state))}


def _state(cursor: Cursor, statement: str) -> Maintenance:
    row = cursor.execute(SQL[statement]).fetchone()
    return read(row["value"] if row else None)


def _since(cursor: Cursor, window: Maintenance) -> Since:
    return Since(**(cursor.execute(SQL["since"], {"since": window.began}).fetchone() or {}))


def _turn(cursor: Cursor, state: Maintenance, source: Source) -> None:
    cursor.execute(SQL["turn"], {"value": Jsonb(state.as_json())})
    cursor.execute(SQL["tell"])
    detail = {"state": state.state, "refuse_stores": state.refuse_stores}
    audit.record(cursor.connection, [audit.row(source, "maintenance", detail=detail)])
