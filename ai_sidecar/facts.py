"""Instance facts from what the node has: DICOM JSON metadata (the planner) or a data set (the pipeline)."""

from collections.abc import Mapping
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from ai_sidecar.ports import InstanceFacts

# everything that selection and geometry look at; nothing else of an instance is kept in memory
KEYWORDS = (
    "Modality", "BodyPartExamined", "SeriesDescription", "StudyDescription", "ProtocolName", "ImageType",
    "SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime", "ContentDate", "ContentTime",
    "SliceThickness", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation",
    "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "GantryDetectorTilt",
)  # fmt: skip
_TAGS: Mapping[int, str] = {tag: keyword for keyword in KEYWORDS if (tag := tag_for_keyword(keyword)) is not None}


def from_json(
    row: Mapping[str, Any], *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, data_sha256: str
) -> InstanceFacts:
    """Facts from one instance's DICOM JSON (PS3.18 F.2), as `node.retrieve.metadata` gives it."""
    attributes = {}
    for key, element in row.items():
        keyword = _TAGS.get(int(key, 16)) if len(key) == 8 else None
        if keyword:
            attributes[keyword] = tuple(value for value in element.get("Value", ()) if value is not None)
    return InstanceFacts(sop_class_uid, sop_instance_uid, transfer_syntax_uid, data_sha256, attributes)


def attributes_of(dataset: Dataset) -> dict[str, tuple[Any, ...]]:
    """The same attributes of a parsed data set: numbers as floats and ints, all else as text."""
    found: dict[str, tuple[Any, ...]] = {}
    for tag, keyword in _TAGS.items():
        if tag in dataset:
            value = dataset[tag].value
            several = [value] if isinstance(value, str | bytes) or not hasattr(value, "__iter__") else value
            found[keyword] = tuple(_plain(one) for one in several if one not in (None, ""))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int) and not isinstance(value, float):
        return int(value)
    return float(value) if isinstance(value, float) or type(value).__name__ == "DSdecimal" else str(value)


def texts(attributes: Mapping[str, tuple[Any, ...]], keyword: str) -> list[str]:
    """An attribute's values as text."""
    return [str(value).strip() for value in attributes.get(keyword, ())]


def numbers(attributes: Mapping[str, tuple[Any, ...]], keyword: str) -> list[float]:
    """An attribute's values as numbers; empty when any is not one."""
    try:
        return [float(value) for value in attributes.get(keyword, ())]
    except (TypeError, ValueError):
        return []
