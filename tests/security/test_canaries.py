"""Patient data planted in every field of every door, errors provoked: it is in no log, metric, error or title."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from tests.dicomweb.objects import part10
from tests.running import RunningNode
from tests.security import canaries
from tests.security.canaries import found_in, planted, told_by_http


@pytest.fixture(scope="module")
def node(short_folder):
    running = RunningNode(short_folder / "canary", {"LOG_LEVEL": "debug"}).start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def heard(node, tmp_path_factory):
    """What every door said to errors, after everything was pushed through all of them."""
    said: list[str] = []
    titles: set[str] = set()
    first = planted()
    study = f"/dicom-web/studies/{first.StudyInstanceUID}"
    instance = f"{study}/series/{first.SeriesInstanceUID}/instances/{first.SOPInstanceUID}"
    with httpx.Client(base_url=node.http_url, timeout=60) as http:
        assert http.post("/dicom-web/studies", **canaries._body(part10(first))).status_code == 200
        chest = canaries.chest()
        stored = http.post("/dicom-web/studies", **canaries._body(*map(part10, chest)))
        assert stored.status_code == 200, stored.text
        answers = [*canaries.through_stow(http), *canaries.through_http(http, study, instance)]
        said += canaries.through_dimse(node)
        said.append(canaries.malformed_http(node))
        titles |= command_lines(node)
        answers += without_a_table(node, http, study)
        folder = tmp_path_factory.mktemp("files")
        canaries.files(folder)
        said += commands(node, chest[0], folder)
        node.wait(lambda: job_failed(http, chest[0]), 90)
        statuses = {answer.status_code for answer in answers}
        assert {400, 401, 404, 405, 406, 409, 415, 500} <= statuses, statuses
        said += [told_by_http(answer) for answer in answers if answer.status_code >= 400]
        metrics = http.get("/metrics").text
    titles |= command_lines(node)
    return {"said": said, "titles": titles, "metrics": metrics}


def command_lines(node):
    found = set()
    for process in node.family():
        with suppress(psutil.Error):
            found.add(f"{process.name()} {' '.join(process.cmdline())}")
    return found


def without_a_table(node, http, study):
    """The database fails in the middle of what it was asked: drivers quote what they were given."""
    with psycopg.connect(node.settings.database_url, autocommit=True) as owner:
        for table in ("study", "instance", "audit"):
            owner.execute(f"ALTER TABLE {table} RENAME TO away")
            try:
                yield http.get(f"/dicom-web/studies?PatientName={canaries.WORD}*")
                yield http.get(f"{study}/metadata")
                yield http.get(f"/console/?q={canaries.WORD}")
                yield http.post("/dicom-web/studies", **canaries._body(part10(planted())))
            finally:
                owner.execute(f"ALTER TABLE away RENAME TO {table}")


def commands(node, first, folder):
    """What commands print when they fail; what an operator types is not in there."""
    for words in (
        ("import", str(folder), "--verbose"),
        ("ai", "run", first.StudyInstanceUID),
        ("doctor",),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "pacs", *words],
            env=node._environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        yield done.stderr
        yield done.stdout


def job_failed(http, chest):
    """A model was run on the broken chest; what it says of its failure is an error, too."""
    timeline = http.get(f"/api/v1/ai/studies/{chest.StudyInstanceUID}").json()
    failed = [job for job in timeline["jobs"] if job["state"] in {"RETRY_WAIT", "DEAD"} and job["reason"]]
    assert not found_in(str(failed))
    return failed


def test_no_error_says_what_it_was_given(heard):
    assert len(heard["said"]) > 300
    told = [text for text in heard["said"] if found_in(text)]
    assert told == [], "\n".join(text[:700] for text in told)


def test_no_metric_holds_it(heard):
    assert "filmroom_http_request_seconds_bucket" in heard["metrics"]
    assert [line for line in heard["metrics"].splitlines() if found_in(line)] == []


def test_no_title_or_command_line_of_a_process_holds_it(heard):
    assert len(heard["titles"]) > 5
    assert [title for title in heard["titles"] if found_in(title)] == []


def test_no_log_holds_it(node, heard):
    assert heard
    logs = [node.log_path, *(path for path in (node.home / "logs").rglob("*") if path.is_file())]
    assert any(os.path.getsize(log) for log in logs)
    told = [f"{log.name}: {line}" for log in logs for line in lines(log) if found_in(line)]
    assert told == [], "\n".join(text[:700] for text in told)


def lines(log: Path):
    return log.read_text(errors="replace").splitlines()
