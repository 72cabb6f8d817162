"""Every real file through the HTTP door: stored and given back bit for bit, or refused with its reason; never a 5xx."""

import csv
from pathlib import Path
from typing import Any

import httpx
import imagecodecs
import pytest
from pydicom.uid import ImplicitVRLittleEndian

from tests.conformance.conftest import value
from tests.dicomweb.objects import multipart

pytestmark = pytest.mark.data
PREAMBLE = 128


def files(data_dir: Path) -> list[tuple[Path, str]]:
    """Path and transfer syntax of every file of the manifest."""
    with (data_dir / "manifest.csv").open(newline="") as table:
        return [(data_dir / row["path"], row["transfer_syntax"]) for row in csv.DictReader(table)]


def data_set(content: bytes) -> bytes:
    """What follows the file meta information: the same however the file's head was written."""
    if content[PREAMBLE : PREAMBLE + 4] != b"DICM":
        return content
    if content[132:138] != b"\x02\x00\x00\x00UL":
        return content[132:]
    return content[144 + int.from_bytes(content[140:144], "little") :]


@pytest.fixture(scope="module")
def outcomes(http: httpx.Client, data_dir: Path) -> dict[Path, httpx.Response]:
    """The answer to each file, sent by itself, in the manifest's order."""
    answers = {}
    for file, _ in files(data_dir):
        headers, body = multipart(file.read_bytes())
        answers[file] = http.post("/studies", headers=headers, content=body)
    return answers


def test_no_file_makes_the_server_fail(outcomes: dict[Path, httpx.Response]) -> None:
    assert {file.name: a.status_code for file, a in outcomes.items() if a.status_code not in {200, 409}} == {}
    assert sum(answer.status_code == 200 for answer in outcomes.values()) > 300


def test_every_refusal_has_a_reason_that_can_be_looked_up(
    http: httpx.Client, port: int, outcomes: dict[Path, httpx.Response]
) -> None:
    for file, answer in outcomes.items():
        if answer.status_code == 409:
            found: dict[str, Any] = answer.json()
            [item] = (found.get("00081198") or found["0008119A"])["Value"]
            refusal = http.get(f"http://127.0.0.1:{port}/api/v1/refusals/{value(item, '00091001')}")
            assert refusal.json()["reason"] == value(item, "00091002"), file.name


def test_what_was_stored_is_given_back_bit_for_bit(
    http: httpx.Client, data_dir: Path, outcomes: dict[Path, httpx.Response]
) -> None:
    for file, syntax in files(data_dir):
        if outcomes[file].status_code != 200:
            continue
        url = value(outcomes[file].json()["00081199"]["Value"][0], "00081190")
        named = syntax or ImplicitVRLittleEndian  # what files without file meta information are taken for
        wanted = ", ".join(f"application/dicom; transfer-syntax={uid}" for uid in (named, "*"))
        answer = http.get(url, headers={"Accept": wanted})
        assert answer.status_code == 200, (file.name, answer.text)
        sent = file.read_bytes()
        if any(sent[:PREAMBLE]) or sent[PREAMBLE:132] != b"DICM":
            assert data_set(answer.content) == data_set(sent), file.name
        else:
            assert answer.content == sent, file.name


def test_every_stored_file_has_metadata_and_frames_or_an_honest_no(
    http: httpx.Client, outcomes: dict[Path, httpx.Response]
) -> None:
    for file, stored in outcomes.items():
        if stored.status_code != 200:
            continue
        url = value(stored.json()["00081199"]["Value"][0], "00081190")
        assert len(http.get(f"{url}/metadata").json()) == 1, file.name
        for accept in ("multipart/related; type=application/octet-stream; transfer-syntax=*", "*/*"):
            answer = http.get(f"{url}/frames/1", headers={"Accept": accept})
            assert answer.status_code in {200, 404, 406}, (file.name, accept, answer.text)


def test_every_stored_file_is_a_picture_or_an_honest_no(
    http: httpx.Client, outcomes: dict[Path, httpx.Response]
) -> None:
    pictures = 0
    for file, stored in outcomes.items():
        if stored.status_code != 200:
            continue
        url = value(stored.json()["00081199"]["Value"][0], "00081190")
        for place in ("rendered", "thumbnail", "frames/1/rendered"):
            answer = http.get(f"{url}/{place}", headers={"Accept": "image/*, application/pdf"})
            assert answer.status_code in {200, 404, 406}, (file.name, place, answer.text)
            if answer.status_code == 200 and answer.headers["content-type"] == "image/jpeg":
                assert imagecodecs.jpeg8_decode(answer.content).size > 0, (file.name, place)
                pictures += 1
            elif answer.status_code == 406:
                assert answer.json()["message"].endswith("."), file.name
    assert pictures > 1000
