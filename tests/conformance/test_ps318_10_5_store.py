"""Store (PS3.18 10.5): the acceptance checks D31 to D33 of the wire contract, on a real node."""

import hashlib
import http.client as http_client
import json
from collections.abc import Callable, Iterator
from xml.etree import ElementTree

import httpx
import pytest

from tests.conformance.conftest import path, value
from tests.dicomweb.objects import CT, ct, multipart, part10

Store = Callable[..., httpx.Response]


def as_stored(http: httpx.Client, place: str) -> bytes:
    return http.get(place, headers={"Accept": "application/dicom; transfer-syntax=*"}).content


def test_d31_s04_several_objects_in_one_request(http: httpx.Client, store: Store) -> None:
    items = [ct()]
    items += [ct(study=items[0].StudyInstanceUID, InstanceNumber=number) for number in range(2, 12)]
    found = store(*items).json()
    assert set(found) == {"00081190", "00081199"}
    assert value(found, "00081190") == str(http.base_url).rstrip("/") + path(items[0], "study")
    for item, reference in zip(items, found["00081199"]["Value"], strict=True):
        assert value(reference, "00081150") == CT
        assert value(reference, "00081155") == item.SOPInstanceUID
        assert value(reference, "00081190") == str(http.base_url).rstrip("/") + path(item)
        assert as_stored(http, path(item)) == part10(item)


def test_d31_s01_one_object_by_itself(http: httpx.Client) -> None:
    item = ct()
    answer = http.post("/studies", headers={"Content-Type": "application/dicom"}, content=part10(item))
    assert answer.status_code == 200
    assert as_stored(http, path(item)) == part10(item)


def test_d31_s07_what_is_stored_is_found_at_once(http: httpx.Client, store: Store) -> None:
    for _ in range(5):
        item = ct()
        store(item)
        rows = http.get(f"/studies?StudyInstanceUID={item.StudyInstanceUID}").json()
        assert [value(row, "00201208") for row in rows] == [1]
        assert http.get(path(item) + "/metadata").status_code == 200


