"""A real node behind a real server, and the means to put random studies into it and to read what it says."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from pydicom.dataset import Dataset

from dicomweb.app import build
from dicomweb.multipart import PartBegin, PartData, PartEnd, Reader
from dicomweb.negotiate import parse_media_type
from tests.dicomweb.objects import multipart, part10
from tests.dicomweb.wire import serving

Store = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def port(node: Any) -> Iterator[int]:
    """The port of this module's server."""
    with serving(build(node), node.settings) as (found, _):
        yield found


@pytest.fixture(scope="module")
def http(port: int) -> Iterator[httpx.Client]:
    """A client at the DICOMweb root."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/dicom-web", timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def store(http: httpx.Client) -> Store:
    """Stores data sets, or files as bytes; all must be taken."""

    def send(*items: Dataset | bytes) -> httpx.Response:
        headers, body = multipart(*(item if isinstance(item, bytes) else part10(item) for item in items))
        answer = http.post("/studies", headers=headers, content=body)
        assert answer.status_code in {200, 202}, answer.text
        return answer

    return send


def parts(answer: httpx.Response) -> list[tuple[dict[str, str], bytes]]:
    """The parts of a multipart answer, which must be framed to its end."""
    kind = parse_media_type(answer.headers["content-type"])
    assert kind is not None
    assert kind.name == "multipart/related"
    reader, found, data, headers = Reader(kind.parameter("boundary")), [], b"", {}
    for event in reader.feed(answer.content):
        match event:
            case PartBegin(headers):
                data = b""
            case PartData(piece):
                data += piece
            case PartEnd():
                found.append((headers, data))
    reader.close()
    return found


def value(row: dict[str, Any], tag: str) -> Any:
    """The first value of an attribute in DICOM JSON, None where it has none."""
    return (row.get(tag, {}).get("Value") or [None])[0]


def path(item: Dataset, level: str = "instance") -> str:
    """The path of an object, its series or its study."""
    study = f"/studies/{item.StudyInstanceUID}"
    series = f"{study}/series/{item.SeriesInstanceUID}"
    return {"study": study, "series": series, "instance": f"{series}/instances/{item.SOPInstanceUID}"}[level]
