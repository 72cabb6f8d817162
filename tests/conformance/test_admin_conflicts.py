"""Conflicts over the admin API: the newcomer is set aside, and somebody decides."""

from collections.abc import Callable, Iterator

import httpx
import pytest
from pydicom.dataset import Dataset

from tests.conformance.conftest import path, value
from tests.dicomweb.objects import ct, multipart, part10

Store = Callable[..., httpx.Response]


@pytest.fixture
def api(port: int) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1") as client:
        yield client


@pytest.fixture
def rivals(http: httpx.Client, store: Store) -> tuple[Dataset, Dataset]:
    """Two objects of one UID and other content; the first is stored, the second set aside."""
    first = ct()
    store(first)
    second = ct(SOPInstanceUID=first.SOPInstanceUID, study=first.StudyInstanceUID, series=first.SeriesInstanceUID)
    second.file_meta.MediaStorageSOPInstanceUID = first.SOPInstanceUID
    headers, body = multipart(part10(second))
    assert http.post("/studies", headers=headers, content=body).status_code == 409
    return first, second


def conflict_of(api: httpx.Client, item: Dataset) -> int:
    rows = api.get("/conflicts").json()["items"]
    [found] = [row["id"] for row in rows if row["sop_instance_uid"] == item.SOPInstanceUID]
    return int(found)


@pytest.mark.parametrize(("decision", "winner"), [("keep", 0), ("replace", 1)])
def test_a_conflict_ends_as_it_is_decided(
    api: httpx.Client, http: httpx.Client, rivals: tuple[Dataset, Dataset], decision: str, winner: int
) -> None:
    number = conflict_of(api, rivals[0])
    answer = api.post(f"/conflicts/{number}/resolve", json={"decision": decision})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"id": number, "state": {"keep": "kept", "replace": "replaced"}[decision]}
    got = http.get(path(rivals[0]), headers={"Accept": "application/dicom; transfer-syntax=*"}).content
    assert got == part10(rivals[winner])
    assert number not in [row["id"] for row in api.get("/conflicts").json()["items"]]
    assert api.post(f"/conflicts/{number}/resolve", json={"decision": decision}).status_code == 404
    row = http.get(f"/studies?StudyInstanceUID={rivals[0].StudyInstanceUID}").json()[0]
    assert value(row, "00201208") == 1


@pytest.mark.parametrize("body", [{}, {"decision": "both"}, {"decision": ["keep"]}, {"decision": None}])
def test_a_decision_that_is_none_is_a_bad_request(
    api: httpx.Client, rivals: tuple[Dataset, Dataset], body: dict[str, object]
) -> None:
    assert api.post(f"/conflicts/{conflict_of(api, rivals[0])}/resolve", json=body).status_code == 400
    assert api.post("/conflicts/x/resolve", json={"decision": "keep"}).status_code == 400
