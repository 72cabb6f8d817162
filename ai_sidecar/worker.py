"""Takes jobs and sees them through: lease, run, store, commit. Killed at any moment, another worker ends what it began.

Redis only says where to look; while it is away the slots look into the database themselves. What a run makes is
derived from the job's key, so that a second run stores the same bytes and nothing is there twice (ai.md 1.2, 4).
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol, TypeVar

import structlog

from ai_sidecar.heartbeat import DRAINED, LOST, TIMED_OUT, Heartbeat, Held, Pace, Stop
from ai_sidecar.ports import Interrupted, Outcome, ResultFile, RunFailed, Unsuitable
from pacs.bus.stream import Entry, Stream
from pacs.domain.jobs import Lease, Result, State
from pacs.errors import FilmroomError, Unavailable
from pacs.node import Node

T = TypeVar("T")
log = structlog.get_logger()

FAIR_EVERY = 3  # every third free slot goes to the class that waited longest
CLAIM_EVERY = 5.0
INSIST_SECONDS = 1.0
ENDED = (State.SUCCEEDED, State.SKIPPED, State.DEAD)
KILLED = 70  # exit code of a process that ends because a run does not


class Bench(Protocol):
    """Where runs happen. The real one is `ai_sidecar.bench`; tests bring others."""

    def ready(self) -> bool:
        """Whether models can run: packages read, device proved."""

    def run(self, lease: Lease, stop: Stop) -> Outcome:
        """Make the results. Raises Unsuitable, RunFailed, Interrupted, Unavailable."""

    def store(self, lease: Lease, made: ResultFile) -> Result:
        """Store one object of the outcome through the node's door. Raises RunFailed, Unavailable."""

    def done(self, lease: Lease) -> None:
        """Nothing more will be done for this job: forget what was kept for another attempt."""


class Worker:
    """`slots` jobs at a time, each in a thread. Start it, and end it with `drain`."""

    def __init__(self, node: Node, bench: Bench, *, owner: str, slots: int = 1, pace: Pace | None = None) -> None:
        self.node, self.bench, self.owner, self.pace = node, bench, owner, pace or Pace()
        self.stream = Stream(node.settings.redis_url)
        self.heartbeat = Heartbeat(node, self.stream, self.pace, self._give_up)
        ended = "AI attempts of this sidecar by model and how they ended"
        self._attempts = node.metrics.counter("filmroom_ai_attempts", ended, ("model", "state"))
        self._stages = node.metrics.histogram("filmroom_ai_stage_seconds", "Seconds of a job by stage", ("stage",))
        self.end_process: Callable[[int], object] = os._exit
        self._stopping = threading.Event()
        self._abandon = threading.Event()
        self._slots = [_Slot(self, number) for number in range(slots)]

    def start(self) -> None:
        """Begin to take jobs."""
        self.heartbeat.start()
        for slot in self._slots:
            slot.thread.start()

    def drain(self, seconds: float | None = None) -> None:
        """Take no more, let what runs finish for that long, then give it back; returns when nothing is held."""
        self._stopping.set()
        deadline = time.monotonic() + (self.pace.drain if seconds is None else seconds)
        for slot in self._slots:
            slot.thread.join(max(0.0, deadline - time.monotonic()))
        for held in self.heartbeat.held():
            held.stop.set(DRAINED)
        self._abandon.set()
        for slot in self._slots:
            slot.thread.join(self.pace.farewell)
        self._leave()

    def _leave(self) -> None:
        """Whatever still runs is given back: the process ends after this, and the run with it."""
        for held in self.heartbeat.held():
            with contextlib.suppress(Unavailable):
                self.node.jobs.leases.give_back(held.lease)
            self.heartbeat.let_go(held)
        self.heartbeat.end()
        with contextlib.suppress(Unavailable):
            for slot in self._slots:
                self.stream.leave(slot.consumer)
        self.stream.close()

    def _give_up(self, held: Held) -> None:
        """A run does not stop: write down why, then end the process; the supervisor starts a new one."""
        log.error("ai_run_does_not_stop", job=held.lease.job_id, why=held.stop.why)
        with contextlib.suppress(Unavailable):
            if held.stop.why == TIMED_OUT:
                self.node.jobs.leases.fail(held.lease, TIMED_OUT, _too_long(held.lease))
            for other in self.heartbeat.held():
                self.node.jobs.leases.give_back(other.lease)
        self.end_process(KILLED)

    # one job

    def execute(self, job_id: int, entry: Entry | None, consumer: str) -> bool:
        """Lease the job and see it through; false when it was not to be had."""
        lease = self.node.jobs.leases.take(job_id, self.owner)
        if lease is None:
            self._forget(entry)
            return False
        held = self.heartbeat.hold(lease, entry, consumer, lease.timeout_s)
        log.info("ai_job_started", job=job_id, model=lease.model, study_uid=lease.study_uid, attempt=lease.attempts)
        try:
            self._see_through(held)
        finally:
            self.heartbeat.let_go(held)
        self._forget(entry)
        return True

    def _see_through(self, held: Held) -> None:
        """Whatever happens to the run, the books say so, unless they are no longer ours to write."""
        try:
            state = self._attempt(held)
        except Exception as error:
            move = self._verdict(held, error)
            state = move and self._insist(held, move)
        if state in ENDED:
            self.bench.done(held.lease)
        said = str(state or LOST)
        log.info("ai_job_ended", job=held.lease.job_id, model=held.lease.model, state=said)
        self._count(held.lease, said)

    def _verdict(self, held: Held, error: Exception) -> Callable[[], object] | None:
        """The move that an error calls for; None when the job is no longer ours."""
        lease, leases = held.lease, self.node.jobs.leases
        match error:
            case Unsuitable():
                return partial(leases.skip, lease, error.code, error.message)
            case RunFailed():
                return partial(leases.fail, lease, error.code, error.message, permanent=error.permanent)
            case Interrupted():
                return self._stopped(held)
            case FilmroomError():  # away for too long, an input that is damaged
                return partial(leases.fail, lease, error.code, error.message)
        log.error("ai_job_crashed", job=lease.job_id, exc_info=error)
        message = f"The run ended with {type(error).__name__}; the sidecar's log says where."
        return partial(leases.fail, lease, "crashed", message)

    def _stopped(self, held: Held) -> Callable[[], object] | None:
        lease, leases = held.lease, self.node.jobs.leases
        if held.stop.why == TIMED_OUT:
            return partial(leases.fail, lease, TIMED_OUT, _too_long(lease))
        if held.stop.why == DRAINED:
            return lambda: leases.give_back(lease) and State.QUEUED
        return None

    def _attempt(self, held: Held) -> object:
        lease, leases = held.lease, self.node.jobs.leases
        started = time.monotonic()
        outcome = self.bench.run(lease, held.stop)
        if held.stop.is_set() or not self._insist(held, partial(leases.begin_storing, lease)):
            raise Interrupted("The run ended, but it had been told to stop.")
        ran = time.monotonic()
        results = [self._insist(held, partial(self.bench.store, lease, made)) for made in outcome.files]
        timings = {**outcome.timings, "run": ran - started, "store": time.monotonic() - ran}
        finish = partial(leases.finish, lease, results, provider=outcome.provider, timings=timings)
        done = self._insist(held, partial(finish, evidence={"run": list(outcome.evidence)}))
        self._time(timings)
        return State.SUCCEEDED if done else None

    def _insist(self, held: Held, act: Callable[[], T]) -> T:
        """Do it again while a server is away: for a lease's time, and no longer than this process has to live."""
        deadline = time.monotonic() + 2 * self.node.jobs.leases.seconds
        while True:
            try:
                return act()
            except Unavailable:
                over = time.monotonic() > deadline or held.stop.why == LOST or self._abandon.is_set()
                if over:
                    raise
                time.sleep(min(INSIST_SECONDS, self.pace.beat))

    def _forget(self, entry: Entry | None) -> None:
        if entry is not None:
            with contextlib.suppress(Unavailable):  # a flushed Redis has forgotten it already
                self.stream.forget(entry)

    def _count(self, lease: Lease, state: str) -> None:
        self._attempts.labels(lease.model, state).inc()

    def _time(self, timings: Mapping[str, float]) -> None:
        for stage, seconds in timings.items():
            self._stages.labels(stage).observe(seconds)


