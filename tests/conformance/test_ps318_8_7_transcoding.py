"""PS3.18 8.7: frames and files in transfer syntaxes that they were not stored in."""

import io
from concurrent.futures import ThreadPoolExecutor

import httpx
import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from tests.conformance.conftest import Store, parts, path
from tests.dicomweb.objects import ct, part10

JPEG, SV1, JLS, J2K, HT, RLE, DEFLATED = (
    f"1.2.840.10008.1.2.{n}" for n in ("4.50", "4.70", "4.80", "4.90", "4.201", "5", "1.99")
)
LOSSLESS = {
    "image/jls": (JLS, imagecodecs.jpegls_decode),
    "image/jp2": (J2K, imagecodecs.jpeg2k_decode),
    "image/jphc": (HT, imagecodecs.jpeg2k_decode),
    "image/jpeg": (SV1, imagecodecs.ljpeg_decode),
}


@pytest.fixture(scope="module")
def item(store: Store) -> Dataset:
    """Two native frames of noise."""
    noise = np.random.default_rng(5).integers(0, 4096, (2, 24, 30)).astype("<u2")
    found = ct(Rows=24, Columns=30, NumberOfFrames=2, BitsStored=12, HighBit=11, PixelData=noise.tobytes())
    store(found)
    return found


def pixels(item: Dataset) -> np.ndarray:
    return np.frombuffer(item.PixelData, "<u2").reshape(2, 24, 30)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_frames_come_in_the_default_syntax_of_their_media_type(http: httpx.Client, item: Dataset, kind: str) -> None:
    answer = http.get(f"{path(item)}/frames/2,1", headers={"Accept": f'multipart/related; type="{kind}"'})
    uid, decode = LOSSLESS[kind]
    assert answer.status_code == 200, answer.text
    for (headers, body), number in zip(parts(answer), (1, 0), strict=True):
        assert headers["content-type"] == f"{kind}; transfer-syntax={uid}"
        assert np.array_equal(np.asarray(decode(body)).reshape(24, 30), pixels(item)[number])


@pytest.mark.parametrize("kind", ["image/dicom-rle", "image/x-dicom-rle"])
def test_rle_frames_come_with_their_header_by_either_name(http: httpx.Client, item: Dataset, kind: str) -> None:
    answer = http.get(f"{path(item)}/frames/1", headers={"Accept": kind})
    assert answer.headers["content-type"] == f"{kind}; transfer-syntax={RLE}"
    assert answer.content[:8] == b"\2\0\0\0\x40\0\0\0"


@pytest.mark.parametrize("uid", [SV1, JLS, J2K, HT, RLE, DEFLATED])
def test_files_come_in_the_syntax_that_is_named(http: httpx.Client, item: Dataset, uid: str) -> None:
    wanted = {"Accept": f"application/dicom; transfer-syntax={uid}"}
    answer = http.get(path(item), headers=wanted)
    assert answer.headers["content-type"] == f"application/dicom; transfer-syntax={uid}"
    found = pydicom.dcmread(io.BytesIO(answer.content))
    assert (found.file_meta.TransferSyntaxUID, found.SOPInstanceUID) == (uid, item.SOPInstanceUID)
    if uid in {JLS, J2K, RLE, DEFLATED}:  # what pydicom decodes with the plugins of the tests
        assert np.array_equal(found.pixel_array, pixels(item))


@pytest.mark.parametrize("uid", [JLS, RLE])
def test_converted_files_have_length_validator_and_ranges(http: httpx.Client, item: Dataset, uid: str) -> None:
    wanted = {"Accept": f"application/dicom; transfer-syntax={uid}"}
    whole = http.get(path(item), headers=wanted)
    assert int(whole.headers["content-length"]) == len(whole.content)
    part = http.get(path(item), headers=wanted | {"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole.content[100:200])
    head = http.head(path(item), headers=wanted)
    assert head.headers["content-length"] == whole.headers["content-length"]
    again = http.get(path(item), headers=wanted | {"If-None-Match": whole.headers["etag"]})
    assert again.status_code == 304
    other = http.get(path(item), headers={"Accept": "application/dicom"})
    assert other.headers["etag"] != whole.headers["etag"]


def test_a_study_goes_out_in_one_syntax_and_what_has_no_pixels_goes_with_it(http: httpx.Client, store: Store) -> None:
    image = ct(Rows=8, Columns=8, PixelData=bytes(128))
    report = ct(StudyInstanceUID=image.StudyInstanceUID)
    del report.PixelData
    store(image, report)
    wanted = {"Accept": f'multipart/related; type="application/dicom"; transfer-syntax={JLS}'}
    found = [pydicom.dcmread(io.BytesIO(body)) for _, body in parts(http.get(path(image, "study"), headers=wanted))]
    assert {item.SOPInstanceUID: item.file_meta.TransferSyntaxUID for item in found} == {
        image.SOPInstanceUID: JLS,
        report.SOPInstanceUID: "1.2.840.10008.1.2.1",
    }


def test_what_has_no_form_in_a_syntax_is_406_and_still_served_as_stored(http: httpx.Client, item: Dataset) -> None:
    for place, kind in ((path(item), "application/dicom"), (f"{path(item)}/frames/1", "image/jpeg")):
        answer = http.get(place, headers={"Accept": f"{kind}; transfer-syntax={JPEG}"})  # 12 bits in 8
        assert (answer.status_code, answer.json()["error"]) == (406, "not-acceptable")
    answer = http.get(path(item), headers={"Accept": f"application/dicom; transfer-syntax={JPEG}, application/dicom"})
    assert answer.content == part10(item)


@pytest.fixture
def colours(store: Store) -> Dataset:
    ramp = np.add.outer(np.arange(32), np.arange(48)).astype(np.uint8) * 3
    found = ct(Rows=32, Columns=48, SamplesPerPixel=3, PlanarConfiguration=0, PhotometricInterpretation="RGB",
               BitsAllocated=8, BitsStored=8, HighBit=7, PixelData=np.stack([ramp] * 3, -1).tobytes())  # fmt: skip
    store(found)
    return found


def test_quality_decides_how_much_a_lossy_form_loses(http: httpx.Client, colours: Dataset) -> None:
    wanted = {"Accept": f"image/jpeg; transfer-syntax={JPEG}"}
    bodies = {}
    for quality in (10, 100):
        answer = http.get(f"{path(colours)}/frames/1", headers=wanted, params={"quality": quality})
        assert answer.headers["content-type"] == f"image/jpeg; transfer-syntax={JPEG}"
        bodies[quality] = answer.content
    assert len(bodies[10]) < len(bodies[100])
    seen = imagecodecs.jpeg8_decode(bodies[100]).astype(int)
    wanted_pixels = np.frombuffer(colours.PixelData, np.uint8).reshape(32, 48, 3).astype(int)
    assert np.abs(seen - wanted_pixels).max() < 12
    assert http.get(f"{path(colours)}/frames/1", headers=wanted, params={"quality": "0"}).status_code == 400


def test_fifty_who_want_one_form_get_it(http: httpx.Client, item: Dataset) -> None:
    wanted = {"Accept": f"application/dicom; transfer-syntax={HT}"}
    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(lambda _: http.get(path(item), headers=wanted).content, range(50)))
    assert len(set(found)) == 1
