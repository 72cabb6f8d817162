"""Who did what: rows in the background, with their patients looked up, and repeats folded."""

import random
import time
from datetime import UTC, datetime, timedelta

import pytest
from psycopg.types.json import Jsonb

from pacs.domain.attributes import BY_KEYWORD
from pacs.domain.events import Source
from pacs.domain.levels import Level, Scope
from pacs.domain.moments import moment
from pacs.domain.query import Condition, Query
from pacs.errors import BadRequest, Refused
from pacs.services import audit
from pacs.services.audit import Audit
from pacs.services.auditfold import Fold
from tests.services.specimens import SOURCE, ct, part10, put, query

READER = Source("dicomweb", "anna", "192.0.2.7")


@pytest.fixture
def trail(node):
    """A trail whose rows are all written once it is closed."""
    made = Audit(node.pool)
    yield made
    made.close()


def stored(node, **more):
    data = ct(**more)
    put(node, part10(data))
    return data


def noted(node, trail, **question):
    trail.close()
    return node.audit.find(**question)


def test_an_access_by_study_is_found_by_its_patient(node, trail):
    data = stored(node)
    trail.note(READER, "read", study_uid=data.StudyInstanceUID, detail={"route": "/x"})
    seen, kept = noted(node, trail, patient=data.PatientID)
    assert (kept["action"], seen["action"], seen["actor"], seen["address"]) == ("store", "read", "anna", "192.0.2.7")
    assert seen["study_uid"] == data.StudyInstanceUID


def test_an_access_by_instance_alone_is_found_by_study_and_patient(node, trail):
    data = stored(node)
    trail.note(READER, "review", sop_instance_uid=data.SOPInstanceUID)
    seen, _ = noted(node, trail, patient=data.PatientID)
    assert (seen["study_uid"], seen["action"]) == (data.StudyInstanceUID, "review")


def test_an_access_to_a_deleted_study_is_still_about_its_patient(node, trail):
    data = stored(node)
    node.lifecycle.delete(Scope(data.StudyInstanceUID), SOURCE)
    trail.note(READER, "read", outcome="failed", study_uid=data.StudyInstanceUID)
    rows = noted(node, trail, patient=data.PatientID)
    assert [(row["action"], row["outcome"]) for row in rows] == [("read", "failed"), ("delete", "ok"), ("store", "ok")]


def test_a_refused_object_is_found_by_the_patient_it_names(node):
    data = ct()
    data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    held = stored(node)
    data.SOPInstanceUID = held.SOPInstanceUID
    with pytest.raises(Refused):
        put(node, part10(data))
    deadline = time.monotonic() + 10
    while not (rows := node.audit.of_patient(data.PatientID)):
        assert time.monotonic() < deadline
    [row] = rows
    assert (row["action"], row["outcome"], row["study_uid"]) == ("store", "refused", data.StudyInstanceUID)
    assert row["detail"]["reason"]


def asked(level, limit=None, **keys):
    conditions = tuple(Condition((BY_KEYWORD[keyword].tag,), (value,)) for keyword, value in keys.items())
    return Query(level, conditions, limit=limit)


def search(node, trail, question):
    trail.note(READER, "search", **audit.searched(question, node.search.find(question).rows))


def test_a_search_for_a_patient_is_found_by_that_patient_also_without_a_match(node, trail):
    data = stored(node)
    nobody = f"GONE{random.getrandbits(40)}"
    for patient in (data.PatientID, nobody):
        search(node, trail, asked(Level.STUDY, PatientID=patient))
    trail.close()
    seen, _ = node.audit.find(patient=data.PatientID)
    assert (seen["study_uid"], seen["detail"]) == (
        data.StudyInstanceUID,
        {"level": "study", "asked": {"PatientID": data.PatientID}},
    )
    assert [row["action"] for row in node.audit.find(patient=nobody)] == ["search"]


def test_a_search_that_finds_one_patient_is_about_that_patient(node, trail):
    data = stored(node, AccessionNumber=f"A{random.getrandbits(40)}")
    put(node, part10(ct(data.StudyInstanceUID, PatientID=data.PatientID)))
    search(node, trail, asked(Level.INSTANCE, AccessionNumber=data.AccessionNumber))
    seen = noted(node, trail, patient=data.PatientID)[0]
    assert (seen["action"], seen["patient_id"]) == ("search", data.PatientID)


def test_a_list_of_several_patients_is_one_row_that_each_is_found_by(node, trail):
    word = f"W{random.getrandbits(40)}"
    held = [stored(node, StudyID=word) for _ in range(3)]
    search(node, trail, asked(Level.STUDY, StudyID=word))
    trail.close()
    found = {row["id"]: row for data in held for row in node.audit.find(patient=data.PatientID)[:1]}
    [row] = found.values()
    assert sorted(row["detail"]["patients"]) == sorted(data.PatientID for data in held)
    assert (row["patient_id"], row["study_uid"]) == ("", "")


