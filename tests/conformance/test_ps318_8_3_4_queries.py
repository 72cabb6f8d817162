"""Search parameters (PS3.18 8.3.4) on the wire: every type of matching, what is returned, and pages."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from tests.conformance.conftest import path, value
from tests.dicomweb.objects import ct

Store = Callable[..., httpx.Response]


def item_of(**values: str) -> Dataset:
    found = Dataset()
    for keyword, text in values.items():
        setattr(found, keyword, text)
    return found


RICH = {
    "SpecificCharacterSet": "ISO_IR 192",
    "PatientName": "Łukasz^Zażółć=山田^太郎=やまだ^たろう",
    "PatientID": "Q%_1",
    "IssuerOfPatientID": "HERE",
    "PatientBirthDate": "19600229",
    "PatientSex": "F",
    "EthnicGroup": "none",
    "StudyDate": "20220301",
    "StudyTime": "093015.25",
    "AccessionNumber": "ACC 7",
    "StudyID": "S-9",
    "StudyDescription": "Thorax, nativ",
    "ReferringPhysicianName": "Überweiser^Ute",
    "SeriesDescription": "axial (1)",
    "SeriesNumber": 7,
    "BodyPartExamined": "CHEST",
    "PerformedProcedureStepStartDate": "20220302",
    "PerformedProcedureStepStartTime": "101500",
    "InstanceNumber": 12,
    "TimezoneOffsetFromUTC": "+0200",
}


@pytest.fixture(scope="module")
def rich(store: Store) -> Dataset:
    """A study with a value for every key, next to two that have other values."""
    found = ct(**RICH)
    found.RequestAttributesSequence = Sequence(
        [
            item_of(ScheduledProcedureStepID="SPS1", RequestedProcedureID="RP1"),
            item_of(ScheduledProcedureStepID="SPS2", RequestedProcedureID="RP2"),
        ]
    )
    block = found.private_block(0x0009, "CONFORMANCE", create=True)
    block.add_new(0x01, "LO", "kept private")
    store(found, ct(PatientName="Other^One"), ct(Modality="MR", PatientName="", PatientID="", StudyDate=""))
    return found


def search(http: httpx.Client, place: str, query: str = "") -> list[dict[str, Any]]:
    answer = http.get(f"{place}?{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


def finds(http: httpx.Client, rich: Dataset, place: str, query: str) -> bool:
    """Whether the search finds the rich object's study, series or instance, and nothing else."""
    rows = search(http, place, query)
    assert {value(row, "0020000D") for row in rows} <= {rich.StudyInstanceUID}
    return len(rows) == 1


KEYS = {
    "/studies": {
        "StudyDate": "20220301",
        "StudyTime": "0930",
        "AccessionNumber": "ACC 7",
        "ModalitiesInStudy": "CT",
        "ReferringPhysicianName": "uberweiser^ute",
        "PatientName": "lukasz^zazolc",
        "PatientID": "Q%_1",
        "StudyID": "S-9",
        "StudyDescription": "Thorax, nativ",
        "IssuerOfPatientID": "HERE",
        "PatientBirthDate": "19600229",
        "PatientSex": "F",
        "EthnicGroup": "none",
    },
    "/series": {
        "Modality": "CT",
        "SeriesNumber": "07",
        "PerformedProcedureStepStartDate": "20220302",
        "PerformedProcedureStepStartTime": "1015",
        "RequestAttributesSequence.ScheduledProcedureStepID": "SPS1",
        "00400275.RequestedProcedureID": "RP2",
        "SeriesDescription": "axial (1)",
        "BodyPartExamined": "CHEST",
    },
    "/instances": {"InstanceNumber": "12", "Rows": "4", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"},
}


MISSES = {"Date": "19010101", "Time": "2359", "sUID": "1.9.9.9"}


@pytest.mark.parametrize(("place", "key"), [(place, key) for place, keys in KEYS.items() for key in keys])
def test_q02_required_keys_match_at_their_level_and_below(
    http: httpx.Client, rich: Dataset, place: str, key: str
) -> None:
    uid = f"StudyInstanceUID={rich.StudyInstanceUID}"
    query = f"{key}={quote(KEYS[place][key])}"
    for below in list(KEYS)[list(KEYS).index(place) :]:
        assert finds(http, rich, below, f"{uid}&{query}")
        assert not search(http, below, f"{uid}&{key}={MISSES.get(key[-4:], '99')}")


@pytest.mark.parametrize("level", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_q02_uids_match_at_their_level(http: httpx.Client, rich: Dataset, level: str) -> None:
    place = {"StudyInstanceUID": "/studies", "SeriesInstanceUID": "/series", "SOPInstanceUID": "/instances"}[level]
    assert finds(http, rich, place, f"{level}={getattr(rich, level)}")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("PatientID=Q%25_1", True),
        ("PatientID=Q%25%3F1", True),  # ? is any character, % and _ are themselves
        ("PatientID=Q%25%251", False),
        ("PatientID=q%25_1", False),
        ("StudyDescription=Thorax%2C%20nativ", True),
        ("StudyDescription=thorax*", False),
        ("StudyDescription=*orax*nat%3F%3F", True),
        ("PatientSex=F%5CM", True),
        ("PatientSex=O,F", True),
        ("PatientSex=O", False),
        ("StudyTime=093015-093016", True),
        ("StudyTime=093015.25", True),
        ("StudyTime=093015.26", False),
        ("StudyTime=09", True),
        ("StudyTime=-0930", True),
        ("StudyTime=0931-", False),
        ("StudyDate=-20220301", True),
        ("StudyDate=20220302-", False),
        ("PatientName=", True),
        ("PatientName=*", True),
        ("SeriesNumber=%2B7", True),
        ("RequestAttributesSequence.ScheduledProcedureStepID=SPS1&00400275.00401001=RP1", True),
        ("RequestAttributesSequence.ScheduledProcedureStepID=SPS1&00400275.00401001=RP2", False),
        ("RequestAttributesSequence.ScheduledProcedureStepID=SPS*", True),
        ("PatientName=*kasz*&PatientName=Luk*", True),
        ("PatientName=*kasz*&PatientName=X*", False),
    ],
)
def test_q01_q03_every_type_of_matching(http: httpx.Client, rich: Dataset, query: str, found: bool) -> None:
    assert finds(http, rich, "/series", f"StudyInstanceUID={rich.StudyInstanceUID}&{query}") is found