def test_d31_s08_a_large_object_arrives_whole(http: httpx.Client, store: Store) -> None:
    item = ct(Rows=1024, Columns=2048, PixelData=bytes(range(256)) * (2 * 1024 * 2048 // 256))
    store(item)
    assert hashlib.sha256(as_stored(http, path(item))).digest() == hashlib.sha256(part10(item)).digest()


def test_d32_s05_study_mismatch_is_409(http: httpx.Client) -> None:
    item = ct()
    headers, body = multipart(part10(item))
    answer = http.post("/studies/1.2.3.4", headers=headers, content=body)
    assert answer.status_code == 409
    failed = answer.json()["00081198"]["Value"][0]
    assert value(failed, "00081155") == item.SOPInstanceUID
    assert value(failed, "00081197") == 0xA900
    assert http.get(path(item) + "/metadata").status_code == 404


def test_d32_the_right_study_is_welcome(http: httpx.Client) -> None:
    item = ct()
    headers, body = multipart(part10(item))
    assert http.post(path(item, "study"), headers=headers, content=body).status_code == 200


def test_d33_s06_a_duplicate_is_a_success_and_counts_once(http: httpx.Client, store: Store) -> None:
    item = ct()
    first, second = store(item), store(item)
    assert first.json() == second.json()
    rows = http.get(f"/studies?StudyInstanceUID={item.StudyInstanceUID}").json()
    assert [value(row, "00201208") for row in rows] == [1]


def test_s06_other_content_under_a_known_uid_is_kept_out(http: httpx.Client, store: Store) -> None:
    item = ct()
    store(item)
    other = ct(SOPInstanceUID=item.SOPInstanceUID, study=item.StudyInstanceUID, series=item.SeriesInstanceUID)
    other.file_meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID
    headers, body = multipart(part10(other))
    answer = http.post("/studies", headers=headers, content=body)
    assert answer.status_code == 409
    failed = answer.json()["00081198"]["Value"][0]
    assert value(failed, "00081197") == 0x0111
    assert as_stored(http, path(item)) == part10(item)
    api = str(http.base_url).replace("/dicom-web/", "/api/v1")
    refusal = http.get(f"{api}/refusals/{value(failed, '00091001')}")
    assert refusal.status_code == 200
    assert refusal.json()["reason"] == "duplicate"
    assert refusal.json()["sop_instance_uid"] == item.SOPInstanceUID


BAD = {
    "nothing": b"",
    "text": b"This is no DICOM object at all. " * 20,
    "preamble only": bytes(128) + b"DICM",
    "zeros": bytes(10_000),
}


@pytest.mark.parametrize("kind", BAD)
def test_s04_s07_what_is_no_dicom_fails_alone_and_is_looked_up(http: httpx.Client, kind: str) -> None:
    good = ct()
    headers, body = multipart(BAD[kind], part10(good))
    answer = http.post("/studies", headers=headers, content=body)
    assert answer.status_code == 202
    other = answer.json()["0008119A"]["Value"]
    assert [value(item, "00081197") for item in other] == [0xC000]
    assert as_stored(http, path(good)) == part10(good)


@pytest.mark.parametrize("cut", [200, 400, 700, 20])
def test_s03_truncated_objects_are_refused(http: httpx.Client, cut: int) -> None:
    item = ct()
    headers, body = multipart(part10(item)[:-cut])
    answer = http.post("/studies", headers=headers, content=body)
    assert answer.status_code == 409
    assert http.get(path(item) + "/metadata").status_code == 404


@pytest.mark.parametrize("uid", ["../../../etc/passwd", "1..2", "a", "1." * 40, "%2e%2e"])
def test_s03_uids_that_are_none_are_refused(http: httpx.Client, uid: str) -> None:
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        item = ct()
        content = part10(item)
        known = str(getattr(item, keyword))
        crooked = (uid * len(known))[: len(known) - 1] + uid[-1]
        headers, body = multipart(content.replace(known.encode(), crooked.encode()))
        answer = http.post("/studies", headers=headers, content=body)
        assert answer.status_code == 409, keyword


def test_s07_missing_end_stores_nothing_of_the_last_part(http: httpx.Client) -> None:
    whole, cut = ct(), ct()
    headers, body = multipart(part10(whole), part10(cut))
    answer = http.post("/studies", headers=headers, content=body[:-60])
    assert answer.status_code == 202
    assert http.get(path(whole) + "/metadata").status_code == 200
    assert http.get(path(cut) + "/metadata").status_code == 404


def test_s02_weasis_gets_its_answer_in_xml(http: httpx.Client) -> None:
    good, other = ct(), ct()
    headers, body = multipart(part10(good), b"garbage")
    answer = http.post("/studies", headers={**headers, "Accept": "application/dicom+xml"}, content=body)
    assert answer.status_code == 202
    assert answer.headers["content-type"] == "application/dicom+xml"
    tags = [attribute.attrib["tag"] for attribute in ElementTree.fromstring(answer.content)]
    assert tags == ["00081190", "00081199", "0008119A"]
    headers, body = multipart(part10(other))
    mismatch = http.post("/studies/1.2.3", headers={**headers, "Accept": "application/dicom+xml"}, content=body)
    assert mismatch.status_code == 409
    assert b"43264" in mismatch.content


def test_s01_bodies_come_chunked_and_after_a_line_break(http: httpx.Client) -> None:
    item = ct()
    headers, body = multipart(part10(item))

    def chunks() -> Iterator[bytes]:
        yield b"\r\n"
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    assert http.post("/studies", headers=headers, content=chunks()).status_code == 200
    assert as_stored(http, path(item)) == part10(item)


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}, b"", 400),
        ({"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}, b"--b--", 400),
        ({"Content-Type": 'multipart/related; type="application/dicom"'}, b"--b--", 400),
        ({"Content-Type": 'multipart/related; type="application/dicom+xml"; boundary=b'}, b"--b--", 415),
        ({"Content-Type": "application/dicom+xml"}, b"<x/>", 415),
        ({"Content-Type": "text/plain"}, b"x", 415),
        ({"Content-Type": "application/dicom", "Content-Encoding": "gzip"}, b"x", 415),
    ],
)
def test_s03_bodies_that_are_not_read_say_why(
    http: httpx.Client, headers: dict[str, str], body: bytes, status: int
) -> None:
    answer = http.post("/studies", headers=headers, content=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["message"].endswith(".")


def test_s03_a_body_over_the_limit_is_413_before_it_is_sent(port: int) -> None:
    line = http_client.HTTPConnection("127.0.0.1", port, timeout=30)
    line.putrequest("POST", "/dicom-web/studies")
    line.putheader("Content-Type", "application/dicom")
    line.putheader("Content-Length", str(1 << 45))
    line.endheaders()
    answer = line.getresponse()
    assert (answer.status, json.loads(answer.read())["error"]) == (413, "too-large")
    line.close()
