"""Deleting, and the change feed that tells of it."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydicom.uid import generate_uid

from pacs.domain.levels import Scope
from pacs.errors import Conflict, NotFound, Refused
from tests.services.specimens import SOURCE, counters, ct, part10, put, query


def test_a_deleted_instance_is_gone_at_once_and_counters_are_exact(node):
    study, series = generate_uid(), generate_uid()
    doomed = put(node, part10(ct(study, series, Modality="MR")))
    put(node, part10(ct(study)))
    put(node, part10(ct(study)))
    assert counters(node, study)[:3] == (3, 3, "CT\\MR")
    assert node.lifecycle.delete(Scope(study, series, doomed.sop_instance_uid), SOURCE) == 1
    assert counters(node, study)[:3] == (2, 2, "CT")
    with pytest.raises(NotFound):
        node.retrieve.locate(Scope(study, series))
    with pytest.raises(NotFound):
        node.lifecycle.delete(Scope(study, series, doomed.sop_instance_uid), SOURCE)


def test_a_deleted_study_takes_its_patient_along_and_is_audited(node):
    data = ct()
    for _ in range(3):
        put(node, part10(ct(data.StudyInstanceUID, PatientID=data.PatientID)))
    assert node.lifecycle.delete(Scope(data.StudyInstanceUID), SOURCE) == 3
    assert counters(node, data.StudyInstanceUID) is None
    assert query(node, "SELECT count(*) FROM patient WHERE patient_id = %s", data.PatientID) == [(0,)]
    rows = node.audit.of_patient(data.PatientID)
    assert [row["action"] for row in rows] == ["delete"] * 3 + ["store"] * 3


def test_a_patient_with_another_study_stays(node):
    data = ct()
    put(node, part10(data))
    other = ct(PatientID=data.PatientID)
    put(node, part10(other))
    node.lifecycle.delete(Scope(data.StudyInstanceUID), SOURCE)
    assert query(node, "SELECT count(*) FROM patient WHERE patient_id = %s", data.PatientID) == [(1,)]


def test_the_file_goes_after_the_grace_time_only(node):
    stored = put(node, part10(ct()))
    [instance] = node.retrieve.locate(Scope(stored.study_uid))
    node.lifecycle.delete(Scope(stored.study_uid), SOURCE)
    node.lifecycle.bury()
    assert node.store.size(instance.object_name) == instance.size
    node.lifecycle.bury(grace_seconds=0)
    assert node.store.size(instance.object_name) is None
    assert query(node, "SELECT count(*) FROM tombstone WHERE object_name = %s", instance.object_name) == [(0,)]
    node.lifecycle.bury(grace_seconds=0)


def test_a_store_after_a_delete_is_a_new_object_that_burying_leaves_alone(node):
    raw = part10(ct())
    first = put(node, raw)
    node.lifecycle.delete(Scope(first.study_uid), SOURCE)
    assert put(node, raw).outcome == "stored"
    node.lifecycle.bury(grace_seconds=0)
    [instance] = node.retrieve.locate(Scope(first.study_uid))
    with node.retrieve.open(instance) as file:
        assert file.read() == raw


def test_deletes_beside_stores_into_the_same_study_lose_and_miscount_nothing(node):
    study = generate_uid()
    stop = threading.Event()
    stored, deleted = [], []

    def deleting():
        while not stop.is_set():
            with contextlib.suppress(NotFound):
                deleted.append(node.lifecycle.delete(Scope(study), SOURCE))

    thread = threading.Thread(target=deleting)
    thread.start()
    try:
        with ThreadPoolExecutor(4) as threads:
            for outcome in threads.map(lambda _: put(node, part10(ct(study))).outcome, range(80)):
                stored.append(outcome)
    finally:
        stop.set()
        thread.join()
    left = counters(node, study)
    assert stored == ["stored"] * 80
    assert (left[1] if left else 0) + sum(deleted) == 80
    assert query(
        node, "SELECT count(*) FROM instance JOIN study ON study.pk = study_pk WHERE study_uid = %s", study
    ) == [(left[1] if left else 0,)]


def test_the_feed_has_no_gaps_and_never_changes_while_many_store(node):
    start = node.changes.since(0, 100_000)
    seen = [change.seq for change in start]
    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(put, node, part10(ct())) for _ in range(40)]
        while not all(future.done() for future in futures):
            seen.extend(change.seq for change in node.changes.since(seen[-1] if seen else 0, 7))
    while more := node.changes.since(seen[-1], 100):
        seen.extend(change.seq for change in more)
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) == len(start) + 40


def test_the_feed_tells_of_create_and_delete_in_order(node):
    stored = put(node, part10(ct()))
    node.lifecycle.delete(Scope(stored.study_uid), SOURCE)
    actions = [c.action for c in node.changes.since(0, 100_000) if c.sop_instance_uid == stored.sop_instance_uid]
    assert actions == ["create", "delete"]


def test_a_conflict_that_is_kept_leaves_the_stored_object(node):
    data = ct()
    put(node, part10(data))
    data.PatientComments = "other"
    with pytest.raises(Refused):
        put(node, part10(data))
    [conflict] = [c for c in node.conflicts.list() if c["sop_instance_uid"] == data.SOPInstanceUID]
    node.conflicts.resolve(conflict["id"], "kept", SOURCE)
    assert node.store.size(conflict["object_name"], "conflicts") is None
    with pytest.raises(NotFound):
        node.conflicts.resolve(conflict["id"], "kept", SOURCE)


def test_nothing_of_a_study_under_legal_hold_is_deleted_or_replaced(node):
    data = ct()
    put(node, part10(data))
    study = data.StudyInstanceUID
    node.lifecycle.hold(study, True, SOURCE)
    for scope in (Scope(study), Scope(study, data.SeriesInstanceUID, data.SOPInstanceUID)):
        with pytest.raises(Conflict):
            node.lifecycle.delete(scope, SOURCE)
    data.PatientComments = "other"
    incoming = node.ingest.begin(SOURCE)
    incoming.replaces = True
    incoming.write(part10(data))
    with pytest.raises(Refused):
        node.ingest.store(incoming)
    assert put(node, part10(ct(study))).outcome == "stored"
    node.lifecycle.hold(study, False, SOURCE)
    assert node.lifecycle.delete(Scope(study), SOURCE) == 2
    done = [row for row in node.audit.of_study(study) if row["outcome"] == "ok"]
    assert [row["action"] for row in done][::-1] == [
        "store", "hold", "store", "lift-hold", "delete", "delete",
    ]  # fmt: skip
    with pytest.raises(NotFound):
        node.lifecycle.hold(study, True, SOURCE)
