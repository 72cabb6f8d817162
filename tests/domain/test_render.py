"""What is seen of an image. The truth is pydicom's: its LUTs, palettes and colour spaces, on real files."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, convert_color_space
from pydicom.sequence import Sequence

from pacs.domain import frames, pixels, presentation, render
from pacs.domain.admission import Inadmissible, admit
from pacs.domain.pixels import Decoded, Undecodable
from pacs.domain.presentation import LINEAR, LINEAR_EXACT, SIGMOID, Presentation, Window
from tests.domain.makers import ct, part10, real_files


def seen(raw: bytes, number: int = 1, window: Window | None = None) -> np.ndarray:
    """One frame of a file as it is seen."""
    admitted = admit(raw, nested=True)
    known = presentation.read(admitted, raw)
    decoded = pixels.frame(raw, number - 1, admitted=admitted)
    return render.picture(decoded, known[min(number, len(known)) - 1], window)


def pictured(**more: object) -> np.ndarray:
    return seen(part10(ct(**more)))


def words(*numbers: int, kind: str = "<u2") -> bytes:
    return np.array(numbers, kind).tobytes()


def gray(*numbers: int, **more: object) -> list[int]:
    """The gray levels of one row of 16-bit samples."""
    kind = "<i2" if more.get("PixelRepresentation") else "<u2"
    picture = pictured(rows=1, columns=len(numbers), PixelData=words(*numbers, kind=kind), **more)
    assert picture.shape == (1, len(numbers))
    return picture[0].tolist()


def item(**values: object) -> Dataset:
    found = Dataset()
    for keyword, value in values.items():
        setattr(found, keyword, value)
    return found


def expected_gray(dataset: Dataset, samples: np.ndarray) -> np.ndarray | None:
    """pydicom's picture in 8 bits; None where the object says nothing of its window."""
    has_lut = "VOILUTSequence" in dataset
    if not has_lut and not dataset.get("WindowWidth"):
        return None
    values = apply_voi_lut(apply_modality_lut(samples, dataset), dataset, prefer_lut=True)
    if has_lut:
        low, high = 0, (1 << int(dataset.VOILUTSequence[0].LUTDescriptor[2])) - 1
    elif "ModalityLUTSequence" in dataset:
        low, high = 0, (1 << int(dataset.ModalityLUTSequence[0].LUTDescriptor[2])) - 1
    else:
        bits, slope = int(dataset.BitsStored), float(dataset.get("RescaleSlope", 1))
        stored = (-(1 << bits - 1), (1 << bits - 1) - 1) if dataset.PixelRepresentation else (0, (1 << bits) - 1)
        low, high = (number * slope + float(dataset.get("RescaleIntercept", 0)) for number in stored)
    levels = np.clip((values - low) / (high - low), 0, 1) * 255
    return 255 - levels if dataset.PhotometricInterpretation == "MONOCHROME1" else levels


def expected_colours(dataset: Dataset, decoded: Decoded) -> np.ndarray | None:
    label = decoded.photometric_interpretation
    if label == "PALETTE COLOR":
        found = apply_color_lut(decoded.samples, dataset)
        return found >> 8 if found.dtype == np.uint16 and found.max() > 255 else found
    if label == "YBR_FULL":
        return convert_color_space(decoded.samples, label, "RGB")
    return decoded.samples if decoded.samples.dtype == np.uint8 else None


@pytest.mark.parametrize("path", real_files(), ids=lambda path: path.name)
def test_real_images_look_as_pydicom_says(path) -> None:
    raw = path.read_bytes()
    try:
        admitted = admit(raw, nested=True)
        decoded = pixels.frame(raw, 0, admitted=admitted)
    except (Inadmissible, Undecodable, frames.NoSuchFrame):
        return
    shown = presentation.read(admitted, raw)[0]
    picture = render.picture(decoded, shown)
    assert picture.dtype == np.uint8
    assert picture.shape[:2] == decoded.samples.shape[:2]
    dataset = pydicom.dcmread(path, force=True)
    if picture.ndim == 3:
        truth = expected_colours(dataset, decoded)
    elif "PerFrameFunctionalGroupsSequence" in dataset:
        return
    else:
        truth = expected_gray(dataset, decoded.samples)
    if truth is None:
        return
    apart = np.abs(truth.astype(np.float64) - picture)
    if shown.padding is not None and picture.ndim == 2:
        apart = apart[(decoded.samples < shown.padding[0]) | (decoded.samples > shown.padding[1])]
    assert apart.max(initial=0) <= 1


