"""The one door in, on a real database and file system."""

import hashlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage, generate_uid

from pacs.domain.events import Expected, Source
from pacs.domain.levels import Scope
from pacs.domain.uids import IMPLEMENTATION_CLASS_UID
from pacs.errors import Reason, Refused
from pacs.index import write
from pacs.index.write import Away, Unknown, Writer
from pacs.store.base import StoreFailed
from tests.services.specimens import SOURCE, bare, counters, ct, part10, put, query


def refused(node, raw, reason, **claims):
    with pytest.raises(Refused) as caught:
        put(node, raw, expected=Expected(**claims))
    assert caught.value.reason is reason
    found = node.refusals.get(caught.value.refusal_id)
    assert (found.reason, found.door, found.peer) == (reason.value, SOURCE.door, SOURCE.peer)
    assert "Canary" not in found.message
    return found


def files(node):
    return sorted(name for names in node.store.folders() for name in names if node.store.size(name))


def stored_bytes(node, stored):
    [instance] = node.retrieve.locate(Scope(stored.study_uid, stored.series_uid, stored.sop_instance_uid))
    with node.retrieve.open(instance) as file:
        return file.read(), instance


def test_a_stored_file_comes_back_byte_for_byte(node):
    raw = part10(ct())
    stored = put(node, raw)
    assert stored.outcome == "stored"
    content, instance = stored_bytes(node, stored)
    assert content == raw
    assert instance.sha256 == hashlib.sha256(raw).hexdigest()
    assert instance.data_sha256 == hashlib.sha256(raw[instance.data_offset :]).hexdigest()


def test_a_bare_data_set_gets_our_head_and_keeps_its_bytes(node):
    data = ct()
    raw = bare(data)
    expected = Expected(data.SOPClassUID, data.SOPInstanceUID, "", ExplicitVRLittleEndian)
    incoming = node.ingest.begin(Source("dimse", "MODALITY1", "10.0.0.1"), expected, raw=True)
    for start in range(0, len(raw), 100):
        incoming.write(raw[start : start + 100])
    content, instance = stored_bytes(node, node.ingest.store(incoming))
    assert content[instance.data_offset :] == raw
    assert content[:132] == bytes(128) + b"DICM"
    assert IMPLEMENTATION_CLASS_UID.encode() in content[: instance.data_offset]
    assert b"MODALITY1" in content[: instance.data_offset]


def test_the_same_data_set_through_another_door_is_known_and_counted_once(node):
    data = ct()
    put(node, part10(data))
    before = counters(node, data.StudyInstanceUID)
    expected = Expected(data.SOPClassUID, data.SOPInstanceUID, "", ExplicitVRLittleEndian)
    incoming = node.ingest.begin(Source("dimse", "MODALITY1"), expected, raw=True)
    incoming.write(bare(data))
    assert node.ingest.store(incoming).outcome == "known"
    assert counters(node, data.StudyInstanceUID) == before
    assert query(node, "SELECT count(*) FROM change_feed WHERE sop_instance_uid = %s", data.SOPInstanceUID) == [(1,)]


def test_a_dropped_duplicate_leaves_no_file(node):
    raw = part10(ct())
    put(node, raw)
    before = files(node)
    assert put(node, raw).outcome == "known"
    assert files(node) == before


def test_a_duplicate_whose_file_is_lost_heals_it(node):
    raw = part10(ct())
    stored = put(node, raw)
    _, instance = stored_bytes(node, stored)
    node.store.remove([instance.object_name])
    assert put(node, raw).outcome == "known"
    content, healed = stored_bytes(node, stored)
    assert content == raw
    assert healed.object_name != instance.object_name


