"""The worker on a real Postgres and Valkey with a bench that does as it is told."""

import signal
import subprocess
import sys
import threading
import time

import psycopg
import pytest
import redis

from ai_sidecar.heartbeat import Pace, Stop
from ai_sidecar.ports import RunFailed, Unsuitable
from ai_sidecar.worker import Worker
from pacs.errors import Unavailable
from tests.ai_sidecar.benches import FakeBench, until_stopped
from tests.jobbooks import Archive, guard_moves, to_run

PACE = Pace(beat=0.1, block=0.05, poll=0.05, idle=0.5, tick=0.05, grace=0.5, drain=0.3, farewell=2.0)
PATIENCE = 15.0


@pytest.fixture(scope="module")
def archive(database_url):
    guard_moves(database_url)
    archive = Archive(database_url)
    yield archive
    archive.connection.close()


@pytest.fixture(scope="module")
def client(redis_url):
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture(autouse=True)
def clean(archive, client, node):
    client.flushdb()
    archive.sql("DELETE FROM outbox")
    archive.sql("DELETE FROM ai_result")
    archive.sql("DELETE FROM ai_job")
    node.jobs.leases.seconds = 1.5
    node.reconciler.check_epoch()


@pytest.fixture
def queue(node, archive):
    """Queue so many jobs of a study; returns their ids. They are published."""

    def make(count=1, **given):
        study = archive.study(quiet=100)
        decisions = [to_run(series_uids=(f"1.{number}",), **given) for number in range(count)]
        queued = node.jobs.planning.plan(archive.work(study), decisions).queued
        node.relay.pump()
        return queued

    return make


@pytest.fixture
def work(node):
    """Start a worker on a bench; ended when the test is."""
    started = []

    def start(bench, *, slots=1, **given):
        worker = Worker(
            given.pop("on", node), bench, owner=f"w{len(started)}", slots=slots, pace=given.pop("pace", PACE)
        )
        worker.end_process = given.pop("end_process", worker.end_process)
        worker.start()
        started.append(worker)
        return worker

    yield start
    for worker in started:
        if worker.heartbeat._thread.is_alive():
            worker.drain(0)


