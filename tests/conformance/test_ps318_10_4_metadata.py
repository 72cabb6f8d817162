"""Retrieve of metadata and bulk data (PS3.18 10.4.1.1.2, 10.4.1.1.5, Annex F): D14 to D17 of the wire contract."""

import gzip
import json
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from tests.conformance.conftest import parts, path, value
from tests.dicomweb.objects import ct

Store = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def items(store: Store) -> list[Dataset]:
    """Two slices of one series and one of another, with an item nested and a value hidden."""
    first = ct(PatientName="Müller^Anna", SpecificCharacterSet="ISO_IR 100", WindowCenter=[40, 80.5])
    reference = Dataset()
    reference.ReferencedSOPInstanceUID, reference.ReferencedSOPClassUID = "1.2.3", "1.2.840.10008.5.1.4.1.1.2"
    first.ReferencedImageSequence = [reference]
    second = ct(study=first.StudyInstanceUID, series=first.SeriesInstanceUID, InstanceNumber=2)
    third = ct(study=first.StudyInstanceUID, SeriesNumber=2)
    store(first, second, third)
    return [first, second, third]


def metadata(http: httpx.Client, place: str) -> list[dict[str, Any]]:
    answer = http.get(f"{place}/metadata", headers={"Accept": "application/dicom+json", "Accept-Encoding": "identity"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/dicom+json"
    found: list[dict[str, Any]] = answer.json()
    return found


def test_d14_m01_metadata_of_study_series_and_instance(http: httpx.Client, items: list[Dataset]) -> None:
    uids = [item.SOPInstanceUID for item in items]
    assert {value(row, "00080018") for row in metadata(http, path(items[0], "study"))} == set(uids)
    assert [value(row, "00080018") for row in metadata(http, path(items[0], "series"))] == uids[:2]
    assert [value(row, "00080018") for row in metadata(http, path(items[0]))] == uids[:1]


def test_d14_m02_equals_what_pydicom_makes_of_the_object(http: httpx.Client, items: list[Dataset]) -> None:
    for item in items:
        row = metadata(http, path(item))[0]
        wanted = item.to_json_dict(bulk_data_threshold=0, bulk_data_element_handler=lambda _: "bulk")
        for tag in ("7FE00010", "00080005"):
            row.pop(tag, None)
            wanted.pop(tag, None)
        assert row == wanted
        assert list(row) == sorted(row)


def test_d15_m01_metadata_as_xml_parts(http: httpx.Client, items: list[Dataset]) -> None:
    answer = http.get(
        f"{path(items[0], 'series')}/metadata", headers={"Accept": 'multipart/related; type="application/dicom+xml"'}
    )
    found = parts(answer)
    assert [headers for headers, _ in found] == [{"content-type": "application/dicom+xml"}] * 2
    for (_, content), item in zip(found, items, strict=False):
        assert f'<Value number="1">{item.SOPInstanceUID}</Value>'.encode() in content
        assert len(ElementTree.fromstring(content)) > 20


def test_d16_m04_m05_pixel_data_is_named_and_fetched(http: httpx.Client, items: list[Dataset], port: int) -> None:
    for item in items:
        element = metadata(http, path(item))[0]["7FE00010"]
        assert set(element) == {"vr", "BulkDataURI"}
        assert element["BulkDataURI"].startswith(f"http://127.0.0.1:{port}/dicom-web{path(item)}/")
        answer = http.get(element["BulkDataURI"])
        assert (answer.status_code, answer.content) == (200, item.PixelData)
        assert answer.headers["content-type"].startswith("application/octet-stream")
        wanted = 'multipart/related; type="application/octet-stream"'
        assert [content for _, content in parts(http.get(element["BulkDataURI"], headers={"Accept": wanted}))] == [
            item.PixelData
        ]


def test_d16_c15_a_host_without_port_takes_ours(http: httpx.Client, items: list[Dataset], port: int) -> None:
    answer = http.get(f"{path(items[0])}/metadata", headers={"Host": "127.0.0.1"})
    assert answer.json()[0]["7FE00010"]["BulkDataURI"].startswith(f"http://127.0.0.1:{port}/dicom-web/studies/")


def test_d16_c17_ranges_and_validators_of_bulk_data(http: httpx.Client, items: list[Dataset]) -> None:
    uri = metadata(http, path(items[0]))[0]["7FE00010"]["BulkDataURI"]
    part = http.get(uri, headers={"Range": "bytes=3-8"})
    assert (part.status_code, part.content) == (206, items[0].PixelData[3:9])
    assert part.headers["content-range"] == f"bytes 3-8/{len(items[0].PixelData)}"
    assert http.get(uri, headers={"Range": "bytes=99999-"}).status_code == 416
    assert http.get(uri, headers={"If-None-Match": part.headers["etag"]}).status_code == 304


@pytest.mark.parametrize("resource", ["bulkdata", "pixeldata"])
def test_d16_r08_bulk_data_at_each_level(http: httpx.Client, items: list[Dataset], resource: str) -> None:
    for level, wanted in (("study", items), ("series", items[:2]), ("instance", items[:1])):
        found = parts(http.get(f"{path(items[0], level)}/{resource}"))
        assert sorted(content for _, content in found) == sorted(item.PixelData for item in wanted)
        assert all(headers["content-location"].endswith("/bulkdata/7FE00010") for headers, _ in found)


@pytest.mark.parametrize("place", ["bulkdata/00091010", "bulkdata/xyz", "bulkdata/7FE00010/0/00100010"])
def test_d16_r08_what_is_no_bulk_data_is_not_there(http: httpx.Client, items: list[Dataset], place: str) -> None:
    assert http.get(f"{path(items[0])}/{place}").status_code in {400, 404}


def test_d17_c13_names_of_latin_1_come_in_utf8(http: httpx.Client, items: list[Dataset]) -> None:
    row = metadata(http, path(items[0]))[0]
    assert value(row, "00100010") == {"Alphabetic": "Müller^Anna"}
    assert value(row, "00080005") == "ISO_IR 192"


def test_c16_unchanged_metadata_is_304(http: httpx.Client, items: list[Dataset]) -> None:
    place = f"{path(items[0], 'study')}/metadata"
    tag = http.get(place).headers["etag"]
    again = http.get(place, headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")


def test_c16_metadata_changes_its_validator_when_the_study_grows(http: httpx.Client, store: Store) -> None:
    item = ct()
    store(item)
    place = f"{path(item, 'study')}/metadata"
    before = http.get(place).headers["etag"]
    store(ct(study=item.StudyInstanceUID))
    after = http.get(place, headers={"If-None-Match": before})
    assert after.status_code == 200
    assert len(after.json()) == 2


def test_c18_gzip_only_when_asked(http: httpx.Client, items: list[Dataset]) -> None:
    place = f"{path(items[0])}/metadata"
    with http.stream("GET", place, headers={"Accept-Encoding": "gzip"}) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        raw = b"".join(answer.iter_raw())
    assert gzip.decompress(raw) == http.get(place, headers={"Accept-Encoding": "identity"}).content
    for asked in ("identity", "*", "gzip;q=0", ""):
        assert "content-encoding" not in http.get(place, headers={"Accept-Encoding": asked}).headers


@pytest.mark.parametrize("level", ["study", "series", "instance"])
def test_c01_unknown_is_404_and_malformed_400(http: httpx.Client, level: str) -> None:
    assert http.get(f"{path(ct(), level)}/metadata").status_code == 404
    assert http.get("/studies/1.2.x/metadata").status_code == 400
    assert http.get(f"/studies/{'1' * 65}/metadata").status_code == 400


def test_c01_a_series_of_another_study_is_not_found(http: httpx.Client, store: Store, items: list[Dataset]) -> None:
    other = ct()
    store(other)
    assert http.get(f"{path(other, 'study')}/series/{items[0].SeriesInstanceUID}/metadata").status_code == 404


def test_m03_numbers_that_are_none_are_strings(http: httpx.Client, store: Store) -> None:
    item = ct()
    item.add_new(0x00189073, "FD", float("nan"))  # AcquisitionDuration
    item.add_new(0x00186060, "FL", [float("inf"), float("-inf"), 1.5])  # RFTapPosition and more
    item.add_new(0x00189089, "FD", [0.1, -0.0, 1e300])
    store(item)
    answer = http.get(f"{path(item)}/metadata")
    found = json.loads(answer.content, parse_constant=pytest.fail)[0]
    assert found["00189073"] == {"vr": "FD", "Value": ["NaN"]}
    assert found["00186060"]["Value"] == ["Infinity", "-Infinity", 1.5]
    assert found["00189089"]["Value"] == [0.1, 0, 1e300]


@pytest.mark.parametrize("syntax", [RLELossless, ExplicitVRLittleEndian])
def test_m06_labels_of_pixels_agree_with_the_frames_as_stored(http: httpx.Client, store: Store, syntax: str) -> None:
    item = ct(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    item.BitsAllocated, item.BitsStored, item.HighBit = 8, 8, 7
    item.PixelData = bytes(range(60))
    if syntax == RLELossless:
        item.compress(RLELossless, generate_instance_uid=False)
    store(item)
    found = http.get(f"{path(item)}/metadata").json()[0]
    assert found["00280004"]["Value"] == [item.PhotometricInterpretation]
    assert found["00280006"]["Value"] == [item.PlanarConfiguration]
    accept = "multipart/related; type=application/octet-stream; transfer-syntax=*"
    [(headers, _)] = parts(http.get(f"{path(item)}/frames/1", headers={"Accept": accept}))
    row = http.get(f"/instances?SOPInstanceUID={item.SOPInstanceUID}&includefield=AvailableTransferSyntaxUID").json()[0]
    assert value(row, "00083002") == syntax
    assert syntax in headers["content-type"]
