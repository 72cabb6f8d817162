"""Jobs on a real Postgres: moves, fences, plans, what people see. Every move is checked against the table of moves."""

import dataclasses

import pytest

from pacs.domain.jobs import MOVES, RETRY_SECONDS, Result, State, retry_delay, sources
from pacs.domain.models import Package
from pacs.errors import BadRequest, Conflict, NotFound
from pacs.index.pool import open_pool
from pacs.services.books import Books
from pacs.services.jobs import Jobs
from pacs.services.models import Models
from tests.jobbooks import Archive, guard_moves, not_to_run, to_run, uid


@pytest.fixture(scope="module")
def books(database_url):
    guard_moves(database_url)
    pool = open_pool(database_url, "test")
    yield Books(pool)
    pool.close()


@pytest.fixture(scope="module")
def jobs(books, settings):
    return Jobs(books, Models(books), settings)


@pytest.fixture(scope="module")
def archive(database_url):
    archive = Archive(database_url)
    yield archive
    archive.connection.close()


@pytest.fixture
def study(archive):
    return archive.study(quiet=100)


@pytest.fixture
def queued(jobs, archive, study):
    """A queued job's id."""
    return jobs.planning.plan(archive.work(study), [to_run()]).queued[0]


def expire(archive, job):
    archive.sql("UPDATE ai_job SET lease_until = now() - interval '1 second' WHERE id = %s", job)


def results():
    return [Result("seg", "1.2.840.10008.5.1.4.1.1.66.4", uid(), uid()), Result("sr", "1.2.34", uid(), uid())]


def succeed(jobs, archive, job, made=None):
    lease = jobs.leases.take(job, "w")
    assert jobs.leases.begin_storing(lease)
    made = made or results()
    for result in made:
        archive.instance(lease.study_uid, result.sop_instance_uid)
    assert jobs.leases.finish(lease, made, provider="CPU", timings={"run": 1.5}, evidence={"slices": 3})
    return made


# states


def test_every_state_has_its_moves_and_no_final_state_is_left():
    assert set(MOVES) == set(State)
    assert sources(State.SUCCEEDED) == ["STORING"]
    assert MOVES[State.SUPERSEDED] == frozenset()


def test_the_retry_ladder_grows_and_spreads():
    assert [retry_delay(attempts, 0) for attempts in (1, 2, 3, 4, 9)] == [*RETRY_SECONDS, RETRY_SECONDS[-1]]
    assert retry_delay(1, 0.99) > retry_delay(1, 0.1)


# plans


def test_a_plan_queues_jobs_and_tells_the_relay(jobs, archive, study):
    planned = jobs.planning.plan(archive.work(study), [to_run(priority="urgent")])
    told = archive.sql(
        "SELECT payload FROM outbox WHERE topic = 'job' AND (payload ->> 'job')::int = %s", *planned.queued
    )
    assert told == [({"job": planned.queued[0], "priority": "urgent"},)]
    assert archive.states(study) == ["QUEUED"]


def test_a_study_planned_twice_has_one_job(jobs, archive, study):
    decision = to_run()
    first = jobs.planning.plan(archive.work(study), [decision])
    second = jobs.planning.plan(archive.work(study), [decision])
    assert second.queued == ()
    assert second.known == first.queued
    assert len(jobs.timeline(study)["jobs"]) == 1


def test_a_plan_of_a_study_that_changed_meanwhile_writes_nothing(jobs, archive, study):
    work = archive.work(study)
    archive.original(study)
    assert jobs.planning.plan(work, [to_run(), not_to_run()]).stale
    assert archive.states(study) == []


def test_a_skipped_model_says_why(jobs, archive, study):
    jobs.planning.plan(
        archive.work(study), [not_to_run("too_few_slices", "The series has 3 slices, the model wants 20.")]
    )
    skipped = jobs.timeline(study)["skipped"]
    assert [(row["reason"], row["message"]) for row in skipped] == [
        ("too_few_slices", "The series has 3 slices, the model wants 20.")
    ]
    assert [row["state"] for row in jobs.list(state="SKIPPED") if row["study_uid"] == study] == ["SKIPPED"]


