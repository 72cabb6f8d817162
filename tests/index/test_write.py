"""The storing transaction by itself: batches, locks, and what several writers do to one another."""

import random
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from pydicom.uid import generate_uid

from pacs.domain import admission, header
from pacs.index import write
from pacs.index.named import queries
from pacs.index.write import Away, Rejected, Writer
from tests.services.specimens import ct, part10


def item(data, name="", data_sha256=b"d" * 32):
    raw = part10(data)
    admitted = admission.admit(raw)
    found = header.extract(admitted, raw)
    file = write.File(
        name or f"aa/{data.SOPInstanceUID}",
        len(raw),
        admitted.data_offset,
        b"f" * 32,
        data_sha256,
        admitted.transfer_syntax_uid,
    )
    return write.item(found, file, "stow", "tester", "")


@pytest.fixture
def writer(database_url):
    made = Writer(database_url, "test")
    yield made
    made.close()


@pytest.fixture
def connection(database_url):
    with psycopg.connect(database_url, autocommit=True) as opened:
        yield opened


def one(connection, statement, *parameters):
    return connection.execute(statement, parameters).fetchone()


def test_a_batch_answers_in_its_own_order(writer):
    data = ct()
    items = [item(ct()), item(data), item(data, name="other/name"), item(data, "third/name", b"x" * 32), item(ct())]
    verdicts = writer.store(items)
    assert [verdict.outcome for verdict in verdicts] == ["stored", "stored", "known", "differs", "stored"]
    assert verdicts[2].known_object == items[1].object_name


def test_a_repeated_batch_is_known_and_changes_nothing(writer, connection):
    study = generate_uid()
    items = [item(ct(study)) for _ in range(5)]
    writer.store(items)
    before = one(connection, "SELECT s::text FROM study s WHERE study_uid = %s", study)
    writer.store(
        [write.Item(i.line.replace(i.object_name.encode(), b"zz" + i.object_name.encode()), "zz") for i in items]
    )
    assert one(connection, "SELECT s::text FROM study s WHERE study_uid = %s", study) == before


def test_a_transaction_that_loses_to_another_leaves_no_parents(writer, connection):
    data = ct()
    writer.store([item(data)])
    study = generate_uid()
    data.StudyInstanceUID, data.PatientID = study, "LOSER"
    assert writer.store([item(data, "other/name", b"x" * 32)])[0].outcome == "differs"
    assert one(connection, "SELECT count(*) FROM study WHERE study_uid = %s", study) == (0,)
    assert one(connection, "SELECT count(*) FROM patient WHERE patient_id = 'LOSER'") == (0,)


def test_further_objects_of_a_series_are_stored_as_its_first(database_url, writer, connection):
    """A writer that knows a series stores into it in a shorter way: both ways leave the same rows."""
    left, right = generate_uid(), generate_uid()
    for study, apart in ((left, False), (right, True)):
        shapes = [
            ct(study, PatientID="FURTHER", SeriesInstanceUID=f"{study[:60]}.{n % 2}", InstanceNumber=str(n))
            for n in range(7)
        ]
        shapes[3].SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
        for data in shapes:
            here = Writer(database_url, "short-lived") if apart else writer
            assert here.store([item(data)])[0].outcome == "stored"
            if apart:
                here.close()
        assert writer._known.keys() >= ({(left, f"{left[:60]}.0"), (left, f"{left[:60]}.1")})

    def rows(study):
        statements = (
            "SELECT series_count, instance_count, modalities, sop_classes, change_seq FROM study WHERE study_uid = %s",
            "SELECT r.instance_count, r.attrs - '0020000E' FROM series r JOIN study ON study.pk = study_pk"
            " WHERE study_uid = %s ORDER BY series_uid",
            "SELECT i.instance_number, i.attrs - '00080018', i.original, i.door, i.peer, i.version, transfer_syntax_uid"
            " FROM instance i JOIN study ON study.pk = study_pk WHERE study_uid = %s ORDER BY i.pk",
            "SELECT action FROM change_feed WHERE study_uid = %s ORDER BY id",
            "SELECT door, actor, address, action, outcome, patient_id FROM audit WHERE study_uid = %s ORDER BY id",
            "SELECT payload ->> 'change_seq' FROM outbox WHERE payload ->> 'study_uid' = %s ORDER BY id",
        )
        return [connection.execute(statement, (study,)).fetchall() for statement in statements]

    assert rows(left) == rows(right)


def test_a_further_batch_answers_in_its_own_order(writer):
    study = generate_uid()
    data = [ct(study, SeriesInstanceUID=f"{study[:60]}.{n % 2}") for n in range(6)]
    writer.store([item(data[0]), item(data[1])])
    items = [item(data[5]), item(data[0]), item(data[2]), item(data[1], "x/y", b"x" * 32), item(data[3]), item(data[4])]
    items.append(item(data[2], "z/z"))
    outcomes = [verdict.outcome for verdict in writer.store(items)]
    assert outcomes == ["stored", "known", "stored", "differs", "stored", "stored", "known"]


