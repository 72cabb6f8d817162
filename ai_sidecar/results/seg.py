"""Segmentation objects (PS3.3 A.51), BINARY or LABELMAP: one segment a label, no empty segment, no empty frame."""

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import UID

from ai_sidecar.manifest import Label
from ai_sidecar.results import codes
from ai_sidecar.results.codes import coded
from ai_sidecar.results.encoding import element, encoded, long_element, sequence, text_element
from ai_sidecar.results.header import SIDECAR, Origin, begin, decimal, decimals, part10, reference
from ai_sidecar.survey import Found
from ai_sidecar.tables import Code

ROLE = "seg"
# what is encoded by hand: hundreds of frames take seconds otherwise; the rest of the file comes before these
PER_FRAME, PIXEL_DATA = 0x5200_9230, 0x7FE0_0010
FRAME_CONTENT, DIMENSION_INDEX = 0x0020_9111, 0x0020_9157
SEGMENT_IDENTIFICATION, SEGMENT_NUMBER = 0x0062_000A, 0x0062_000B
PLANE_POSITION, IMAGE_POSITION = 0x0020_9113, 0x0020_0032
DERIVATION_IMAGE, SOURCE_IMAGE = 0x0008_9124, 0x0008_2112
REFERENCED_CLASS, REFERENCED_INSTANCE = 0x0008_1150, 0x0008_1155
SEGMENT = ("SegmentIdentificationSequence", "ReferencedSegmentNumber", "Segment")
POSITION = ("PlanePositionSequence", "ImagePositionPatient", "Position")


@dataclass(frozen=True, slots=True)
class Form:
    """One of the two ways to write segments. `frames` gives (segment number or 0, slice, pixels) in order."""

    word: str
    sop_class: str
    bits: int
    dimensions: Sequence[tuple[str, str, str]]
    frames: Callable[[Sequence[Found], int], list[tuple[int, int, bytes]]]


def write(
    origin: Origin, found: Sequence[Found], *, form: str = "binary", overlap: bool = False
) -> tuple[Dataset, bytes]:
    """The data set and the file of the labels found (at least one). `form` is binary or labelmap."""
    chosen = FORMS[form]
    result = begin(origin, ROLE, chosen.sop_class, "SEG")
    _image(origin, result, chosen, overlap=overlap)
    result.SegmentSequence = [_segment(origin, number, one.label) for number, one in enumerate(found, 1)]
    if form == "labelmap":
        result.SegmentSequence.insert(0, _background(origin))
        result.PixelPaddingValue = 0
    result.ReferencedSeriesSequence = [_referenced_series(origin)]
    _dimensions(origin, result, chosen)
    result.SharedFunctionalGroupsSequence = [_shared(origin)]
    pixels = result.Rows * result.Columns
    frames = chosen.frames(found, pixels)
    result.NumberOfFrames = len(frames)
    data = packed([bits for _, _, bits in frames], pixels) if chosen.bits == 1 else even(b"".join(f[2] for f in frames))
    return result, part10(result, sequence(PER_FRAME, _frames(origin, frames)) + long_element(PIXEL_DATA, b"OB", data))


def _by_segment(found: Sequence[Found], _pixels: int = 0) -> list[tuple[int, int, bytes]]:
    return [(number, k, bits) for number, one in enumerate(found, 1) for k, bits in one.frames]


def _by_slice(found: Sequence[Found], pixels: int) -> list[tuple[int, int, bytes]]:
    """Segment numbers as pixel values; slices without any are left out."""
    planes: dict[int, NDArray[np.uint8]] = {}
    for number, k, bits in _by_segment(found):
        mask = np.unpackbits(np.frombuffer(bits, np.uint8), count=pixels, bitorder="little")
        planes[k] = np.maximum(planes.get(k, np.uint8(0)), mask * np.uint8(number))
    return [(0, k, planes[k].tobytes()) for k in sorted(planes)]


FORMS: Mapping[str, Form] = {
    "binary": Form("BINARY", "1.2.840.10008.5.1.4.1.1.66.4", 1, (SEGMENT, POSITION), _by_segment),
    "labelmap": Form("LABELMAP", "1.2.840.10008.5.1.4.1.1.66.7", 8, (POSITION,), _by_slice),
}


def even(content: bytes) -> bytes:
    """With the byte that makes its length even."""
    return content + b"\0" * (len(content) % 2)


def packed(frames: Sequence[bytes], pixels: int) -> bytes:
    """Frames joined bit by bit: a frame begins where the last one ended, within a byte too (PS3.5 8.1.1)."""
    if pixels % 8 == 0:
        joined = b"".join(frames)
    else:
        bits = [np.unpackbits(np.frombuffer(one, np.uint8), count=pixels, bitorder="little") for one in frames]
        joined = np.packbits(np.concatenate(bits), bitorder="little").tobytes()
    return even(joined)


def _image(origin: Origin, result: Dataset, form: Form, *, overlap: bool) -> None:
    _, rows, columns = origin.layout.grid.shape
    result.FrameOfReferenceUID = UID(origin.layout.frame_of_reference)
    result.PositionReferenceIndicator = origin.first.get("PositionReferenceIndicator")
    result.ImageType = ["DERIVED", "PRIMARY"]
    result.Rows, result.Columns = rows, columns
    result.SamplesPerPixel, result.PhotometricInterpretation = 1, "MONOCHROME2"
    result.BitsAllocated = result.BitsStored = form.bits
    result.HighBit, result.PixelRepresentation = form.bits - 1, 0
    result.SegmentationType = form.word
    result.SegmentsOverlap = "UNDEFINED" if overlap else "NO"
    result.ContentLabel = re.sub(r"[^A-Z0-9_ ]", "_", origin.package.name.upper())[:16]
    result.ContentDescription = origin.text(origin.description)
    result.ContentCreatorName = f"{origin.text(origin.job.manufacturer, 32)}^{SIDECAR}"
    _loss(origin, result)


