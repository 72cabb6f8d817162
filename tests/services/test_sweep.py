"""Index and store compared, and the scrub."""

import os
import subprocess
import sys
import time

from pydicom.uid import generate_uid

from pacs.domain.levels import Scope
from pacs.services import sweep as sweeping
from tests.services.specimens import SOURCE, ct, part10, put, query


def keep(node, data=b"stray"):
    draft = node.store.draft()
    draft.write(data)
    name = draft.publish()
    draft.settle()
    draft.close()
    return name


def findings(node, name):
    return [found["kind"] for found in node.findings.open(10_000) if found["object_name"] == name]


def located(node, stored):
    [instance] = node.retrieve.locate(Scope(stored.study_uid, stored.series_uid, stored.sop_instance_uid))
    return instance


def test_a_file_that_nothing_names_goes_to_lost_and_found_after_an_hour(node):
    name = keep(node)
    node.sweep.strays()
    assert node.store.size(name) == 5
    node.sweep.strays(older_than=0)
    assert node.store.size(name) is None
    with node.store.open(name, "lost+found") as file:
        assert file.read() == b"stray"
    assert findings(node, name) == ["stray_file"]


def test_named_files_and_files_under_way_stay(node):
    instance = located(node, put(node, part10(ct())))
    draft = node.store.draft()
    draft.write(b"under way")
    name = draft.publish()
    node.sweep.strays(older_than=0)
    assert node.store.size(name) == 9
    assert node.store.size(instance.object_name) == instance.size
    draft.discard()


def test_blanks_of_a_killed_process_go_and_living_ones_stay(node, monkeypatch, settings):
    monkeypatch.setattr(sweeping, "BLANK_SECONDS", 0.0)
    script = f"""
import sys, time
from pathlib import Path
from pacs.store.local import LocalStore
store = LocalStore(Path({str(settings.storage_dir)!r}))
draft = store.draft(); draft.write(b"x"); draft.publish(); print("ready", flush=True); time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    put(node, part10(ct()))

    def empty():
        return {n for names in node.store.folders() for n in names if node.store.size(n) == 0}

    node.sweep.strays()
    theirs = {name for name in empty() if not node.store.made_here(name)}
    assert theirs
    process.kill()
    process.wait()
    node.sweep.strays()
    assert not {name for name in empty() if not node.store.made_here(name)}
    assert put(node, part10(ct())).outcome == "stored"


def test_a_row_without_its_file_is_found_and_cured_when_the_file_is_back(node, settings):
    instance = located(node, put(node, part10(ct())))
    path = settings.storage_dir / "objects" / instance.object_name
    content = path.read_bytes()
    path.unlink()
    assert node.sweep.missing() >= 1
    assert findings(node, instance.object_name) == ["missing_file"]
    path.write_bytes(content)
    node.sweep.missing()
    assert findings(node, instance.object_name) == []


def test_wrong_counters_are_corrected_and_told(node):
    stored = put(node, part10(ct()))
    query(
        node,
        "UPDATE study SET instance_count = 7, modalities = 'XX' WHERE study_uid = %s RETURNING 1",
        stored.study_uid,
    )
    assert node.sweep.counters() == 1
    row = query(node, "SELECT instance_count, modalities FROM study WHERE study_uid = %s", stored.study_uid)
    assert row == [(1, "CT")]
    assert findings(node, stored.study_uid) == ["counters"]
    assert node.sweep.counters() == 0


def test_bytes_that_changed_on_disk_go_to_quarantine(node, settings):
    good = located(node, put(node, part10(ct())))
    bad = located(node, put(node, part10(ct())))
    path = settings.storage_dir / "objects" / bad.object_name
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert node.scrub.run(seconds=20, older_than=0) >= 2
    assert node.store.size(bad.object_name) is None
    assert node.store.size(bad.object_name, "quarantine") == bad.size
    assert findings(node, bad.object_name) == ["wrong_digest"]
    assert node.store.size(good.object_name) == good.size


def test_the_scrub_leaves_alone_what_was_checked_lately(node):
    put(node, part10(ct()))
    assert node.scrub.run(seconds=5) == 0


def test_after_a_loss_of_power_rows_whose_files_are_not_whole_are_dropped(node, settings, monkeypatch):
    node.sweep.beat()
    study = generate_uid()
    whole = located(node, put(node, part10(ct(study))))
    cut = located(node, put(node, part10(ct(study))))
    os.truncate(settings.storage_dir / "objects" / cut.object_name, 0)
    assert node.sweep.drop_unwritten() == 0  # the machine stayed up: nothing can be half written
    monkeypatch.setattr(sweeping, "_boot", lambda: "another start")
    node.sweep.drop_unwritten()
    [left] = node.retrieve.locate(Scope(study))
    assert left.sop_instance_uid == whole.sop_instance_uid
    assert query(node, "SELECT instance_count FROM study WHERE study_uid = %s", study) == [(1,)]
    assert "wrong_digest" in findings(node, cut.object_name)


def test_sweeping_beside_stores_touches_nothing_that_is_answered_for(node, monkeypatch):
    monkeypatch.setattr(sweeping, "BLANK_SECONDS", 0.0)
    study, until = generate_uid(), time.monotonic() + 2
    count = 0
    while time.monotonic() < until:
        incoming = node.ingest.begin(SOURCE)
        incoming.write(part10(ct(study)))
        future = node.ingest.submit(incoming)
        node.sweep.strays(older_than=0)
        assert future.result().outcome == "stored"
        count += 1
    for instance in node.retrieve.locate(Scope(study)):
        assert node.store.size(instance.object_name) == instance.size
    assert len(node.retrieve.locate(Scope(study))) == count