def test_other_content_under_a_known_uid_is_refused_and_set_aside(node):
    data = ct()
    first = put(node, part10(data))
    data.PatientComments = "other"
    newcomer = part10(data)
    refusal = refused(node, newcomer, Reason.DUPLICATE)
    row = query(
        node, "SELECT object_name, refusal_id FROM conflict WHERE sop_instance_uid = %s", first.sop_instance_uid
    )
    assert row[0][1] == refusal.id
    with node.store.open(row[0][0], "conflicts") as file:
        assert file.read() == newcomer
    refused(node, newcomer, Reason.DUPLICATE)
    conflicts = query(node, "SELECT count(*) FROM conflict WHERE sop_instance_uid = %s", first.sop_instance_uid)
    assert conflicts == [(1,)]


def test_a_known_uid_in_another_study_leaves_nothing_of_that_study(node):
    data = ct()
    put(node, part10(data))
    other = generate_uid()
    data.StudyInstanceUID, data.PatientID = other, f"OTHER{other[-6:]}"
    refused(node, part10(data), Reason.DUPLICATE)
    assert counters(node, other) is None
    assert query(node, "SELECT count(*) FROM patient WHERE patient_id = %s", data.PatientID) == [(0,)]


def test_a_resolved_conflict_makes_the_newcomer_the_new_version(node):
    data = ct()
    first = put(node, part10(data))
    data.PatientComments = "other"
    newcomer = part10(data)
    refused(node, newcomer, Reason.DUPLICATE)
    [conflict] = [c for c in node.conflicts.list() if c["sop_instance_uid"] == first.sop_instance_uid]
    node.conflicts.resolve(conflict["id"], "replaced", SOURCE)
    content, _ = stored_bytes(node, first)
    assert content == newcomer
    assert counters(node, first.study_uid)[:2] == (1, 1)
    found = query(node, "SELECT cause FROM tombstone WHERE sop_instance_uid = %s", first.sop_instance_uid)
    assert found == [("replaced",)]
    actions = query(
        node, "SELECT action FROM change_feed WHERE sop_instance_uid = %s ORDER BY id", first.sop_instance_uid
    )
    assert actions == [("create",), ("replace",)]


def test_a_replacement_may_move_to_another_series_and_counts_stay_exact(node):
    study = generate_uid()
    data = ct(study)
    put(node, part10(data))
    put(node, part10(ct(study, data.SeriesInstanceUID)))
    data.SeriesInstanceUID, data.Modality = generate_uid(), "OT"
    incoming = node.ingest.begin(SOURCE)
    incoming.replaces = True
    incoming.write(part10(data))
    assert node.ingest.store(incoming).outcome == "replaced"
    assert counters(node, study)[:3] == (2, 2, "CT\\OT")


CLAIMS = [
    ("sop_class_uid", MRImageStorage, Reason.CLASS_MISMATCH),
    ("sop_instance_uid", "1.2.3", Reason.INSTANCE_MISMATCH),
    ("study_uid", "1.2.3", Reason.STUDY_MISMATCH),
]


@pytest.mark.parametrize(("claim", "value", "reason"), CLAIMS)
def test_an_object_that_is_not_what_was_announced_is_refused(node, claim, value, reason):
    refused(node, part10(ct()), reason, **{claim: value})


def test_unreadable_bytes_are_refused_with_a_reason_and_leave_no_file(node):
    before = files(node)
    whole = part10(ct())
    for raw in (b"", b"hello", os.urandom(5000), whole[: len(whole) - 50], whole[:200]):
        refused(node, raw, Reason.UNREADABLE)
    assert files(node) == before


def test_missing_and_malformed_uids_are_refused(node):
    data = ct()
    del data.StudyInstanceUID
    refused(node, part10(data), Reason.BAD_UID)
    data = ct()
    data.SeriesInstanceUID = "1.2.x'; DROP TABLE study"
    refused(node, part10(data), Reason.BAD_UID)


def test_classes_that_nobody_stores_are_refused_and_private_ones_are_kept(node):
    refused(node, part10(ct(SOPClassUID="1.2.840.10008.1.1")), Reason.CLASS_NOT_SUPPORTED)
    assert put(node, part10(ct(SOPClassUID="1.3.12.2.1107.5.9.1"))).outcome == "stored"


