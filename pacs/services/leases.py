"""A worker's hold on a job: taken, renewed, handed in, given back. Each move is one statement guarded by the fence."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg.types.json import Jsonb

from pacs.domain.jobs import LEASED, Lease, Result, State, retry_delay, sources
from pacs.index.named import queries
from pacs.services.books import Books, Row

SQL = queries("jobs")
LEASE_SECONDS = 30.0


class Leases:
    """The worker's side of the books. A false answer means that the job is no longer this holder's, and the state is
    as others left it. Methods raise Unavailable when the database is away."""

    def __init__(self, books: Books, seconds: float = LEASE_SECONDS) -> None:
        self.books, self.seconds = books, seconds

    def take(self, job_id: int, owner: str) -> Lease | None:
        """The job, running and ours, its attempt counted. None: no such job, not to be had, or maintenance."""
        with self.books.transaction() as cursor:
            values = {"id": job_id, "owner": owner, "seconds": self.seconds}
            row = cursor.execute(SQL["lease"], values).fetchone()
            return _lease(row, owner) if row else None

    def waiting(self, *, oldest_first: bool = False) -> int | None:
        """A queued job, for workers that cannot ask Redis."""
        with self.books.transaction() as cursor:
            query = SQL["oldest_queued"] if oldest_first else SQL["queued"]
            row = cursor.execute(query, {"limit": 1}).fetchone()
            return int(row["id"]) if row else None

    def paused(self) -> bool:
        """Whether maintenance keeps jobs from starting."""
        with self.books.transaction() as cursor:
            row = cursor.execute(SQL["paused"]).fetchone()
            return bool(row and row["paused"])

    def renew(self, lease: Lease) -> bool:
        """Hold it for another lease time."""
        return self._move("renew", lease)

    def begin_storing(self, lease: Lease) -> bool:
        """The results are made: RUNNING to STORING. Nothing of the job may be stored before this is true."""
        return self._move("begin_storing", lease)

    def give_back(self, lease: Lease) -> bool:
        """To the queue again, at once and without counting the attempt."""
        with self.books.transaction() as cursor:
            row = cursor.execute(SQL["give_back"], self._guard(lease)).fetchone()
            if row:
                cursor.execute(SQL["enqueue"], {"ids": [lease.job_id]})
                cursor.execute(SQL["wake_relay"])
            return row is not None

    def finish(
        self,
        lease: Lease,
        results: Sequence[Result],
        *,
        provider: str = "",
        timings: Mapping[str, float] | None = None,
        evidence: Mapping[str, Any] | None = None,
    ) -> bool:
        """STORING to SUCCEEDED with its results; earlier results on the same series are superseded and hidden."""
        facts = {"provider": provider, "timings": Jsonb(dict(timings or {})), "evidence": Jsonb(dict(evidence or {}))}
        with self.books.transaction() as cursor:
            row = cursor.execute(SQL["succeed"], self._guard(lease) | facts).fetchone()
            if row is None:
                return False
            for result in results:
                cursor.execute(SQL["add_result"], _result(lease, result))
            cursor.execute(SQL["supersede"], row | {"id": lease.job_id})
            cursor.execute(SQL["tell"], {"word": lease.study_uid})
            return True

    def fail(
        self,
        lease: Lease,
        reason: str,
        message: str,
        *,
        permanent: bool = False,
        provider: str = "",
        timings: Mapping[str, float] | None = None,
    ) -> State | None:
        """To RETRY_WAIT, or to DEAD when the error is permanent or the attempts are used up; None when it was lost."""
        dead = permanent or lease.attempts >= lease.max_attempts
        facts = {"provider": provider, "timings": Jsonb(dict(timings or {}))}
        return self._end(lease, State.DEAD if dead else State.RETRY_WAIT, reason, message, facts)

    def skip(self, lease: Lease, reason: str, message: str) -> State | None:
        """To SKIPPED: the inputs turned out not to be what the model takes."""
        return self._end(lease, State.SKIPPED, reason, message, {"provider": "", "timings": Jsonb({})})

    def _end(self, lease: Lease, target: State, reason: str, message: str, facts: Row) -> State | None:
        words = {
            "state": target.value,
            "reason": reason,
            "message": message,
            "delay": retry_delay(lease.attempts, random.random()),  # noqa: S311 - spreads retries, hides nothing
            "sources": [state for state in sources(target) if state in LEASED],
        }
        with self.books.transaction() as cursor:
            row = cursor.execute(SQL["fail"], self._guard(lease) | facts | words).fetchone()
            cursor.execute(SQL["tell"], {"word": lease.study_uid})
            return target if row else None

    def _move(self, name: str, lease: Lease) -> bool:
        with self.books.transaction() as cursor:
            return cursor.execute(SQL[name], self._guard(lease)).fetchone() is not None

    def _guard(self, lease: Lease) -> Row:
        return {"id": lease.job_id, "fence": lease.fence, "owner": lease.owner, "seconds": self.seconds}


def _lease(row: Row, owner: str) -> Lease:
    values = {name: row[name] for name in Lease.__dataclass_fields__ if name in row}
    several = {name: tuple(row[name]) for name in ("series_uids", "inputs", "predecessor")}
    return Lease(**values | several, job_id=row["id"], owner=owner)


def _result(lease: Lease, result: Result) -> Row:
    return {
        "job_id": lease.job_id,
        "role": result.role,
        "sop_class_uid": result.sop_class_uid,
        "sop_instance_uid": result.sop_instance_uid,
        "series_uid": result.series_uid,
    }