@pytest.mark.parametrize("name", ["study", "user"])
def test_rows_are_found_by_study_by_user_and_by_time(node, trail, name):
    user = f"user{random.getrandbits(40)}"
    study = f"1.2.{random.getrandbits(60)}"
    before = datetime.now(UTC)
    trail.note(Source("api", user), "status", study_uid=study)
    trail.close()
    question = {name: {"study": study, "user": user}[name]}
    assert len(node.audit.find(**question)) == 1
    assert len(node.audit.find(**question, since=before, until=before + timedelta(hours=1))) == 1
    assert node.audit.find(**question, until=before) == []
    assert node.audit.find(**question, since=before + timedelta(hours=1)) == []


def test_pages_of_rows_join_without_gap_or_repeat(node, trail):
    study = f"1.2.{random.getrandbits(60)}"
    for turn in range(7):
        trail.note(READER, "read", study_uid=study, detail={"turn": turn})
    whole = [row["id"] for row in noted(node, trail, study=study)]
    pages, before = [], None
    while page := node.audit.find(study=study, before=before, limit=3):
        pages += [row["id"] for row in page]
        before = page[-1]["id"]
    assert pages == whole == sorted(whole, reverse=True)
    assert len(whole) == 7


def test_what_is_repeated_within_a_minute_is_one_row_more_with_a_count(node, trail):
    data = stored(node)
    for number in range(600):
        trail.note(
            READER,
            "read",
            study_uid=data.StudyInstanceUID,
            series_uid=data.SeriesInstanceUID,
            sop_instance_uid=f"1.2.{number}",
            detail={"route": "/frames", "status": 200},
        )
    trail.note(Source("dicomweb", "berta", "192.0.2.8"), "read", study_uid=data.StudyInstanceUID)
    rows = [row for row in noted(node, trail, study=data.StudyInstanceUID) if row["action"] == "read"]
    by_anna = [row for row in rows if row["actor"] == "anna"]
    assert sorted(row["detail"].get("times", 1) for row in by_anna) == [1, 599]
    [rest] = [row for row in by_anna if "times" in row["detail"]]
    assert (rest["series_uid"], rest["sop_instance_uid"]) == (data.SeriesInstanceUID, "")
    assert len(rows) == 3


def test_the_first_access_is_written_at_once_and_not_at_the_end_of_its_minute(node):
    study = f"1.2.{random.getrandbits(60)}"
    node.audit.note(READER, "read", study_uid=study)
    deadline = time.monotonic() + 10
    while not node.audit.of_study(study):
        assert time.monotonic() < deadline


def test_a_window_that_is_over_begins_anew_and_loses_no_count():
    clock = [0.0]
    fold = Fold(60.0, lambda: clock[0])
    written = [fold.take(one("1.2")) for _ in range(5)]
    assert [row is not None for row in written] == [True, False, False, False, False]
    clock[0] = 61.0
    late = fold.take(one("1.2"))
    assert late["detail"].obj["times"] == 5
    assert fold.take(one("1.2")) is None
    clock[0] = 122.0
    assert [row["detail"].obj for row in fold.due()] == [{"times": 1}]
    assert fold.due(everything=True) == []


@pytest.mark.parametrize(
    "other",
    [
        {"study_uid": "1.3"},
        {"action": "search"},
        {"outcome": "failed"},
        {"detail": Jsonb({"x": 1})},
        {"listed": ["1.5"]},
    ],
)
def test_only_the_same_is_folded(other):
    fold = Fold()
    assert fold.take(one("1.2")) is not None
    assert fold.take({**one("1.2"), **other}) is not None


def one(study):
    return audit.row(READER, "read", study_uid=study)


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * 5000])
def test_a_row_of_hostile_text_is_written_and_takes_no_other_with_it(node, trail, text):
    study = f"1.2.{random.getrandbits(60)}"
    trail.note(Source("dicomweb", text, text), "read", study_uid=text, patient_id=text)
    trail.note(READER, "read", study_uid=study)
    assert len(noted(node, trail, study=study)) == 1


def test_a_row_that_the_database_refuses_takes_no_other_with_it(node, trail):
    good, bad = one(f"1.2.{random.getrandbits(60)}"), {**one("1.2"), "door": None}
    for row in (bad, good, bad):
        trail._backlog.add(row)
    assert len(noted(node, trail, study=good["study_uid"])) == 1
    assert query(node, "SELECT count(*) FROM audit WHERE door IS NULL") == [(0,)]


@pytest.mark.parametrize(
    ("text", "end", "hour"),
    [
        ("2026-01-31", False, "2026-01-31T00:00:00+00:00"),
        ("2026-01-31", True, "2026-02-01T00:00:00+00:00"),
        ("2026-01-31T08:00", False, "2026-01-31T08:00:00+00:00"),
        ("2026-01-31T08:00:00 02:00", True, "2026-01-31T08:00:00+02:00"),
        ("2026-01-31T08:00:00Z", False, "2026-01-31T08:00:00+00:00"),
    ],
)
def test_days_and_times(text, end, hour):
    assert moment(text, "from", end=end).isoformat() == hour


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "9999-12-31", "", "Canary^Anna"])
def test_what_is_no_time_is_refused_without_being_quoted(text):
    with pytest.raises(BadRequest) as caught:
        moment(text, "from", end=True)
    assert caught.value.message.startswith("from is a day")
    assert not text or text not in caught.value.message
