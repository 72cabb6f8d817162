"""Orders, pages that stay exact, and dates with their times: on rows whose places are known."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool
from pydicom.datadict import tag_for_keyword

from pacs.domain.levels import Level
from pacs.domain.query import Condition, Order, Query
from pacs.errors import BadRequest
from pacs.services.search import Search
from tests.services.search_shelf import Object, fill

CT = "1.2.840.10008.5.1.4.1.1.2"


def made(study: str, series: str = "1", instance: str = "1", **values: str) -> Object:
    base = {
        "StudyInstanceUID": f"1.2.{study}",
        "SeriesInstanceUID": f"1.2.{study}.{series}",
        "SOPInstanceUID": f"1.2.{study}.{series}.{instance}",
        "SOPClassUID": CT,
        "PatientID": f"ID{study}",
        "SeriesNumber": series,
        "InstanceNumber": instance,
    }
    return Object({keyword: [value] for keyword, value in (base | values).items()})


DAYS = {
    "1": ("20240101", "090000"),
    "2": ("20240101", "110000"),
    "3": ("20240102", "233000"),
    "4": ("20240103", "113000"),
    "5": ("20240103", "130000"),
    "6": ("20240103", ""),
    "7": ("", "110000"),
    "8": ("20240231", "110000"),
}


@pytest.fixture(scope="module")
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    names = ["Charlie", "alice", "Bob", "", "dora", "Émile", "bob", "Zoe"]
    with psycopg.connect(database_url) as opened:
        fill(
            opened,
            [
                made(study, StudyDate=day, StudyTime=clock, PatientName=name, TimezoneOffsetFromUTC="+0900")
                for (study, (day, clock)), name in zip(DAYS.items(), names, strict=True)
            ],
        )
        yield opened


@pytest.fixture
def search(connection: psycopg.Connection[Any], database_url: str) -> Iterator[Search]:
    with ConnectionPool(database_url, min_size=1, open=True) as pool:
        yield Search(pool)


def where(**keys: str) -> tuple[Condition, ...]:
    return tuple(Condition((tag_for_keyword(keyword) or 0,), (value,)) for keyword, value in keys.items())


def studies(search: Search, query: Query, reader: str = "") -> list[str]:
    rows: list[Any] = list(search.find(query, reader).rows)
    return [row["0020000D"]["Value"][0].removeprefix("1.2.") for row in rows]


def by(*keywords: str) -> tuple[Order, ...]:
    return tuple(Order(tag_for_keyword(k.removeprefix("-")) or 0, k.startswith("-")) for k in keywords)


@pytest.mark.parametrize(
    ("dates", "times", "wanted"),
    [
        ("20240101-20240103", "1000-1200", {"2", "3", "4", "6"}),
        ("20240102-", "1200-", {"3", "4", "5", "6", "8"}),
        ("-20240103", "-1200", {"1", "2", "3", "4", "6"}),
        ("20240101-20240103", "1000-", {"2", "3", "4", "5"}),  # not of one form: each by itself
        ("20240101", "1000-1200", {"2"}),
    ],
)
def test_ranges_of_date_and_time_are_one_interval(search: Search, dates: str, times: str, wanted: set[str]) -> None:
    query = Query(Level.STUDY, where(StudyDate=dates, StudyTime=times), combined=True)
    assert set(studies(search, query)) == wanted


def test_without_combined_matching_each_range_stands_for_itself(search: Search) -> None:
    query = Query(Level.STUDY, where(StudyDate="20240101-20240103", StudyTime="1000-1200"))
    assert set(studies(search, query)) == {"2", "4"}


@pytest.mark.parametrize(
    ("zone", "keys", "wanted"),
    [
        ("+0900", {"StudyDate": "20240103"}, {"4", "5", "6"}),
        ("+1000", {"StudyDate": "20240103"}, {"3", "4", "5", "6"}),
        ("-0100", {"StudyDate": "20231231"}, {"1"}),
        ("+1000", {"StudyDate": "20240103", "StudyTime": "-0100"}, {"3"}),
        ("+1000", {"StudyTime": "1200"}, {"2", "7", "8"}),
        ("+1000", {"StudyDate": "20240103-20240103", "StudyTime": "0000-1300"}, {"3", "4", "6"}),
        ("+1000", {"StudyDate": '""'}, {"7"}),
    ],
)
def test_keys_in_a_zone_of_their_own_are_compared_there(
    search: Search, zone: str, keys: dict[str, str], wanted: set[str]
) -> None:
    query = Query(Level.STUDY, where(TimezoneOffsetFromUTC=zone, **keys), combined=True)
    assert set(studies(search, query)) == wanted


def test_the_zone_of_an_object_is_told_at_every_level(search: Search) -> None:
    for level in (Level.STUDY, Level.SERIES, Level.INSTANCE):
        row = search.find(Query(level, where(StudyInstanceUID="1.2.1"))).rows[0]
        assert row["00080201"] == {"vr": "SH", "Value": ["+0900"]}


def test_answers_come_in_the_order_asked_for(search: Search) -> None:
    assert studies(search, Query(Level.STUDY, order=by("PatientName", "PatientID")))[:4] == ["4", "2", "3", "7"]
    assert studies(search, Query(Level.STUDY, order=by("-PatientID")))[:2] == ["8", "7"]
    assert studies(search, Query(Level.STUDY, order=by("StudyDate", "-StudyTime")))[:3] == ["7", "2", "1"]
    assert studies(search, Query(Level.STUDY, order=by("NumberOfStudyRelatedInstances", "-PatientID")))[0] == "8"


@pytest.mark.parametrize("keyword", ["Modality", "Rows", "ProcedureCodeSequence", "AcquisitionDuration"])
def test_what_the_index_cannot_sort_by_is_a_bad_request(search: Search, keyword: str) -> None:
    with pytest.raises(BadRequest):
        search.find(Query(Level.STUDY, order=by(keyword)))


ORDERS = [(), by("PatientName"), by("-PatientName", "StudyDate"), by("PatientID"), by("StudyTime", "-PatientID")]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("level", list(Level))
def test_pages_by_bookmark_make_the_whole_list(search: Search, level: Level, order: tuple[Order, ...]) -> None:
    if level is Level.PATIENT:
        order = tuple(key for key in order if key.tag >> 16 == 0x0010)
    whole = search.find(Query(level, order=order)).rows
    for step in (1, 3):
        found: list[Any] = []
        while page := search.find(Query(level, order=order, limit=step, offset=len(found)), f"reader {step}").rows:
            found += page
        assert tuple(found) == whole


def test_pages_stay_exact_while_studies_arrive_and_go(
    search: Search, connection: psycopg.Connection[Any], database_url: str
) -> None:
    query = Query(Level.STUDY, limit=3)
    before = studies(search, Query(Level.STUDY))
    found = studies(search, query, "me")
    fill(connection, [made("90", StudyDate="20300101"), made("91", StudyDate="20300102")])
    found += studies(search, replace(query, offset=3), "me")
    assert found == before[:6]
    assert studies(search, replace(query, offset=3), "somebody else") != before[3:6]
    connection.execute("DELETE FROM instance WHERE sop_instance_uid LIKE '1.2.9_.1.1'")
    connection.execute("DELETE FROM series WHERE series_uid LIKE '1.2.9_.1'")
    connection.execute("DELETE FROM study WHERE study_uid LIKE '1.2.9_'")
    connection.commit()
    found += studies(search, replace(query, offset=6), "me")
    assert found == before


def test_all_matches_are_counted_whatever_the_page(search: Search) -> None:
    assert search.count(Query(Level.STUDY, limit=2, offset=5)) == len(DAYS)
    assert search.count(Query(Level.INSTANCE, where(PatientID="ID3"))) == 1
    assert search.count(Query(Level.SERIES, where(PatientID="nobody"))) == 0


def test_empty_and_multiple_value_matching_can_be_turned_off(search: Search) -> None:
    empty = Query(Level.STUDY, where(PatientName='""'))
    assert studies(search, empty) == ["4"]
    assert studies(search, replace(empty, empty_values=False)) == []
    several = Query(Level.STUDY, where(PatientID="ID1\\ID2"))
    assert set(studies(search, several)) == {"1", "2"}
    assert studies(search, replace(several, multiple_values=False)) == []
    uids = Query(Level.STUDY, where(StudyInstanceUID="1.2.1\\1.2.2"), multiple_values=False)
    assert set(studies(search, uids)) == {"1", "2"}