def test_a_series_that_was_deleted_is_made_again(writer, connection):
    study = generate_uid()
    for _ in range(2):
        writer.store([item(ct(study, SeriesInstanceUID=f"{study[:60]}.1"))])
    connection.execute(
        "SELECT remove_instances(ARRAY(SELECT i.pk FROM instance i JOIN study s ON s.pk = study_pk"
        " WHERE study_uid = %s), 'deleted')",
        (study,),
    )
    assert writer.store([item(ct(study, SeriesInstanceUID=f"{study[:60]}.1"))])[0].outcome == "stored"
    assert one(connection, "SELECT instance_count, series_count FROM study WHERE study_uid = %s", study) == (1, 1)


def test_a_study_keeps_its_first_patient_and_the_other_is_not_made(writer, connection):
    study = generate_uid()
    writer.store([item(ct(study, PatientID="FIRST")), item(ct(study, PatientID="SECOND"))])
    assert one(connection, "SELECT count(*) FROM patient WHERE patient_id = 'SECOND'") == (0,)
    writer.store([item(ct(study, PatientID="THIRD"))])
    assert one(connection, "SELECT count(*) FROM patient WHERE patient_id = 'THIRD'") == (0,)
    assert one(connection, "SELECT patient_id, instance_count FROM study WHERE study_uid = %s", study) == ("FIRST", 3)
    assert one(connection, "SELECT keyword FROM patient_conflict WHERE study_uid = %s", study) == ("PatientID",)


def test_issuers_tell_patients_of_one_id_apart(writer, connection):
    for issuer in ("HOSPITAL A", "HOSPITAL B"):
        writer.store([item(ct(PatientID="SAME", IssuerOfPatientID=issuer))])
    assert one(connection, "SELECT count(*) FROM patient WHERE patient_id = 'SAME'") == (2,)


def test_writers_with_batches_across_the_same_studies_neither_deadlock_nor_miscount(database_url, connection):
    rng = random.Random(7)
    studies = [generate_uid() for _ in range(4)]
    patients = {study: f"SHARED{i % 2}" for i, study in enumerate(studies)}

    def batches(_):
        local = Writer(database_url, "rival")
        stored = 0
        for _ in range(12):
            items = [item(ct(s, PatientID=patients[s])) for s in rng.sample(studies, 3) for _ in range(2)]
            rng.shuffle(items)
            stored += [verdict.outcome for verdict in local.store(items)].count("stored")
        local.close()
        return stored

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(batches, range(4))) == 4 * 12 * 6
    counted = one(
        connection,
        """SELECT sum(instance_count), sum(series_count), sum(change_seq),
                  (SELECT count(*) FROM instance JOIN study s ON s.pk = study_pk WHERE study_uid = ANY(%s))
           FROM study WHERE study_uid = ANY(%s)""",
        studies,
        studies,
    )
    assert counted == (288, 288, 288, 288)


def test_writers_of_the_same_uids_agree_on_one_winner_each(database_url):
    objects = [ct() for _ in range(30)]

    def rival(name):
        local = Writer(database_url, "rival")
        order = random.sample(objects, len(objects))
        verdicts = {}
        for start in range(0, 30, 5):
            some = order[start : start + 5]
            items = [item(data, f"{name}/{data.SOPInstanceUID}", name.encode() * 32) for data in some]
            for data, verdict in zip(some, local.store(items), strict=True):
                verdicts[data.SOPInstanceUID] = verdict.outcome
        local.close()
        return verdicts

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(rival, "abcd"))
    for data in objects:
        assert sorted(verdicts[data.SOPInstanceUID] for verdicts in found) == ["differs"] * 3 + ["stored"]


def test_values_that_the_database_does_not_take_are_rejected(writer):
    good = item(ct())
    for line in (
        b"no json",
        good.line.replace(b"Canary", b"\\u0000"),
        good.line.replace(b'"size":', b'"size":"x",":":'),
    ):
        with pytest.raises(Rejected):
            writer.store([write.Item(line, good.object_name)])
    assert writer.store([good])[0].outcome == "stored"


def test_a_database_that_is_not_there_is_away_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "RECONNECT_SECONDS", 600.0)
    absent = Writer(f"postgresql://nobody@/nothing?host={tmp_path}", "test")
    assert not absent.away()
    for _ in range(3):
        with pytest.raises(Away):
            absent.store([item(ct())])
    assert absent.away()


def test_statements_are_named_described_and_prepared_one_by_one():
    for subject in ("write", "retrieve", "derive", "lifecycle", "changes", "conflicts", "sweep", "scrub", "findings"):
        assert all(statement and b";" not in statement for statement in queries(subject).values())
