"""Search (PS3.18 10.6, 8.3.4): the acceptance checks D1 to D13 of the wire contract."""

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from tests.conformance.conftest import parts, path, value
from tests.dicomweb.objects import ct

Store = Callable[..., httpx.Response]

STUDY_KEYS = {
    "00080020", "00080030", "00080050", "00080061", "00080090", "00081190", "00100010", "00100020", "00100030",
    "00100040", "0020000D", "00200010", "00201206", "00201208",
}  # fmt: skip
SERIES_KEYS = {"00080060", "00081190", "0020000E", "00200011", "00201209", "0020000D"}
INSTANCE_KEYS = {"00080016", "00080018", "00081190", "00200013", "0020000D", "0020000E"}


@pytest.fixture(scope="module")
def studies(store: Store) -> list[Dataset]:
    """A CT study of two series and three slices, an MR study, and one that holds nearly nothing."""
    first, series = generate_uid(), generate_uid()
    found = [
        ct(study=first, series=series, PatientName="Müller^Anna", PatientID="aB1", InstanceNumber=1),
        ct(study=first, series=series, PatientName="Müller^Anna", PatientID="aB1", InstanceNumber=2),
        ct(study=first, PatientName="Müller^Anna", PatientID="aB1", SeriesNumber=2),
        ct(Modality="MR", PatientName="Smith^John", PatientID="AB1", StudyDate="20210304", AccessionNumber="X9"),
        ct(PatientName="", PatientID="", StudyDate="", AccessionNumber="", StudyID="", Modality="OT"),
    ]
    for item in found[:3]:
        item.SpecificCharacterSet = "ISO_IR 100"
    store(*found)
    return found


def search(http: httpx.Client, place: str, query: str = "") -> list[dict[str, Any]]:
    answer = http.get(f"{place}?{query}" if query else place)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/dicom+json"
    found: list[dict[str, Any]] = answer.json()
    return found


def uids(rows: list[dict[str, Any]], tag: str = "0020000D") -> set[str]:
    return {value(row, tag) for row in rows}


def test_d01_q11_study_rows_hold_all_required_keys(http: httpx.Client, studies: list[Dataset]) -> None:
    rows = search(http, "/studies")
    assert uids(rows) == {item.StudyInstanceUID for item in studies}
    for row in rows:
        assert set(row) >= STUDY_KEYS
        assert list(row) == sorted(row)
        assert all(next(iter(element)) == "vr" for element in row.values())
    first = next(row for row in rows if value(row, "0020000D") == studies[0].StudyInstanceUID)
    assert (value(first, "00201206"), value(first, "00201208")) == (2, 3)
    assert first["00080061"]["Value"] == ["CT"]


def test_d01_q11_empty_required_keys_are_present_without_value(http: httpx.Client, studies: list[Dataset]) -> None:
    row = search(http, "/studies", f"StudyInstanceUID={studies[4].StudyInstanceUID}")[0]
    assert row["00100010"] == {"vr": "PN"}
    assert row["00100020"] == {"vr": "LO"}


def test_d01_q15_retrieve_url_leads_to_the_study(http: httpx.Client, studies: list[Dataset]) -> None:
    for row in search(http, "/studies"):
        assert http.get(value(row, "00081190") + "/metadata").status_code == 200


def test_d02_q10_no_match_is_200_with_an_empty_list(http: httpx.Client, studies: list[Dataset]) -> None:
    assert search(http, "/studies", "PatientID=nobody") == []
    assert search(http, "/studies/1.2.3/series") == []


def test_d03_q12_q13_series_and_instances_of_their_parents(http: httpx.Client, studies: list[Dataset]) -> None:
    series = search(http, f"{path(studies[0], 'study')}/series")
    assert uids(series, "0020000E") == {item.SeriesInstanceUID for item in studies[:3]}
    assert all(set(row) >= SERIES_KEYS for row in series)
    instances = search(http, f"{path(studies[0], 'series')}/instances")
    assert uids(instances, "00080018") == {item.SOPInstanceUID for item in studies[:2]}
    assert all(set(row) >= INSTANCE_KEYS for row in instances)
    assert [value(row, "00200013") for row in instances] == [1, 2]


