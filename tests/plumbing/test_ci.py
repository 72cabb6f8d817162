"""In CI nothing that should run is skipped in silence, and the files that make a release agree."""

import os
import re
import subprocess
import sys
import tomllib

import pytest

from pacs.places import config_folder

ROOT = config_folder().parent
SUITE = """
import pytest
@pytest.mark.interop
def test_tool(): pytest.skip("no tool")
@pytest.mark.data
def test_data(): pytest.skip("no data")
def test_other(): pytest.skip("not here")
"""


@pytest.mark.parametrize(
    ("env", "failed"),
    [({}, 0), ({"FILMROOM_CI": "1"}, 1), ({"FILMROOM_CI": "1", "FILMROOM_TEST_DATA": "/somewhere"}, 2)],
)
def test_a_skip_of_an_outside_tool_or_of_data_that_is_there_fails_in_ci(tmp_path, env, failed):
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_runtest_makereport")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FILMROOM")}
    line = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:valkey",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        str(tmp_path),
    ]
    path = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, env=clean | env | path, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert f"{3 - failed} skipped" in done.stdout
    assert (f"{failed} error" in done.stdout or f"{failed} failed" in done.stdout) == bool(failed)


def test_every_dependency_is_pinned_with_hashes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = lambda lines: {re.match(r"[a-z0-9-]+", line.lower())[0] for line in lines}  # noqa: E731
    extras = project["optional-dependencies"]
    sets = {
        "requirements.lock": project["dependencies"] + extras["embedded"],
        "requirements-dev.lock": project["dependencies"] + extras["embedded"] + extras["test"] + extras["dev"],
    }
    for file, wanted in sets.items():
        text = (ROOT / file).read_text()
        pinned = set(re.findall(r"^([a-z0-9-]+)==", text, re.M))
        assert names(wanted) - {"filmroom"} <= pinned, "run: make lock"
        assert all("--hash=sha256:" in part for part in re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.M)[1:])


def test_make_help_lists_every_target():
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(["make", "-s", "help"], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split()
    assert {line.split()[1] for line in done.stdout.splitlines()} == set(targets)