def test_a_decision_that_no_longer_holds_is_gone(jobs, archive, study):
    jobs.planning.plan(archive.work(study), [not_to_run("a", "A."), not_to_run("b", "B.", model="heart")])
    jobs.planning.plan(archive.work(study), [to_run()])
    timeline = jobs.timeline(study)
    assert timeline["skipped"] == []
    assert [row["model"] for row in timeline["jobs"]] == ["lungs"]


def test_what_may_still_come_is_waited_for_then_skipped(jobs, archive, study):
    missing = not_to_run("missing_slices", "A slice is missing at 12.5 mm.", may_come=True, series_uids=("1.2",))
    jobs.planning.plan(archive.work(study), [missing])
    timeline = jobs.timeline(study)
    assert [(row["state"], row["reason"]) for row in timeline["jobs"]] == [("PLANNED", "missing_slices")]
    assert timeline["completeness"]["state"] == "likely"
    assert timeline["completeness"]["missing"] == ["A slice is missing at 12.5 mm."]
    jobs.planning.plan(archive.work(study, final=True), [missing])
    timeline = jobs.timeline(study)
    assert timeline["jobs"] == []
    assert timeline["skipped"][0]["reason"] == "missing_slices"


def test_changed_inputs_cancel_the_job_on_the_old_ones(jobs, archive, study, queued):
    archive.original(study)
    jobs.planning.plan(archive.work(study), [to_run()])
    assert archive.states(study) == ["CANCELLED", "QUEUED"]
    assert jobs.get(queued)["reason"] == "inputs_changed"


def test_a_job_whose_results_were_deleted_runs_again(jobs, archive, study):
    decision = to_run()
    (job,) = jobs.planning.plan(archive.work(study), [decision]).queued
    made = succeed(jobs, archive, job)
    assert jobs.planning.plan(archive.work(study), [decision]).known == (job,)
    archive.sql("DELETE FROM instance WHERE sop_instance_uid = %s", made[0].sop_instance_uid)
    assert jobs.planning.plan(archive.work(study), [decision]).queued == (job,)
    succeed(jobs, archive, job, made)
    assert [row["state"] for row in jobs.timeline(study)["results"]] == ["current", "current"]


def test_an_explicit_run_is_planned_first_and_retries_what_is_dead(jobs, archive, study):
    decision = to_run(max_attempts=1)
    (job,) = jobs.planning.plan(archive.work(study), [decision]).queued
    jobs.leases.fail(jobs.leases.take(job, "w"), "crashed", "It crashed.")
    assert jobs.planning.plan(archive.work(study), [decision]).queued == ()
    jobs.run(study, priority="urgent")
    assert jobs.pending(study)
    work = jobs.planning.next_work()
    assert (work.study_uid, work.final, work.priority) == (study, True, "urgent")
    assert jobs.planning.plan(work, [decision]).queued == (job,)
    assert jobs.get(job)["attempts"] == 0


def test_an_explicit_run_makes_what_waits_more_urgent(jobs, archive, study):
    decision = to_run(priority="low")
    (job,) = jobs.planning.plan(archive.work(study), [decision]).queued
    work = archive.work(study, final=True, priority="urgent", request=0)
    assert jobs.planning.plan(work, [decision]).known == (job,)
    assert jobs.get(job)["priority"] == "urgent"
    told = archive.sql("SELECT payload ->> 'priority' FROM outbox WHERE payload ->> 'job' = %s ORDER BY id", str(job))
    assert told == [("low",), ("urgent",)]


def test_an_explicit_run_while_originals_arrive_is_asked_again(jobs, archive, study):
    jobs.run(study, priority="urgent")
    work = next(work for work in iter(jobs.planning.next_work, None) if work.study_uid == study)
    archive.original(study)
    assert jobs.planning.plan(work, [to_run()]).stale
    assert next(work for work in iter(jobs.planning.next_work, None) if work.study_uid == study).change_seq == 2


def test_an_explicit_run_that_cannot_be_planned_ends(jobs, archive, study):
    request = jobs.run(study)["request"]
    for _ in range(3):
        assert jobs.pending(study)
        archive.sql("UPDATE ai_request SET claim_until = NULL")
        work = next(work for work in iter(jobs.planning.next_work, None) if work.request == request)
        jobs.planning.failed(work, "The file store does not answer.")
    assert not jobs.pending(study)


