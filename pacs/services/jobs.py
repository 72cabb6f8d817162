"""AI jobs as people see them: what runs, what ran, why something did not run, and the buttons (ai.md 4, 5)."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pacs.domain.jobs import PRIORITIES, State, sources
from pacs.errors import BadRequest, Conflict, NotFound
from pacs.index.named import queries
from pacs.services.books import Books, Cursor, Row
from pacs.services.leases import Leases
from pacs.services.models import Models
from pacs.services.planning import Planning
from pacs.settings import Settings

SQL = queries("jobs")
Rows = list[Row]
SHOWN = (
    "id", "state", "model", "version", "study_uid", "series_uids", "priority", "attempts", "reason", "message",
    "provider", "created_at", "started_at", "finished_at", "timings",
)  # fmt: skip
DETAILS = ("job_key", "digest", "max_attempts", "timeout_s", "due_at", "lease_owner", "evidence", "parameters")
LONGEST_LIST = 1000
AI_OFF = {
    "model": "",
    "reason": "ai_disabled",
    "message": "AI_ENABLED is false: the sidecar does not run models. Set it to true and restart.",
}


class Jobs:
    """`planning` is the planner's side and `leases` the worker's; the rest is for people and programs."""

    def __init__(self, books: Books, models: Models, settings: Settings) -> None:
        self.books, self.models, self.enabled = books, models, settings.ai_enabled
        self.planning = Planning(books, settings.ai_max_wait_minutes)
        self.leases = Leases(books)

    def timeline(self, study_uid: str) -> Row:
        """All the AI knows of a study: completeness, jobs, what was skipped and why, results. Raises NotFound."""
        values = {"study_uid": study_uid}
        with self.books.transaction() as cursor:
            study = cursor.execute(SQL["study"], values).fetchone()
            if study is None:
                raise NotFound("There is no such study here.")
            ledger = cursor.execute(SQL["completeness"], values).fetchone()
            rows = _with_results(cursor, cursor.execute(SQL["of_study"], values).fetchall())
        skipped = [_skipped(row) for row in rows if row["state"] == State.SKIPPED]
        return {
            "study_uid": study_uid,
            "completeness": _completeness(ledger, study["change_seq"]),
            "jobs": [row for row in rows if row["state"] != State.SKIPPED],
            "skipped": skipped if self.enabled else [dict(AI_OFF), *skipped],
            "results": [
                result | {"job": row["id"], "model": row["model"], "version": row["version"]}
                for row in rows
                for result in row["results"]
                if result["state"] != "deleted"
            ],
        }

    def run(self, study_uid: str, model: str | None = None, priority: str = "normal") -> Row:
        """Ask for a plan of this study now, of one model or of all; what exists already is not made twice.

        Raises NotFound for an unknown study or model, Conflict where models may not run, BadRequest.
        """
        if priority not in PRIORITIES:
            raise BadRequest(f"The priority must be one of {', '.join(PRIORITIES)}.")
        if not self.enabled:
            raise Conflict(AI_OFF["message"])
        if model:
            self.models.require_enabled(model)
        values = {"study_uid": study_uid, "model": model or "", "priority": priority}
        with self.books.transaction() as cursor:
            if cursor.execute(SQL["study"], values).fetchone() is None:
                raise NotFound("There is no such study here.")
            cursor.execute(SQL["open_ledger"], values)
            cursor.execute(SQL["confirm_for_request"], values)
            request = cursor.execute(SQL["request"], values).fetchone()
            cursor.execute("SELECT pg_notify('ai_study', '')")
        return {"request": request and request["id"], **values, "model": model}

    def pending(self, study_uid: str) -> bool:
        """Whether something still has to happen to this study: an explicit run to plan, or an open job."""
        with self.books.transaction() as cursor:
            row = cursor.execute(SQL["pending"], {"study_uid": study_uid}).fetchone()
            return bool(row and row["pending"])

    def list(self, state: str | None = None, limit: int = 100, after: int | None = None) -> Rows:
        """Jobs, newest first, at most 1000; `after` is the id of the last row of the page before. Raises BadRequest."""
        if state and state not in State.__members__:
            raise BadRequest(f"The state must be one of {', '.join(State)}.")
        values = {"state": state or "", "after": after or 0, "limit": max(1, min(limit, LONGEST_LIST))}
        with self.books.transaction() as cursor:
            return _with_results(cursor, cursor.execute(SQL["list"], values).fetchall())

    def get(self, job_id: int) -> Row:
        """One job with its details. Raises NotFound."""
        with self.books.transaction() as cursor:
            row = _job(cursor, job_id)
            details = {name: _plain(row[name]) for name in DETAILS} | {"inputs": len(row["inputs"])}
            return _with_results(cursor, [row])[0] | details

    def retry(self, job_id: int) -> Row:
        """Queue a dead, cancelled or skipped job again, its attempts at nought. Raises NotFound, Conflict."""
        with self.books.transaction() as cursor:
            row = _job(cursor, job_id)
            allowed = [
                state for state in sources(State.QUEUED) if state in (State.DEAD, State.CANCELLED, State.SKIPPED)
            ]
            if cursor.execute(SQL["queue_again"], {"id": job_id, "sources": allowed}).fetchone() is None:
                raise Conflict(
                    f"Job {job_id} is {row['state']}: only a dead, cancelled or skipped job can be retried{_hint(row)}."
                )
            cursor.execute(SQL["enqueue"], {"ids": [job_id]})
            cursor.execute(SQL["wake_relay"])
            cursor.execute(SQL["tell"], {"word": row["study_uid"]})
        return self.get(job_id)

    def cancel(self, job_id: int) -> Row:
        """Stop a job that waits or runs. Raises NotFound, Conflict."""
        allowed = [state for state in sources(State.CANCELLED) if state not in (State.DEAD, State.SKIPPED)]
        return self._cancel(
            job_id, allowed, "cancelled", "Cancelled by hand.", "only a job that waits or runs can be cancelled"
        )

    def drop(self, job_id: int) -> Row:
        """Take a dead job off the list of what needs somebody. Raises NotFound, Conflict."""
        return self._cancel(job_id, [State.DEAD.value], "dropped", "", "only a dead job can be dropped")

    def _cancel(self, job_id: int, allowed: Iterable[str], reason: str, message: str, rule: str) -> Row:
        with self.books.transaction() as cursor:
            row = _job(cursor, job_id)
            said = message or f"Dropped by hand after: {row['message']}"
            values = {"id": job_id, "sources": [*allowed], "reason": reason, "message": said}
            if cursor.execute(SQL["cancel"], values).fetchone() is None:
                raise Conflict(f"Job {job_id} is {row['state']}: {rule}.")
            cursor.execute(SQL["tell"], {"word": row["study_uid"]})
        return self.get(job_id)


def _job(cursor: Cursor, job_id: int) -> Row:
    row = cursor.execute(SQL["job"], {"id": job_id}).fetchone()
    if row is None:
        raise NotFound(f"There is no AI job {job_id}.")
    return row


def _with_results(cursor: Cursor, rows: list[Row]) -> list[Row]:
    """Rows as they are answered, each with its results."""
    results: dict[int, list[Row]] = {row["id"]: [] for row in rows}
    for result in cursor.execute(SQL["results"], {"ids": list(results)}).fetchall():
        results[result.pop("job_id")].append(result)
    return [{name: _plain(row[name]) for name in SHOWN} | {"results": results[row["id"]]} for row in rows]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _skipped(row: Row) -> Row:
    return {name: row[name] for name in ("id", "model", "version", "series_uids", "reason", "message")}


def _hint(row: Row) -> str:
    """A decision of the planner has no inputs to run on: only a new plan can change it."""
    decided = str(row["job_key"]).startswith("decision:")
    return (
        f"; this one was never planned to run, ask for a plan with: filmroom ai run {row['study_uid']}"
        if decided
        else ""
    )


def _completeness(ledger: Row | None, change_seq: int) -> Row:
    if ledger is None or (ledger["state"] == "open" and change_seq == 0):
        evidence = {"signal": "no_originals"} if change_seq == 0 else {}
        return {"state": "open", "evidence": evidence, "missing": [], "planned": False, "confirmed_at": None}
    return {
        "state": ledger["state"],
        "evidence": ledger["evidence"],
        "missing": ledger["missing"],
        "planned": ledger["planned_seq"] == change_seq,
        "confirmed_at": _plain(ledger["confirmed_at"]),
        "wait_until": _plain(ledger["wait_until"]),
    }
