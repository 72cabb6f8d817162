"""Places where runs happen, for tests of the worker: what they do is set from outside."""

import threading
from collections.abc import Callable

from ai_sidecar.heartbeat import Stop
from ai_sidecar.ports import Interrupted, Outcome, ResultFile, derived_uid
from pacs.domain.jobs import Lease, Result

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SR = "1.2.840.10008.5.1.4.1.1.88.34"


class FakeBench:
    """Makes two results named after the job's key; `ran` and `stored` remember what happened."""

    def __init__(self, behave: Callable[[Lease, Stop], None] | None = None) -> None:
        self.behave = behave or (lambda lease, stop: None)
        self.before_store: Callable[[Lease], None] = lambda lease: None
        self.ran: list[int] = []
        self.over: list[int] = []
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
            raise Interrupted("Told to stop.")
        seg, sr = _file(lease, "seg", SEG), _file(lease, "sr", SR)
        return Outcome(seg, sr, {"infer": 0.1}, ["3 slices, 1 mm apart."], "FakeProvider")

    def store(self, lease: Lease, made: ResultFile) -> Result:
        self.before_store(lease)
        with self._lock:
            self.stored[made.sop_instance_uid] = self.stored.get(made.sop_instance_uid, 0) + 1
        return Result(made.role, made.sop_class_uid, made.sop_instance_uid, made.series_uid)

    def done(self, lease: Lease) -> None:
        self.over.append(lease.job_id)


def _file(lease: Lease, role: str, sop_class_uid: str) -> ResultFile:
    sop_instance_uid = derived_uid(lease.job_key, role)
    return ResultFile(role, sop_class_uid, sop_instance_uid, derived_uid(lease.job_key, f"{role} series"), b"")


def until_stopped(lease: Lease, stop: Stop) -> None:
    """A run that goes on until it is told to stop."""
    told = threading.Event()
    stop.call(told.set)
    assert told.wait(60)
