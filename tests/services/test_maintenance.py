"""Maintenance: jobs wait, storing too where it is refused, draining ends when nothing runs, nothing is lost."""

import dataclasses
import threading
import time

import psycopg
import pytest

from pacs import node as nodes
from pacs.domain.events import Source
from pacs.errors import BadRequest, Reason, Refused
from pacs.services import gate as gates
from pacs.services import maintenance as windows
from pacs.services.gate import Gate, Maintenance, read
from tests.jobbooks import Archive, to_run
from tests.services.specimens import SOURCE, ct, part10, put, query

OPERATOR = Source("cli", "operator")
PATIENCE = 20.0


@pytest.fixture(scope="module")
def archive(database_url):
    archive = Archive(database_url)
    yield archive
    archive.connection.close()


@pytest.fixture(autouse=True)
def ended(node, archive, monkeypatch):
    for module in (gates, windows):
        monkeypatch.setattr(module, "LOOK_SECONDS", 0.1)
    yield
    archive.sql("DELETE FROM ai_job")
    node.maintenance.off(OPERATOR)
    wait_for(lambda: not node.gate.state().on)


def wait_for(condition, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def refused(node, source=SOURCE):
    try:
        put(node, part10(ct()), source)
    except Refused as error:
        return error
    return None


def run_one(node, archive):
    study = archive.study(quiet=100)
    (job,) = node.jobs.planning.plan(archive.work(study), [to_run()]).queued
    return job


def test_storing_goes_on_and_no_job_starts_unless_stores_are_refused_too(node, archive):
    node.maintenance.on(OPERATOR, message="New disk.")
    job = run_one(node, archive)
    assert node.jobs.leases.paused()
    assert node.jobs.leases.take(job, "w") is None
    wait_for(lambda: node.gate.state().on)
    assert refused(node) is None
    node.maintenance.off(OPERATOR)
    assert node.jobs.leases.take(job, "w") is not None


def test_refused_objects_are_told_why_and_results_of_running_jobs_still_come_in(node):
    put(node, part10(ct()))
    node.maintenance.on(OPERATOR, refuse_stores=True, message="Back at noon.")
    wait_for(lambda: node.gate.state().refuse_stores)
    error = refused(node)
    assert error.reason is Reason.UNAVAILABLE
    assert "Back at noon." in error.message
    assert "again" in error.message
    assert refused(node, Source("ai", "lungs 1.0.0")) is None
    node.maintenance.off(OPERATOR)
    wait_for(lambda: refused(node) is None)


def test_all_processes_hear_of_it_and_keep_it_while_the_database_is_away(settings, node):
    gates = [Gate(settings.database_url, f"test{number}") for number in range(3)]
    assert not any(gate.state().on for gate in gates)
    began = time.monotonic()
    node.maintenance.on(OPERATOR, refuse_stores=True)
    wait_for(lambda: all(gate.refusal("stow") for gate in gates))
    assert time.monotonic() - began < 5
    away = Gate("postgresql:///nowhere?host=/nonexistent", "test")
    assert not away.state().on  # nobody can be asked: nothing could be stored either
    kept = gates[0]
    kept._url = "postgresql:///nowhere?host=/nonexistent"
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE '%test0 gate'"
        )
        connection.execute("UPDATE node_state SET value = '{}' WHERE key = 'maintenance'")
    wait_for(lambda: not gates[1].state().on)
    assert kept.refusal("stow")
    for gate in (*gates, away):
        gate.close()


def test_draining_waits_for_running_jobs_and_names_them_when_the_time_is_over(node, archive):
    job = run_one(node, archive)
    lease = node.jobs.leases.take(job, "worker-7")
    node.maintenance.on(OPERATOR)
    *_, last = node.maintenance.drain(0.5)
    assert not last.nothing
    (line,) = last.lines()
    assert f"job {job} " in line
    assert "worker-7" in line
    threading.Timer(0.8, node.jobs.leases.fail, (lease, "failed", "It failed.")).start()
    *_, last = node.maintenance.drain(PATIENCE)
    assert last.nothing
    assert query(node, "SELECT count(*) FROM ai_job WHERE state IN ('RUNNING', 'STORING')") == [(0,)]