def test_an_explicit_run_of_what_cannot_be_names_the_cause(jobs, study):
    jobs.models.record(Package("broken", "1.0.0", "d", "quarantined", "/x", "golden", "Its golden test fails."))
    with pytest.raises(NotFound):
        jobs.run(uid())
    with pytest.raises(NotFound):
        jobs.run(study, "nobody")
    with pytest.raises(Conflict, match="golden test"):
        jobs.run(study, "broken")
    with pytest.raises(BadRequest):
        jobs.run(study, priority="soon")


# leases and fences


def test_a_lease_is_held_by_one(jobs, queued):
    lease = jobs.leases.take(queued, "a")
    assert lease.fence == 1
    assert lease.attempts == 1
    assert jobs.leases.take(queued, "b") is None
    assert jobs.leases.renew(lease)
    assert not jobs.leases.renew(dataclasses.replace(lease, owner="b"))


def test_a_worker_frozen_past_its_lease_cannot_commit(jobs, archive, queued):
    frozen = jobs.leases.take(queued, "a")
    assert jobs.leases.begin_storing(frozen)
    expire(archive, queued)
    other = jobs.leases.take(queued, "b")
    assert other.fence == frozen.fence + 1
    assert not jobs.leases.renew(frozen)
    assert not jobs.leases.finish(frozen, results())
    assert jobs.leases.fail(frozen, "x", "X.") is None
    assert jobs.get(queued)["results"] == []
    assert jobs.leases.begin_storing(other)
    assert jobs.leases.finish(other, results())
    assert len(jobs.get(queued)["results"]) == 2


def test_a_worker_that_lost_its_job_may_not_begin_to_store(jobs, archive, queued):
    lease = jobs.leases.take(queued, "a")
    expire(archive, queued)
    assert jobs.leases.take(queued, "b")
    assert not jobs.leases.begin_storing(lease)


def test_a_failed_attempt_waits_and_the_last_one_is_dead_with_its_reason(jobs, archive, study, queued):
    states = []
    for _ in range(3):
        lease = jobs.leases.take(queued, "w")
        states.append(jobs.leases.fail(lease, "out_of_memory", "The model needs more memory."))
        archive.sql("UPDATE ai_job SET state = 'QUEUED' WHERE id = %s AND state = 'RETRY_WAIT'", queued)
    assert states == ["RETRY_WAIT", "RETRY_WAIT", "DEAD"]
    row = jobs.get(queued)
    assert (row["reason"], row["message"], row["attempts"]) == ("out_of_memory", "The model needs more memory.", 3)
    assert jobs.leases.take(queued, "w") is None
    assert jobs.retry(queued)["state"] == "QUEUED"
    assert jobs.leases.take(queued, "w").attempts == 1


def test_a_permanent_error_is_dead_at_once(jobs, queued):
    assert jobs.leases.fail(jobs.leases.take(queued, "w"), "bad_model", "No.", permanent=True) == "DEAD"


def test_a_skip_by_the_pipeline_is_shown(jobs, study, queued):
    assert jobs.leases.skip(jobs.leases.take(queued, "w"), "tilted", "The gantry is tilted.") == "SKIPPED"
    assert jobs.timeline(study)["skipped"][0]["reason"] == "tilted"


def test_a_job_given_back_does_not_count_the_attempt(jobs, archive, queued):
    lease = jobs.leases.take(queued, "w")
    assert jobs.leases.give_back(lease)
    row = jobs.get(queued)
    assert (row["state"], row["attempts"]) == ("QUEUED", 0)
    assert not jobs.leases.give_back(lease)


def test_nothing_starts_during_maintenance(jobs, archive, queued):
    archive.sql("INSERT INTO node_state (key, value) VALUES ('maintenance', '{\"state\": \"on\"}')")
    assert jobs.leases.take(queued, "w") is None
    archive.sql("DELETE FROM node_state WHERE key = 'maintenance'")
    assert jobs.leases.take(queued, "w") is not None


