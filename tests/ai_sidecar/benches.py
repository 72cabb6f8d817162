"""Places where runs happen, for tests of the worker: what they do is set from outside."""

import threading
from collections.abc import Callable

from ai_sidecar.heartbeat import Stop
from ai_sidecar.worker import Outcome, Stopped
from pacs.domain.jobs import Lease, Result

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SR = "1.2.840.10008.5.1.4.1.1.88.34"


class FakeBench:
    """Makes two results named after the job's key; `ran` and `stored` remember what happened."""

    def __init__(self, behave: Callable[[Lease, Stop], None] | None = None) -> None:
        self.behave = behave or (lambda lease, stop: None)
        self.before_store: Callable[[Lease], None] = lambda lease: None
        self.ran: list[int] = []
        self.stored: dict[str, int] = {}
        self.is_ready = True
        self._lock = threading.Lock()

    def ready(self) -> bool:
        return self.is_ready

    def run(self, lease: Lease, stop: Stop) -> Outcome:
        with self._lock:
            self.ran.append(lease.job_id)
        self.behave(lease, stop)
        if stop.is_set():
            raise Stopped("Told to stop.")
        return Outcome((("seg", SEG), ("sr", SR)), "FakeProvider", {"infer": 0.1}, {"slices": 3})

    def store(self, lease: Lease, made: tuple[str, str]) -> Result:
        self.before_store(lease)
        role, sop_class = made
        sop = f"2.25.{lease.job_id}.{1 if role == 'seg' else 2}"
        with self._lock:
            self.stored[sop] = self.stored.get(sop, 0) + 1
        return Result(role, sop_class, sop, f"{sop}.9")


def until_stopped(lease: Lease, stop: Stop) -> None:
    """A run that goes on until it is told to stop."""
    told = threading.Event()
    stop.call(told.set)
    assert told.wait(60)
