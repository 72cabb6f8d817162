"""From a complete study to jobs: the planner takes a study, decides, and hands the decisions in as one transaction.

The planner itself sits in the sidecar, because only it can read model packages. It may stop, run twice or run on many
machines: a plan made again finds its jobs by their keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.types.json import Jsonb

from pacs.domain.jobs import Decision, State, Work, sources
from pacs.index.named import queries
from pacs.services.books import Books, Cursor, Row

SQL = queries("jobs")
CLAIM_SECONDS = 60
MOST_CLAIMS = 3  # of an explicit run; a complete study is tried again for ever
AGAIN = ("study_deleted", "inputs_changed")  # cancelled by us, for reasons that a new plan with the same inputs undoes


@dataclass(frozen=True, slots=True)
class Planned:
    """What a plan came to. `stale`: originals arrived meanwhile; nothing was written, a new plan will follow."""

    queued: tuple[int, ...] = ()
    known: tuple[int, ...] = ()
    waiting: int = 0
    skipped: int = 0
    stale: bool = False


class Planning:
    """The planner's side of the books. Methods raise Unavailable when the database is away."""

    def __init__(self, books: Books, max_wait_minutes: float) -> None:
        self.books, self.max_wait = books, max_wait_minutes * 60

    def next_work(self) -> Work | None:
        """A study that wants a plan, ours for a minute: explicit runs first, then complete studies in their order."""
        with self.books.transaction() as cursor:
            request = cursor.execute(SQL["claim_request"], {"seconds": CLAIM_SECONDS}).fetchone()
            if request:
                return self._requested(cursor, request)
            row = cursor.execute(SQL["claim_study"], {"seconds": CLAIM_SECONDS}).fetchone()
        if row is None:
            return None
        return Work(row["study_uid"], row["change_seq"], final=row["signal"] in ("wait_over", "run"))

    def _requested(self, cursor: Cursor, request: Row) -> Work:
        study = cursor.execute(SQL["study"], request).fetchone()
        seq = study["change_seq"] if study else -1  # deleted meanwhile: the plan will be stale and end the request
        return Work(request["study_uid"], seq, True, request["model"], request["priority"], request["id"])

    def plan(self, work: Work, decisions: Sequence[Decision]) -> Planned:
        """Write the plan of one study: jobs to run, and reasons for what does not run, all or nothing."""
        with self.books.transaction() as cursor:
            if work.request is not None:
                cursor.execute(SQL["finish_request"], {"id": work.request})
            cursor.execute(SQL["open_ledger"], {"study_uid": work.study_uid})
            cursor.execute(SQL["lock_ledger"], {"study_uid": work.study_uid})
            study = cursor.execute(SQL["study"], {"study_uid": work.study_uid}).fetchone()
            if study is None or study["change_seq"] != work.change_seq:
                return self._stale(cursor, work, gone=study is None)
            return self._write(cursor, work, decisions)

    def failed(self, work: Work, message: str) -> None:
        """No plan could be made: the ledger says so, and the study is tried again when the claim ends."""
        with self.books.transaction() as cursor:
            cursor.execute(SQL["plan_failed"], {"study_uid": work.study_uid, "message": message})
            cursor.execute(SQL["end_hopeless_request"], {"id": work.request, "claims": MOST_CLAIMS})

    def _stale(self, cursor: Cursor, work: Work, *, gone: bool) -> Planned:
        if work.request is not None and not gone:  # a person asked: not lost because an original came meanwhile
            again = {"study_uid": work.study_uid, "model": work.model, "priority": work.priority}
            cursor.execute(SQL["request"], again)
        return Planned(stale=True)

    def _write(self, cursor: Cursor, work: Work, decisions: Sequence[Decision]) -> Planned:
        running = [decision for decision in decisions if not decision.reason]
        waiting = [decision for decision in decisions if decision.reason and decision.may_come and not work.final]
        skipped = [decision for decision in decisions if decision.reason and decision not in waiting]
        queued, known = self._jobs(cursor, work, running)
        kept = [_decide(cursor, work, decision, State.PLANNED) for decision in waiting]
        kept += [_decide(cursor, work, decision, State.SKIPPED) for decision in skipped]
        cursor.execute(SQL["drop_decisions"], {"study_uid": work.study_uid, "kept": kept, "model": work.model})
        if not work.model:  # all models have been asked
            self._note(cursor, work, waiting, [decision for decision in decisions if decision.may_come])
        _ring(cursor, queued, work.study_uid)
        return Planned(tuple(queued), tuple(known), len(waiting), len(skipped))

    def _jobs(self, cursor: Cursor, work: Work, running: Sequence[Decision]) -> tuple[list[int], list[int]]:
        queued: list[int] = []
        known: list[int] = []
        for decision in running:
            fields = _fields(work, decision) | {"job_key": decision.job_key}
            row = cursor.execute(SQL["insert_job"], fields).fetchone()
            if row:
                cursor.execute(SQL["cancel_outdated"], fields)
                queued.append(row["id"])
            else:
                job = _known(cursor, work, decision.job_key)
                (queued if _queue_again(cursor, work, job) else known).append(job["id"])
        return queued, known

    def _note(self, cursor: Cursor, work: Work, waiting: Sequence[Decision], missing: Sequence[Decision]) -> None:
        words = Jsonb(sorted({decision.message for decision in missing}))
        values = {"study_uid": work.study_uid, "missing": words, "waits": bool(waiting), "wait_seconds": self.max_wait}
        cursor.execute(SQL["planned"], values)


