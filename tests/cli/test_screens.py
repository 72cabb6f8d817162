"""`status` and `doctor` on a terminal of 80 columns, and as programs read them."""

import argparse
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time

import psycopg
import pytest

from pacs.cli import doctor, status
from pacs.errors import BadRequest

COLUMNS, ROWS = 80, 24
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
REDRAWN = re.compile(r"[^\n]*\r\x1b\[K")


def on_a_terminal(node, *words, **environ):
    """Type a line on a pseudo-terminal; exit code and what is on its screen, colours and all."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    command = [sys.executable, "-m", "pacs", *words]
    env = {**node._environment(), **environ}
    process = subprocess.Popen(command, env=env, stdin=there, stdout=there, stderr=there, start_new_session=True)
    os.close(there)
    parts = []
    while True:
        try:
            part = os.read(here, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(here)
    return process.wait(60), b"".join(parts).decode().replace("\r\n", "\n")


@pytest.fixture
def typed(running_node, capsys):
    """Type a line whose output goes to a pipe."""

    def type_line(verb, *words):
        parser = argparse.ArgumentParser()
        verb.add_arguments(parser)
        code = verb.run(parser.parse_args(words), running_node.settings)
        return code, capsys.readouterr().out

    return type_line


@pytest.fixture
def harmed(running_node):
    """Wrong counters, that a live node has and nobody corrects within a day."""
    with psycopg.connect(running_node.settings.database_url, autocommit=True) as connection:
        connection.execute("UPDATE study SET series_count = series_count + 5")
        yield
        connection.execute("SELECT recount(ARRAY(SELECT pk FROM study))")


def shown(screen):
    """The lines that stay on the screen, without colours."""
    return COLOUR.sub("", REDRAWN.sub("", screen)).splitlines()


def test_status_fits_one_screen_of_80_columns(running_node):
    deadline = time.monotonic() + 30  # clerk and sidecar let the doors go first
    while True:
        _code, screen = on_a_terminal(running_node, "status")
        lines = shown(screen)
        if any(line.startswith("processes  web, dimse, clerk, ai") for line in lines) or time.monotonic() > deadline:
            break
    assert len(lines) <= ROWS
    assert max(map(len, lines)) < COLUMNS
    assert "\x1b[" in screen
    assert any(line.startswith("processes  web, dimse, clerk, ai") for line in lines)
    assert any(line.startswith("window     no maintenance") for line in lines)


def test_what_goes_to_a_pipe_or_is_asked_to_have_none_has_no_colours(typed, monkeypatch):
    for verb in (status, doctor):
        assert "\x1b" not in typed(verb)[1]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "\x1b" in typed(status)[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in typed(status)[1]


def test_status_is_json_for_programs(typed):
    _code, text = typed(status, "--json")
    found = json.loads(text)
    assert {"stored", "last_hour", "queues", "jobs", "disk", "maintenance", "window", "wrong"} <= set(found)
    assert found["maintenance"] is False
    assert found["processes"] == ["web", "dimse", "clerk", "ai"]


def test_status_without_a_node_says_how_to_start_it(tmp_path, running_node):
    away = {
        "FILMROOM_HOME": str(tmp_path),
        "DATABASE_URL": f"postgresql:///x?host={tmp_path}",
        "REDIS_URL": "redis://x",
    }
    code, screen = on_a_terminal(running_node, "status", **away)
    assert (code, "filmroom serve" in screen) == (1, True)


def test_doctor_fits_80_columns_and_shows_its_progress_on_a_terminal_only(running_node, harmed):
    from tests.cli.test_maintenance import stow
    from tests.services.specimens import ct

    assert stow(running_node, ct()).status_code == 200
    with psycopg.connect(running_node.settings.database_url, autocommit=True) as connection:
        connection.execute("UPDATE study SET series_count = 5")
    code, screen = on_a_terminal(running_node, "doctor", "--only", "counters", "disk-space", "python-version")
    lines = shown(screen)
    assert code == 1
    assert "\r\x1b[K1/3 counters" in screen
    assert any(line.startswith("ERROR   counters: ") for line in lines)
    assert any("cure: filmroom doctor --fix" in line for line in lines)
    assert max(len(line) for line in lines if "1.2.826" not in line and "2.25" not in line) < COLUMNS


def test_doctor_is_json_for_programs_and_says_what_it_did(running_node, typed, harmed):
    from tests.cli.test_maintenance import stow
    from tests.services.specimens import ct

    assert stow(running_node, ct()).status_code == 200
    with psycopg.connect(running_node.settings.database_url, autocommit=True) as connection:
        connection.execute("UPDATE study SET series_count = 5")
    code, text = typed(doctor, "--only", "counters", "--json")
    (found,) = json.loads(text)["findings"]
    assert (code, found["check"], found["fixable"], found["done"]) == (1, "counters", True, "")
    code, text = typed(doctor, "--only", "counters", "--fix")
    assert code == 0
    assert text.startswith("CURED   counters: ")
    assert typed(doctor, "--only", "counters") == (0, "1 check looked: nothing is wrong.\n")


def test_every_check_is_listed_within_80_columns(typed):
    code, text = typed(doctor, "--list")
    assert code == 0
    assert max(map(len, text.splitlines())) < COLUMNS
    assert len(json.loads(typed(doctor, "--list", "--json")[1])) >= 30


def test_a_check_that_is_none_is_an_error_that_says_where_they_are(typed):
    with pytest.raises(BadRequest, match="--list"):
        typed(doctor, "--only", "everything")


def test_settings_that_cannot_be_read_do_not_keep_the_doctor_from_looking(running_node):
    wrong = {"DISK_RESERVE_GB": "plenty", "DICOM_AE_TITEL": "X"}
    code, screen = on_a_terminal(running_node, "doctor", "--only", "settings", "unknown-key", "counters", **wrong)
    assert code == 1
    assert "DISK_RESERVE_GB must be a number" in screen
    assert "DICOM_AE_TITLE meant" in screen


def test_a_node_at_work_is_well(running_node, typed):
    from tests.cli.test_maintenance import Load, by_c_store, by_stow, wait_for

    with Load(running_node, [by_stow, by_c_store]) as load:
        wait_for(lambda: len(load.done) > 5 or load.errors)
        _code, text = typed(doctor, "--json")
    found = {(one["check"], one["what"]) for one in json.loads(text)["findings"]}
    # of what the machine of a test is like, and of files beside this checkout, this test says nothing
    assert {one for one in found if one[0] not in {"disk-space", "unknown-key", "file-modes", "certificate"}} == set()


def test_the_doctor_of_a_home_that_was_never_used_makes_nothing(tmp_path, running_node):
    home = tmp_path / "never"
    code, screen = on_a_terminal(running_node, "doctor", FILMROOM_HOME=str(home))
    assert "No node has run here yet" in screen.replace("\n", " ")
    assert not home.exists()
    assert code in (0, 1)
