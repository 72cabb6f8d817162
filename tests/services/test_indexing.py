"""Attributes that the configuration adds to the index: filled from derived metadata, matched at every level."""

import zlib
from collections.abc import Iterator
from typing import Any

import orjson
import psycopg
import pytest
from psycopg_pool import ConnectionPool
from pydicom.datadict import tag_for_keyword

from pacs.domain.added import added_paths
from pacs.domain.levels import Level
from pacs.domain.query import Condition, Query
from pacs.errors import SettingsError
from pacs.services.indexing import AT_ONCE, Indexing
from pacs.services.search import Search
from tests.services.search_shelf import Object, fill

METADATA: dict[str, dict[str, Any]] = {
    "1": {
        "00189073": {"vr": "FD", "Value": [1.5]},
        "00091001": {"vr": "LO", "Value": ["Private_1"]},
        "0040A123": {"vr": "PN", "Value": [{"Alphabetic": "Müller^Jörg", "Ideographic": "山田^太郎"}]},
        "0008002A": {"vr": "DT", "Value": ["20240101120000+0100"]},
    },
    "2": {
        "00189073": {"vr": "FD", "Value": [1.50, 7]},
        "00091001": {"vr": "LO", "Value": ["Private%1", None]},
        "00400275": {"vr": "SQ", "Value": [{}, {"00321060": {"vr": "LO", "Value": ["Knee"]}}]},
    },
    "3": {},
}
ADDED = (
    "AcquisitionDuration",
    "00091001",
    "PersonName",
    "AcquisitionDateTime",
    "00400275.RequestedProcedureDescription",
)


@pytest.fixture(scope="module")
def pool(database_url: str) -> Iterator[ConnectionPool]:
    with psycopg.connect(database_url) as connection:
        for number, metadata in METADATA.items():
            values = {"StudyInstanceUID": f"1.2.{number}", "SeriesInstanceUID": f"1.2.{number}.1"}
            values |= {"SOPInstanceUID": f"1.2.{number}.1.1", "SOPClassUID": "1.2.3", "PatientID": number}
            fill(connection, [Object({keyword: [value] for keyword, value in values.items()})])
            connection.execute(
                "INSERT INTO instance_derived (instance_pk, metadata, frames) "
                "SELECT pk, %s, '' FROM instance WHERE sop_instance_uid = %s",
                (zlib.compress(orjson.dumps(metadata)), f"1.2.{number}.1.1"),
            )
    with ConnectionPool(database_url, min_size=1, open=True) as opened:
        yield opened


@pytest.fixture(scope="module")
def indexing(pool: ConnectionPool) -> Indexing:
    made = Indexing(pool, ADDED)
    assert not made.is_whole()
    assert made.catch_up(60) == 3
    return made


@pytest.fixture
def search(pool: ConnectionPool, indexing: Indexing) -> Search:
    return Search(pool, None, indexing)


def found(search: Search, level: Level, name: str, value: str, **more: Any) -> set[str]:
    path = tuple(tag_for_keyword(piece) or int(piece, 16) for piece in name.split("."))
    page = search.find(Query(level, (Condition(path, (value,)),), **more))
    assert not page.warnings
    rows: list[Any] = list(page.rows)
    return {row["0020000D"]["Value"][0].removeprefix("1.2.") for row in rows}


@pytest.mark.parametrize("level", [Level.STUDY, Level.SERIES, Level.INSTANCE])
@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("AcquisitionDuration", "1.5", {"1", "2"}),
        ("AcquisitionDuration", "07.0", {"2"}),
        ("AcquisitionDuration", '""', {"3"}),
        ("00091001", "Private_1", {"1"}),
        ("00091001", "private_1", set()),
        ("00091001", "Private?1", {"1", "2"}),
        ("00091001", "*%1", {"2"}),
        ("00091001", "Private_1\\Private%1", {"1", "2"}),
        ("PersonName", "muller^*", {"1"}),
        ("PersonName", "*=山田*", {"1"}),
        ("AcquisitionDateTime", "20240101110000+0000", {"1"}),
        ("AcquisitionDateTime", "202401-202402", {"1"}),
        ("AcquisitionDateTime", "2025-", set()),
        ("RequestAttributesSequence.RequestedProcedureDescription", "Kn*", {"2"}),
    ],
)
def test_added_attributes_match_at_every_level(
    search: Search, level: Level, name: str, value: str, wanted: set[str]
) -> None:
    assert found(search, level, name, value) == wanted


def test_fuzzy_words_of_an_added_name(search: Search) -> None:
    assert found(search, Level.STUDY, "PersonName", "jorg mull", fuzzy=True) == {"1"}
    assert found(search, Level.STUDY, "PersonName", "jorg miller", fuzzy=True) == set()


def test_another_list_is_indexed_anew_and_searches_say_so_meanwhile(pool: ConnectionPool, indexing: Indexing) -> None:
    other = Indexing(pool, ("AcquisitionDuration",))
    search = Search(pool, None, other)
    query = Query(Level.STUDY, (Condition((0x00189073,), ("7",)),))
    assert "still being read in" in search.find(query).warnings[0]
    assert other.catch_up(60) == len(METADATA)
    assert not search.find(query).warnings
    assert other.catch_up(60) == 0
    with pool.connection() as connection:
        assert connection.execute("SELECT DISTINCT attribute FROM indexed_value").fetchall() == [("00189073",)]
    again = Indexing(pool, ADDED)
    assert again.catch_up(60) == len(METADATA) < AT_ONCE


def test_nothing_stays_of_objects_that_are_gone_or_of_an_empty_list(pool: ConnectionPool, indexing: Indexing) -> None:
    with pool.connection() as connection:
        connection.execute("INSERT INTO indexed_value VALUES (999999, '00189073', '1')")
        connection.execute("INSERT INTO indexed_instance VALUES (999999, 'x')")
    Indexing(pool, ADDED).catch_up(60)
    with pool.connection() as connection:
        left = connection.execute("SELECT count(*) FROM indexed_value WHERE instance_pk = 999999").fetchone()
        assert left == (0,)
    assert Indexing(pool, ()).catch_up(60) == 0
    with pool.connection() as connection:
        left = connection.execute("SELECT (SELECT count(*) FROM indexed_value) + count(*) FROM indexed_instance")
        assert left.fetchone() == (0,)
    assert Indexing(pool, ADDED).catch_up(60) == len(METADATA)


@pytest.mark.parametrize("name", ["Nonsense", "0009100", "RequestAttributesSequence", "PatientID..", "0x00100010"])
def test_what_names_no_attribute_to_match_is_a_settings_error(name: str) -> None:
    with pytest.raises(SettingsError, match="INDEX_ATTRIBUTES"):
        added_paths([name])