def test_a_preamble_that_could_be_another_file_is_emptied_and_said(node):
    stored = put(node, part10(ct(), preamble=b"MZ" + os.urandom(126)))
    content, instance = stored_bytes(node, stored)
    assert content[:128] == bytes(128)
    assert instance.sha256 == hashlib.sha256(content).hexdigest()
    assert any("preamble" in warning for warning in stored.warnings)


def test_a_data_set_without_a_head_is_kept_as_a_readable_file(node):
    data = ct()
    content, instance = stored_bytes(node, put(node, bare(data)))
    assert content[128:132] == b"DICM"
    assert content[instance.data_offset :] == bare(data)
    assert instance.transfer_syntax_uid == ExplicitVRLittleEndian


def test_a_head_that_names_the_wrong_syntax_is_corrected(node):
    data = ct()
    expected = Expected(data.SOPClassUID, data.SOPInstanceUID, "", ImplicitVRLittleEndian)
    incoming = node.ingest.begin(SOURCE, expected, raw=True)
    incoming.write(bare(data))
    content, instance = stored_bytes(node, node.ingest.store(incoming))
    assert instance.transfer_syntax_uid == ExplicitVRLittleEndian
    assert content[instance.data_offset :] == bare(data)


def test_too_large_objects_are_refused_while_they_come(node, monkeypatch):
    monkeypatch.setattr(node.ingest, "largest", 3 << 20)
    incoming = node.ingest.begin(SOURCE)
    for _ in range(3):
        incoming.write(bytes(1 << 20))
    with pytest.raises(Refused) as caught:
        incoming.write(b"x")
    assert caught.value.reason is Reason.TOO_LARGE
    assert not list((node.settings.storage_dir / "tmp").iterdir())


def test_a_disk_at_its_reserve_refuses_before_the_first_byte(node, monkeypatch):
    monkeypatch.setattr(node.store, "free_bytes", lambda: 0)
    with pytest.raises(Refused) as caught:
        node.ingest.begin(SOURCE)
    assert caught.value.reason is Reason.OUT_OF_SPACE
    assert node.refusals.get(caught.value.refusal_id).reason == "out-of-space"


def test_counters_are_exact_when_eight_threads_store_into_one_study(node):
    study = generate_uid()
    series = [generate_uid() for _ in range(3)]
    objects = [part10(ct(study, series[i % 3], Modality=("CT", "PT", "OT")[i % 3])) for i in range(96)]
    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(lambda raw: put(node, raw).outcome, objects + objects[:20]))
    assert outcomes.count("stored") == 96
    assert outcomes.count("known") == 20
    assert counters(node, study) == (3, 96, "CT\\OT\\PT", ct().SOPClassUID, 96, [32, 32, 32])


def test_one_of_several_who_store_the_same_uid_wins(node):
    data = ct()
    versions = []
    for i in range(8):
        data.PatientComments = str(i)
        versions.append(part10(data))
    gate = threading.Barrier(8)

    def attempt(raw):
        gate.wait()
        try:
            return put(node, raw).outcome
        except Refused as error:
            return error.reason.value

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(attempt, versions))
    assert sorted(outcomes) == ["duplicate"] * 7 + ["stored"]
    assert counters(node, data.StudyInstanceUID)[:2] == (1, 1)


def test_the_same_object_from_eight_at_once_is_stored_once(node):
    raw = part10(ct())
    gate = threading.Barrier(8)

    def attempt(_):
        gate.wait()
        return put(node, raw)

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(attempt, range(8)))
    assert sorted(stored.outcome for stored in found) == ["known"] * 7 + ["stored"]
    content, _ = stored_bytes(node, found[0])
    assert content == raw
    assert counters(node, found[0].study_uid)[:2] == (1, 1)