@pytest.mark.parametrize(
    ("window", "levels"),
    [
        (Window(100, 101, LINEAR), [0, 0, 128, 255, 255]),
        (Window(100, 100, LINEAR_EXACT), [0, 0, 128, 255, 255]),
        (Window(100, 100, SIGMOID), [5, 30, 128, 225, 250]),
        (Window(100, 1, LINEAR), [0, 0, 255, 255, 255]),
    ],
)
def test_a_window_follows_the_function_of_the_standard(window: Window, levels: list[int]) -> None:
    shown = Presentation("MONOCHROME2", 16)
    samples = np.array([[0, 50, 100, 150, 200]], np.uint16)
    found = render.picture(Decoded(samples, "MONOCHROME2"), shown, window)[0].astype(int)
    assert np.abs(found - levels).max() <= 1


def test_the_window_asked_for_stands_before_that_of_the_object() -> None:
    raw = part10(ct(rows=1, columns=2, PixelData=words(0, 100), WindowCenter="1000", WindowWidth="10"))
    assert seen(raw)[0].tolist() == [0, 0]
    assert seen(raw, window=Window(50, 101))[0].tolist() == [1, 255]


def test_monochrome1_and_inverse_presentation_are_turned_once() -> None:
    window = {"WindowCenter": "50.5", "WindowWidth": "101"}
    assert gray(0, 100, **window) == [0, 255]
    assert gray(0, 100, PhotometricInterpretation="MONOCHROME1", **window) == [255, 0]
    both = {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}
    assert gray(0, 100, **both, **window) == [255, 0]


def test_without_a_window_the_frame_spreads_over_all_grays() -> None:
    assert gray(1000, 1100, 1200) == [0, 128, 255]
    assert gray(-200, 0, 200, PixelRepresentation=1) == [0, 128, 255]
    assert gray(7, 7, 7) == [128, 128, 128]


def test_padding_is_black_and_does_not_count_for_contrast() -> None:
    assert gray(0, 1000, 1100, 1200, PixelPaddingValue=0) == [0, 0, 128, 255]
    assert gray(0, 5, 9, 1000, 1200, PixelPaddingValue=0, PixelPaddingRangeLimit=9) == [0, 0, 0, 0, 255]
    signed = {"PixelRepresentation": 1, "PixelPaddingValue": -2000, "PhotometricInterpretation": "MONOCHROME1"}
    assert gray(-2000, 0, 100, **signed) == [0, 255, 0]
    assert gray(3, 3, PixelPaddingValue=3) == [0, 0]


def test_padding_written_with_the_wrong_sign_is_padding_all_the_same() -> None:
    samples = {"rows": 1, "columns": 3, "PixelData": words(-2000, 0, 100, kind="<i2"), "PixelRepresentation": 1}
    dataset = ct(**samples)
    dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)
    assert seen(part10(dataset))[0].tolist() == [0, 0, 255]


def test_rescale_comes_before_the_window() -> None:
    rescaled = {"RescaleSlope": "2", "RescaleIntercept": "-1000", "WindowCenter": "0.5", "WindowWidth": "101"}
    assert gray(400, 475, 500, 525, 600, **rescaled) == [0, 0, 128, 255, 255]


def test_a_modality_lut_gives_the_values_that_a_voi_lut_shows() -> None:
    modality = item(LUTDescriptor=[3, 10, 16], ModalityLUTType="US", LUTData=words(0, 500, 1000))
    voi = item(LUTDescriptor=[1001, 0, 12], LUTData=words(*(4 * number for number in range(1001))))
    more = {"ModalityLUTSequence": Sequence([modality]), "VOILUTSequence": Sequence([voi])}
    assert gray(0, 10, 11, 12, 99, **more) == [0, 0, 125, 249, 249]


