"""What a page of answers holds: rows, their order and their attributes."""

import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import orjson
import psycopg
import pytest
from psycopg_pool import ConnectionPool
from pydicom.datadict import tag_for_keyword

from pacs.domain.levels import Level
from pacs.domain.query import Condition, Page, Query
from pacs.errors import BadRequest, Unavailable
from pacs.services import search as search_module
from pacs.services.search import Search
from tests.services.search_shelf import Object, fill

CT = "1.2.840.10008.5.1.4.1.1.2"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"


def made(name: str, **values: Any) -> Object:
    """An instance whose UIDs are said by its name: study, series, instance; all of modality CT unless told."""
    study, series, instance = name.split(".")
    hidden = values.pop("hidden", False)
    base = {
        "StudyInstanceUID": [f"1.2.{study}"],
        "SeriesInstanceUID": [f"1.2.{study}.{series}"],
        "SOPInstanceUID": [f"1.2.{study}.{series}.{instance}"],
        "SOPClassUID": [CT],
        "Modality": ["CT"],
        "PatientID": [f"ID{study}"],
        "InstanceNumber": [instance],
        "SeriesNumber": [series],
    }
    return Object(base | values, hidden=hidden)


CHEST = {
    "StudyDate": ["20200101"],
    "StudyTime": ["1000"],
    "PatientName": ["Müller^Jörg=山田"],
    "StudyDescription": ["Chest"],
    "PatientComments": ["a\\b"],
}
REQUESTS = [
    {"ScheduledProcedureStepID": ["A"], "RequestedProcedureID": ["1"]},
    {"ScheduledProcedureStepID": ["B"], "RequestedProcedureID": ["2"]},
]
OBJECTS = [
    made("1.2.10", Rows=["512"], SpecificCharacterSet=["ISO_IR 192"], **CHEST),
    made("1.2.9", **CHEST),
    made("1.10.1", Modality=["SEG"], SOPClassUID=[SEG], hidden=True, SeriesDescription=["old result"]),
    made("1.10.2", Modality=["SEG"], SOPClassUID=[SEG], hidden=True),
    made("1.3.1", Modality=["SR"], hidden=True, RequestAttributesSequence=REQUESTS),
    made("1.3.2", Modality=["SR"], RequestAttributesSequence=REQUESTS),
    made("2.1.1", StudyDate=["20210101"]),
    made("3.1.1", StudyDate=["20200101"], StudyTime=["1200"], PatientWeight=["70.5"]),
    made("4.1.1", hidden=True, StudyDate=["20300101"]),
    made("5.1.1", Modality=[]),
]
REQUIRED = {  # PS3.18 Table 10.6.3-3, type R
    "00080020", "00080030", "00080050", "00080061", "00080090", "00100010", "00100020", "00100030", "00100040",
    "0020000D", "00200010", "00201206", "00201208",
}  # fmt: skip


@pytest.fixture(scope="module")
def search(database_url: str) -> Iterator[Search]:
    with psycopg.connect(database_url) as connection:
        fill(connection, OBJECTS)
    with ConnectionPool(database_url, min_size=1, open=True) as pool:
        yield Search(pool)


def tag(keyword: str) -> int:
    found = tag_for_keyword(keyword)
    assert found is not None
    return found


def where(**keys: str) -> tuple[Condition, ...]:
    return tuple(Condition((tag(keyword),), (value,)) for keyword, value in keys.items())


def first(page: Page, keyword: str) -> list[Any]:
    """The first value of an attribute in each row, None where there is none."""
    elements: list[Any] = [row.get(f"{tag(keyword):08X}", {}) for row in page.rows]
    return [element.get("Value", [None])[0] for element in elements]


STUDY_ONE = where(StudyInstanceUID="1.2.1")


def test_studies_come_newest_first_and_undated_ones_last(search: Search) -> None:
    assert first(search.find(Query(Level.STUDY)), "StudyInstanceUID") == ["1.2.2", "1.2.3", "1.2.1", "1.2.5"]


def test_series_and_instances_of_a_study_come_by_number(search: Search) -> None:
    series = search.find(Query(Level.SERIES, STUDY_ONE, show_hidden=True))
    assert first(series, "SeriesNumber") == [2, 3, 10]
    instances = search.find(Query(Level.INSTANCE, where(SeriesInstanceUID="1.2.1.2")))
    assert first(instances, "InstanceNumber") == [9, 10]


def test_pages_of_one_row_make_the_whole_list(search: Search) -> None:
    for level in Level:
        whole = search.find(Query(level)).rows
        pages = [search.find(Query(level, limit=1, offset=offset)).rows for offset in range(len(whole))]
        assert tuple(row for page in pages for row in page) == whole
        assert search.find(Query(level, offset=len(whole))).rows == ()
        assert search.find(Query(level, limit=0)).rows == ()


def test_the_servers_own_maximum_is_told(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "MOST_ROWS", 2)
    assert search.find(Query(Level.STUDY)).truncated
    assert len(search.find(Query(Level.STUDY)).rows) == 2
    assert not search.find(Query(Level.STUDY, limit=2)).truncated
    assert not search.find(Query(Level.STUDY, offset=2)).truncated


