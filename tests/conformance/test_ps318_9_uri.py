"""The URI service (PS3.18 chapter 9): D34."""

from collections.abc import Callable
from urllib.parse import urlencode

import httpx
import imagecodecs
import pytest
from pydicom.dataset import Dataset

from tests.dicomweb.objects import ct, part10

Store = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def item(store: Store) -> Dataset:
    found = ct()
    store(found)
    return found


@pytest.fixture
def ask(port: int, item: Dataset) -> Callable[..., httpx.Response]:
    """A request for `item` with some parameters changed; None leaves one out."""

    def request(**changed: str | None) -> httpx.Response:
        asked: dict[str, str | None] = {
            "requestType": "WADO",
            "studyUID": item.StudyInstanceUID,
            "seriesUID": item.SeriesInstanceUID,
            "objectUID": item.SOPInstanceUID,
            "contentType": "application/dicom",
            **changed,
        }
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        return httpx.get(f"http://127.0.0.1:{port}/wado?{query}")

    return request


@pytest.mark.parametrize("syntax", [None, "*", "1.2.840.10008.1.2.1"])
def test_d34_u02_an_object_as_a_file(ask: Callable[..., httpx.Response], item: Dataset, syntax: str | None) -> None:
    answer = ask(transferSyntax=syntax)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/dicom")
    assert answer.content == part10(item)


@pytest.mark.parametrize("kind", [None, "image/jpeg", "image/jpeg, application/dicom;q=0.5"])
def test_d34_u03_an_object_as_a_picture(ask: Callable[..., httpx.Response], item: Dataset, kind: str | None) -> None:
    answer = ask(contentType=kind)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/jpeg"
    assert imagecodecs.jpeg8_decode(answer.content).shape == (item.Rows, item.Columns)


def test_u01_study_and_series_may_be_left_out(ask: Callable[..., httpx.Response], item: Dataset) -> None:
    assert ask(studyUID=None, seriesUID=None).content == part10(item)


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"requestType": "GET"}, 400),
        ({"requestType": None}, 400),
        ({"objectUID": None}, 400),
        ({"objectUID": "abc"}, 400),
        ({"studyUID": "../x"}, 400),
        ({"objectUID": "1.2.3"}, 404),
        ({"studyUID": "1.2.3"}, 404),
        ({"studyUID": "1.2.3", "seriesUID": None}, 404),
        ({"contentType": "text/html"}, 406),
        ({"contentType": "video/mp4"}, 406),
        ({"presentationUID": "1.2.3"}, 400),
        ({"presentationUID": "1.2.3", "presentationSeriesUID": "1.2.4", "contentType": "image/jpeg"}, 404),
        ({"contentType": "image/jpeg", "windowCenter": "40"}, 400),
        ({"contentType": "image/jpeg", "rows": "0"}, 400),
        ({"contentType": "image/jpeg", "region": "0,0,1"}, 400),
        ({"contentType": "image/jpeg", "frameNumber": "0"}, 400),
        ({"contentType": "image/jpeg", "frameNumber": "2"}, 404),
        ({"transferSyntax": "1.2.840.10008.1.2.4.112"}, 406),
        ({"anonymize": "yes"}, 406),
    ],
)
def test_d34_u01_each_mistake_has_its_status(
    ask: Callable[..., httpx.Response], changed: dict[str, str | None], status: int
) -> None:
    answer = ask(**changed)
    assert answer.status_code == status, answer.text
    assert answer.json()["message"].endswith(".")
