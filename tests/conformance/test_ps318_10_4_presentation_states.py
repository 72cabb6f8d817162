"""PS3.18 10.4.1.1.3 and 9.4: images as a presentation state shows them."""

from typing import Any

import httpx
import imagecodecs
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from tests.conformance.conftest import Store, path
from tests.dicomweb.objects import ct

GSPS, BLENDING = "1.2.840.10008.5.1.4.1.1.11.1", "1.2.840.10008.5.1.4.1.1.11.4"
ROWS, COLUMNS = 40, 60


def made(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


@pytest.fixture(scope="module")
def image(store: Store) -> Dataset:
    """Columns that grow brighter to the right, 4 a step; the first row is bright."""
    pixels = np.tile(np.arange(COLUMNS, dtype="<u2") * 4, (ROWS, 1))
    pixels[0] = 255
    item = ct(Rows=ROWS, Columns=COLUMNS, RescaleSlope="1", RescaleIntercept="0", WindowCenter="128",
              WindowWidth="256", PixelData=pixels.tobytes())  # fmt: skip
    store(item)
    return item


@pytest.fixture
def state(store: Store, image: Dataset) -> Any:
    """Stores a state about the image; gives it."""

    def stored(sop_class: str = GSPS, **values: Any) -> Dataset:
        reference = made(ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID)
        series = made(SeriesInstanceUID=image.SeriesInstanceUID, ReferencedImageSequence=Sequence([reference]))
        item = ct(SOPClassUID=sop_class, StudyInstanceUID=image.StudyInstanceUID, SeriesInstanceUID=generate_uid(),
                  Modality="PR", PresentationLUTShape="IDENTITY")  # fmt: skip
        item.ReferencedSeriesSequence = Sequence([series])
        del item.PixelData
        for keyword, value in values.items():
            setattr(item, keyword, value)
        store(item)
        return item

    return stored


def seen(http: httpx.Client, item: Dataset, **query: str) -> np.ndarray:
    answer = http.get(f"{path(item)}/rendered", headers={"Accept": "image/png"}, params=query)
    assert answer.status_code == 200, answer.text
    return np.asarray(imagecodecs.png_decode(answer.content)).astype(int)


def test_a_state_alone_shows_its_image(http: httpx.Client, state: Any, image: Dataset) -> None:
    assert np.array_equal(seen(http, state()), seen(http, image))


def test_window_and_shape_of_the_state_stand_before_those_of_the_image(http: httpx.Client, state: Any) -> None:
    voi = Sequence([made(WindowCenter="40", WindowWidth="2")])
    plain = seen(http, state(SoftcopyVOILUTSequence=voi))
    assert (plain[5, :10].max(), plain[5, 12:].min()) == (0, 255)
    turned = seen(http, state(SoftcopyVOILUTSequence=voi, PresentationLUTShape="INVERSE"))
    assert np.array_equal(turned, 255 - plain)


def test_what_is_about_another_image_does_not_count(http: httpx.Client, state: Any, image: Dataset) -> None:
    other = Sequence([made(ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID="1.2.3")])
    voi = Sequence([made(WindowCenter="40", WindowWidth="2", ReferencedImageSequence=other)])
    assert np.array_equal(seen(http, state(SoftcopyVOILUTSequence=voi)), seen(http, image))


@pytest.mark.parametrize(("rotation", "turns"), [(90, -1), (180, 2), (270, 1)])
def test_rotation_is_clockwise_and_the_flip_comes_after_it(
    http: httpx.Client, state: Any, image: Dataset, rotation: int, turns: int
) -> None:
    plain = seen(http, image)
    turned = state(ImageRotation=rotation, ImageHorizontalFlip="N")
    assert np.array_equal(seen(http, turned), np.rot90(plain, turns))
    flipped = state(ImageRotation=rotation, ImageHorizontalFlip="Y")
    assert np.array_equal(seen(http, flipped), np.rot90(plain, turns)[:, ::-1])


def test_displayed_area_is_cut_out_and_black_beyond_the_image(http: httpx.Client, state: Any, image: Dataset) -> None:
    area = made(DisplayedAreaTopLeftHandCorner=[-4, 2], DisplayedAreaBottomRightHandCorner=[10, 20])
    shown = seen(http, state(DisplayedAreaSelectionSequence=Sequence([area])))
    assert shown.shape == (19, 15)
    assert shown[:, :5].max() == 0
    assert np.array_equal(shown[:, 5:], seen(http, image)[1:20, :10])


def test_graphics_are_drawn_and_shutters_close(http: httpx.Client, state: Any) -> None:
    line = made(GraphicAnnotationUnits="PIXEL", GraphicDimensions=2, NumberOfGraphicPoints=2,
                GraphicData=[2.0, 10.0, 2.0, 30.0], GraphicType="POLYLINE", GraphicFilled="N")  # fmt: skip
    annotation = Sequence([made(GraphicLayer="A", GraphicObjectSequence=Sequence([line]))])
    shown = seen(http, state(GraphicAnnotationSequence=annotation))
    assert shown[10:30, 2].min() == 255
    assert shown[5, 2] < 20
    shut = seen(http, state(ShutterShape="RECTANGULAR", ShutterLeftVerticalEdge=20, ShutterRightVerticalEdge=40,
                            ShutterUpperHorizontalEdge=10, ShutterLowerHorizontalEdge=30))  # fmt: skip
    assert shut[:10].max() == shut[:, :20].max() == shut[:, 40:].max() == 0
    assert shut[15, 25] > 90
    round_one = seen(http, state(ShutterShape="CIRCULAR", CenterOfCircularShutter=[20, 30], RadiusOfCircularShutter=5))
    assert round_one[20, 30] > 100
    assert round_one[20, 40] == 0


def test_wado_uri_applies_a_state_to_the_image_that_is_named(
    http: httpx.Client, port: int, state: Any, image: Dataset
) -> None:
    about = state(ImageRotation=180, ImageHorizontalFlip="N")
    answer = http.get(
        f"http://127.0.0.1:{port}/wado",
        params={"requestType": "WADO", "studyUID": image.StudyInstanceUID, "seriesUID": image.SeriesInstanceUID,
                "objectUID": image.SOPInstanceUID, "contentType": "image/png",
                "presentationSeriesUID": about.SeriesInstanceUID, "presentationUID": about.SOPInstanceUID},
    )  # fmt: skip
    assert np.array_equal(np.asarray(imagecodecs.png_decode(answer.content)), seen(http, image)[::-1, ::-1])


def test_states_of_other_kinds_or_about_nothing_here_are_406(http: httpx.Client, state: Any) -> None:
    for item in (state(BLENDING), state(ReferencedSeriesSequence=Sequence([]))):
        answer = http.get(f"{path(item)}/rendered")
        assert (answer.status_code, answer.json()["error"]) == (406, "not-acceptable")
