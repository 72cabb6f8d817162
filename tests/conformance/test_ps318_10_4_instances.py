"""Retrieve of instances (PS3.18 10.4.1.1.1, 8.7.3): the acceptance checks D18 to D22 of the wire contract."""

import io
import zipfile
from collections.abc import Callable

import httpx
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from tests.conformance.conftest import parts, path
from tests.dicomweb.objects import ct, part10

Store = Callable[..., httpx.Response]
MULTIPART = 'multipart/related; type="application/dicom"'


def get(http: httpx.Client, place: str, accept: str | None = None, **headers: str) -> httpx.Response:
    return http.get(place, headers={**({"Accept": accept} if accept else {}), **headers})


def read(content: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(content))


@pytest.fixture(scope="module")
def item(store: Store) -> Dataset:
    found = ct()
    store(found)
    return found


@pytest.mark.parametrize("accept", [None, "*/*", MULTIPART, "multipart/related;type=application/dicom"])
def test_d18_c06_c10_r01_multipart_by_default(http: httpx.Client, item: Dataset, accept: str | None) -> None:
    answer = get(http, path(item), accept)
    assert answer.headers["content-type"].startswith('multipart/related; type="application/dicom"; boundary=')
    assert parts(answer) == [
        ({"content-type": f"application/dicom; transfer-syntax={ExplicitVRLittleEndian}"}, part10(item))
    ]
    assert int(answer.headers["content-length"]) == len(answer.content)


@pytest.mark.parametrize(
    "accept", ["application/dicom", "application/dicom;transfer-syntax=*", "application/dicom, */*;q=0.1"]
)
def test_d19_r01_instance_comes_alone_where_asked(http: httpx.Client, item: Dataset, accept: str) -> None:
    answer = get(http, path(item), accept)
    assert answer.headers["content-type"] == f"application/dicom; transfer-syntax={ExplicitVRLittleEndian}"
    assert answer.content == part10(item)
    assert answer.headers["content-disposition"].startswith("attachment")


def test_d19_c04_accept_parameter_outranks_the_header(http: httpx.Client, item: Dataset) -> None:
    answer = get(http, f"{path(item)}?accept=application%2Fdicom", MULTIPART)
    assert answer.content == part10(item)


def test_d20_r01_study_and_series_come_as_multipart(http: httpx.Client, store: Store) -> None:
    first = ct(InstanceNumber=3)
    series = {"study": first.StudyInstanceUID, "series": first.SeriesInstanceUID}
    same = [ct(InstanceNumber=number, **series) for number in (2, 1)]
    other = ct(study=first.StudyInstanceUID)
    store(first, *same, other)
    found = [content for _, content in parts(get(http, path(first, "series")))]
    assert found == [part10(item) for item in sorted((first, *same), key=lambda item: item.InstanceNumber)]
    whole = get(http, path(first, "study"))
    assert sorted(content for _, content in parts(whole)) == sorted(map(part10, (first, *same, other)))
    assert int(whole.headers["content-length"]) == len(whole.content)


def test_r01_a_study_comes_as_a_zip_where_asked(http: httpx.Client, store: Store) -> None:
    first = ct()
    second = ct(study=first.StudyInstanceUID)
    store(first, second)
    answer = get(http, path(first, "study"), "application/zip")
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as found:
        assert found.testzip() is None
        assert sorted(map(found.read, found.namelist())) == sorted(map(part10, (first, second)))
        assert f"{first.StudyInstanceUID}/{first.SeriesInstanceUID}/{first.SOPInstanceUID}.dcm" in found.namelist()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless])
def test_d21_r02_a_star_gives_the_bytes_as_they_were_stored(http: httpx.Client, store: Store, syntax: str) -> None:
    stored = encoded(syntax)
    store(stored)
    answer = get(http, path(stored), f"{MULTIPART}; transfer-syntax=*")
    assert parts(answer) == [({"content-type": f"application/dicom; transfer-syntax={syntax}"}, part10(stored))]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("asked", ["", "; transfer-syntax=*", f"; transfer-syntax={ExplicitVRLittleEndian}"])