def test_d03_q12_q13_relational_searches_carry_the_parents(http: httpx.Client, studies: list[Dataset]) -> None:
    series = search(http, "/series", f"StudyInstanceUID={studies[0].StudyInstanceUID}")
    assert len(series) == 2
    assert all(set(row) >= SERIES_KEYS | (STUDY_KEYS - {"00081190"}) for row in series)
    instances = search(http, "/instances", "Modality=MR")
    assert uids(instances, "00080018") == {studies[3].SOPInstanceUID}
    assert set(instances[0]) >= INSTANCE_KEYS | {"00080060", "00100010", "00100020"}
    assert len(search(http, f"{path(studies[0], 'study')}/instances")) == 3


def test_d03_q15_retrieve_urls_name_the_thing_itself(http: httpx.Client, studies: list[Dataset]) -> None:
    row = search(http, "/instances", f"SOPInstanceUID={studies[0].SOPInstanceUID}&includefield=Rows")[0]
    assert value(row, "00081190") == str(http.base_url).rstrip("/") + path(studies[0])


@pytest.mark.parametrize("key", ["PatientID", "00100020"])
def test_d04_q01_keyword_and_tag_ask_the_same(http: httpx.Client, studies: list[Dataset], key: str) -> None:
    assert uids(search(http, "/studies", f"{key}=aB1")) == {studies[0].StudyInstanceUID}


def test_d05_q03_patient_id_is_exact_and_case_sensitive(http: httpx.Client, studies: list[Dataset]) -> None:
    assert uids(search(http, "/studies", "PatientID=AB1")) == {studies[3].StudyInstanceUID}
    assert search(http, "/studies", "PatientID=ab1") == []
    assert search(http, "/studies", "PatientID=B1") == []


@pytest.mark.parametrize("pattern", ["M*", "m?ller^anna", "*anna*", "muller^*", "M%C3%BCller*"])
def test_d06_q05_wildcards_and_folding_of_names(http: httpx.Client, studies: list[Dataset], pattern: str) -> None:
    assert uids(search(http, "/studies", f"PatientName={pattern}")) == {studies[0].StudyInstanceUID}


def test_d06_q03_wildcards_of_identifiers(http: httpx.Client, studies: list[Dataset]) -> None:
    assert uids(search(http, "/studies", "PatientID=*B?")) == {
        studies[0].StudyInstanceUID,
        studies[3].StudyInstanceUID,
    }


@pytest.mark.parametrize("given", ["20210304", "20210301-20210331", "20210304-", "20210303-20210304"])
def test_d07_q03_dates_and_ranges_are_closed(http: httpx.Client, studies: list[Dataset], given: str) -> None:
    assert uids(search(http, "/studies", f"StudyDate={given}")) == {studies[3].StudyInstanceUID}


@pytest.mark.parametrize("separator", [",", "%2C", "%5C", "%5C%5C"])
def test_d08_c03_q03_uid_lists(http: httpx.Client, studies: list[Dataset], separator: str) -> None:
    wanted = [studies[0].StudyInstanceUID, studies[3].StudyInstanceUID]
    assert uids(search(http, "/studies", f"StudyInstanceUID={separator.join(wanted)}")) == set(wanted)


def test_d09_q04_modalities_in_study(http: httpx.Client, studies: list[Dataset]) -> None:
    assert uids(search(http, "/studies", "ModalitiesInStudy=MR")) == {studies[3].StudyInstanceUID}
    both = {studies[0].StudyInstanceUID, studies[3].StudyInstanceUID}
    assert uids(search(http, "/studies", "ModalitiesInStudy=CT%2CMR")) == both


