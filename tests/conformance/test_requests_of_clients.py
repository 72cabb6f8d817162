"""What real clients send, word for word, and what each of them needs of the answer."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from tests.conformance.conftest import parts, path, value
from tests.dicomweb.objects import ct, multipart, part10

Store = Callable[..., httpx.Response]
JSON = {"Accept": "application/dicom+json"}


@pytest.fixture(scope="module")
def items(store: Store) -> list[Dataset]:
    """A CT series of three slices with a prior of the same patient, and a SEG-like series beside it."""
    same = {"PatientID": "A1x1", "PatientName": "Doe^Complete", "AccessionNumber": "xA1", "StudyDescription": "a foo b"}
    first = ct(**same)
    same["study"] = first.StudyInstanceUID
    more = [ct(series=first.SeriesInstanceUID, InstanceNumber=number, **same) for number in (2, 3)]
    beside = ct(Modality="SEG", SeriesNumber=2, **same)
    prior = ct(PatientID="A1x1", PatientName="Doe^Complete", StudyDate="20100101")
    found = [first, *more, beside, prior]
    store(*found)
    return found


def rows(http: httpx.Client, url: str, **headers: str) -> list[dict[str, Any]]:
    answer = http.get(url, headers={**JSON, **headers})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


def test_ohif_lists_filters_and_opens(http: httpx.Client, items: list[Dataset]) -> None:
    fields = "includefield=00081030%2C00080060%2C00080090%2C00100030"
    listed = rows(http, f"/studies?limit=101&offset=0&fuzzymatching=true&{fields}")
    needed = {
        "0020000D",
        "00080020",
        "00080030",
        "00080050",
        "00100020",
        "00100010",
        "00100030",
        "00201208",
        "00080090",
    }
    for row in listed:
        assert needed <= set(row)
        assert row["00080061"]["Value"]
        assert None not in row["00080061"]["Value"]
    filtered = (
        "PatientName=*comp*&00100020=*1*&AccessionNumber=*A1*&ModalitiesInStudy=CT%2CMR&StudyDescription=*foo*"
        f"&limit=101&offset=0&fuzzymatching=true&{fields}&StudyDate=20000101-20261231"
    )
    assert [value(row, "0020000D") for row in rows(http, f"/studies?{filtered}")] == [items[0].StudyInstanceUID]
    uid = items[0].StudyInstanceUID
    assert len(rows(http, f"/studies?limit=101&offset=0&fuzzymatching=true&{fields}&StudyInstanceUID={uid}")) == 1
    doubled = f"{uid}%5C%5C{items[4].StudyInstanceUID}"
    assert len(rows(http, f"/studies?StudyInstanceUID={doubled}")) == 2
    series = rows(http, f"/studies/{uid}/series?includefield=00080021%2C00080031%2C0008103E%2C00200011")
    assert all({"0020000E", "00080060", "00200011", "00201209"} <= set(row) for row in series)
    assert len(rows(http, "/studies?00100020=A1x1&limit=101&offset=0&fuzzymatching=false")) == 2
    assert len(rows(http, f"{path(items[0], 'series')}/metadata")) == 3
    retry = rows(http, f"{path(items[0], 'series')}/instances?limit=1&includefield=00080018")
    assert value(retry[0], "00080018")


def test_ohif_and_cornerstone_read_the_first_part(http: httpx.Client, store: Store, items: list[Dataset]) -> None:
    accept = "multipart/related; type=application/octet-stream; transfer-syntax=*"
    compressed = ct(BitsAllocated=8, BitsStored=8, HighBit=7, syntax=JPEGBaseline8Bit)
    stream = b"\xff\xd8\xff\xe0" + bytes(50) + b"\xff\xd9"
    compressed.PixelData = encapsulate([stream])
    compressed["PixelData"].is_undefined_length = True
    store(compressed)
    for item, kind, content in (
        (items[0], b"application/octet-stream", items[0].PixelData),
        (compressed, b"image/jpeg", stream),
    ):
        answer = http.get(f"{path(item)}/frames/1", headers={"Accept": accept})
        boundary = re.search(r"boundary=([A-Za-z0-9]+)$", answer.headers["content-type"])
        assert boundary, answer.headers
        head, _, rest = answer.content.partition(b"\r\n\r\n")
        assert head.startswith(f"--{boundary[1]}\r\nContent-Type: ".encode() + kind)
        assert b"transfer-syntax=" in head
        assert len(head) < 1000
        assert rest.partition(f"\r\n--{boundary[1]}".encode())[0] == content


def test_ohif_thumbnails_bulk_and_upload(http: httpx.Client, items: list[Dataset]) -> None:
    thumbnail = http.get(f"{path(items[0])}/thumbnail?viewport=256%2C256", headers={"Accept": "image/jpeg"})
    assert thumbnail.content.startswith(b"\xff\xd8\xff")
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
    uri = rows(http, f"{path(items[0])}/metadata")[0]["7FE00010"]["BulkDataURI"]
    assert http.get(uri, headers={"Accept": browser}).status_code == 200
    assert http.get(f"{path(items[0])}/rendered?accept=image/jpeg", headers={"Accept": browser}).status_code == 200
    item = ct()
    body = b"\r\n--guid-1\r\nContent-Type: application/dicom\r\n\r\n" + part10(item) + b"\r\n--guid-1--"
    kind = 'multipart/related; type="application/dicom"; boundary="guid-1"'
    answer = http.post("/studies", headers={"Content-Type": kind, "Accept": "*/*"}, content=body)
    assert answer.status_code == 200


def test_slicer_reads_series_metadata_and_objects(http: httpx.Client, items: list[Dataset]) -> None:
    found = rows(http, f"{path(items[0], 'study')}/series", Accept="application/dicom+json, application/json")
    assert len(found) == 2
    assert len(rows(http, f"{path(items[0], 'series')}/metadata")) == 3
    answer = http.get(path(items[0], "series"), headers={"Accept": 'multipart/related; type="application/dicom"'})
    assert [content for _, content in parts(answer)] == [part10(item) for item in items[:3]]


def test_monai_label_lists_the_archive_and_finds_the_new_series(http: httpx.Client, items: list[Dataset]) -> None:
    for modality in ("CT", "SEG"):
        found = rows(http, f"/series?Modality={modality}")
        assert all(value(row, "0020000D") and value(row, "0020000E") for row in found)
    one = rows(http, f"/series?SeriesInstanceUID={items[0].SeriesInstanceUID}")
    assert [value(row, "0020000D") for row in one] == [items[0].StudyInstanceUID]
    item = ct()
    headers, body = multipart(part10(item))
    answer = http.post("/studies", headers=headers, content=body).json()
    urls = [value(reference, "00081190") for reference in answer["00081199"]["Value"]]
    assert f"/series/{item.SeriesInstanceUID}/" in urls[0]


def test_weasis_lists_retrieves_and_stores(http: httpx.Client, items: list[Dataset]) -> None:
    fields = (
        "includefield=00080020,00080030,00080050,00080061,00080090,00081030,00100010,00100020,00100021,00100030,"
        "00100040,0020000D,00200010"
    )
    assert len(rows(http, f"/studies?00100020=A1x1&00100021=&{fields}")) == 2
    study = f"0020000D={items[0].StudyInstanceUID}"
    series = rows(http, f"/series?&{study}&includefield=0008103E,00080060,0020000E,00200011,00081190")
    assert len(series) == 2
    one = f"0020000E={items[0].SeriesInstanceUID}"
    instances = rows(http, f"/instances?&{study}&{one}&includefield=00080018,00200013,00081190")
    assert [value(row, "00200013") for row in instances] == [1, 2, 3]
    assert value(rows(http, f"/series?&{one}&includefield=00201209")[0], "00201209") == 3
    accept = 'multipart/related;type="application/dicom";transfer-syntax=*'
    for row, item in zip(instances, items, strict=False):
        [(_, content)] = parts(http.get(value(row, "00081190"), headers={"Accept": accept}))
        assert content == part10(item)
    for place in ("thumbnail?viewport=96%2C96", "rendered?viewport=96%2C96"):
        assert http.get(f"{path(items[0])}/{place}", headers={"Accept": "image/jpeg"}).status_code == 200
    root = str(http.base_url).replace("/dicom-web/", "")
    uri = (
        f"{root}/wado?requestType=WADO&studyUID={items[0].StudyInstanceUID}&seriesUID={items[0].SeriesInstanceUID}"
        f"&objectUID={items[0].SOPInstanceUID}&contentType=image/jpeg&imageQuality=70&rows=96&columns=96"
    )
    assert http.get(uri).content.startswith(b"\xff\xd8\xff")


def test_slide_viewers_ask_for_many_frames_and_the_syntax(http: httpx.Client, store: Store) -> None:
    item = ct(NumberOfFrames=40, PixelData=bytes(range(200)) * 8)
    store(item)
    row = rows(http, f"{path(item, 'series')}/instances?includefield=AvailableTransferSyntaxUID")[0]
    assert value(row, "00083002") == "1.2.840.10008.1.2.1"
    listed = ",".join(map(str, range(1, 41)))
    for accept in ("*/*", 'multipart/related; type="application/octet-stream"; transfer-syntax="*"'):
        answer = http.get(f"{path(item)}/frames/{listed}", headers={"Accept": accept})
        assert b"".join(content for _, content in parts(answer)) == item.PixelData
