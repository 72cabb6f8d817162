"""Several processes, killed processes, and a database that goes away, each for real."""

import dataclasses
import hashlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from pacs.domain.levels import Scope
from pacs.embedded.servers import Servers
from pacs.errors import NotFound, Reason, Refused
from pacs.index import schema
from pacs.node import build
from tests.services.specimens import SOURCE, counters, ct, part10, put, query

ROOT = Path(__file__).resolve().parent.parent.parent


def storing(settings, study, series, count):
    arguments = [str(settings.home), settings.database_url, study, series, str(count)]
    command = [sys.executable, "-m", "tests.services.storing_process", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def answers(process):
    assert process.stdout is not None
    lines = process.stdout.read().decode().splitlines(keepends=True)
    return [line.split()[1] for line in lines if line.endswith("\n") and line.startswith("stored ")]


def test_two_processes_store_into_one_study_and_counters_stay_exact(node, settings):
    study, series = generate_uid(), [generate_uid(), generate_uid()]
    processes = [storing(settings, study, uid, 60) for uid in series]
    found = [answers(process) for process in processes]
    assert [process.wait() for process in processes] == [0, 0]
    assert [len(uids) for uids in found] == [60, 60]
    assert counters(node, study)[:2] == (2, 120)
    assert counters(node, study)[5] == [60, 60]


def test_a_killed_process_leaves_every_answered_object_whole_and_nothing_half(node, settings):
    study = generate_uid()
    answered = []
    for _ in range(3):
        process = storing(settings, study, generate_uid(), 100_000)
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        answered.append(line.split()[1])
        time.sleep(random.uniform(0.05, 0.6))
        process.kill()
        answered.extend(answers(process))
        process.wait()
    stored = {instance.sop_instance_uid: instance for instance in node.retrieve.locate(Scope(study))}
    assert set(answered) <= set(stored)
    for instance in stored.values():
        with node.retrieve.open(instance) as file:
            assert hashlib.sha256(file.read()).hexdigest() == instance.sha256
    series_count, instance_count, *_ = counters(node, study)
    assert (series_count, instance_count) == (3, len(stored))
    assert node.sweep.counters() == 0
    node.sweep.strays(older_than=0)
    named = {row[0] for row in query(node, "SELECT object_name FROM instance")}
    left = {name for names in node.store.folders() for name in names}
    assert {name for name in left if node.store.size(name)} == named


@pytest.fixture
def own_servers(short_folder):
    servers = Servers(short_folder / "away", ("postgres",))
    servers.start()
    schema.upgrade(servers.members[0].url)
    yield servers
    servers.stop()


def test_a_database_that_goes_away_refuses_quickly_and_is_found_again(own_servers, settings):
    node = build(dataclasses.replace(settings, database_url=own_servers.members[0].url), component="away")
    data = ct()
    put(node, part10(data))
    own_servers.members[0].stop()
    refusals = []
    for _ in range(3):
        start = time.monotonic()
        with pytest.raises(Refused) as caught:
            put(node, part10(ct()))
        assert caught.value.reason is Reason.UNAVAILABLE
        assert time.monotonic() - start < 5
        refusals.append(caught.value.refusal_id)
    own_servers.members[0].start()
    deadline = time.monotonic() + 30
    while True:
        try:
            assert put(node, part10(ct())).outcome == "stored"
            break
        except Refused:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert put(node, part10(data)).outcome == "known"
    while any(refused_id not in {row[0] for row in query(node, "SELECT id FROM refusal")} for refused_id in refusals):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert node.lifecycle.delete(Scope(data.StudyInstanceUID), SOURCE) == 1
    with pytest.raises(NotFound):
        node.retrieve.locate(Scope(data.StudyInstanceUID))
    node.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_refuses_reads_on_and_takes_objects_again_when_there_is_room(settings, short_folder):
    folder = short_folder / "full"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], check=False).returncode:
        pytest.skip("no mounts here")
    node = build(dataclasses.replace(settings, dicom_storage_dir=str(folder / "dicom")), component="full")
    try:
        ballast = folder / "ballast"
        ballast.write_bytes(bytes(2 << 20))
        study, stored = generate_uid(), []

        def fill():
            for _ in range(20):
                stored.append(put(node, part10(ct(study, Rows=512, Columns=512, PixelData=os.urandom(512 * 512 * 2)))))

        with pytest.raises(Refused) as caught:
            fill()
        assert caught.value.reason is Reason.OUT_OF_SPACE
        assert node.refusals.get(caught.value.refusal_id).reason == "out-of-space"
        instances = node.retrieve.locate(Scope(study))
        assert len(instances) == len(stored) > 0
        for instance in instances:
            with node.retrieve.open(instance) as file:
                assert hashlib.sha256(file.read()).hexdigest() == instance.sha256
        ballast.unlink()
        deadline = time.monotonic() + 20
        while True:
            try:
                assert put(node, part10(ct(study))).outcome == "stored"
                break
            except Refused:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        assert node.sweep.counters() == 0
    finally:
        node.close()
        subprocess.run(["umount", "-l", folder], check=True)
