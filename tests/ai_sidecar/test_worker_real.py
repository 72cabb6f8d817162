"""The sidecar with the package that is shipped: an invented chest in, segmentation and report out, twice the same."""

import contextlib
import io
import threading
import time
from dataclasses import replace

import pydicom
import pytest

from ai_sidecar.bench import LocalBench
from ai_sidecar.heartbeat import Pace, Stop
from ai_sidecar.server import Sidecar
from pacs.domain.events import Source
from pacs.domain.levels import Scope
from pacs.errors import Unavailable
from pacs.services.phantom import ChestStudy, files
from pacs.services.stability import DUTIES

PACE = Pace(beat=0.5, block=0.2, poll=0.2, idle=1.0, tick=0.1)
PATIENCE = 90.0
STUDY = ChestStudy("worker", "P1", "WORKER^TEST", slices=24, size=128)


def put(node, content):
    incoming = node.ingest.begin(Source("stow", "test"))
    incoming.write(content)
    return node.ingest.store(incoming)


def once(node):
    for duty in DUTIES:
        with contextlib.suppress(Unavailable):
            duty.function(node)


@pytest.fixture(scope="module")
def timeline(node):
    """The study's timeline when all is done."""
    for content in files(STUDY):
        put(node, content)
    sidecar, stop = Sidecar(node, LocalBench(node), PACE), threading.Event()
    thread = threading.Thread(target=sidecar.run, args=(stop,))
    thread.start()
    deadline = time.monotonic() + PATIENCE
    while not (done := node.jobs.timeline(STUDY.study_uid))["results"]:
        assert time.monotonic() < deadline, done
        once(node)
        time.sleep(0.1)
    stop.set()
    thread.join()
    return node.jobs.timeline(STUDY.study_uid)


def stored(node, result):
    (row,) = node.retrieve.locate(Scope(STUDY.study_uid, result["series_uid"], result["sop_instance_uid"]))
    with node.retrieve.open(row) as file:
        return row, file.read()


def test_a_chest_gets_a_segmentation_and_a_report_that_cites_it(node, timeline):
    seg, sr = sorted(timeline["results"], key=lambda result: result["role"])
    segmentation = pydicom.dcmread(io.BytesIO(stored(node, seg)[1]))
    report = pydicom.dcmread(io.BytesIO(stored(node, sr)[1]))
    assert {item.SegmentLabel.lower() for item in segmentation.SegmentSequence} >= {"right lung", "left lung"}
    assert segmentation.SOPInstanceUID in str(report)
    assert (segmentation.PatientName, report.PatientName) == ("WORKER^TEST", "WORKER^TEST")


def test_the_node_has_the_models_state_and_the_runs_facts(node, timeline):
    assert ("ct-lung-body", "enabled") in {(row["name"], row["state"]) for row in node.models.list()}
    (job,) = timeline["jobs"]
    assert (job["state"], job["provider"]) == ("SUCCEEDED", "CPUExecutionProvider")
    assert job["timings"].keys() >= {"decode", "infer", "measure", "write", "store"}
    assert not list(node.settings.results_dir.iterdir())  # nothing of it is left in the spool


def test_a_second_run_makes_and_stores_the_same_bytes_also_after_an_upgrade(node, timeline, monkeypatch):
    monkeypatch.setattr("ai_sidecar.bench.version", lambda _: "99.0")
    (job,) = timeline["jobs"]
    before = [stored(node, result) for result in timeline["results"]]
    with node.books.transaction() as cursor:
        cursor.execute("UPDATE ai_job SET state = 'QUEUED' WHERE id = %s", (job["id"],))
    lease = node.jobs.leases.take(job["id"], "again")
    bench = LocalBench(node)
    bench.shelf.scan()
    outcome = bench.run(lease, Stop())
    assert {file.content for file in outcome.files} == {content for _, content in before}
    assert [bench.store(lease, file).sop_instance_uid for file in outcome.files]
    assert [stored(node, result) for result in timeline["results"]] == before
    bench.done(lease)


def test_what_an_earlier_attempt_made_is_stored_without_running_the_model(node, timeline, monkeypatch):
    (job,) = timeline["jobs"]
    bench = LocalBench(node)
    bench.shelf.scan()
    with node.books.transaction() as cursor:
        cursor.execute("UPDATE ai_job SET state = 'QUEUED' WHERE id = %s", (job["id"],))
    lease = node.jobs.leases.take(job["id"], "again")
    first = bench.run(lease, Stop())
    monkeypatch.setattr("ai_sidecar.pipeline.run", lambda *_: pytest.fail("the model ran again"))
    assert bench.run(lease, Stop()).files == first.files
    bench.done(lease)


def test_a_study_without_images_for_the_model_says_why(node, timeline):
    bench = LocalBench(node)
    bench.shelf.scan()
    node.models.disable("ct-lung-body")
    node.jobs.run(STUDY.study_uid)
    work = node.jobs.planning.next_work()
    assert [decision.reason for decision in bench.decide(work)] == ["model_disabled"]
    node.models.enable("ct-lung-body")
    (decision,) = bench.decide(replace(work, model="ct-lung-body"))
    assert decision.job_key


def test_a_missing_slice_is_waited_for_and_named_until_it_comes(node, timeline):
    gapped = ChestStudy("gapped", "P2", "GAP^TEST", slices=24, size=64)
    contents = list(files(gapped))
    late = contents.pop(11)
    for content in contents:
        put(node, content)
    bench = LocalBench(node)
    bench.shelf.scan()
    plan_when_complete(node, bench, gapped.study_uid)
    waiting = node.jobs.timeline(gapped.study_uid)
    assert [(job["state"], job["reason"]) for job in waiting["jobs"]] == [("PLANNED", "missing_slices")]
    assert (waiting["completeness"]["state"], waiting["completeness"]["missing"]) == (
        "likely",
        [waiting["jobs"][0]["message"]],
    )
    put(node, late)
    plan_when_complete(node, bench, gapped.study_uid)
    (job,) = node.jobs.timeline(gapped.study_uid)["jobs"]
    assert (job["state"], node.jobs.get(job["id"])["inputs"]) == ("QUEUED", 24)


def plan_when_complete(node, bench, study_uid):
    """Let the clerk judge and the planner plan, as often as it takes."""
    deadline = time.monotonic() + PATIENCE
    while True:
        assert time.monotonic() < deadline
        once(node)
        work = node.jobs.planning.next_work()
        if work is not None:
            node.jobs.planning.plan(work, bench.decide(work))
            if work.study_uid == study_uid:
                return
        time.sleep(0.1)
