"""The Python client with its defaults, which are not those of the standard (dicomweb.md 3)."""

import random
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset

from tests.conformance.conftest import value
from tests.dicomweb.objects import ct


@pytest.fixture(scope="module")
def client(port: int) -> Iterator[DICOMwebClient]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield DICOMwebClient(url=f"http://127.0.0.1:{port}/dicom-web")


@pytest.fixture(scope="module")
def items(client: DICOMwebClient) -> list[Dataset]:
    """Three slices, stored by the client itself."""
    first = ct()
    same = {"study": first.StudyInstanceUID, "series": first.SeriesInstanceUID, "PatientID": first.PatientID}
    more = [ct(InstanceNumber=number, **same) for number in (2, 3)]
    client.store_instances(datasets=[first, *more])
    return [first, *more]


def uids(item: Dataset) -> tuple[str, str, str]:
    return item.StudyInstanceUID, item.SeriesInstanceUID, item.SOPInstanceUID


def test_search_pages_through_everything(client: DICOMwebClient, items: list[Dataset]) -> None:
    study, series, _ = uids(items[0])
    found = client.search_for_studies(search_filters={"PatientID": items[0].PatientID}, fields=["StudyDescription"])
    assert [value(row, "0020000D") for row in found] == [study]
    assert len(client.search_for_series(study)) == 1
    assert len(client.search_for_instances(study, series, limit=2, offset=1, get_remaining=True)) == 2


def test_metadata(client: DICOMwebClient, items: list[Dataset]) -> None:
    study, series, instance = uids(items[0])
    assert value(client.retrieve_instance_metadata(study, series, instance), "00080018") == instance
    assert len(client.retrieve_series_metadata(study, series)) == 3
    assert len(client.retrieve_study_metadata(study)) == 3


def test_instances(client: DICOMwebClient, items: list[Dataset]) -> None:
    for item in items:
        assert client.retrieve_instance(*uids(item)) == item
    study, series, _ = uids(items[0])
    assert client.retrieve_series(study, series) == items
    assert list(client.iter_study(study)) == items


def test_frames_and_bulk_data(client: DICOMwebClient) -> None:
    item = ct(NumberOfFrames=3, PixelData=random.randbytes(3 * 40))
    client.store_instances(datasets=[item])
    frames = client.retrieve_instance_frames(*uids(item), frame_numbers=[3, 1])
    assert frames == [item.PixelData[80:], item.PixelData[:40]]
    metadata = client.retrieve_instance_metadata(*uids(item))
    assert b"".join(client.retrieve_bulkdata(metadata["7FE00010"]["BulkDataURI"])) == item.PixelData


def test_read_back_pixels(client: DICOMwebClient, items: list[Dataset]) -> None:
    found = client.retrieve_instance(*uids(items[1]))
    assert np.array_equal(found.pixel_array, items[1].pixel_array)


def test_rendered_pictures_with_the_defaults(client: DICOMwebClient, items: list[Dataset]) -> None:
    study, series, instance = uids(items[0])
    for picture in (
        client.retrieve_instance_rendered(study, series, instance),
        client.retrieve_instance_frames_rendered(study, series, instance, frame_numbers=[1]),
        client.retrieve_series_rendered(study, series),
    ):
        assert picture.startswith(b"\xff\xd8\xff")


def test_a_whole_series_and_its_bulk_data_are_iterated(client: DICOMwebClient, items: list[Dataset]) -> None:
    study, series, _ = uids(items[0])
    assert list(client.iter_series(study, series)) == items
    frames = list(client.iter_instance_frames(*uids(items[0]), frame_numbers=[1]))
    assert frames == [items[0].PixelData]


def test_deletion(client: DICOMwebClient) -> None:
    item = ct()
    client.store_instances(datasets=[item])
    client.delete_instance(*uids(item))
    assert client.search_for_studies(search_filters={"StudyInstanceUID": item.StudyInstanceUID}) == []
