"""Pictures of stored frames, through the services: decoders, choice of a frame, limits."""

import io
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless, RLELossless, SegmentationStorage, generate_uid

from pacs.domain.events import Source
from pacs.domain.levels import Scope
from pacs.domain.pixels import Undecodable
from pacs.domain.render import GIF, PNG, Look, Region, Viewport
from pacs.errors import BadRequest, NotAcceptable, NotFound
from pacs.services.render import MOST_PIXELS, Render, _encoded
from tests.domain.makers import ct, part10

if TYPE_CHECKING:
    from pacs.node import Node

SOURCE = Source("import", "test", "127.0.0.1")
LOSSLESS = Look(PNG)


def stored(node: "Node", dataset: Dataset, syntax: str = "") -> Any:
    """The data set in the archive, compressed where a syntax is named."""
    raw = part10(dataset)
    if syntax:
        dataset.compress(syntax)
        out = io.BytesIO()
        dataset.save_as(out, enforce_file_format=True)
        raw = out.getvalue()
    incoming = node.ingest.begin(SOURCE)
    incoming.write(raw)
    found = node.ingest.store(incoming)
    [instance] = node.retrieve.locate(Scope(found.study_uid, found.series_uid, found.sop_instance_uid))
    return instance


def scene(rows: int = 24, columns: int = 30, frames: int = 1, **more: object) -> Dataset:
    samples = np.random.default_rng(rows).integers(0, 4096, (frames, rows, columns)).astype("<u2")
    many = {"NumberOfFrames": frames} if frames > 1 else {}
    return ct(rows, columns, PixelData=samples.tobytes(), **many, **more)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, RLELossless])
def test_code_streams_are_decoded_in_processes_and_look_the_same(node: "Node", syntax: str) -> None:
    plain = stored(node, scene(frames=2))
    squeezed = stored(node, scene(frames=2), syntax)
    for number in (1, 2):
        pictures = [node.render.picture(instance, number, LOSSLESS) for instance in (plain, squeezed)]
        assert pictures[0] == pictures[1]
    assert imagecodecs.png_decode(pictures[0]).shape == (24, 30)
    assert any(decoder is not None for decoder in node.decoders._idle.queue)


@pytest.mark.parametrize("shape", [(64, 50), (64, 50, 3)])
def test_a_gif_is_gray_as_it_is_or_close_in_colour(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)
    found = imagecodecs.gif_decode(_encoded(image, Look(GIF)))
    truth = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    assert np.abs(found.astype(int) - truth).max() <= (0 if image.ndim == 2 else 26)


def test_a_decoder_that_dies_is_the_error_of_one_picture(node: "Node") -> None:
    def dies(*_: object) -> Any:
        raise Undecodable("its decoder died or took too long")

    squeezed, plain = stored(node, scene(), JPEGLSLossless), stored(node, scene())
    broken = Render(node.retrieve, node.files, dies)
    with pytest.raises(NotAcceptable, match="died"):
        broken.picture(squeezed, 1, Look())
    assert broken.picture(plain, 1, Look())


def test_what_is_not_there_and_what_is_outside(node: "Node") -> None:
    instance = stored(node, scene())
    with pytest.raises(NotFound):
        node.render.picture(instance, 2, Look())
    with pytest.raises(BadRequest):
        node.render.picture(instance, 1, Look(viewport=Viewport(9, 9, Region(30, 0))))
    text = scene()
    for keyword in ("PixelData", "Rows", "Columns"):
        del text[keyword]
    with pytest.raises(NotFound):
        node.render.picture(stored(node, text), 1, Look())


def test_a_frame_that_is_too_large_is_not_even_read(node: "Node", monkeypatch: pytest.MonkeyPatch) -> None:
    instance = stored(node, scene())
    assert MOST_PIXELS >= 10_000 * 10_000
    monkeypatch.setattr("pacs.services.render.MOST_PIXELS", 700)
    monkeypatch.setattr(node.retrieve, "frames", None)
    with pytest.raises(NotAcceptable, match="too large"):
        node.render.picture(instance, 1, Look())


def test_the_presentation_of_an_object_is_read_once(node: "Node", monkeypatch: pytest.MonkeyPatch) -> None:
    instance = stored(node, scene(frames=3))
    render = Render(node.retrieve, node.files, node.decoders.decode)
    first = render.picture(instance, 1, LOSSLESS)
    monkeypatch.setattr(node.files, "view", None)
    assert render.picture(instance, 1, LOSSLESS) == first
    assert render.picture(instance, 3, LOSSLESS) != first


def test_the_middle_of_the_largest_series_of_images_stands_for_a_study(node: "Node") -> None:
    study = generate_uid()
    small, large, masks = generate_uid(), generate_uid(), generate_uid()
    for series, count in ((small, 2), (large, 5)):
        for number in range(count):
            stored(node, scene(StudyInstanceUID=study, SeriesInstanceUID=series, InstanceNumber=str(number + 1)))
    mask = scene(frames=20, StudyInstanceUID=study, SeriesInstanceUID=masks, SOPClassUID=SegmentationStorage)
    stored(node, mask)
    choices = node.render.representatives(node.retrieve.locate(Scope(study)))
    assert [instance.series_uid for instance, _ in choices] == [large] * 5
    assert choices[0][0].instance_number == "3"
    [(instance, number)] = node.render.representatives(node.retrieve.locate(Scope(study, masks)))
    assert (instance.sop_class_uid, number) == (SegmentationStorage, 11)
    assert node.render.representatives([]) == ()
