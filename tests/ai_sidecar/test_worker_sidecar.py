"""The sidecar on a whole node: originals in, completeness, plan, run, results back through the node's door.

The model is a stand-in that copies a slice; the rest is real.
"""

import contextlib
import io
import threading
import time
from types import SimpleNamespace

import pydicom
import pytest
import redis
from pydicom.data import get_testdata_file

from ai_sidecar.heartbeat import Pace
from ai_sidecar.local import Local
from ai_sidecar.ports import Interrupted, Outcome, ResultFile, derived_uid, job_key
from ai_sidecar.runtime import Device
from ai_sidecar.server import Sidecar
from pacs.domain.events import Source
from pacs.domain.jobs import Decision
from pacs.domain.levels import Scope
from pacs.errors import Unavailable
from pacs.services.stability import DUTIES
from tests.ai_sidecar.benches import SEG
from tests.jobbooks import uid

CT = "1.2.840.10008.5.1.4.1.1.2"
PACE = Pace(beat=0.2, block=0.1, poll=0.1, idle=1.0, tick=0.1, grace=2.0, drain=5.0)
PATIENCE = 40.0


def ct(study_uid, series_uid, number):
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = study_uid, series_uid, uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.InstanceNumber = str(number)
    return written(dataset)


def written(dataset):
    buffer = io.BytesIO()
    dataset.preamble = bytes(128)
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def put(node, content):
    incoming = node.ingest.begin(Source("stow", "test"))
    incoming.write(content)
    return node.ingest.store(incoming)


def segmentation(source, lease):
    """The stand-in of a model's result: a slice under the class of segmentations, the same bytes for the same job."""
    first = min(source.instances, key=lambda instance: instance.sop_instance_uid)
    dataset = pydicom.dcmread(io.BytesIO(first.read()))
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SEG
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = derived_uid(lease.job_key, "seg")
    dataset.SeriesInstanceUID, dataset.Modality = derived_uid(lease.job_key, "series"), "SEG"
    names = (SEG, str(dataset.SOPInstanceUID), str(dataset.SeriesInstanceUID))
    return ResultFile("seg", *names, written(dataset))


class StandIn:
    """A bench whose model takes every CT series."""

    def __init__(self, node):
        self.local = Local(node)
        self.runtime = SimpleNamespace(device=Device("cpu", "CPUExecutionProvider"))
        self.shelf = SimpleNamespace(scan=lambda: None)
        self.leases = []
        self.pause = threading.Event()

    def ready(self):
        return not self.runtime.device.problem

    def decide(self, work):
        return [
            self._decision(series)
            for series in self.local.facts(work.study_uid)
            if {instance.sop_class_uid for instance in series.instances} == {CT}
        ]

    def _decision(self, series):
        inputs = [(one.sop_instance_uid, one.data_sha256) for one in series.instances]
        named = [{"sop_instance_uid": sop, "data_sha256": digest} for sop, digest in inputs]
        key = job_key("m", "m", inputs, {})
        return Decision("lungs", "1.0.0", "m", (series.series_uid,), key, named)

    def run(self, lease, stop):
        self.leases.append(lease)
        while self.pause.is_set():
            if stop.is_set():
                raise Interrupted("Told to stop.")
            time.sleep(0.02)
        return Outcome(segmentation(self.local.source(lease), lease), None, {"infer": 0.0}, ["Copied."], "StandIn")

    def store(self, lease, made):
        return self.local.store(lease, made)

    def done(self, lease):
        pass


@pytest.fixture(scope="module")
def clerk(node):
    """The clerk's duties on jobs, done over and over."""
    over = threading.Event()

    def work():
        while not over.wait(0.05):
            for duty in DUTIES:
                with contextlib.suppress(Unavailable):
                    duty.function(node)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.fixture
def sidecar(node, clerk):
    """A running sidecar on a stand-in."""
    sidecar = Sidecar(node, StandIn(node), PACE)
    stop = threading.Event()
    thread = threading.Thread(target=sidecar.run, args=(stop,))
    thread.start()
    yield sidecar
    stop.set()
    thread.join()


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def states(node, study):
    return [job["state"] for job in node.jobs.timeline(study)["jobs"]]


