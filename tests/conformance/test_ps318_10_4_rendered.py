"""Rendered resources and thumbnails (PS3.18 10.4.1.1.3, 10.4.1.1.4, 8.3.5): D28, D29, D30."""

import random
from collections.abc import Callable

import httpx
import imagecodecs
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless, SegmentationStorage, generate_uid

from tests.conformance.conftest import parts, path
from tests.dicomweb.objects import ct

Store = Callable[..., httpx.Response]
DECODERS = {
    "image/jpeg": imagecodecs.jpeg8_decode,
    "image/png": imagecodecs.png_decode,
    "image/gif": imagecodecs.gif_decode,
    "image/webp": imagecodecs.webp_decode,
}


def picture(answer: httpx.Response) -> np.ndarray:
    """The image of an answer, which must be one of the type that it says it is."""
    assert answer.status_code == 200, answer.text
    return DECODERS[answer.headers["content-type"]](answer.content)


def ramp(rows: int = 40, columns: int = 60, *, frames: int = 1, **more: object) -> Dataset:
    """Frames of columns that grow brighter from left to right, each frame 100 brighter than the one before."""
    one = np.tile(np.arange(columns, dtype="<u2") * 10, (rows, 1))
    data = b"".join((one + 100 * number).astype("<u2").tobytes() for number in range(frames))
    many = {"NumberOfFrames": frames} if frames > 1 else {}
    return ct(Rows=rows, Columns=columns, PixelData=data, WindowCenter="300", WindowWidth="600", **many, **more)


@pytest.fixture(scope="module")
def item(store: Store) -> Dataset:
    found = ramp()
    store(found)
    return found


@pytest.fixture(scope="module")
def cine(store: Store) -> Dataset:
    found = ramp(frames=5)
    store(found)
    return found


@pytest.mark.parametrize("media_type", DECODERS)
def test_d28_r09_rendered_in_each_type(http: httpx.Client, item: Dataset, media_type: str) -> None:
    found = picture(http.get(f"{path(item)}/rendered", headers={"Accept": media_type}))
    levels = found[..., 0] if found.ndim == 3 else found
    expected = np.rint((np.arange(60) * 10 - 299.5) / 599 * 255 + 127.5)
    assert levels.shape == (40, 60)
    assert np.abs(levels.astype(float) - expected).max() <= (0 if media_type in {"image/png", "image/gif"} else 8)


@pytest.mark.parametrize("accept", ["*/*", "image/*", "", "text/html,image/webp;q=0.1,*/*;q=0.8"])
def test_d28_jpeg_is_the_default(http: httpx.Client, item: Dataset, accept: str) -> None:
    answer = http.get(f"{path(item)}/rendered", headers={"Accept": accept})
    assert answer.headers["content-type"] == "image/jpeg"
    assert picture(answer).shape == (40, 60)


@pytest.mark.parametrize("level", ["study", "series", "instance"])
@pytest.mark.parametrize("kind", ["rendered", "thumbnail"])
def test_d30_r10_a_picture_at_each_level(http: httpx.Client, item: Dataset, level: str, kind: str) -> None:
    assert picture(http.get(f"{path(item, level)}/{kind}", headers={"Accept": "image/jpeg"})).shape == (40, 60)


def test_d29_r09_viewport_scales_and_keeps_the_aspect(http: httpx.Client, item: Dataset) -> None:
    for asked, shape in [("30%2C30", (20, 30)), ("600,90", (90, 135)), ("20,20,0,0,20,40", (20, 10))]:
        assert picture(http.get(f"{path(item)}/rendered?viewport={asked}")).shape == shape


def test_d29_a_negative_width_mirrors(http: httpx.Client, item: Dataset) -> None:
    png = {"Accept": "image/png"}
    plain = picture(http.get(f"{path(item)}/rendered?viewport=60,40,0,0,60,40", headers=png))
    turned = picture(http.get(f"{path(item)}/rendered?viewport=60,40,0,0,-60,40", headers=png))
    assert np.array_equal(plain[:, ::-1], turned)


