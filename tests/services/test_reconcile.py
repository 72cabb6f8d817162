"""Ledger, relay and reconciler on a real Postgres and Valkey: nothing is lost, whatever Redis forgets."""

import pytest
import redis

from pacs.bus.stream import Stream
from pacs.errors import Unavailable
from pacs.index.pool import open_pool
from pacs.services.books import Books
from pacs.services.jobs import Jobs
from pacs.services.ledger import Ledger
from pacs.services.models import Models
from pacs.services.reconcile import Reconciler
from pacs.services.relay import Relay
from pacs.telemetry import Metrics
from tests.jobbooks import Archive, guard_moves, to_run


@pytest.fixture(scope="module")
def books(database_url):
    guard_moves(database_url)
    pool = open_pool(database_url, "test")
    yield Books(pool)
    pool.close()


@pytest.fixture(scope="module")
def archive(database_url):
    archive = Archive(database_url)
    yield archive
    archive.connection.close()


@pytest.fixture(autouse=True)
def clean(archive, client):
    client.flushdb()
    archive.sql("DELETE FROM outbox")
    archive.sql("DELETE FROM ai_result")
    archive.sql("DELETE FROM ai_job")
    archive.sql("DELETE FROM ai_study")


@pytest.fixture(scope="module")
def client(redis_url):
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture(scope="module")
def stream(redis_url):
    stream = Stream(redis_url)
    yield stream
    stream.close()


@pytest.fixture(scope="module")
def jobs(books, settings):
    return Jobs(books, Models(books), settings)


@pytest.fixture(scope="module")
def ledger(books, settings):
    return Ledger(books, settings)


@pytest.fixture(scope="module")
def relay(books, stream):
    return Relay(books, stream)


@pytest.fixture(scope="module")
def reconciler(books, stream):
    return Reconciler(books, stream, Metrics("test"))


def completeness(jobs, study):
    return jobs.timeline(study)["completeness"]


def queue(jobs, archive, count=1, **given):
    study = archive.study(quiet=100)
    decisions = [to_run(series_uids=(f"1.{number}",), **given) for number in range(count)]
    return jobs.planning.plan(archive.work(study), decisions).queued


# ledger


def test_a_study_goes_from_open_to_likely_to_confirmed(jobs, archive, relay, ledger):
    study = archive.study()
    relay.pump()
    assert ledger.judge() == []
    assert completeness(jobs, study)["state"] == "open"
    archive.sql("UPDATE study SET changed_at = now() - interval '1.5 seconds' WHERE study_uid = %s", study)
    assert ledger.judge() == []
    assert completeness(jobs, study)["state"] == "likely"
    archive.sql("UPDATE study SET changed_at = now() - interval '2.5 seconds' WHERE study_uid = %s", study)
    assert ledger.judge() == [study]
    shown = completeness(jobs, study)
    assert (shown["state"], shown["evidence"]["signal"]) == ("confirmed", "study_quiet")


def test_an_original_between_two_looks_keeps_the_study_open(jobs, archive, relay, ledger):
    study = archive.study(quiet=10)
    relay.pump()
    archive.original(study)
    assert ledger.judge() == []
    relay.pump()
    assert completeness(jobs, study)["state"] == "open"


def test_a_late_original_reopens_the_study(jobs, archive, relay, ledger):
    study = archive.study(quiet=10)
    relay.pump()
    assert ledger.judge() == [study]
    work = jobs.planning.next_work()
    jobs.planning.plan(work, [to_run()])
    archive.original(study, quiet=0)
    relay.pump()
    assert completeness(jobs, study)["state"] == "reopened"
    archive.sql("UPDATE study SET changed_at = now() - interval '10 seconds' WHERE study_uid = %s", study)
    assert ledger.judge() == [study]
    assert jobs.planning.next_work().change_seq == 2


def test_a_planned_study_is_not_planned_again(jobs, archive, relay, ledger):
    study = archive.study(quiet=10)
    relay.pump()
    ledger.judge()
    jobs.planning.plan(jobs.planning.next_work(), [])
    assert jobs.planning.next_work() is None
    assert completeness(jobs, study)["planned"]


def test_two_planners_do_not_take_the_same_study(jobs, archive, relay, ledger):
    archive.study(quiet=10)
    relay.pump()
    ledger.judge()
    assert jobs.planning.next_work() is not None
    assert jobs.planning.next_work() is None


def test_a_study_that_could_not_be_planned_says_so_and_is_tried_again(jobs, archive, relay, ledger):
    study = archive.study(quiet=10)
    relay.pump()
    ledger.judge()
    jobs.planning.failed(jobs.planning.next_work(), "The file store does not answer.")
    assert completeness(jobs, study)["evidence"]["plan_error"] == "The file store does not answer."
    archive.sql("UPDATE ai_study SET claim_until = now() - interval '1 second'")
    assert jobs.planning.next_work() is not None


def test_a_study_that_never_goes_quiet_is_taken_in_the_end(jobs, archive, relay, ledger):
    study = archive.study()
    relay.pump()
    archive.sql("UPDATE ai_study SET opened_at = now() - interval '2 hours'")
    assert ledger.judge() == [study]
    assert completeness(jobs, study)["evidence"]["signal"] == "max_wait"


def test_a_wait_for_missing_parts_ends_and_the_next_plan_is_final(jobs, archive, relay, ledger):
    from tests.jobbooks import not_to_run

    study = archive.study(quiet=10)
    relay.pump()
    ledger.judge()
    missing = not_to_run("missing_slices", "A slice is missing at 5 mm.", may_come=True)
    jobs.planning.plan(jobs.planning.next_work(), [missing])
    assert ledger.judge() == []
    archive.sql("UPDATE ai_study SET wait_until = now() - interval '1 second'")
    assert ledger.judge() == [study]
    work = jobs.planning.next_work()
    assert work.final
    jobs.planning.plan(work, [missing])
    assert archive.states(study) == ["SKIPPED"]
    assert completeness(jobs, study)["missing"] == ["A slice is missing at 5 mm."]
    assert ledger.judge() == []