def test_draining_waits_for_objects_that_had_begun_where_storing_is_refused(node):
    put(node, part10(ct()))
    incoming = node.ingest.begin(SOURCE)
    incoming.write(part10(ct()))
    node.maintenance.on(OPERATOR, refuse_stores=True)
    *_, last = node.maintenance.drain(1.0)
    assert last.storing
    assert "still stores" in last.lines()[0]
    assert node.ingest.store(incoming).outcome == "stored"
    *_, last = node.maintenance.drain(PATIENCE)
    assert last.nothing
    assert node.ingest.under_way() == 0


def test_a_process_that_died_holds_nobody_up(node, settings):
    other = nodes.build(dataclasses.replace(settings), component="other")
    put(other, part10(ct()))
    began = other.ingest.begin(SOURCE)
    node.maintenance.on(OPERATOR, refuse_stores=True)
    wait_for(lambda: any("other" in line for line in node.maintenance.remaining().lines()))
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        other.gate._stop.set()
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%other gate'"
        )
    *_, last = node.maintenance.drain(PATIENCE)
    assert last.nothing
    began.abort()
    other.close()


def test_without_refusing_drain_does_not_wait_for_stores(node):
    put(node, part10(ct()))
    incoming = node.ingest.begin(SOURCE)
    node.maintenance.on(OPERATOR)
    *_, last = node.maintenance.drain(PATIENCE)
    assert last.nothing
    incoming.abort()


def test_off_tells_what_happened_and_an_open_window_keeps_its_beginning(node, archive):
    first = node.maintenance.on(OPERATOR)
    again = node.maintenance.on(OPERATOR, message="Longer than thought.")
    assert (again.since, again.message) == (first.since, "Longer than thought.")
    put(node, part10(ct()))
    run_one(node, archive)
    window, happened = node.maintenance.off(OPERATOR)
    assert window.on
    assert (happened.stored, happened.jobs_planned) >= (1, 1)
    assert happened.jobs_queued >= 1
    assert not node.maintenance.off(OPERATOR)[0].on


def test_turning_is_in_the_audit_trail(node):
    node.maintenance.on(OPERATOR, refuse_stores=True)
    node.maintenance.off(OPERATOR)
    rows = query(
        node, "SELECT actor, detail ->> 'state' FROM audit WHERE action = 'maintenance' ORDER BY id DESC LIMIT 2"
    )
    assert rows == [("operator", "off"), ("operator", "on")]


@pytest.mark.parametrize("message", ["two\nlines", "x" * 501, "\x1b[31mred"])
def test_a_message_that_no_banner_can_show_is_refused(node, message):
    with pytest.raises(BadRequest):
        node.maintenance.on(OPERATOR, message=message)


def test_a_row_of_another_hand_is_read_for_what_it_says():
    assert read({"state": "on"}) == Maintenance("on")
    assert read({"state": "on", "since": "yesterday", "colour": "red"}) == Maintenance("on")
    assert read({"state": "on", "since": "2026-01-01T00:00:00"}).since == ""
    assert read(None) == Maintenance()
    assert Maintenance("on").sentence.startswith("Maintenance is on")


def test_a_gate_whose_log_is_closed_hears_all_the_same(settings, node, monkeypatch):
    class Closed:
        def __getattr__(self, name):
            raise ValueError("I/O operation on closed file.")

    monkeypatch.setattr(gates, "log", Closed())
    gate = Gate(settings.database_url, "test")
    for turn in ("on", "off", "on"):
        getattr(node.maintenance, turn)(OPERATOR)
        wait_for(lambda turn=turn: gate.state().state == turn)
    gate.close()