def _fields(work: Work, decision: Decision) -> Row:
    return {
        "model": decision.model,
        "version": decision.version,
        "digest": decision.digest,
        "study_uid": work.study_uid,
        "series_uids": sorted(decision.series_uids),
        "priority": work.priority or decision.priority,
        "inputs": Jsonb(list(decision.inputs)),
        "parameters": Jsonb(dict(decision.parameters)),
        "evidence": Jsonb(dict(decision.evidence)),
        "max_attempts": decision.max_attempts,
        "timeout_s": decision.timeout_s,
    }


def _decide(cursor: Cursor, work: Work, decision: Decision, state: State) -> str:
    """Write a decision not to run; returns its key, which is its place: study, model, series."""
    series = "+".join(sorted(decision.series_uids)) or "study"
    key = f"decision:{work.study_uid}:{decision.model}:{series}"
    words = {"job_key": key, "state": state.value, "reason": decision.reason, "message": decision.message}
    cursor.execute(SQL["upsert_decision"], _fields(work, decision) | words)
    return key


def _known(cursor: Cursor, work: Work, job_key: str) -> Row:
    row = cursor.execute(SQL["known_job"], {"job_key": job_key}).fetchone()
    assert row is not None  # it conflicted a moment ago, and jobs with inputs are never deleted
    if work.request is not None and row["state"] == State.QUEUED:
        cursor.execute(SQL["raise_priority"], {"id": row["id"], "priority": work.priority})
        cursor.execute(SQL["enqueue"], {"ids": [row["id"]]})  # its first entry stays where it is and finds nothing
    return row


def _queue_again(cursor: Cursor, work: Work, job: Row) -> bool:
    """Whether a job that is known runs again: its results were deleted, or whoever asks wants to see it tried again."""
    state = State(job["state"])
    wanted = work.request is not None and state in (State.DEAD, State.CANCELLED, State.SKIPPED)
    undone = state is State.CANCELLED and job["reason"] in AGAIN
    lost = state is State.SUCCEEDED and job["results_gone"] > 0
    if not (wanted or undone or lost):
        return False
    cursor.execute(SQL["queue_again"], {"id": job["id"], "sources": sources(State.QUEUED)})
    return True


def _ring(cursor: Cursor, queued: Sequence[int], study_uid: str) -> None:
    if queued:
        cursor.execute(SQL["enqueue"], {"ids": list(queued)})
        cursor.execute(SQL["wake_relay"])
    cursor.execute(SQL["tell"], {"word": study_uid})
