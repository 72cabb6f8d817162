"""`filmroom ai` as people type it, on real books."""

import argparse
import json

import pytest

from pacs.cli import ai
from pacs.domain.models import Package
from pacs.errors import BadRequest, Conflict, NotFound
from tests.jobbooks import Archive, not_to_run, to_run, uid


@pytest.fixture(scope="module")
def archive(database_url):
    archive = Archive(database_url)
    yield archive
    archive.connection.close()


@pytest.fixture
def study(archive):
    return archive.study(quiet=100)


@pytest.fixture(scope="module")
def model(node):
    package = Package("lungs", "1.0.0", "d1", "enabled", "/m/lungs", manifest={"task": "segmentation"})
    node.models.record(package)
    return package.name


@pytest.fixture
def typed(settings, capsys):
    """Type a line; the exit code and what was printed."""

    def type_line(*words):
        parser = argparse.ArgumentParser()
        ai.add_arguments(parser)
        code = ai.run(parser.parse_args([str(word) for word in words]), settings)
        return code, capsys.readouterr().out

    return type_line


@pytest.fixture
def dead(node, archive, study):
    (job,) = node.jobs.planning.plan(archive.work(study), [to_run()]).queued
    node.jobs.leases.fail(node.jobs.leases.take(job, "w"), "bad_model", "The model is bad.", permanent=True)
    return job


def test_models_are_listed_with_the_reason_of_those_that_may_not_run(typed, node, model):
    node.models.record(Package("broken", "2.0.0", "d", "quarantined", "/m/broken", "golden", "Its golden test fails."))
    code, text = typed("models")
    assert code == 0
    assert "Its golden test fails." in text
    _, rows = typed("models", "--json")
    assert {(row["name"], row["state"]) for row in json.loads(rows)} == {
        ("lungs", "enabled"),
        ("broken", "quarantined"),
    }


def test_a_disabled_model_stays_disabled_in_its_next_version(typed, node, model):
    assert "disabled" in typed("disable", model)[1]
    node.models.record(Package(model, "1.1.0", "d2", "enabled", "/m/lungs2"))
    assert {row["state"] for row in node.models.list() if row["name"] == model} == {"disabled"}
    with pytest.raises(Conflict):
        node.models.require_enabled(model)
    assert "disabled" not in typed("enable", model)[1]
    with pytest.raises(NotFound):
        typed("disable", "nobody")


def test_jobs_are_listed_by_state_and_shown(typed, dead):
    _, text = typed("jobs", "--state", "dead")
    assert str(dead) in text
    _, shown = typed("show", dead)
    assert "The model is bad." in shown
    assert json.loads(typed("show", dead, "--json")[1])["reason"] == "bad_model"
    with pytest.raises(BadRequest):
        typed("jobs", "--state", "lost")


def test_a_dead_job_is_retried_then_cancelled(typed, dead):
    assert "QUEUED" in typed("retry", dead)[1]
    assert "CANCELLED" in typed("cancel", dead)[1]
    with pytest.raises(Conflict):
        typed("drop", dead)
    with pytest.raises(BadRequest):
        typed("retry", "first")


def test_run_asks_for_a_plan_and_shows_where_to_look(typed, node, study, model):
    code, text = typed("run", study, "--model", model, "--priority", "urgent")
    assert code == 0
    assert f"filmroom ai show {study}" in text
    assert node.jobs.pending(study)
    with pytest.raises(NotFound):
        typed("run", uid())


def test_waiting_without_a_sidecar_says_that_there_is_none(typed, study, capsys, settings):
    parser = argparse.ArgumentParser()
    ai.add_arguments(parser)
    assert ai.run(parser.parse_args(["run", study, "--wait", "--timeout", "0.1"]), settings) == 1
    assert "no sidecar is running" in capsys.readouterr().err


def test_show_tells_why_a_study_has_no_result(typed, node, archive, study):
    node.jobs.planning.plan(archive.work(study), [not_to_run("too_few_slices", "The series has 3 slices.")])
    code, text = typed("show", study)
    assert code == 0
    assert "The series has 3 slices. [too_few_slices]" in text


def test_a_folder_that_is_no_package_is_told_what_it_lacks(typed, tmp_path):
    code, text = typed("check", tmp_path)
    assert code == 1
    assert "manifest.toml" in text
    assert json.loads(typed("check", tmp_path, "--json")[1])["findings"][0]["reason"] == "manifest_missing"