def send(node, study, series, numbers=range(3)):
    files = [ct(study, series, number) for number in numbers]
    for content in files:
        put(node, content)
    return files


def test_a_study_gets_its_result_once(node, sidecar):
    study, series = uid(), uid()
    files = send(node, study, series)
    wait_for(lambda: "SUCCEEDED" in states(node, study))
    timeline = node.jobs.timeline(study)
    assert timeline["completeness"]["evidence"]["signal"] == "study_quiet"
    (result,) = timeline["results"]
    assert node.retrieve.locate(Scope(study, result["series_uid"], result["sop_instance_uid"]))
    for content in files:  # the same study again
        assert put(node, content).outcome == "known"
    time.sleep(3)
    again = node.jobs.timeline(study)
    assert (len(again["jobs"]), again["results"]) == (1, timeline["results"])
    assert len(sidecar.bench.leases) == 1
    assert again["completeness"]["state"] == "confirmed"  # its own result did not open it


def test_a_late_instance_supersedes_the_result_of_its_series_only(node, sidecar):
    study, early, other = uid(), uid(), uid()
    send(node, study, early)
    send(node, study, other)
    wait_for(lambda: states(node, study) == ["SUCCEEDED"] * 2)
    send(node, study, early, [9])
    wait_for(lambda: sorted(states(node, study)) == ["SUCCEEDED", "SUCCEEDED", "SUPERSEDED"])
    timeline = node.jobs.timeline(study)
    old = next(job for job in timeline["jobs"] if job["state"] == "SUPERSEDED")
    assert old["series_uids"] == [early]
    newest = sidecar.bench.leases[-1]
    assert newest.predecessor[0]["sop_instance_uid"] == old["results"][0]["sop_instance_uid"]
    assert old["results"][0]["state"] == "superseded"
    hidden = Scope(study, old["results"][0]["series_uid"], old["results"][0]["sop_instance_uid"])
    assert node.retrieve.locate(hidden)  # still there for those who name it


def test_a_flush_of_redis_in_between_changes_nothing(node, sidecar, settings):
    sidecar.bench.pause.set()
    studies = [uid() for _ in range(3)]
    for study in studies:
        send(node, study, uid(), range(1))
    wait_for(lambda: all(states(node, study) for study in studies))
    with redis.Redis.from_url(settings.redis_url) as client:
        client.flushdb()
    sidecar.bench.pause.clear()
    wait_for(lambda: all(states(node, study) == ["SUCCEEDED"] for study in studies))
    assert sorted(lease.study_uid for lease in sidecar.bench.leases) == sorted(studies)


def test_a_sidecar_without_its_device_is_not_ready_and_jobs_wait(node, clerk):
    sidecar = Sidecar(node, StandIn(node), PACE)
    sidecar.bench.runtime.device = Device("cuda", problem="No GPU works here.")
    sidecar.tell()
    with pytest.raises(Unavailable, match="No GPU works here"):
        node.models.check_ready()
    assert not node.health.ready().ready
    assert not sidecar.worker.bench.ready()
    node.models.absent(sidecar.owner)
    node.models.check_ready()
    sidecar.worker.stream.close()


def test_a_stopped_sidecar_gives_its_job_back_and_another_ends_it(node, clerk):
    study = uid()
    first, stop = Sidecar(node, StandIn(node), PACE), threading.Event()
    first.worker.pace = Pace(**{name: getattr(PACE, name) for name in Pace.__slots__} | {"drain": 0.1})
    first.bench.pause.set()
    thread = threading.Thread(target=first.run, args=(stop,))
    thread.start()
    send(node, study, uid(), range(1))
    wait_for(lambda: states(node, study) == ["RUNNING"])
    stop.set()
    thread.join()
    assert states(node, study) == ["QUEUED"]
    second, stop = Sidecar(node, StandIn(node), PACE), threading.Event()
    thread = threading.Thread(target=second.run, args=(stop,))
    thread.start()
    wait_for(lambda: states(node, study) == ["SUCCEEDED"])
    stop.set()
    thread.join()
    assert node.jobs.timeline(study)["jobs"][0]["attempts"] == 1