@pytest.mark.parametrize("given", ["20220301-20220302&StudyTime=0900-1000", "20220301-20220301&StudyTime=0930-0931"])
def test_q03_a_date_and_its_time_are_one_interval(http: httpx.Client, rich: Dataset, given: str) -> None:
    assert finds(http, rich, "/studies", f"PatientID=Q%25_1&StudyDate={given}")
    assert not search(http, "/studies", "PatientID=Q%25_1&StudyDate=20220301-20220302&StudyTime=0931-0932")


@pytest.mark.parametrize(
    "name", ["lukasz^zażółć^^", "山田*", "=山田^太郎", "やまだ^たろう", "LUKASZ*=山田*", "%C5%81ukasz*"]
)
def test_q05_names_match_in_every_group_without_case_and_accents(http: httpx.Client, rich: Dataset, name: str) -> None:
    assert finds(http, rich, "/studies", f"PatientName={name if '%' in name else quote(name)}")


@pytest.mark.parametrize("name", ["zazolc lukasz", "luk", "たろう 山田", "太郎"])
def test_q05_fuzzy_matching_takes_words_in_any_order(http: httpx.Client, rich: Dataset, name: str) -> None:
    assert finds(http, rich, "/studies", f"PatientName={quote(name)}&fuzzymatching=true")
    assert not search(http, "/studies", f"PatientName={quote(name)}")


@pytest.mark.parametrize(
    ("zone", "date", "found"),
    [("%2B0200", "20220301", True), ("-1200", "20220228", True), ("-1200", "20220301", False)],
)
def test_q06_dates_are_read_in_the_zone_that_is_named(
    http: httpx.Client, rich: Dataset, zone: str, date: str, found: bool
) -> None:
    query = f"PatientID=Q%25_1&StudyDate={date}&TimezoneOffsetFromUTC={zone}"
    assert finds(http, rich, "/studies", query) is found
    if found:
        assert value(search(http, "/studies", query)[0], "00080201") == "+0200"
    assert http.get("/studies?TimezoneOffsetFromUTC=CET").status_code == 400


def test_q07_any_attribute_of_an_instance_can_be_asked_for(http: httpx.Client, rich: Dataset) -> None:
    fields = "HighBit&includefield=00091001,RequestAttributesSequence.00400009,Nonsense&includefield=PixelData"
    row = search(http, "/instances", f"SOPInstanceUID={rich.SOPInstanceUID}&includefield={fields}")[0]
    assert value(row, "00280102") == 15
    assert (value(row, "00091001"), value(row, "00090010")) == ("kept private", "CONFORMANCE")
    assert value(value(row, "00400275"), "00400009") == "SPS1"
    assert "7FE00010" not in row