@pytest.mark.parametrize("known", [False, True], ids=["new series", "known series"])
def test_one_object_that_the_database_does_not_take_fails_alone(node, monkeypatch, known):
    real = write.item

    def item(found, *rest):
        made = real(found, *rest)
        if "POISON" in found.values.get("ContentLabel", []):
            bad = {name: getattr(made, name).replace(b"POISON", b"\\u0000") for name in ("line", "further")}
            made = replace(made, **bad)
        return made

    monkeypatch.setattr(write, "item", item)
    study, series = generate_uid(), generate_uid() if known else ""
    put(node, part10(ct(study, series)))
    objects = [part10(ct(study, series, ContentLabel="POISON" if i == 5 else "FINE")) for i in range(12)]
    futures = []
    for raw in objects:
        incoming = node.ingest.begin(SOURCE)
        incoming.write(raw)
        futures.append(node.ingest.submit(incoming))
    failures = [future.exception() for future in futures]
    assert [type(error) for error in failures if error] == [Refused]
    assert isinstance(failures[5], Refused)
    assert failures[5].reason is Reason.UNREADABLE
    assert counters(node, study)[1] == 12


def test_only_originals_move_the_study_and_ring_for_the_ai(node):
    data = ct()
    put(node, part10(data))
    result = ct(data.StudyInstanceUID, Modality="SEG")
    put(node, part10(result), Source("ai", "worker", ""))
    rows = query(node, "SELECT payload FROM outbox WHERE payload ->> 'study_uid' = %s", data.StudyInstanceUID)
    payload = {"study_uid": data.StudyInstanceUID, "series_uid": data.SeriesInstanceUID, "change_seq": 1}
    assert rows == [(payload,)]
    assert counters(node, data.StudyInstanceUID)[4] == 1


def test_a_store_rings_the_outbox(node):
    listener = node.listen("outbox")
    listener.wait(0.1)
    put(node, part10(ct()))
    assert listener.wait(5.0)
    listener.close()


def test_every_store_is_audited_with_its_patient(node):
    data = ct()
    put(node, part10(data))
    [row] = node.audit.of_study(data.StudyInstanceUID)
    assert (row["action"], row["outcome"], row["patient_id"]) == ("store", "ok", data.PatientID)
    assert (row["door"], row["actor"]) == (SOURCE.door, SOURCE.peer)


def test_one_patient_id_under_two_names_is_stored_and_listed(node):
    data = ct()
    put(node, part10(data))
    other = ct(PatientID=data.PatientID, PatientName="Other^Name")
    assert put(node, part10(other)).outcome == "stored"
    found = query(node, "SELECT keyword FROM patient_conflict WHERE study_uid = %s", other.StudyInstanceUID)
    assert found == [("PatientName",)]
    assert query(node, "SELECT count(*) FROM patient WHERE patient_id = %s", data.PatientID) == [(1,)]


def test_studies_without_a_patient_id_have_patients_of_their_own(node):
    for _ in range(2):
        put(node, part10(ct(PatientID="", PatientName="Unknown")))
    found = query(node, "SELECT count(*) FROM patient WHERE patient_id = '' AND patient_name LIKE '%%unknown%%'")
    assert found[0][0] >= 2


def test_the_answer_waits_for_the_fsync_and_for_the_commit(node, monkeypatch):
    from pacs.store.draft import LocalDraft

    for slow, rows in (("settle", SMALL), ("settle", LARGE), ("store", SMALL), ("store", LARGE)):
        gate, owner = threading.Event(), LocalDraft if slow == "settle" else Writer
        real = getattr(owner, slow)

        def late(self, *args, real=real, gate=gate):
            gate.wait(10)
            return real(self, *args)

        monkeypatch.setattr(owner, slow, late)
        incoming = node.ingest.begin(SOURCE)
        incoming.write(part10(sized(rows)))
        future = node.ingest.submit(incoming)
        time.sleep(0.3)
        assert not future.done()
        gate.set()
        assert future.result(10).outcome == "stored"
        monkeypatch.undo()


SMALL, LARGE = 8, 256  # rows: the fsync of a large one begins before the object is looked at