def test_many_originals_of_many_studies_are_noted_in_any_order(jobs, archive, relay):
    studies = [archive.study(originals=3) for _ in range(4)]
    for study in studies:
        archive.original(study)
    assert relay.pump() == 16
    assert all(completeness(jobs, study)["state"] == "open" for study in studies)
    assert archive.sql("SELECT count(*) FROM outbox") == [(0,)]


def test_a_study_deleted_before_it_is_noted_does_not_stop_the_relay(jobs, archive, relay):
    gone, study = archive.study(), archive.study()
    archive.delete_study(gone)
    relay.pump()
    assert completeness(jobs, study)["state"] == "open"


# relay


def test_jobs_reach_redis_by_their_class(jobs, archive, relay, stream):
    (low,) = queue(jobs, archive, priority="low")
    (urgent,) = queue(jobs, archive, priority="urgent")
    relay.pump()
    assert [stream.take("w").job_id for _ in range(2)] == [urgent, low]


def test_the_outbox_keeps_what_redis_could_not_take(books, jobs, archive, relay, stream):
    away = Stream("redis://127.0.0.1:1/0")
    (job,) = queue(jobs, archive)
    study = archive.study()
    with pytest.raises(Unavailable):
        Relay(books, away).pump()
    assert completeness(jobs, study)["state"] == "open"
    assert relay.lag()[0] == 1
    relay.pump()
    assert stream.take("w").job_id == job
    assert relay.lag() == (0, 0.0)


def test_sent_rows_are_pruned_after_an_hour(jobs, archive, relay):
    queue(jobs, archive)
    relay.pump()
    relay.prune()
    assert archive.sql("SELECT count(*) FROM outbox WHERE topic = 'job'") == [(1,)]
    archive.sql("UPDATE outbox SET sent_at = now() - interval '2 hours'")
    relay.prune()
    assert archive.sql("SELECT count(*) FROM outbox WHERE topic = 'job'") == [(0,)]


def test_more_jobs_than_a_batch_are_published_and_small(jobs, archive, relay, stream, client):
    for _ in range(6):
        queue(jobs, archive, count=100)
    relay.pump()
    assert len(stream.present()) == 600
    assert client.memory_usage("ai:jobs:normal") < 600 * 200


# reconciler


def test_after_a_flush_every_queued_job_is_published_again(jobs, archive, relay, stream, client, reconciler):
    reconciler.check_epoch()
    queued = queue(jobs, archive, count=20)
    relay.pump()
    assert not reconciler.check_epoch()
    client.flushdb()
    assert reconciler.check_epoch()
    assert stream.present() == set(queued)
    assert not reconciler.check_epoch()


def test_a_queued_job_without_an_entry_is_found(jobs, archive, relay, stream, reconciler):
    (job,) = queue(jobs, archive)
    relay.pump()
    stream.forget(stream.take("w"))
    assert reconciler.compare() == []
    archive.sql("UPDATE ai_job SET queued_at = now() - interval '1 minute'")
    assert reconciler.compare() == [job]
    relay.pump()
    assert reconciler.compare() == []
    assert stream.take("w").job_id == job


def test_a_job_whose_worker_is_gone_is_queued_again(jobs, archive, relay, stream, reconciler):
    (job,) = queue(jobs, archive)
    jobs.leases.take(job, "w")
    assert reconciler.recover() == []
    archive.sql("UPDATE ai_job SET lease_until = now() - interval '1 second'")
    assert reconciler.recover() == [job]
    assert jobs.get(job)["state"] == "QUEUED"


def test_a_job_that_takes_every_worker_with_it_is_buried(jobs, archive, reconciler):
    (job,) = queue(jobs, archive, max_attempts=2)
    for _ in range(2):
        jobs.leases.take(job, "w")
        archive.sql("UPDATE ai_job SET lease_until = now() - interval '1 second'")
        reconciler.recover()
    row = jobs.get(job)
    assert (row["state"], row["reason"]) == ("DEAD", "worker_lost")


def test_a_retry_starts_when_it_is_due(jobs, archive, reconciler):
    (job,) = queue(jobs, archive)
    jobs.leases.fail(jobs.leases.take(job, "w"), "x", "X.")
    assert reconciler.recover() == []
    archive.sql("UPDATE ai_job SET due_at = now()")
    assert reconciler.recover() == [job]


def test_jobs_of_a_deleted_study_are_cancelled_and_store_nothing(jobs, archive, reconciler):
    waiting, running = queue(jobs, archive, count=2)
    lease = jobs.leases.take(running, "w")
    archive.delete_study(lease.study_uid)
    assert not jobs.leases.begin_storing(lease)
    reconciler.recover()
    assert {jobs.get(job)["reason"] for job in (waiting, running)} == {"study_deleted"}
    assert not jobs.leases.renew(lease)


def test_the_gauges_tell_what_waits(jobs, archive, relay, reconciler):
    queue(jobs, archive, count=3, priority="urgent")
    reconciler.stream.take("w")
    relay.pump()
    reconciler.measure()
    sample = reconciler.metrics.registry.get_sample_value
    assert sample("filmroom_ai_jobs", {"state": "QUEUED", "model": "lungs"}) == 3
    assert sample("filmroom_ai_stream_length", {"priority": "urgent"}) == 3
    assert sample("filmroom_outbox_rows") == 0
