"""`filmroom maintenance` as operators type it, on a whole node under load."""

import argparse
import json
import os
import subprocess
import sys
import threading
import time

import httpx
import psycopg
import pytest
from pydicom.uid import CTImageStorage

from pacs.cli import maintenance
from pacs.cli.greeting import is_ready
from tests.dimse.sender import LITTLE, Sender
from tests.services.specimens import bare, ct, part10

PATIENCE = 60.0
OUT_OF_RESOURCES = 0xA700


@pytest.fixture
def typed(running_node, capsys):
    """Type a line; exit code, output, errors. Maintenance is off afterwards."""

    def type_line(*words):
        parser = argparse.ArgumentParser()
        maintenance.add_arguments(parser)
        code = maintenance.run(parser.parse_args(words), running_node.settings)
        return code, *capsys.readouterr()

    yield type_line
    type_line("off")


def stow(node, data):
    headers = {"content-type": "application/dicom"}
    return httpx.post(f"{node.http_url}/dicom-web/studies", content=part10(data), headers=headers, timeout=30)


def c_store(node, data):
    with Sender(("127.0.0.1", node.dicom_port), contexts=((CTImageStorage, LITTLE),)) as sender:
        command = {
            "CommandField": 1,
            "Priority": 0,
            "AffectedSOPClassUID": str(CTImageStorage),
            "AffectedSOPInstanceUID": str(data.SOPInstanceUID),
        }
        sender.send(1, command, bare(data))
        return sender.answer().status


def wait_for(condition, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


class Load:
    """Senders that repeat each object until it is taken."""

    def __init__(self, node, doors):
        self.node, self.done, self.refused, self.errors = node, [], 0, []
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(door,)) for door in doors]

    def _run(self, door):
        try:
            while not self.stop.is_set():
                data = ct()
                while not door(self.node, data):
                    self.refused += 1
                    time.sleep(0.2)
                self.done.append(str(data.SOPInstanceUID))
        except Exception as error:
            self.errors.append(error)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join(PATIENCE)


def by_stow(node, data):
    answer = stow(node, data)
    assert answer.status_code in (200, 503), answer.text
    if answer.status_code == 503:
        assert answer.headers["retry-after"]
        assert "Maintenance" in answer.text
    return answer.status_code == 200


def by_c_store(node, data):
    status = c_store(node, data)
    assert status in (0, OUT_OF_RESOURCES), hex(status)
    return status == 0


def stored_since(database_url, moment):
    with psycopg.connect(database_url) as connection:
        return connection.execute("SELECT count(*) FROM instance WHERE stored_at > %s", (moment,)).fetchone()[0]


def test_on_drain_off_under_load_loses_nothing_and_senders_that_retry_succeed(running_node, typed):
    url = running_node.settings.database_url
    with Load(running_node, [by_stow, by_stow, by_c_store, by_c_store]) as load:
        wait_for(lambda: len(load.done) > 8 or load.errors)
        code, said, _ = typed("on", "--refuse-stores", "--message", "New disk at noon.")
        assert (code, "New disk at noon." in said) == (0, True)
        code, said, errors = typed("drain", "--timeout", "60")
        assert (code, said) == (0, "Nothing runs.\n"), errors
        with psycopg.connect(url) as connection:
            drained = connection.execute("SELECT clock_timestamp()").fetchone()[0]
            running = "SELECT count(*) FROM ai_job WHERE state IN ('RUNNING', 'STORING')"
            assert connection.execute(running).fetchone() == (0,)
        refused = load.refused
        wait_for(lambda: load.refused > refused + 5 or load.errors)
        assert stored_since(url, drained) == 0
        ready = httpx.get(f"{running_node.http_url}/ready")
        assert (ready.status_code, "New disk at noon." in ready.json()["checks"]["maintenance"]) == (503, True)
        assert is_ready(running_node.settings)  # a node that is started again in its window greets all the same
        assert "New disk at noon." in httpx.get(f"{running_node.http_url}/console/").text
        code, said, _ = typed("off")
        assert code == 0
        assert "objects stored" in said
        before = len(load.done)
        wait_for(lambda: len(load.done) > before + 5 or load.errors)
    assert load.errors == []
    with psycopg.connect(url) as connection:
        held = "SELECT count(*) FROM instance WHERE sop_instance_uid = ANY(%s)"
        assert connection.execute(held, (load.done,)).fetchone() == (len(load.done),)
    assert "Maintenance" not in httpx.get(f"{running_node.http_url}/console/").text


def test_draining_says_what_still_runs_when_its_time_is_over(running_node, typed):
    with psycopg.connect(running_node.settings.database_url, autocommit=True) as connection:
        row = connection.execute(
            "INSERT INTO ai_job (job_key, state, model, version, digest, study_uid, series_uids, priority,"
            " max_attempts, timeout_s, lease_owner, lease_until, started_at)"
            " VALUES ('maintenance test', 'STORING', 'lungs', '1.0.0',"
            " '', '1.2.3', '{}', 'low', 3, 900, 'far:1', now() + interval '1 hour', now()) RETURNING id"
        ).fetchone()
        try:
            code, said, errors = typed("drain", "--timeout", "0.5")
            assert (code, said) == (1, "")
            assert f"job {row[0]} (lungs) STORING" in errors
            assert "far:1" in errors
            code, said, _ = typed("drain", "--timeout", "0.5", "--json")
            assert (code, json.loads(said)["drained"]) == (1, False)
        finally:
            connection.execute("DELETE FROM ai_job WHERE id = %s", (row[0],))
    code, said, _ = typed("drain", "--json")
    assert (code, json.loads(said)["drained"]) == (0, True)


def test_the_api_turns_the_same_switch(running_node, typed):
    address = f"{running_node.http_url}/api/v1/maintenance"
    body = {"state": "on", "message": "From a program.", "refuse_stores": True}
    answer = httpx.put(address, json=body)
    assert answer.status_code == 200
    assert {name: answer.json()[name] for name in body} == body
    code, said, _ = typed("status", "--json")
    assert (code, json.loads(said)["message"]) == (0, "From a program.")
    wait_for(lambda: stow(running_node, ct()).status_code == 503)
    assert httpx.put(address, json={"state": "off"}).json()["state"] == "off"
    assert httpx.get(address).json()["state"] == "off"
    assert "Maintenance is off." in typed("status")[1]
    for wrong in ({}, {"state": "maybe"}, {"state": "on", "message": 3}, {"state": "on", "refuse_stores": "yes"}):
        assert httpx.put(address, json=wrong).status_code == 400
    wait_for(lambda: stow(running_node, ct()).status_code == 200)


def test_without_a_database_it_says_so(tmp_path):
    away = {"DATABASE_URL": "postgresql://127.0.0.1:1/x", "REDIS_URL": "redis://127.0.0.1:1"}
    env = {**os.environ, **away, "FILMROOM_HOME": str(tmp_path), "FILMROOM_CONFIG": os.devnull}
    command = [sys.executable, "-m", "pacs", "maintenance", "on"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "database" in done.stderr
    assert "Traceback" not in done.stderr
