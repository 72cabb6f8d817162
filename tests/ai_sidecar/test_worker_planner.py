"""The planner: complete studies become jobs, soon, once, and in spite of errors."""

import threading
import time

import pytest

from ai_sidecar.planner import Planner
from pacs.errors import NotFound
from tests.jobbooks import Archive, not_to_run, to_run

PATIENCE = 15.0


@pytest.fixture(scope="module")
def archive(database_url):
    archive = Archive(database_url)
    yield archive
    archive.connection.close()


@pytest.fixture(autouse=True)
def clean(archive):
    for table in ("outbox", "ai_result", "ai_job", "ai_study", "ai_request"):
        archive.sql(f"DELETE FROM {table}")


@pytest.fixture
def plan(node):
    """Start a planner that decides as told."""
    started = []

    def start(decide, ready=lambda: True):
        planner = Planner(node, decide, ready)
        planner.start()
        started.append(planner)
        return planner

    yield start
    for planner in started:
        planner.end()


def complete(node, archive):
    study = archive.study(quiet=100)
    node.relay.pump()
    node.ledger.judge()
    return study


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_a_complete_study_is_planned_when_it_is_told(node, archive, plan, monkeypatch):
    monkeypatch.setattr("ai_sidecar.planner.LOOK_SECONDS", 600.0)
    plan(lambda work: [to_run()])
    time.sleep(0.5)  # it listens by now, and has looked once
    study = complete(node, archive)
    wait_for(lambda: archive.states(study) == ["QUEUED"])


def test_two_planners_make_one_plan(node, archive, plan):
    decision = to_run()
    studies = []

    def decide(work):
        studies.append(work.study_uid)
        return [decision]

    plan(decide), plan(decide)
    study = complete(node, archive)
    wait_for(lambda: archive.states(study) == ["QUEUED"])
    time.sleep(0.3)
    assert archive.states(study) == ["QUEUED"]


def test_a_planner_that_is_not_ready_leaves_studies_alone(node, archive, plan):
    ready = threading.Event()
    plan(lambda work: [not_to_run()], ready.is_set)
    study = complete(node, archive)
    time.sleep(0.5)
    assert archive.states(study) == []
    ready.set()
    wait_for(lambda: archive.states(study) == ["SKIPPED"])


def test_a_study_that_breaks_the_planner_does_not_stop_the_others(node, archive, plan):
    broken = complete(node, archive)

    def decide(work):
        if work.study_uid == broken:
            raise ValueError("PatientName DOE^JANE")
        return [to_run()]

    plan(decide)
    study = complete(node, archive)
    wait_for(lambda: archive.states(study) == ["QUEUED"])
    evidence = node.jobs.timeline(broken)["completeness"]["evidence"]
    assert "ValueError" in evidence["plan_error"]
    assert "DOE" not in str(evidence)


def test_a_study_deleted_while_it_is_planned_is_let_go(node, archive, plan):
    gone = complete(node, archive)

    def decide(work):
        archive.delete_study(work.study_uid)
        raise NotFound("There is no such study here.")

    plan(decide)
    wait_for(lambda: not archive.sql("SELECT FROM study WHERE study_uid = %s", gone))
    assert archive.sql("SELECT FROM ai_study") == []


def test_an_explicit_run_is_planned_at_once(node, archive, plan):
    asked = []

    def decide(work):
        asked.append((work.study_uid, work.final, work.priority))
        return [to_run()]

    plan(decide)
    study = archive.study()
    node.jobs.run(study, priority="urgent")
    wait_for(lambda: (study, True, "urgent") in asked and archive.states(study) == ["QUEUED"])
    wait_for(lambda: node.jobs.timeline(study)["completeness"]["planned"])
    assert node.jobs.timeline(study)["completeness"]["evidence"]["signal"] == "run"