def test_q07_nothing_from_below_and_everything_from_above(http: httpx.Client, rich: Dataset) -> None:
    uid = f"StudyInstanceUID={rich.StudyInstanceUID}"
    fields = "includefield=Modality,SeriesDescription,Rows,StudyDescription,EthnicGroup"
    study = search(http, "/studies", f"{uid}&{fields}")[0]
    assert not {"00080060", "0008103E", "00280010"} & set(study)
    assert value(study, "00102160") == "none"
    series = search(http, f"{path(rich, 'study')}/series", fields)[0]
    assert (value(series, "00081030"), value(series, "0008103E")) == ("Thorax, nativ", "axial (1)")
    everything = search(http, "/instances", f"{uid}&includefield=all")[0]
    assert {"00102160", "00180015", "00280010", "00081030"} <= set(everything)


def test_q08_empty_values(http: httpx.Client, rich: Dataset) -> None:
    assert [value(row, "00100020") for row in search(http, "/studies", "PatientID=%22%22")] == [None]
    assert search(http, "/studies", "PatientID=%22%22&emptyvaluematching=false") == []
    assert http.get("/studies?emptyvaluematching=maybe").status_code == 400


def test_q08_multiple_values(http: httpx.Client, rich: Dataset) -> None:
    assert finds(http, rich, "/studies", "PatientID=Q%25_1%5Cnobody&multiplevaluematching=true")
    assert search(http, "/studies", "PatientID=Q%25_1%5Cnobody&multiplevaluematching=false") == []
    assert http.get("/studies?multiplevaluematching=2").status_code == 400


def test_q09_pages_stay_exact_while_studies_arrive(http: httpx.Client, store: Store, rich: Dataset) -> None:
    before = [value(row, "0020000D") for row in search(http, "/studies")]
    found: list[str] = []
    arrived = []
    while page := [value(row, "0020000D") for row in search(http, "/studies", f"limit=1&offset={len(found)}")]:
        found += page
        arrived.append(ct(StudyDate="20991231"))
        store(arrived[-1])
    assert found == before
    for item in arrived:
        http.delete(path(item, "study"))


@pytest.mark.parametrize("query", ["orderby=Nonsense", "orderby=Modality", "count=perhaps", "orderby=-", "limit=%2B1"])
def test_q09_q16_malformed_orders_and_counts_are_400(http: httpx.Client, rich: Dataset, query: str) -> None:
    assert http.get(f"/studies?{query}").status_code == 400


def test_q14_counts_are_exact_while_objects_arrive(http: httpx.Client, store: Store) -> None:
    study = generate_uid()

    def send(series: str) -> None:
        for number in range(4):
            store(ct(study=study, series=series, InstanceNumber=number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, [generate_uid() for _ in range(4)]))
    row = search(http, "/studies", f"StudyInstanceUID={study}")[0]
    assert (value(row, "00201206"), value(row, "00201208")) == (4, 16)
    assert [value(row, "00201209") for row in search(http, f"/studies/{study}/series")] == [4] * 4
    http.delete(f"/studies/{study}")


def test_q16_patients(http: httpx.Client, rich: Dataset) -> None:
    row = search(http, "/patients", "PatientID=Q%25_1&includefield=NumberOfPatientRelatedInstances")[0]
    assert (value(row, "00100020"), value(row, "00201204")) == ("Q%_1", 1)
    assert "0020000D" not in row


def test_q16_order_and_count(http: httpx.Client, rich: Dataset) -> None:
    answer = http.get("/studies?limit=1&count=true&orderby=-PatientID")
    assert answer.headers["x-total-count"] == "3"
    assert value(answer.json()[0], "00100020") == "Q%_1"
    assert value(search(http, "/studies", "orderby=00100020")[0], "00100020") is None


def test_q03_what_the_index_does_not_know_is_told_in_a_warning(http: httpx.Client, rich: Dataset) -> None:
    answer = http.get("/studies?AcquisitionDuration=5")
    assert len(answer.json()) == 3
    assert answer.headers["warning"].startswith("299 ")
    assert "AcquisitionDuration" in answer.headers["warning"]


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8,iso-8859-1;q=0.5", "iso-8859-1"])
def test_c04_answers_are_utf8_whatever_charset_is_asked_for(http: httpx.Client, rich: Dataset, charset: str) -> None:
    row = search(http, "/studies", f"PatientID=Q%25_1&charset={charset}")[0]
    assert value(row, "00100010")["Alphabetic"] == "Łukasz^Zażółć"


@pytest.mark.parametrize("accept", ["application/json", "application%2Fdicom%2Bjson"])
def test_c04_the_accept_parameter_outranks_the_header(http: httpx.Client, rich: Dataset, accept: str) -> None:
    answer = http.get(f"/studies?accept={accept}", headers={"Accept": "text/html"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/")