def test_study_rows_have_what_qido_requires_even_when_empty(search: Search) -> None:
    row = search.find(Query(Level.STUDY, where(StudyInstanceUID="1.2.2"))).rows[0]
    assert list(row) == sorted(row)
    assert set(row) >= REQUIRED
    assert row["00100010"] == {"vr": "PN"}
    assert row["00080090"] == {"vr": "PN"}
    assert row["00080056"] == {"vr": "CS", "Value": ["ONLINE"]}
    assert row["00201206"] == row["00201208"] == {"vr": "IS", "Value": [1]}
    assert "00081030" not in row  # unknown and not required
    assert "00081190" not in row  # the door's


def test_names_are_shown_as_they_were_stored(search: Search) -> None:
    row = search.find(Query(Level.STUDY, where(PatientName="MULLER*"))).rows[0]
    assert row["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Müller^Jörg", "Ideographic": "山田"}]}


def test_modalities_are_left_out_rather_than_empty(search: Search) -> None:
    assert "00080061" not in search.find(Query(Level.STUDY, where(StudyInstanceUID="1.2.5"))).rows[0]
    series = search.find(Query(Level.SERIES, where(StudyInstanceUID="1.2.5"))).rows[0]
    assert series["00080060"] == {"vr": "CS"}


def test_hidden_results_are_neither_found_nor_counted(search: Search) -> None:
    row = search.find(Query(Level.STUDY, STUDY_ONE, include=frozenset({(tag("SOPClassesInStudy"),)}))).rows[0]
    assert row["00080061"]["Value"] == ["CT", "SR"]
    assert row["00080062"]["Value"] == [CT]
    assert row["00201206"]["Value"] == [2]
    assert row["00201208"]["Value"] == [3]
    assert not search.find(Query(Level.STUDY, where(ModalitiesInStudy="SEG"))).rows
    assert not search.find(Query(Level.STUDY, where(StudyInstanceUID="1.2.4"))).rows
    assert not search.find(Query(Level.PATIENT, where(PatientID="ID4"))).rows
    assert not search.find(Query(Level.SERIES, where(Modality="SEG"))).rows
    assert first(search.find(Query(Level.INSTANCE, where(Modality="SR"))), "SOPInstanceUID") == ["1.2.1.3.2"]
    series = search.find(Query(Level.SERIES, where(SeriesInstanceUID="1.2.1.3"))).rows[0]
    assert series["00201209"]["Value"] == [1]


def test_hidden_results_are_found_and_counted_when_asked_for(search: Search) -> None:
    row = search.find(Query(Level.STUDY, STUDY_ONE, show_hidden=True)).rows[0]
    assert row["00080061"]["Value"] == ["CT", "SEG", "SR"]
    assert row["00201206"]["Value"] == [3]
    assert row["00201208"]["Value"] == [6]
    assert search.find(Query(Level.STUDY, where(StudyInstanceUID="1.2.4"), show_hidden=True)).rows


def test_rows_carry_the_levels_above_unless_told_otherwise(search: Search) -> None:
    relational = search.find(Query(Level.INSTANCE, where(SOPInstanceUID="1.2.1.2.9"))).rows[0]
    assert {"00100010", "00081030", "00201208", "00080060", "00201209", "00080018"} <= set(relational)
    below = search.find(Query(Level.INSTANCE, where(SOPInstanceUID="1.2.1.2.9"), parents=False)).rows[0]
    assert set(below) == {"00080016", "00080018", "00080056", "0020000D", "0020000E", "00200013"}


def test_attributes_of_the_levels_above_can_be_asked_for_and_those_below_not(search: Search) -> None:
    asked = frozenset({(tag("StudyDescription"),), (tag("Modality"),), (tag("SOPClassUID"),), (tag("PatientWeight"),)})
    series = search.find(Query(Level.SERIES, STUDY_ONE, include=asked, parents=False)).rows[0]
    assert series["00081030"]["Value"] == ["Chest"]
    assert "00080016" not in series
    study = search.find(Query(Level.STUDY, STUDY_ONE, include=asked)).rows[0]
    assert "00080060" not in study
    assert first(search.find(Query(Level.STUDY, where(PatientID="ID3"), include=asked)), "PatientWeight") == [70.5]


def test_keys_come_back_in_the_answer(search: Search) -> None:
    row = search.find(Query(Level.STUDY, where(PatientWeight="70.5", PatientComments=""))).rows[0]
    assert row["00101030"]["Value"] == [70.5]


def test_includefield_all_adds_what_the_index_knows(search: Search) -> None:
    row = search.find(Query(Level.STUDY, STUDY_ONE, include_all=True)).rows[0]
    assert row["00104000"] == {"vr": "LT", "Value": ["a\\b"]}
    assert row["00080062"]["Value"] == [CT]


def test_character_set_says_that_answers_are_utf8(search: Search) -> None:
    asked = frozenset({(tag("SpecificCharacterSet"),)})
    row = search.find(Query(Level.INSTANCE, where(SOPInstanceUID="1.2.1.2.10"), include=asked)).rows[0]
    assert row["00080005"]["Value"] == ["ISO_IR 192"]


