"""Keeps the jobs in this process's hands: renews leases, watches the clock, tells a run when it has to stop."""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from pacs.bus.stream import Entry, Stream
from pacs.domain.jobs import Lease
from pacs.errors import Unavailable
from pacs.node import Node

log = structlog.get_logger()

LOST, TIMED_OUT, DRAINED = "lost", "timed_out", "drained"


@dataclass(frozen=True, slots=True)
class Pace:
    """All waits of a worker, in seconds."""

    beat: float = 5.0  # leases are renewed so often
    block: float = 2.0  # one wait for Redis; also how soon a stop is noticed
    poll: float = 5.0  # between looks at the database while Redis is away
    idle: float = 30.0  # an entry whose holder is silent for so long is taken over
    tick: float = 0.5  # how exactly a timeout is kept
    grace: float = 10.0  # a run that was told to stop and goes on for so long takes the process with it
    drain: float = 10.0  # running jobs may finish for so long after SIGTERM; the supervisor waits for 20 s
    farewell: float = 5.0  # and for so long after they were told to stop


class Stop:
    """Tells a run to stop, once, and why. Callbacks registered late are called at once."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self.why = ""

    def set(self, why: str) -> None:
        """Stop now; the first reason stays."""
        with self._lock:
            if self._event.is_set():
                return
            self.why = why
            self._event.set()
            callbacks = list(self._callbacks)
        for callback in callbacks:
            with contextlib.suppress(Exception):  # a run that ends at this moment needs no telling
                callback()

    def is_set(self) -> bool:
        return self._event.is_set()

    def call(self, callback: Callable[[], None]) -> None:
        """Have something called when it is time to stop, as `RunOptions.terminate` wants."""
        with self._lock:
            self._callbacks.append(callback)
            late = self._event.is_set()
        if late:
            callback()


@dataclass(slots=True)
class Held:
    """A job that this process works on."""

    lease: Lease
    entry: Entry | None
    consumer: str
    deadline: float
    renewed: float
    stop: Stop = field(default_factory=Stop)
    stopped_at: float = float("inf")  # when the run was told to stop


class Heartbeat:
    """One thread for all slots. `give_up` is called with a job whose run does not stop, and does not return."""

    def __init__(self, node: Node, stream: Stream, pace: Pace, give_up: Callable[[Held], None]) -> None:
        self.node, self.stream, self.pace, self.give_up = node, stream, pace, give_up
        self._held: dict[int, Held] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """No more beats: call when nothing is held."""
        self._ended.set()
        self._thread.join()

    def hold(self, lease: Lease, entry: Entry | None, consumer: str, timeout: float) -> Held:
        """Begin to keep a job."""
        now = time.monotonic()
        held = Held(lease, entry, consumer, now + timeout, now)
        with self._lock:
            self._held[lease.job_id] = held
        return held

    def let_go(self, held: Held) -> None:
        """The job is no longer ours to keep."""
        with self._lock:
            self._held.pop(held.lease.job_id, None)

    def held(self) -> list[Held]:
        with self._lock:
            return list(self._held.values())

    def _run(self) -> None:
        last = time.monotonic()
        while not self._ended.wait(min(self.pace.tick, self.pace.beat)):
            now = time.monotonic()
            for held in self.held():
                self._watch(held, now)
            if now - last >= self.pace.beat:
                last = now
                self.beat()

    def _watch(self, held: Held, now: float) -> None:
        if now > held.deadline:
            held.stop.set(TIMED_OUT)
        if held.stop.is_set():
            held.stopped_at = min(held.stopped_at, now)
            if now - held.stopped_at > self.pace.grace:
                self.give_up(held)

    def beat(self) -> None:
        """Renew every lease first, the entries after: an entry then never looks idle before its lease has ended."""
        held = self.held()
        for one in held:
            self._renew(one)
        by_consumer: dict[str, list[Entry]] = {}
        for one in held:
            if one.entry and not one.stop.is_set():
                by_consumer.setdefault(one.consumer, []).append(one.entry)
        with contextlib.suppress(Unavailable):
            for consumer, entries in by_consumer.items():
                self.stream.keep(entries, consumer)

    def _renew(self, held: Held) -> None:
        started = time.monotonic()
        try:
            ours = self.node.jobs.leases.renew(held.lease)
        except Unavailable:
            return  # nobody else can take it either, while the database is away; the fence decides afterwards
        if ours:
            held.renewed = started
        else:
            log.warning("ai_lease_lost", job=held.lease.job_id)
            held.stop.set(LOST)