def wait_for(condition, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def state(node, job):
    return node.jobs.get(job)["state"]


def all_done(node, jobs):
    return lambda: {state(node, job) for job in jobs} == {"SUCCEEDED"}


def test_a_job_runs_once_and_leaves_its_results(node, queue, work, client):
    bench = FakeBench()
    work(bench)
    (job,) = queue()
    wait_for(all_done(node, [job]))
    row = node.jobs.get(job)
    assert [result["role"] for result in row["results"]] == ["seg", "sr"]
    assert row["provider"] == "FakeProvider"
    assert row["timings"].keys() >= {"infer", "run", "store"}
    assert bench.ran == [job]
    wait_for(lambda: bench.over == [job])
    wait_for(lambda: client.xlen("ai:jobs:normal") == 0)


def test_many_workers_run_each_job_once(node, queue, work):
    benches = [FakeBench() for _ in range(3)]
    jobs = queue(30)
    for bench in benches:
        work(bench, slots=2)
    wait_for(all_done(node, jobs))
    assert sorted(job for bench in benches for job in bench.ran) == sorted(jobs)


def test_urgent_comes_first_and_low_still_moves(node, queue, work):
    low = queue(2, priority="low")
    urgent = queue(8, priority="urgent")
    bench = FakeBench()
    work(bench)
    wait_for(all_done(node, [*low, *urgent]))
    assert bench.ran[0] in urgent
    assert low[0] in bench.ran[:3]
    assert low[1] in bench.ran[:6]


def test_a_flush_with_twenty_queued_loses_none_and_doubles_none(node, queue, work, client):
    jobs = queue(20)
    client.flushdb()
    bench = FakeBench()
    work(bench)
    node.reconciler.check_epoch()
    wait_for(all_done(node, jobs))
    assert sorted(bench.ran) == sorted(jobs)


def test_a_flush_in_mid_run_does_no_harm(node, queue, work, client):
    jobs = queue(5)
    bench = FakeBench(lambda lease, stop: client.flushdb())
    work(bench)

    def clerk():
        node.reconciler.check_epoch()
        return all_done(node, jobs)()

    wait_for(clerk)
    assert sorted(bench.ran) == sorted(jobs)


def test_without_redis_the_database_is_asked(node, queue, work, archive, monkeypatch):
    jobs = queue(3)
    bench = FakeBench()
    worker = Worker(node, bench, owner="far", pace=PACE)
    worker.stream.close()
    from pacs.bus.stream import Stream

    worker.stream = worker.heartbeat.stream = Stream("redis://127.0.0.1:1/0")
    worker.start()
    wait_for(all_done(node, jobs))
    worker.drain(0)
    assert sorted(bench.ran) == sorted(jobs)


@pytest.mark.parametrize("place", ["RUNNING", "STORING"])
def test_a_killed_workers_job_is_taken_over(node, queue, work, settings, place):
    (job,) = queue()
    command = [sys.executable, "-m", "tests.ai_sidecar.doomed_worker", place]
    arguments = [settings.database_url, settings.redis_url, str(settings.home)]
    doomed = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert doomed.stdout.readline() == "held\n"
        assert state(node, job) == place
    finally:
        doomed.send_signal(signal.SIGKILL)
        doomed.wait()
        doomed.stdout.close()
    bench = FakeBench()
    work(bench)

    def clerk():
        node.reconciler.recover()
        node.relay.pump()
        return state(node, job) == "SUCCEEDED"

    wait_for(clerk)
    assert node.jobs.get(job)["attempts"] == 2
    assert len(node.jobs.get(job)["results"]) == 2


def test_an_entry_of_a_dead_worker_is_taken_over_without_the_clerk(node, queue, work, archive):
    (job,) = queue()
    worker = Worker(node, FakeBench(), owner="dead", pace=PACE)
    assert worker.stream.take("dead/0") is not None
    assert node.jobs.leases.take(job, "dead")
    archive.sql("UPDATE ai_job SET lease_until = now()")
    work(FakeBench())
    wait_for(all_done(node, [job]))
    worker.stream.close()


def test_a_frozen_worker_cannot_commit(node, queue, work, archive, monkeypatch):
    (job,) = queue()
    frozen, thaw = threading.Event(), threading.Event()

    def freeze(lease):
        frozen.set()
        thaw.wait(PATIENCE)

    slow = FakeBench()
    slow.before_store = freeze
    worker = work(slow)
    monkeypatch.setattr(worker.heartbeat, "beat", lambda: None)
    assert frozen.wait(PATIENCE)
    worker._stopping.set()
    archive.sql("UPDATE ai_job SET lease_until = now() - interval '1 second'")
    node.reconciler.recover()
    node.relay.pump()
    quick = FakeBench()
    work(quick)
    wait_for(all_done(node, [job]))
    finished = node.jobs.get(job)["finished_at"]
    thaw.set()
    worker._slots[0].thread.join(PATIENCE)
    row = node.jobs.get(job)
    assert (row["attempts"], row["finished_at"], len(row["results"])) == (2, finished, 2)


def test_a_failing_run_climbs_the_ladder_until_it_is_dead(node, queue, work, archive):
    def fail(lease, stop):
        raise RunFailed("bad_shape", "The output has the wrong shape.")

    (job,) = queue(max_attempts=3)
    bench = FakeBench(fail)
    work(bench)
    for attempts in (1, 2):
        wait_for(lambda: state(node, job) == "RETRY_WAIT")
        assert node.jobs.get(job)["attempts"] == attempts
        archive.sql("UPDATE ai_job SET due_at = now()")
        node.reconciler.recover()
        node.relay.pump()
    wait_for(lambda: state(node, job) == "DEAD")
    row = node.jobs.get(job)
    assert (row["reason"], row["message"]) == ("bad_shape", "The output has the wrong shape.")
    bench.behave = lambda lease, stop: None
    node.jobs.retry(job)
    node.relay.pump()
    wait_for(all_done(node, [job]))


def test_a_crash_is_told_by_its_type_never_by_its_words(node, queue, work):
    def crash(lease, stop):
        raise ValueError("PatientName DOE^JANE")

    (job,) = queue()
    work(FakeBench(crash))
    wait_for(lambda: state(node, job) == "RETRY_WAIT")
    row = node.jobs.get(job)
    assert row["reason"] == "crashed"
    assert "ValueError" in row["message"]
    assert "DOE" not in str(row)


def test_a_skip_and_a_permanent_failure_end_the_job(node, queue, work):
    errors = iter([Unsuitable("tilted", "The gantry is tilted."), RunFailed("model_gone", "Gone.", permanent=True)])

    def refuse(lease, stop):
        raise next(errors)

    jobs = queue(2)
    work(FakeBench(refuse))
    wait_for(lambda: {state(node, job) for job in jobs} == {"SKIPPED", "DEAD"})


def test_a_run_past_its_time_is_stopped_and_tried_again(node, queue, work):
    (job,) = queue(timeout_s=0.2)
    work(FakeBench(until_stopped))
    wait_for(lambda: state(node, job) == "RETRY_WAIT")
    assert node.jobs.get(job)["reason"] == "timed_out"


def test_a_run_that_does_not_stop_takes_the_process_with_it(node, queue, work):
    jobs = queue(2, timeout_s=0.2)
    ended, thaw = threading.Event(), threading.Event()
    bench = FakeBench(lambda lease, stop: thaw.wait(PATIENCE) and None)
    work(bench, slots=2, end_process=lambda code: ended.set())
    assert ended.wait(PATIENCE)
    assert {state(node, job) for job in jobs} <= {"RETRY_WAIT", "QUEUED"}
    thaw.set()


def test_a_cancelled_run_is_stopped_and_stores_nothing(node, queue, work):
    (job,) = queue()
    bench = FakeBench(until_stopped)
    work(bench)
    wait_for(lambda: bench.ran)
    node.jobs.cancel(job)
    wait_for(lambda: not node.jobs.pending(node.jobs.get(job)["study_uid"]))
    time.sleep(0.3)
    assert bench.stored == {}
    assert state(node, job) == "CANCELLED"


def test_a_drained_worker_finishes_what_it_can(node, queue, work):
    (job,) = queue()
    bench = FakeBench(lambda lease, stop: time.sleep(0.2))
    worker = work(bench)
    wait_for(lambda: bench.ran)
    worker.drain(5)
    assert state(node, job) == "SUCCEEDED"


def test_a_drained_worker_gives_back_what_it_cannot_finish(node, queue, work, client):
    running, waiting = queue(2)
    bench = FakeBench(until_stopped)
    worker = work(bench)
    wait_for(lambda: bench.ran)
    worker.drain(0.1)
    assert [node.jobs.get(job)["attempts"] for job in (running, waiting)] == [0, 0]
    assert {state(node, job) for job in (running, waiting)} == {"QUEUED"}
    node.relay.pump()
    work(FakeBench())
    wait_for(all_done(node, [running, waiting]))


def test_nothing_starts_during_maintenance_and_all_after_it(node, queue, work, archive):
    archive.sql("INSERT INTO node_state (key, value) VALUES ('maintenance', '{\"state\": \"on\"}')")
    jobs = queue(3)
    bench = FakeBench()
    work(bench)
    time.sleep(0.4)
    assert bench.ran == []
    archive.sql("DELETE FROM node_state WHERE key = 'maintenance'")
    wait_for(all_done(node, jobs))


def test_jobs_wait_for_a_bench_that_is_not_ready(node, queue, work):
    bench = FakeBench()
    bench.is_ready = False
    (job,) = queue()
    work(bench)
    time.sleep(0.4)
    assert state(node, job) == "QUEUED"
    bench.is_ready = True
    wait_for(all_done(node, [job]))


def test_the_database_restarting_in_mid_run_is_survived(node, queue, work, settings):
    (job,) = queue()

    def cut(lease, stop):
        with psycopg.connect(settings.database_url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name LIKE 'filmroom%'"
            )

    bench = FakeBench(cut)
    work(bench)
    wait_for(lambda: bench.ran)
    wait_for(lambda: _tried(lambda: state(node, job)) == "SUCCEEDED")
    assert bench.ran == [job]


def test_storing_is_insisted_on_while_the_node_is_away(node, queue, work):
    (job,) = queue()
    answers = iter([Unavailable("Away."), Unavailable("Away."), None, None])

    def perhaps(lease):
        error = next(answers)
        if error:
            raise error

    bench = FakeBench()
    bench.before_store = perhaps
    work(bench)
    wait_for(all_done(node, [job]))
    assert node.jobs.get(job)["attempts"] == 1


def test_a_stop_calls_back_once_even_when_late():
    stop, calls = Stop(), []
    stop.call(lambda: calls.append("early"))
    stop.set("lost")
    stop.set("timed_out")
    stop.call(lambda: calls.append("late"))
    assert (calls, stop.why) == (["early", "late"], "lost")


def _tried(act):
    try:
        return act()
    except Unavailable:
        return None