def test_a_lut_may_begin_below_zero() -> None:
    voi = item(LUTDescriptor=[3, -1, 8], LUTData=words(0, 100, 255))
    assert gray(-5, -1, 0, 1, 5, PixelRepresentation=1, VOILUTSequence=Sequence([voi])) == [0, 0, 100, 255, 255]


def multiframe(*per_frame: Dataset, shared: Dataset | None = None) -> bytes:
    """Frames of the samples 0, 50, 100, each with its functional groups."""
    more = {"SharedFunctionalGroupsSequence": Sequence([shared])} if shared is not None else {}
    data = words(*[0, 50, 100] * len(per_frame))
    return part10(
        ct(rows=1, columns=3, NumberOfFrames=len(per_frame), PixelData=data,
           PerFrameFunctionalGroupsSequence=Sequence(per_frame), **more)
    )  # fmt: skip


def groups(slope: float, center: float, width: float) -> Dataset:
    return item(
        PixelValueTransformationSequence=[item(RescaleSlope=slope, RescaleIntercept=0, RescaleType="US")],
        FrameVOILUTSequence=[item(WindowCenter=center, WindowWidth=width)],
    )


def test_each_frame_has_its_own_rescale_and_window() -> None:
    raw = multiframe(groups(1, 50.5, 101), groups(2, 50.5, 101), groups(1, 25.5, 51))
    found = [seen(raw, number)[0].tolist() for number in (1, 2, 3)]
    assert found == [[0, 128, 255], [0, 255, 255], [0, 255, 255]]


def test_shared_groups_count_where_a_frame_says_nothing() -> None:
    raw = multiframe(item(), groups(1, 25.5, 51), shared=groups(1, 50.5, 101))
    assert [seen(raw, number)[0].tolist() for number in (1, 2)] == [[0, 128, 255], [0, 255, 255]]


def test_single_bits_are_black_and_white_even_when_all_are_the_same() -> None:
    bits = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
    assert pictured(rows=2, columns=8, PixelData=b"\x0f\xff", **bits).tolist() == [[255] * 4 + [0] * 4, [255] * 8]


def test_real_numbers_are_spread_and_what_is_no_number_is_black() -> None:
    dataset = ct(rows=1, columns=4)
    del dataset.PixelData, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation
    dataset.BitsAllocated, dataset.FloatPixelData = 32, np.array([0, 0.5, 1, np.nan], "<f4").tobytes()
    assert seen(part10(dataset))[0].tolist() == [0, 128, 255, 0]


def test_segmented_palettes_unfold_to_lines_and_copies() -> None:
    segments = words(0, 2, 0, 65535, 1, 4, 0, 2, 1, 0, 0)  # two values, a line down, and the first segment again
    more = {f"{colour}PaletteColorLookupTableDescriptor": [8, 0, 16] for colour in ("Red", "Green", "Blue")}
    tables = {f"Segmented{colour}PaletteColorLookupTableData": segments for colour in ("Red", "Green", "Blue")}
    picture = pictured(
        rows=1, columns=8, PixelData=words(*range(8)), PhotometricInterpretation="PALETTE COLOR", **more, **tables
    )
    assert picture[0, :, 0].tolist() == [0, 255, 191, 128, 64, 0, 0, 255]


def test_a_palette_that_is_not_whole_is_an_honest_no() -> None:
    with pytest.raises(Undecodable, match="palette"):
        pictured(PhotometricInterpretation="PALETTE COLOR")


@pytest.mark.parametrize(("bits", "level"), [(16, 0x80), (12, 0xFF), (65535, 0x80)])
def test_deep_colours_are_seen_by_their_upper_bits(bits: int, level: int) -> None:
    samples = np.full((2, 2, 3), 0x0FF8 if bits == 12 else 0x80FF, np.uint16)
    found = render.picture(Decoded(samples, "RGB"), Presentation("RGB", bits))
    assert (found == level).all()


def test_malformed_values_count_as_absent() -> None:
    broken = {"WindowCenter": "5", "WindowWidth": "0", "VOILUTSequence": Sequence([item(LUTDescriptor=[0, 0, 16])])}
    assert gray(0, 50, 100, **broken) == [0, 128, 255]
    short = item(LUTDescriptor=[4, 0], LUTData=b"")
    assert gray(0, 50, 100, VOILUTSequence=Sequence([short])) == [0, 128, 255]