def test_d29_window_and_quality(http: httpx.Client, item: Dataset) -> None:
    found = picture(http.get(f"{path(item)}/rendered?window=300,1,linear", headers={"Accept": "image/png"}))
    assert (found[:, :30] == 0).all()
    assert (found[:, 30:] == 255).all()
    best, worst = (http.get(f"{path(item)}/rendered?quality={quality}") for quality in (100, 1))
    assert len(best.content) > len(worst.content)


@pytest.mark.parametrize(
    "query",
    ["viewport=0,0", "viewport=a", "window=1,2,cubic", "quality=0", "quality=101", "annotation=x", "iccprofile=x"],
)
def test_d29_r09_malformed_parameters_are_bad_requests(http: httpx.Client, item: Dataset, query: str) -> None:
    answer = http.get(f"{path(item)}/rendered?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"] == "bad-request"


def test_r09_a_region_outside_the_image_is_a_bad_request(http: httpx.Client, item: Dataset) -> None:
    assert http.get(f"{path(item)}/rendered?viewport=10,10,60,0,5,5").status_code == 400


def test_r09_annotations_are_not_drawn_and_the_answer_says_so(http: httpx.Client, item: Dataset) -> None:
    answer = http.get(f"{path(item)}/rendered?annotation=patient&unknown=5")
    assert "not supported: patient" in answer.headers["warning"]
    assert "warning" not in http.get(f"{path(item)}/rendered").headers


def test_r09_frames_each_by_their_number(http: httpx.Client, cine: Dataset) -> None:
    png = {"Accept": "image/png"}
    first, third = (
        picture(http.get(f"{path(cine)}/frames/{number}/rendered", headers=png)).astype(int) for number in (1, 3)
    )
    assert abs((third - first)[:, 5].mean() - 200 / 599 * 255) < 2
    assert np.array_equal(picture(http.get(f"{path(cine)}/rendered", headers=png)), first)
    middle = picture(http.get(f"{path(cine)}/thumbnail", headers=png))
    assert np.array_equal(middle, third)
    assert np.array_equal(picture(http.get(f"{path(cine)}/frames/1/thumbnail", headers=png)), first)


def test_r09_many_frames_come_in_a_multipart(http: httpx.Client, cine: Dataset) -> None:
    answer = http.get(f"{path(cine)}/frames/2,1/rendered")
    found = parts(answer)
    assert [headers["content-type"] for headers, _ in found] == ["image/jpeg"] * 2
    assert [headers["content-location"].rpartition("/frames/")[2] for headers, _ in found] == [
        "2/rendered",
        "1/rendered",
    ]
    alone = http.get(f"{path(cine)}/frames/2/rendered")
    assert found[0][1] == alone.content
    every = http.get(f"{path(cine, 'study')}/rendered", headers={"Accept": 'multipart/related; type="image/png"'})
    assert [headers["content-type"] for headers, _ in parts(every)] == ["image/png"] * 5
    assert http.get(f"{path(cine)}/frames/1,2/rendered", headers={"Accept": "image/png"}).status_code == 406


def test_r10_the_middle_of_the_images_stands_for_a_study(http: httpx.Client, store: Store) -> None:
    study, series = generate_uid(), generate_uid()
    slices = [ramp(10, 10 + number, study=study, series=series, InstanceNumber=number) for number in range(1, 6)]
    random.shuffle(slices)
    mask = ramp(99, 99, study=study, frames=9, SOPClassUID=SegmentationStorage)
    mask.file_meta.MediaStorageSOPClassUID = SegmentationStorage
    store(*slices, mask)
    for level in ("study", "series"):
        assert picture(http.get(f"{path(slices[0], level)}/thumbnail")).shape == (10, 13)
        assert picture(http.get(f"{path(slices[0], level)}/rendered")).shape == (10, 13)
    assert picture(http.get(f"{path(mask)}/thumbnail")).shape == (99, 99)


