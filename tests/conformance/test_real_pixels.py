"""Every real file over HTTP: its frames are those that pydicom decodes, its bulk data the bytes of its elements.

The campaign of `make torture`; what runs by default looks at fewer files (test_real_files.py).
"""

import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import iter_pixels

from tests.conformance.conftest import parts
from tests.dicomweb.objects import multipart

pytestmark = [pytest.mark.data, pytest.mark.slow]
OCTETS = {"Accept": 'multipart/related; type="application/octet-stream"'}
# bits above Bits Stored, which pydicom clears and we give as they are stored; chroma that pydicom spreads
AS_STORED = {"ovly_p01.dcm", "YBR_422.dcm"}


def refused(number: str) -> float:
    raise AssertionError(f"metadata holds {number}")


@pytest.fixture(scope="module")
def stored(http: httpx.Client, data_dir: Path) -> list[tuple[Path, str]]:
    """Each file that is taken, with the URL of its instance; of files with one UID the first."""
    found: dict[str, Path] = {}
    for path in sorted(path for path in data_dir.rglob("*") if path.is_file()):
        headers, body = multipart(path.read_bytes())
        answer = http.post("/studies", headers=headers, content=body)
        if answer.status_code == 200:
            url = answer.json()["00081199"]["Value"][0]["00081190"]["Value"][0]
            found.setdefault(url, path)
    assert len(found) > 350
    return [(path, url) for url, path in found.items()]


def bulk(row: dict[str, Any], dataset: Dataset | None) -> Iterator[tuple[str, str, Dataset | None]]:
    """Tag and URI of all bulk data, nested too, with the data set that pydicom has it in."""
    for tag, element in row.items():
        if "BulkDataURI" in element:
            yield tag, element["BulkDataURI"], dataset
        for number, item in enumerate(element.get("Value", ()) if element["vr"] == "SQ" else ()):
            known = dataset is not None and int(tag, 16) in dataset and dataset[int(tag, 16)].VR == "SQ"
            yield from bulk(item, dataset[int(tag, 16)].value[number] if known and dataset is not None else None)


def is_encapsulated(dataset: Dataset) -> bool:
    try:
        return bool(dataset.file_meta.TransferSyntaxUID.is_encapsulated)
    except (AttributeError, ValueError):  # no transfer syntax, or one that pydicom does not know
        return "8.1" in str(dataset.file_meta.get("TransferSyntaxUID", ""))


def test_every_bulk_data_uri_gives_the_bytes_of_its_element(http: httpx.Client, stored: list[tuple[Path, str]]) -> None:
    seen: Counter[str] = Counter()
    for path, url in stored:
        dataset = pydicom.dcmread(path, force=True)
        [row] = json.loads(http.get(f"{url}/metadata").content, parse_constant=refused)
        for tag, uri, place in bulk(row, dataset):
            answer = http.get(uri, headers={"Accept": "application/octet-stream, */*;q=0.1"})
            assert answer.status_code == 200, (path.name, tag)
            if place is None or (tag == "7FE00010" and is_encapsulated(dataset)):
                seen["encapsulated or hidden in UN"] += 1
                continue
            value = place[int(tag, 16)].value
            if isinstance(value, bytes):
                if not dataset.original_encoding[1] and place[int(tag, 16)].VR == "OW":
                    value = np.frombuffer(value, ">u2").astype("<u2").tobytes()  # the web knows little endian only
                assert answer.content in {value, value[:-1]}, (path.name, tag)  # a pad byte is no part of a document
                seen["equal"] += 1
    assert seen["equal"] > 600
    assert seen["encapsulated or hidden in UN"] < 60


def test_every_frame_is_the_one_that_pydicom_decodes(http: httpx.Client, stored: list[tuple[Path, str]]) -> None:
    equal = 0
    for path, url in stored:
        dataset = pydicom.dcmread(path, force=True)
        if "PixelData" not in dataset or path.name in AS_STORED:
            continue
        number = int(dataset.get("NumberOfFrames") or 1)
        numbers = range(1, number + 1) if number < 20 else (1, 2, number // 2, number)
        try:
            wanted = list(iter_pixels(dataset, raw=True, indices=[n - 1 for n in numbers]))
        except Exception:
            continue
        answer = http.get(f"{url}/frames/{','.join(map(str, numbers))}", headers=OCTETS)
        assert answer.status_code == 200, (path.name, answer.text)
        for (_, ours), theirs in zip(parts(answer), wanted, strict=True):
            assert ours == little(theirs, dataset), path.name
            equal += 1
    assert equal > 400


def little(frame: np.ndarray, dataset: Dataset) -> bytes:
    """pydicom's samples as PS3.5 8.1 writes them."""
    if dataset.BitsAllocated == 1:
        return np.packbits(frame.reshape(-1), bitorder="little").tobytes()
    if frame.ndim == 3 and dataset.get("PlanarConfiguration", 0) == 1:
        frame = frame.transpose(2, 0, 1)
    return np.ascontiguousarray(frame).astype(frame.dtype.newbyteorder("<")).tobytes()


def test_every_file_comes_in_every_lossless_syntax_or_is_406(
    http: httpx.Client, stored: list[tuple[Path, str]]
) -> None:
    made = 0
    for path, url in stored:
        for uid in ("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.1.99"):
            answer = http.get(url, headers={"Accept": f"application/dicom; transfer-syntax={uid}"})
            assert answer.status_code in {200, 406}, (path.name, uid, answer.text)
            if answer.status_code == 200:
                found = pydicom.dcmread(io.BytesIO(answer.content))
                assert found.file_meta.TransferSyntaxUID in {uid, "1.2.840.10008.1.2.1"}, path.name
                made += 1
    assert made > 900