def test_d21_c07_implicit_and_big_are_converted(http: httpx.Client, store: Store, syntax: str, asked: str) -> None:
    stored = encoded(syntax)
    store(stored)
    answer = get(http, path(stored), f"application/dicom{asked}")
    assert answer.headers["content-type"].endswith(ExplicitVRLittleEndian)
    same_object(read(answer.content), stored)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_c07_naming_the_stored_syntax_outright_gives_the_bytes(http: httpx.Client, store: Store, syntax: str) -> None:
    stored = encoded(syntax)
    store(stored)
    assert get(http, path(stored), f"application/dicom; transfer-syntax={syntax}").content == part10(stored)


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, RLELossless])
def test_d22_c08_the_default_is_explicit_little_endian(http: httpx.Client, store: Store, syntax: str) -> None:
    stored = encoded(syntax)
    store(stored)
    answer = get(http, path(stored), "application/dicom")
    assert answer.headers["content-type"].endswith(f"transfer-syntax={ExplicitVRLittleEndian}")
    same_object(read(answer.content), stored)


def test_c08_a_syntax_that_cannot_be_made_is_406(http: httpx.Client, item: Dataset) -> None:
    answer = get(http, path(item), f"{MULTIPART}; transfer-syntax=1.2.840.10008.1.2.4.112")
    assert answer.status_code == 406
    assert answer.json()["offered"]


def test_c05_the_second_best_is_taken_where_the_best_cannot_be_made(http: httpx.Client, item: Dataset) -> None:
    wanted = f"{MULTIPART}; transfer-syntax=1.2.840.10008.1.2.4.112, application/dicom;q=0.5"
    assert get(http, path(item), wanted).content == part10(item)


@pytest.mark.parametrize("accept", ["text/html", "image/jpeg", "application/dicom+json"])
def test_c05_other_types_are_406(http: httpx.Client, item: Dataset, accept: str) -> None:
    assert get(http, path(item), accept).status_code == 406


def test_c16_validators_spare_the_second_transfer(http: httpx.Client, item: Dataset) -> None:
    for place, accept in ((path(item), "application/dicom"), (path(item), None), (path(item, "study"), None)):
        tag = get(http, place, accept).headers["etag"]
        again = get(http, place, accept, **{"If-None-Match": f'"x", {tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert get(http, place, accept, **{"If-None-Match": '"x"'}).status_code == 200


@pytest.mark.parametrize(
    ("given", "start", "stop"), [("0-9", 0, 10), ("100-", 100, None), ("-7", -7, None), ("5-9999999", 5, None)]
)
def test_c17_ranges_of_a_single_instance(
    http: httpx.Client, item: Dataset, given: str, start: int, stop: int | None
) -> None:
    whole = part10(item)
    answer = get(http, path(item), "application/dicom", Range=f"bytes={given}")
    assert (answer.status_code, answer.content) == (206, whole[start:stop])
    first = start % len(whole)
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(answer.content) - 1}/{len(whole)}"


def test_c17_ranges_that_cannot_be_met_are_416_and_crooked_ones_ignored(http: httpx.Client, item: Dataset) -> None:
    size = len(part10(item))
    answer = get(http, path(item), "application/dicom", Range=f"bytes={size}-")
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{size}")
    for given in ("bytes=x-", "lines=1-2", "bytes=9-3", "bytes=0-1,4-5"):
        assert get(http, path(item), "application/dicom", Range=given).status_code == 200


def test_c14_head_tells_what_get_would(http: httpx.Client, item: Dataset) -> None:
    for accept in ("application/dicom", MULTIPART):
        head = http.head(path(item), headers={"Accept": accept})
        got = get(http, path(item), accept)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == got.headers["content-length"]
        assert head.headers["etag"] == got.headers["etag"]


def encoded(syntax: str) -> Dataset:
    """A CT slice in another transfer syntax."""
    found = ct(syntax=syntax)
    if syntax == RLELossless:
        found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        found.compress(RLELossless, generate_instance_uid=False)
    if syntax == ExplicitVRBigEndian:
        plain = np.frombuffer(found.PixelData, "<u2").astype(">u2")
        found.PixelData = plain.tobytes()
    return found


def same_object(got: Dataset, wanted: Dataset) -> None:
    """Every attribute and every sample is the same."""
    assert got.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    source = read(part10(wanted))
    assert np.array_equal(got.pixel_array, source.pixel_array)
    for one in (got, source):
        del one.PixelData
    assert got == source
