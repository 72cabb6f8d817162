"""The shelf: packages are found, checked when they change, and said to be what they are."""

import itertools
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_sidecar.ports import RunFailed, Unsuitable
from ai_sidecar.shelf import Shelf, precedence
from pacs.errors import FilmroomError

MODEL = {"task": "segmentation", "summary": "", "vendor": "", "licence": "MIT", "allowed_use": "research"}
MANIFEST = SimpleNamespace(model=SimpleNamespace(**MODEL))


class Bad(FilmroomError):
    code = "golden_differs"


@pytest.fixture
def checks():
    """Which folders were checked, in order."""
    return []


@pytest.fixture
def shelf(node, tmp_path, checks):
    with node.books.transaction() as cursor:
        cursor.execute("DELETE FROM ai_model")

    def check(path):
        checks.append(f"{path.parent.name}/{path.name}")
        text = (path / "manifest.toml").read_text()
        if text == "bad":
            raise Bad("Its golden test gives another output.")
        return SimpleNamespace(name=path.parent.name, version=path.name, digest=text, manifest=MANIFEST)

    return Shelf(node, [tmp_path, tmp_path / "absent"], check)


def put(folder, name, version, text="d1"):
    package = folder / name / version
    package.mkdir(parents=True, exist_ok=True)
    (package / "manifest.toml").write_text(text)
    return package


def states(node):
    return {(row["name"], row["version"]): row["state"] for row in node.models.list()}


def lease(**given):
    return SimpleNamespace(**{"model": "lungs", "version": "1.0.0", "digest": "d1", "study_uid": "1.2", **given})


def test_a_package_dropped_in_is_enabled_and_checked_once(shelf, node, tmp_path, checks):
    shelf.scan()
    assert shelf.scanned
    put(tmp_path, "lungs", "1.0.0")
    shelf.scan()
    shelf.scan()
    assert states(node) == {("lungs", "1.0.0"): "enabled"}
    assert checks == ["lungs/1.0.0"]
    assert [package.digest for package in shelf.enabled()] == ["d1"]


def test_a_package_that_fails_its_check_is_quarantined_until_it_changes(shelf, node, tmp_path, checks):
    put(tmp_path, "lungs", "1.0.0", "bad")
    shelf.scan()
    assert states(node) == {("lungs", "1.0.0"): "quarantined"}
    assert node.models.list()[0]["message"] == "Its golden test gives another output."
    assert [decision.reason for decision in shelf.not_enabled()] == ["model_quarantined"]
    assert shelf.enabled() == []
    put(tmp_path, "lungs", "1.0.0", "repaired")
    shelf.scan()
    assert states(node) == {("lungs", "1.0.0"): "enabled"}


def test_only_the_newest_version_of_a_model_is_planned(shelf, tmp_path):
    for version in ("1.9.0", "1.10.0", "1.10.0-rc.1"):
        put(tmp_path, "lungs", version)
    put(tmp_path, "heart", "0.1.0")
    shelf.scan()
    assert {(package.name, package.version) for package in shelf.enabled()} == {("lungs", "1.10.0"), ("heart", "0.1.0")}
    assert [package.name for package in shelf.enabled("heart")] == ["heart"]


def test_a_disabled_model_neither_plans_nor_runs(shelf, node, tmp_path):
    put(tmp_path, "lungs", "1.0.0")
    shelf.scan()
    shelf.require_enabled("lungs")
    node.models.disable("lungs")
    assert shelf.enabled() == []
    assert [decision.reason for decision in shelf.not_enabled()] == ["model_disabled"]
    with pytest.raises(Unsuitable):
        shelf.require_enabled("lungs")


def test_a_job_runs_with_the_very_package_it_was_planned_with(shelf, tmp_path):
    put(tmp_path, "lungs", "1.0.0")
    shelf.scan()
    assert shelf.find(lease()).digest == "d1"
    with pytest.raises(RunFailed, match="was changed"):
        shelf.find(lease(digest="d0"))
    with pytest.raises(RunFailed, match="no longer here"):
        shelf.find(lease(version="2.0.0"))


def test_a_package_that_is_taken_away_is_retired(shelf, node, tmp_path):
    package = put(tmp_path, "lungs", "1.0.0")
    shelf.scan()
    (package / "manifest.toml").unlink()
    with node.books.transaction() as cursor:
        cursor.execute("UPDATE ai_model SET seen_at = now() - interval '2 minutes'")
    shelf.scan()
    assert states(node) == {("lungs", "1.0.0"): "retired"}
    assert [decision.reason for decision in shelf.not_enabled()] == ["no_models"]


def test_versions_are_ordered_as_semver_says():
    order = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0"]
    for lower, higher in itertools.pairwise(order):
        assert precedence(lower) < precedence(higher)


@given(st.tuples(*[st.integers(0, 10**6)] * 3), st.tuples(*[st.integers(0, 10**6)] * 3))
def test_releases_are_ordered_as_numbers(one, other):
    text = [".".join(map(str, numbers)) for numbers in (one, other)]
    assert (precedence(text[0]) < precedence(text[1])) == (one < other)