def test_r10_a_thumbnail_is_small_and_never_enlarged(http: httpx.Client, store: Store, item: Dataset) -> None:
    large = ramp(300, 500)
    store(large)
    assert picture(http.get(f"{path(large)}/thumbnail")).shape == (96, 160)
    assert picture(http.get(f"{path(large)}/thumbnail?viewport=256%2C256")).shape == (154, 256)
    assert picture(http.get(f"{path(item)}/thumbnail?viewport=256%2C256")).shape == (40, 60)


def test_c16_what_has_not_changed_is_not_sent_again(http: httpx.Client, item: Dataset) -> None:
    for kind in ("rendered", "thumbnail"):
        tag = http.get(f"{path(item)}/{kind}").headers["etag"]
        again = http.get(f"{path(item)}/{kind}", headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")
        other = http.get(f"{path(item)}/{kind}?viewport=9,9", headers={"If-None-Match": tag})
        assert other.status_code == 200
    head = http.head(f"{path(item)}/rendered")
    assert head.headers["content-type"] == "image/jpeg"


def test_r09_compressed_frames_are_seen_as_their_plain_ones(http: httpx.Client, store: Store) -> None:
    plain, squeezed = ramp(), ramp()
    squeezed.compress(JPEGLSLossless)
    store(plain, squeezed)
    png = {"Accept": "image/png"}
    found = [picture(http.get(f"{path(item)}/rendered", headers=png)) for item in (plain, squeezed)]
    assert np.array_equal(*found)


def test_r09_what_is_no_image_is_an_honest_no(http: httpx.Client, store: Store) -> None:
    text = ct()
    for keyword in ("PixelData", "Rows", "Columns"):
        del text[keyword]
    store(text)
    assert http.get(f"{path(text)}/rendered").status_code == 406
    assert http.get(f"{path(text)}/thumbnail").status_code == 404
    assert http.get(f"{path(text)}/frames/1/rendered").status_code == 404


def test_r09_a_document_is_rendered_as_itself(http: httpx.Client, store: Store) -> None:
    found = ct(EncapsulatedDocument=b"%PDF-1.4 nothing", MIMETypeOfEncapsulatedDocument="application/pdf")
    for keyword in ("PixelData", "Rows", "Columns"):
        del found[keyword]
    store(found)
    answer = http.get(f"{path(found)}/rendered")
    assert (answer.headers["content-type"], answer.content) == ("application/pdf", b"%PDF-1.4 nothing")
    assert http.get(f"{path(found)}/rendered", headers={"Accept": "image/png"}).status_code == 406


def test_r09_frames_that_are_cut_short_are_an_honest_no(http: httpx.Client, store: Store) -> None:
    broken = ramp()
    broken.compress(JPEGLSLossless)
    broken.PixelData = broken.PixelData[:60] + bytes(len(broken.PixelData) - 68) + broken.PixelData[-8:]
    store(broken)
    answer = http.get(f"{path(broken)}/rendered")
    assert answer.status_code == 406, answer.text
    assert answer.json()["message"].endswith(".")


@pytest.mark.parametrize(
    ("place", "accept", "status"),
    [
        ("rendered", "video/mp4", 406),
        ("thumbnail", "text/html", 406),
        ("frames/0/rendered", "*/*", 400),
        ("frames/x/thumbnail", "*/*", 400),
        ("frames/9/rendered", "*/*", 404),
        ("frames/9/thumbnail", "*/*", 404),
    ],
)
def test_r09_each_mistake_has_a_status(http: httpx.Client, item: Dataset, place: str, accept: str, status: int) -> None:
    assert http.get(f"{path(item)}/{place}", headers={"Accept": accept}).status_code == status


def test_r11_presentation_states_are_not_rendered(http: httpx.Client, store: Store, item: Dataset) -> None:
    state = ct(study=item.StudyInstanceUID, Modality="PR", SOPClassUID="1.2.840.10008.5.1.4.1.1.11.1")
    state.file_meta.MediaStorageSOPClassUID = state.SOPClassUID
    for keyword in ("Rows", "Columns", "PixelData", "SamplesPerPixel", "PhotometricInterpretation"):
        delattr(state, keyword)
    store(state)
    answer = http.get(f"{path(state)}/rendered")
    assert answer.status_code in {404, 406}
    assert answer.json()["message"]
