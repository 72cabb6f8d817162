"""Segmentation objects, BINARY (PS3.3 A.51): one segment a label, no empty segment, no empty frame."""

import re
import struct
from collections.abc import Sequence

import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import UID

from ai_sidecar.results import codes
from ai_sidecar.results.codes import coded
from ai_sidecar.results.encoding import element, encoded, long_element, sequence
from ai_sidecar.results.header import SIDECAR, Origin, begin, decimal, decimals, part10, reference
from ai_sidecar.survey import Found

SOP_CLASS = "1.2.840.10008.5.1.4.1.1.66.4"
ROLE = "seg"
# what is encoded by hand: hundreds of frames take seconds otherwise; the rest of the file comes before these
PER_FRAME, PIXEL_DATA = 0x5200_9230, 0x7FE0_0010
FRAME_CONTENT, DIMENSION_INDEX = 0x0020_9111, 0x0020_9157
SEGMENT_IDENTIFICATION, SEGMENT_NUMBER = 0x0062_000A, 0x0062_000B
DIMENSIONS = (
    ("SegmentIdentificationSequence", "ReferencedSegmentNumber", "Segment"),
    ("PlanePositionSequence", "ImagePositionPatient", "Position"),
)


def write(origin: Origin, found: Sequence[Found], *, overlap: bool = False) -> tuple[Dataset, bytes]:
    """The data set and the file of the labels found (at least one)."""
    result = begin(origin, ROLE, SOP_CLASS, "SEG")
    _image(origin, result, overlap=overlap)
    result.SegmentSequence = [_segment(origin, number, one) for number, one in enumerate(found, 1)]
    result.ReferencedSeriesSequence = [_referenced_series(origin)]
    _dimensions(origin, result)
    result.SharedFunctionalGroupsSequence = [_shared(origin)]
    result.NumberOfFrames = sum(len(one.frames) for one in found)
    pixels = packed([bits for one in found for _, bits in one.frames], result.Rows * result.Columns)
    return result, part10(result, sequence(PER_FRAME, _frames(origin, found)) + long_element(PIXEL_DATA, b"OB", pixels))


def packed(frames: Sequence[bytes], pixels: int) -> bytes:
    """Frames joined bit by bit: a frame begins where the last one ended, within a byte too (PS3.5 8.1.1)."""
    if pixels % 8 == 0:
        joined = b"".join(frames)
    else:
        bits = [np.unpackbits(np.frombuffer(one, np.uint8), count=pixels, bitorder="little") for one in frames]
        joined = np.packbits(np.concatenate(bits), bitorder="little").tobytes()
    return joined + b"\0" * (len(joined) % 2)


def _image(origin: Origin, result: Dataset, *, overlap: bool) -> None:
    _, rows, columns = origin.layout.grid.shape
    result.FrameOfReferenceUID = UID(origin.layout.frame_of_reference)
    result.PositionReferenceIndicator = origin.first.get("PositionReferenceIndicator")
    result.ImageType = ["DERIVED", "PRIMARY"]
    result.Rows, result.Columns = rows, columns
    result.SamplesPerPixel, result.PhotometricInterpretation = 1, "MONOCHROME2"
    result.BitsAllocated = result.BitsStored = 1
    result.HighBit = result.PixelRepresentation = 0
    result.SegmentationType = "BINARY"
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


def _segment(origin: Origin, number: int, found: Found) -> Dataset:
    label, model = found.label, origin.package.manifest.model
    item = Dataset()
    item.SegmentNumber, item.SegmentLabel = number, origin.text(label.name)
    item.SegmentedPropertyCategoryCodeSequence = [coded(label.category)]
    item.SegmentedPropertyTypeCodeSequence = [coded(label.type)]
    if label.laterality:
        item.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [coded(label.laterality)]
    if label.region:
        item.AnatomicRegionSequence = [coded(label.region)]
    item.SegmentAlgorithmType, item.SegmentAlgorithmName = "AUTOMATIC", origin.text(f"{model.name} {model.version}")
    item.SegmentationAlgorithmIdentificationSequence = [_algorithm(origin)]
    item.TrackingID = origin.text(f"{model.name} {label.name}")
    item.TrackingUID = origin.tracking_uid(label.index)
    if label.colour:
        item.RecommendedDisplayCIELabValue = codes.cielab(label.colour)
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


def _dimensions(origin: Origin, result: Dataset) -> None:
    uid = UID(origin.uid("dimensions"))
    organization = Dataset()
    organization.DimensionOrganizationUID = uid
    result.DimensionOrganizationSequence = [organization]
    result.DimensionIndexSequence = []
    for group, keyword, words in DIMENSIONS:
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


def _frames(origin: Origin, found: Sequence[Found]) -> list[bytes]:
    """The functional groups of all frames, encoded: what frames of one slice share is encoded once."""
    derivations = [encoded(_derivation(dataset)) for dataset in origin.datasets]
    positions = [encoded(_position(dataset)) for dataset in origin.datasets]
    frames = []
    for number, one in enumerate(found, 1):
        segment = sequence(SEGMENT_IDENTIFICATION, [element(SEGMENT_NUMBER, b"US", struct.pack("<H", number))])
        for k, _ in one.frames:
            index = element(DIMENSION_INDEX, b"UL", struct.pack("<2I", number, k + 1))
            frames.append(derivations[k] + sequence(FRAME_CONTENT, [index]) + positions[k] + segment)
    return frames


def _position(source: Dataset) -> Dataset:
    position, groups = Dataset(), Dataset()
    position.ImagePositionPatient = decimals(source.ImagePositionPatient)
    groups.PlanePositionSequence = [position]
    return groups


def _derivation(source: Dataset) -> Dataset:
    image = reference(source)
    image.PurposeOfReferenceCodeSequence = [coded(codes.SOURCE_IMAGE)]
    image.SpatialLocationsPreserved = "YES"
    derivation, groups = Dataset(), Dataset()
    derivation.DerivationCodeSequence, derivation.SourceImageSequence = [coded(codes.SEGMENTATION)], [image]
    groups.DerivationImageSequence = [derivation]
    return groups