def sized(rows, **more):
    return ct(Rows=rows, Columns=rows, PixelData=os.urandom(rows * rows * 2), **more)


def test_a_large_object_that_is_refused_leaves_no_file(node):
    before = files(node)
    whole = part10(sized(LARGE))
    refused(node, whole[: len(whole) - 100], Reason.UNREADABLE)
    refused(node, whole, Reason.STUDY_MISMATCH, study_uid="1.2.3")
    assert files(node) == before
    assert put(node, bare(sized(LARGE))).outcome == "stored"  # its head is made anew, in another file
    assert len(files(node)) == len(before) + 1


@pytest.mark.parametrize("rows", [SMALL, LARGE])
def test_a_failed_fsync_takes_the_row_out_again_and_refuses(node, monkeypatch, rows):
    from pacs.store.draft import LocalDraft

    def broken(self):
        time.sleep(0.2)  # the commit is done by then
        self.discard()
        raise StoreFailed("EIO")

    monkeypatch.setattr(LocalDraft, "settle", broken)
    data = sized(rows)
    raw = part10(data)
    refused(node, raw, Reason.OUT_OF_SPACE)
    monkeypatch.undo()
    assert counters(node, data.StudyInstanceUID) is None
    assert put(node, raw).outcome == "stored"


def test_a_duplicate_of_an_object_whose_fsync_fails_is_durable_by_itself(node, monkeypatch):
    from pacs.store.draft import LocalDraft

    real, first, gate = LocalDraft.settle, threading.Event(), threading.Event()

    def settle(self):
        if not first.is_set():
            first.set()
            gate.wait(10)
            self.discard()
            raise StoreFailed("EIO")
        real(self)

    monkeypatch.setattr(LocalDraft, "settle", settle)
    raw = part10(ct())
    incoming = node.ingest.begin(SOURCE)
    incoming.write(raw)
    doomed = node.ingest.submit(incoming)
    assert first.wait(10)
    while not query(node, "SELECT 1 FROM instance WHERE size = %s", len(raw)):
        time.sleep(0.02)
    stored = put(node, raw)
    assert stored.outcome == "known"
    gate.set()
    assert isinstance(doomed.exception(10), Refused)
    content, _ = stored_bytes(node, stored)
    assert content == raw
    assert counters(node, stored.study_uid)[:2] == (1, 1)


def test_a_commit_that_was_done_though_its_answer_was_lost_is_success(node, monkeypatch):
    real, lost = Writer._store, []

    def lose(self, items):
        answers = real(self, items)
        if not lost:
            lost.append(1)
            import psycopg

            self.close()
            raise psycopg.OperationalError("the connection broke")
        return answers

    monkeypatch.setattr(Writer, "_store", lose)
    stored = put(node, part10(ct()))
    assert stored.outcome == "stored"
    assert counters(node, stored.study_uid)[:2] == (1, 1)


def test_a_connection_that_broke_while_idle_costs_no_store(node):
    put(node, part10(ct()))
    query(node, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    time.sleep(0.2)
    assert put(node, part10(ct())).outcome == "stored"


def test_an_unknown_commit_is_refused_and_its_file_stays_for_the_sweep(node, monkeypatch):
    def unknown(_self, _items):
        raise Unknown

    monkeypatch.setattr(Writer, "store", unknown)
    before = len(files(node))
    refused(node, part10(ct()), Reason.UNAVAILABLE)
    assert len(files(node)) == before + 1


def test_a_database_that_is_away_refuses_and_leaves_no_file(node, monkeypatch):
    def away(_self, _items):
        raise Away

    monkeypatch.setattr(Writer, "store", away)
    before = files(node)
    refused(node, part10(ct()), Reason.UNAVAILABLE)
    assert files(node) == before


def test_an_aborted_object_leaves_nothing(node):
    incoming = node.ingest.begin(SOURCE)
    incoming.write(bytes(3 << 20))
    incoming.abort()
    incoming.abort()
    assert not list((node.settings.storage_dir / "tmp").iterdir())