def test_a_newer_result_hides_the_older_and_names_it(jobs, archive, study, queued):
    old = succeed(jobs, archive, queued)
    archive.original(study)
    (newer,) = jobs.planning.plan(archive.work(study), [to_run()]).queued
    lease = jobs.leases.take(newer, "w")
    assert {row["sop_instance_uid"] for row in lease.predecessor} == {result.sop_instance_uid for result in old}
    jobs.leases.begin_storing(lease)
    jobs.leases.finish(lease, results())
    assert archive.states(study) == ["SUPERSEDED", "SUCCEEDED"]
    assert all(archive.hidden(result.sop_instance_uid) for result in old)
    shown = {(row["job"], row["state"]) for row in jobs.timeline(study)["results"]}
    assert shown >= {(queued, "superseded")}


def test_the_predecessor_is_frozen_by_the_first_lease(jobs, archive, study, queued):
    succeed(jobs, archive, queued)
    archive.original(study)
    (newer,) = jobs.planning.plan(archive.work(study), [to_run()]).queued
    first = jobs.leases.take(newer, "w")
    archive.sql("UPDATE ai_job SET state = 'SUPERSEDED' WHERE id = %s", queued)
    expire(archive, newer)
    assert jobs.leases.take(newer, "w").predecessor == first.predecessor != ()


def test_another_series_or_model_is_not_superseded(jobs, archive, study, queued):
    old = succeed(jobs, archive, queued)
    others = [to_run(series_uids=("9.9",)), to_run(model="heart")]
    for job in jobs.planning.plan(archive.work(study), others).queued:
        succeed(jobs, archive, job)
    assert archive.states(study) == ["SUCCEEDED"] * 3
    assert not archive.hidden(old[0].sop_instance_uid)


# buttons


def test_a_cancelled_job_is_lost_to_its_worker(jobs, queued):
    lease = jobs.leases.take(queued, "w")
    assert jobs.cancel(queued)["state"] == "CANCELLED"
    assert not jobs.leases.renew(lease)
    assert not jobs.leases.begin_storing(lease)
    with pytest.raises(Conflict):
        jobs.cancel(queued)


def test_only_a_dead_job_is_dropped(jobs, queued):
    with pytest.raises(Conflict):
        jobs.drop(queued)
    jobs.leases.fail(jobs.leases.take(queued, "w"), "bad", "Bad model.", permanent=True)
    row = jobs.drop(queued)
    assert (row["state"], row["reason"]) == ("CANCELLED", "dropped")
    assert "Bad model." in row["message"]


def test_a_decision_cannot_be_retried_and_says_what_to_do(jobs, archive, study):
    jobs.planning.plan(archive.work(study), [not_to_run()])
    skipped = jobs.timeline(study)["skipped"][0]
    with pytest.raises(Conflict, match=f"filmroom ai run {study}"):
        jobs.retry(skipped["id"])


def test_an_unknown_job_or_state_is_named(jobs):
    for act in (jobs.get, jobs.retry, jobs.cancel, jobs.drop):
        with pytest.raises(NotFound):
            act(10**9)
    with pytest.raises(BadRequest):
        jobs.list(state="LOST")


def test_the_list_goes_on_after_its_last_row(jobs, archive, study):
    jobs.planning.plan(archive.work(study), [to_run(series_uids=(str(number),)) for number in range(5)])
    first = jobs.list(limit=3)
    rest = jobs.list(limit=3, after=first[-1]["id"])
    ids = [row["id"] for row in first + rest]
    assert ids == sorted(ids, reverse=True)
    assert len(set(ids)) == 6


def test_a_row_has_the_fields_that_programs_read(jobs, queued):
    row = jobs.get(queued)
    wanted = "id state model version study_uid series_uids priority attempts reason message provider created_at"
    assert row.keys() >= {*wanted.split(), "started_at", "finished_at", "timings", "results"}


def test_the_timeline_of_an_unknown_study_is_not_found(jobs):
    with pytest.raises(NotFound):
        jobs.timeline(uid())


def test_ai_switched_off_is_said(books, settings, study):
    off = Jobs(books, Models(books), dataclasses.replace(settings, ai_enabled=False))
    assert off.timeline(study)["skipped"][0]["reason"] == "ai_disabled"
    with pytest.raises(Conflict, match="AI_ENABLED"):
        off.run(study)