class _Slot:
    """One thread that takes a job at a time."""

    def __init__(self, worker: Worker, number: int) -> None:
        self.worker = worker
        self.consumer = f"{worker.owner}/{number}"
        self.thread = threading.Thread(target=self._loop, name=f"slot-{number}", daemon=True)
        self._turn = 0
        self._claimed = 0.0

    def _loop(self) -> None:
        pace, stopping = self.worker.pace, self.worker._stopping
        while not stopping.is_set():
            try:
                if self.worker.bench.ready() and not self.worker.node.jobs.leases.paused():
                    self._once()
                else:
                    stopping.wait(pace.block)
            except Unavailable:
                stopping.wait(pace.poll)  # the database: without it nothing can be leased
            except Exception:
                log.exception("ai_slot_stumbled", slot=self.consumer)
                stopping.wait(pace.poll)

    def _once(self) -> None:
        self._turn += 1
        try:
            entry = self._next()
        except Unavailable:
            self._look()
            return
        if entry is not None:
            self.worker.execute(entry.job_id, entry, self.consumer)

    def _next(self) -> Entry | None:
        """From Redis: what waits, then what a silent worker left, then what comes."""
        stream, pace = self.worker.stream, self.worker.pace
        found = stream.take(self.consumer, oldest_first=self._turn % FAIR_EVERY == 0)
        if found is None and time.monotonic() - self._claimed > min(CLAIM_EVERY, pace.idle):
            self._claimed = time.monotonic()
            found = stream.claim_idle(self.consumer, pace.idle)
        return found or stream.wait(self.consumer, pace.block)

    def _look(self) -> None:
        """Into the database, while Redis is away."""
        job_id = self.worker.node.jobs.leases.waiting(oldest_first=self._turn % FAIR_EVERY == 0)
        if job_id is None or not self.worker.execute(job_id, None, self.consumer):
            self.worker._stopping.wait(self.worker.pace.poll)


def _too_long(lease: Lease) -> str:
    return f"The run took longer than {lease.timeout_s:g} s (AI_JOB_TIMEOUT_SECONDS, or timeout_s of the model)."