def _loss(origin: Origin, result: Dataset) -> None:
    """Made of images that lost something, a result cannot claim that nothing was lost (PS3.3 C.7.6.1.1.5)."""
    lossy = next((one for one in origin.datasets if one.get("LossyImageCompression") == "01"), None)
    result.LossyImageCompression = "00" if lossy is None else "01"
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if lossy is not None and keyword in lossy:
            result[keyword] = lossy[keyword]


def _segment(origin: Origin, number: int, label: Label) -> Dataset:
    model = origin.package.manifest.model
    item = _described(origin, number, label.name, label.category, label.type)
    if label.laterality:
        item.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [coded(label.laterality)]
    if label.region:
        item.AnatomicRegionSequence = [coded(label.region)]
    item.TrackingID = origin.text(f"{model.name} {label.name}")
    item.TrackingUID = origin.tracking_uid(label.index)
    if label.colour:
        item.RecommendedDisplayCIELabValue = codes.cielab(label.colour)
    return item


def _background(origin: Origin) -> Dataset:
    """What pixels of value 0 are; a label map describes every value (PS3.3 C.8.20.2)."""
    return _described(origin, 0, "Background", codes.BACKGROUND, codes.BACKGROUND)


def _described(origin: Origin, number: int, name: str, category: Code, kind: Code) -> Dataset:
    model = origin.package.manifest.model
    item = Dataset()
    item.SegmentNumber, item.SegmentLabel = number, origin.text(name)
    item.SegmentedPropertyCategoryCodeSequence, item.SegmentedPropertyTypeCodeSequence = (
        [coded(category)],
        [coded(kind)],
    )
    item.SegmentAlgorithmType, item.SegmentAlgorithmName = "AUTOMATIC", origin.text(f"{model.name} {model.version}")
    item.SegmentationAlgorithmIdentificationSequence = [_algorithm(origin)]
    return item


def _algorithm(origin: Origin) -> Dataset:
    model = origin.package.manifest.model
    item = Dataset()
    item.AlgorithmFamilyCodeSequence = [coded(codes.ARTIFICIAL_INTELLIGENCE)]
    item.AlgorithmName, item.AlgorithmVersion = origin.text(model.name), origin.text(model.version)
    item.AlgorithmSource = origin.text(model.vendor)
    return item


def _referenced_series(origin: Origin) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = UID(origin.series_uid)
    item.ReferencedInstanceSequence = [reference(dataset) for dataset in origin.datasets]
    return item


def _dimensions(origin: Origin, result: Dataset, form: Form) -> None:
    uid = UID(origin.uid("dimensions"))
    organization = Dataset()
    organization.DimensionOrganizationUID = uid
    result.DimensionOrganizationSequence = [organization]
    result.DimensionIndexSequence = []
    for group, keyword, words in form.dimensions:
        item = Dataset()
        item.DimensionOrganizationUID = uid
        item.DimensionIndexPointer, item.FunctionalGroupPointer = tag_for_keyword(keyword), tag_for_keyword(group)
        item.DimensionDescriptionLabel = words
        result.DimensionIndexSequence.append(item)


def _shared(origin: Origin) -> Dataset:
    source, grid = origin.first, origin.layout.grid
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    between = decimal(round(grid.spacing[0], 6))
    measures.PixelSpacing = decimals(source.PixelSpacing)
    measures.SpacingBetweenSlices = between
    measures.SliceThickness = decimal(source.SliceThickness) if source.get("SliceThickness") else between
    orientation.ImageOrientationPatient = decimals(source.ImageOrientationPatient)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    return shared


def _frames(origin: Origin, frames: Sequence[tuple[int, int, bytes]]) -> list[bytes]:
    """The functional groups of all frames, encoded: what frames of one slice share is encoded once."""
    derivations = _derivations(origin)
    positions = [_position(dataset) for dataset in origin.datasets]
    return [
        derivations[k] + _content(*([number] if number else []), k + 1) + positions[k] + _identification(number)
        for number, k, _ in frames
    ]


def _content(*indices: int) -> bytes:
    values = struct.pack(f"<{len(indices)}I", *indices)
    return sequence(FRAME_CONTENT, [element(DIMENSION_INDEX, b"UL", values)])


def _identification(number: int) -> bytes:
    """Which segment a frame is of; a label map holds all of them."""
    named = element(SEGMENT_NUMBER, b"US", struct.pack("<H", number))
    return sequence(SEGMENT_IDENTIFICATION, [named]) if number else b""


def _position(source: Dataset) -> bytes:
    return sequence(PLANE_POSITION, [text_element(IMAGE_POSITION, b"DS", *decimals(source.ImagePositionPatient))])


def _derivations(origin: Origin) -> list[bytes]:
    """For each slice the image that its frames come from; only the UIDs differ."""
    same, how = Dataset(), Dataset()
    same.PurposeOfReferenceCodeSequence = [coded(codes.SOURCE_IMAGE)]
    same.SpatialLocationsPreserved = "YES"
    how.DerivationCodeSequence = [coded(codes.SEGMENTATION)]
    ends = encoded(same), encoded(how)
    return [_derived_from(dataset, *ends) for dataset in origin.datasets]


def _derived_from(source: Dataset, same: bytes, how: bytes) -> bytes:
    named = text_element(REFERENCED_CLASS, b"UI", str(source.SOPClassUID))
    named += text_element(REFERENCED_INSTANCE, b"UI", str(source.SOPInstanceUID))
    return sequence(DERIVATION_IMAGE, [sequence(SOURCE_IMAGE, [named + same]) + how])