def test_attributes_that_are_not_indexed_come_from_derived_metadata(search: Search, database_url: str) -> None:
    whole = {
        "00091001": {"vr": "LO", "Value": ["private"]},
        "00090010": {"vr": "LO", "Value": ["SOMEBODY"]},
        "00189073": {"vr": "FD", "Value": [1.5]},
        "00420011": {"vr": "OB", "BulkDataURI": "%BASE%/studies/1"},
    }
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO instance_derived (instance_pk, metadata, frames) "
            "SELECT pk, %s, '' FROM instance WHERE sop_instance_uid = '1.2.2.1.1'",
            (zlib.compress(orjson.dumps(whole)),),
        )
    asked = frozenset({(0x00091001,), (0x00189073,), (0x00420011,), (0x00189074,)})
    rows = search.find(Query(Level.INSTANCE, include=asked)).rows
    found = {row["00080018"]["Value"][0]: row for row in rows}  # type: ignore[index]
    row = found["1.2.2.1.1"]
    assert row["00091001"]["Value"] == ["private"]
    assert row["00090010"]["Value"] == ["SOMEBODY"]
    assert row["00189073"]["Value"] == [1.5]
    assert "00420011" not in row
    assert list(row) == sorted(row)
    assert "00189073" not in found["1.2.3.1.1"]  # not derived yet
    assert "00189073" not in search.find(Query(Level.STUDY, include=asked)).rows[0]


def test_keys_in_a_sequence_must_meet_in_one_item(search: Search) -> None:
    def items(step: str, procedure: str) -> tuple[Condition, ...]:
        sequence = tag("RequestAttributesSequence")
        return (
            Condition((sequence, tag("ScheduledProcedureStepID")), (step,)),
            Condition((sequence, tag("RequestedProcedureID")), (procedure,)),
        )

    assert search.find(Query(Level.SERIES, items("A", "1"))).rows
    assert not search.find(Query(Level.SERIES, items("A", "2"))).rows
    assert search.find(Query(Level.SERIES, items("B", "*"))).rows


def test_a_key_of_a_level_below_finds_what_holds_it(search: Search) -> None:
    studies = search.find(Query(Level.STUDY, where(SOPInstanceUID="1.2.3.1.1,1.2.1.2.9")))
    assert first(studies, "StudyInstanceUID") == ["1.2.3", "1.2.1"]
    assert not search.find(Query(Level.STUDY, where(SeriesDescription="old result"))).rows
    both = where(Modality="SR", InstanceNumber="9")
    assert not search.find(Query(Level.STUDY, both)).rows  # in one study, but not in one instance


def test_an_attribute_the_index_does_not_know_is_ignored_with_a_warning(search: Search) -> None:
    unknown = (Condition((0x00189073,), ("1",)), Condition((0x00091001,), ("x",)))
    page = search.find(Query(Level.STUDY, unknown))
    assert len(page.rows) == 4
    assert [warning.split()[0] for warning in page.warnings] == ["AcquisitionDuration", "00091001"]
    assert not search.find(Query(Level.STUDY, where(SpecificCharacterSet="ISO_IR 100"))).warnings
    assert not search.find(Query(Level.STUDY, (Condition((0x00189073,), ("",)),))).warnings


def test_malformed_keys_are_bad_requests(search: Search) -> None:
    for keys in (
        where(StudyDate="x"),
        where(StudyInstanceUID="abc"),
        where(NumberOfStudyRelatedSeries="x"),
        where(TimezoneOffsetFromUTC="+1"),
    ):
        with pytest.raises(BadRequest):
            search.find(Query(Level.STUDY, keys))


def test_patients_are_counted_and_come_by_name(search: Search) -> None:
    counts = [f"NumberOfPatientRelated{what}" for what in ("Studies", "Series", "Instances")]
    query = Query(Level.PATIENT, where(PatientID="ID1"), include=frozenset((tag(count),) for count in counts))
    assert [first(search.find(query), count)[0] for count in counts] == [1, 2, 3]
    shown = search.find(replace(query, show_hidden=True))
    assert [first(shown, count)[0] for count in counts] == [1, 3, 6]
    assert "0020000D" not in shown.rows[0]
    names = first(search.find(Query(Level.PATIENT)), "PatientID")
    assert names[-1] == "ID1"  # the one that has a name


def test_a_database_that_is_away_is_said_so() -> None:
    with ConnectionPool("postgresql://nobody@127.0.0.1:1/nothing", min_size=0, max_size=1, open=True) as pool:
        search = Search(pool)
        with pytest.raises(Unavailable):
            search.find(Query(Level.STUDY))


def test_a_search_that_takes_too_long_is_said_so(search: Search, database_url: str) -> None:
    with ConnectionPool(database_url, min_size=1, open=True, kwargs={"options": "-c statement_timeout=300"}) as pool:
        with psycopg.connect(database_url) as connection:
            connection.execute("LOCK TABLE study IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(Unavailable, match="too long"):
                Search(pool).find(Query(Level.STUDY))
        assert Search(pool).find(Query(Level.STUDY)).rows
