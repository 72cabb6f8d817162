"""kill -9 of a backup and of a restore at moments of chance: the same command again ends well, and nothing is half."""

import json
import os
import random
import signal
import subprocess
import sys
import uuid

import pytest

from pacs.index import schema
from tests.services.specimens import ct, part10, put, query

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
OBJECTS, PIXELS = 200, 512
ROUNDS = 10
LONGEST_SECONDS = 4.0


@pytest.fixture(scope="module")
def stored(node):
    """Objects of half a megabyte each, by UID."""
    data = ct(Rows=PIXELS, Columns=PIXELS, PixelData=os.urandom(2 * PIXELS * PIXELS))
    for _ in range(OBJECTS):
        data.SOPInstanceUID = f"2.25.{uuid.uuid4().int}"
        assert put(node, part10(data)).outcome == "stored"
    return OBJECTS


def environment(settings, **more):
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}}
    found = {"FILMROOM_HOME": settings.home, "DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
    return kept | {"FILMROOM_CONFIG": os.devnull} | {name: str(value) for name, value in (found | more).items()}


def filmroom(env, *words):
    line = [sys.executable, "-m", "pacs", *map(str, words)]
    return subprocess.Popen(
        line, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def ended(env, *words):
    with filmroom(env, *words) as process:
        said, complaints = process.communicate(timeout=300)
    assert process.returncode == 0, complaints
    return said


def cut_off(env, *words):
    """Type it and kill all of it after a while of chance; whether it was still at work then."""
    with filmroom(env, *words) as process:
        try:
            process.wait(random.uniform(0.3, LONGEST_SECONDS))
        except subprocess.TimeoutExpired:
            kill = random.choice((os.killpg, os.kill))  # with its programs, or without them
            kill(process.pid, signal.SIGKILL)
            return True
    assert process.returncode == 0
    return False


@pytest.fixture(scope="module")
def folder(node, settings, stored, short_folder):
    """A backup that was cut off many times, more objects coming in between, and once was not."""
    folder, env = short_folder / "cut-off", environment(settings)
    killed = 0
    for _ in range(ROUNDS):
        killed += cut_off(env, "backup", folder)
        assert put(node, part10(ct())).outcome == "stored"
    assert killed
    ended(env, "backup", folder)
    return folder


def test_a_backup_that_was_killed_often_is_whole_at_the_end(settings, folder):
    assert ended(environment(settings), "verify", "--backup", folder).endswith("all digests are equal.\n")
    assert len([path for path in folder.iterdir() if path.name[0].isdigit()]) == 1
    assert not list(folder.rglob("*.part"))


def test_a_restore_that_was_killed_often_is_whole_at_the_end(node, settings, folder, short_folder, empty_database_url):
    home = short_folder / "again"
    home.mkdir(mode=0o711)
    env, killed = environment(settings, FILMROOM_HOME=home, DATABASE_URL=empty_database_url), 0
    while killed < ROUNDS and schema.current(empty_database_url) is None:
        killed += cut_off(env, "restore", folder)
    if (home / "restoring").exists() or schema.current(empty_database_url) is None:
        ended(env, "restore", folder)
    found = json.loads(ended(env, "verify", "--json"))
    [(count,)] = query(node, "SELECT count(*) FROM instance")
    assert (found["whole"], found["instances"]) == (True, count)