def test_d10_q09_pages_cover_everything_once(http: httpx.Client, studies: list[Dataset]) -> None:
    pages = [search(http, "/studies", f"limit=1&offset={offset}") for offset in range(4)]
    assert [len(page) for page in pages] == [1, 1, 1, 0]
    assert uids([row for page in pages for row in page]) == {item.StudyInstanceUID for item in studies}
    assert search(http, "/studies", "limit=0") == []


def test_d10_q16_total_is_told_where_it_is_known(http: httpx.Client, studies: list[Dataset]) -> None:
    assert http.get("/studies").headers["x-total-count"] == "3"
    assert http.get("/studies?limit=2&offset=2").headers["x-total-count"] == "3"


@pytest.mark.parametrize("query", ["limit=-1", "offset=x", "StudyDate=yesterday", "fuzzymatching=2", "PatientID=%FF"])
def test_d10_q09_malformed_values_are_400(http: httpx.Client, query: str) -> None:
    answer = http.get(f"/studies?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"] == "bad-request"


@pytest.mark.parametrize("field", ["00081030,InstitutionName", "all", "00081030&includefield=InstitutionName"])
def test_d11_q07_includefield(http: httpx.Client, store: Store, field: str) -> None:
    item = ct(StudyDescription="Thorax", InstitutionName="Here")
    store(item)
    row = search(http, "/studies", f"StudyInstanceUID={item.StudyInstanceUID}&includefield={field}")[0]
    assert (value(row, "00081030"), value(row, "00080080")) == ("Thorax", "Here")
    assert http.delete(path(item, "study")).status_code == 204


def test_d12_c02_unknown_parameters_are_ignored(http: httpx.Client, studies: list[Dataset]) -> None:
    assert len(search(http, "/studies", "foo=bar&_=17&00990099=x&includefield=Nonsense&PatientNames=y")) == 3


def test_d13_q05_fuzzymatching_is_accepted(http: httpx.Client, studies: list[Dataset]) -> None:
    assert uids(search(http, "/studies", "PatientName=Smith*&fuzzymatching=true")) == {studies[3].StudyInstanceUID}


def test_c13_names_come_in_utf8_with_their_label(http: httpx.Client, studies: list[Dataset]) -> None:
    row = search(http, "/studies", "PatientID=aB1&includefield=SpecificCharacterSet")[0]
    assert value(row, "00100010") == {"Alphabetic": "Müller^Anna"}
    assert value(row, "00080005") in {None, "ISO_IR 192"}


def test_q11_xml_where_it_is_asked_for(http: httpx.Client, studies: list[Dataset]) -> None:
    answer = http.get("/studies", headers={"Accept": 'multipart/related; type="application/dicom+xml"'})
    found = parts(answer)
    assert len(found) == 3
    assert all(headers["content-type"] == "application/dicom+xml" for headers, _ in found)
    assert all(len(ElementTree.fromstring(content)) >= len(STUDY_KEYS) for _, content in found)


@pytest.mark.parametrize("accept", ["text/html", "application/dicom", "image/jpeg"])
def test_c05_unacceptable_types_are_406_with_what_is_offered(http: httpx.Client, accept: str) -> None:
    answer = http.get("/studies", headers={"Accept": accept})
    assert answer.status_code == 406
    assert "application/dicom+json" in answer.json()["offered"]


def test_ohif_as_captured(http: httpx.Client, studies: list[Dataset]) -> None:
    fields = "includefield=00081030%2C00080060%2C00080090%2C00100030"
    rows = search(http, "/studies", f"limit=101&offset=0&fuzzymatching=true&{fields}")
    assert len(rows) == 3
    assert all("Value" in row["00080061"] for row in rows)
    filtered = "PatientName=*smith*&00100020=*AB*&ModalitiesInStudy=CT%2CMR&StudyDate=20000101-20261231"
    assert uids(search(http, "/studies", f"limit=101&{filtered}")) == {studies[3].StudyInstanceUID}
