"""Store of DICOM JSON with bulk data (PS3.18 10.5.1, 8.7.3.2): what a node says of an object makes the object anew."""

import io
import json
from collections.abc import Callable
from typing import Any

import httpx
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import RLELossless

from tests.conformance.conftest import path, value
from tests.dicomweb.objects import ct

Store = Callable[..., httpx.Response]
BOUNDARY = "json-and-bulk"
JSON = "application/dicom+json"


def sent(http: httpx.Client, rows: Any, *bulk: tuple[str, str, bytes], place: str = "/studies") -> httpx.Response:
    """Store metadata with (location, type, bytes) of bulk data."""
    parts = [f"Content-Type: {JSON}\r\n\r\n".encode() + json.dumps(rows).encode()]
    parts += [
        f"Content-Type: {kind}\r\nContent-Location: {location}\r\n\r\n".encode() + content
        for location, kind, content in bulk
    ]
    body = b"".join(f"--{BOUNDARY}\r\n".encode() + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()
    kind = f'multipart/related; type="{JSON}"; boundary={BOUNDARY}'
    return http.post(place, headers={"Content-Type": kind}, content=body)


def described(item: Dataset) -> dict[str, Any]:
    """The object in DICOM JSON without its pixels, as pydicom writes it."""
    row: dict[str, Any] = item.to_json_dict()
    row.pop("7FE00010", None)
    return row


def stored(http: httpx.Client, item: Dataset, syntax: str = "*") -> Dataset:
    answer = http.get(path(item), headers={"Accept": f"application/dicom; transfer-syntax={syntax}"})
    assert answer.status_code == 200, answer.text
    return pydicom.dcmread(io.BytesIO(answer.content))


def test_s01_metadata_and_bulk_data_make_the_object(http: httpx.Client) -> None:
    item = ct(PatientName="Müller^Jörg", StudyDescription="a,b", PixelSpacing=["0.5", "0.25"])
    item.SpecificCharacterSet = "ISO_IR 192"
    item.RequestAttributesSequence = Sequence([Dataset()])
    item.RequestAttributesSequence[0].ScheduledProcedureStepID = "S1"
    item.add_new(0x00091001, "UN", b"\1\2\3\4")
    item.add_new(0x00090010, "LO", "CONFORMANCE")
    row = described(item)
    row["7FE00010"] = {"vr": "OW", "BulkDataURI": "pixels"}
    answer = sent(http, [row], ("pixels", "application/octet-stream", item.PixelData))
    assert answer.status_code == 200, answer.text
    assert value(answer.json()["00081199"]["Value"][0], "00081155") == item.SOPInstanceUID
    got = stored(http, item)
    assert got.PixelData == item.PixelData
    assert described(got) == described(item)


def test_s01_json_by_itself_and_several_objects(http: httpx.Client) -> None:
    first = ct(Modality="PR")
    items = [first, ct(study=first.StudyInstanceUID)]
    rows = [described(item) for item in items]
    for row in rows:
        for tag in ("00280010", "00280011"):
            del row[tag]
    answer = http.post("/studies", headers={"Content-Type": JSON}, content=json.dumps(rows))
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["00081199"]["Value"]) == 2
    assert described(stored(http, items[1]))["00100010"] == rows[1]["00100010"]


def test_s01_a_compressed_frame_keeps_its_stream(http: httpx.Client) -> None:
    item = ct()
    item.compress(RLELossless, generate_instance_uid=False)
    stream = next(pydicom.encaps.generate_frames(item.PixelData, number_of_frames=1))
    row = described(item)
    row["7FE00010"] = {"vr": "OB", "BulkDataURI": "frame"}
    assert sent(http, row, ("frame", "image/dicom-rle", stream)).status_code == 200
    got = stored(http, item)
    assert got.file_meta.TransferSyntaxUID == RLELossless
    assert next(pydicom.encaps.generate_frames(got.PixelData, number_of_frames=1)) == stream


def test_s01_bulk_data_within_sequences(http: httpx.Client) -> None:
    item = ct()
    row = described(item)
    row["00091010"] = {"vr": "SQ", "Value": [{"00091020": {"vr": "OB", "BulkDataURI": "inner"}}]}
    row["00090010"] = {"vr": "LO", "Value": ["CONFORMANCE"]}
    assert sent(http, row, ("inner", "application/octet-stream", b"abc")).status_code == 200
    assert stored(http, item)[0x00091010].value[0][0x00091020].value == b"abc\0"


def test_s05_discarded_elements_are_a_warning(http: httpx.Client) -> None:
    item = ct()
    row = described(item) | {"00020010": {"vr": "UI", "Value": ["1.2.840.10008.1.2"]}}
    answer = sent(http, [row])
    assert answer.status_code == 202
    assert value(answer.json()["00081199"]["Value"][0], "00081196") == 0xB006


def broken(**changes: Any) -> dict[str, Any]:
    return {**described(ct()), **changes}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (broken(**{"7FE00010": {"vr": "OW", "BulkDataURI": "nowhere"}}), 0xC000),
        (broken(**{"00080018": {"vr": "UI"}}), 0xC000),
        (broken(**{"00080018": {"vr": "UI", "Value": ["../x"]}}), 0xC000),
        (broken(**{"00280010": {"vr": "US", "Value": ["many"]}}), 0xC000),
        (broken(**{"00280010": {"vr": "US", "Value": [70000]}}), 0xC000),
        (broken(**{"00081140": {"vr": "SQ", "Value": ["no item"]}}), 0xC000),
        (broken(**{"00420011": {"vr": "OB", "InlineBinary": "%%%"}}), 0xC000),
    ],
)
def test_s04_s05_what_cannot_be_made_fails_alone(http: httpx.Client, row: dict[str, Any], reason: int) -> None:
    good = ct()
    answer = sent(http, [row, described(good)])
    assert answer.status_code == 202, answer.text
    found = answer.json()
    [failed] = (found.get("00081198") or found["0008119A"])["Value"]
    assert value(failed, "00081197") == reason
    assert value(found["00081199"]["Value"][0], "00081155") == good.SOPInstanceUID


@pytest.mark.parametrize("text", ["", "[]", "{", "[1]", '{"x": 1}', '{"00100010": {"vr": 5}}', '"text"', "[" * 5000])
def test_s03_what_is_no_dicom_json_is_400(http: httpx.Client, text: str) -> None:
    assert http.post("/studies", headers={"Content-Type": JSON}, content=text).status_code == 400


def test_d32_s03_objects_of_another_study_and_streams_of_unknown_types(http: httpx.Client) -> None:
    item = ct()
    assert sent(http, described(item), place="/studies/1.2.3").status_code == 409
    row = described(item) | {"7FE00010": {"vr": "OB", "BulkDataURI": "p"}}
    assert value(sent(http, row, ("p", "image/x-unknown", b"x")).json()["00081198"]["Value"][0], "00081197") == 0xC122
    row["00280008"] = {"vr": "IS", "Value": [2]}
    assert sent(http, row, ("p", "image/jpeg", b"\xff\xd8\xff\xd9")).status_code == 409
