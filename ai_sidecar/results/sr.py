"""Comprehensive 3D SR after TID 1500 (PS3.16): what was found, how much of it, and what was not found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID

from ai_sidecar.detection import Box
from ai_sidecar.manifest import ABSENT, Concept, Label
from ai_sidecar.results import codes
from ai_sidecar.results.codes import coded
from ai_sidecar.results.header import Origin, begin, decimal, part10, reference
from ai_sidecar.survey import Found
from ai_sidecar.tables import Code

SOP_CLASS = "1.2.840.10008.5.1.4.1.1.88.34"
ROLE = "sr"
DIGITS = 4  # after the point, of measured values


@dataclass(frozen=True, slots=True)
class Score:
    """How sure a classification is of one concept, 0 to 1."""

    concept: Concept
    value: float

    @property
    def present(self) -> bool:
        return self.value >= self.concept.threshold


@dataclass(frozen=True, slots=True)
class Report:
    """What a report says."""

    found: Sequence[Found] = ()
    absent: Sequence[Label] = ()
    scores: Sequence[Score] = ()
    boxes: Sequence[Box] = ()
    comments: Sequence[str] = ()


def write(origin: Origin, report: Report, seg: Dataset | None) -> tuple[Dataset, bytes]:
    """The data set and the file of a report; `seg` is the segmentation that it refers to."""
    result = begin(origin, ROLE, SOP_CLASS, "SR")
    result.ReferencedPerformedProcedureStepSequence = []
    result.PerformedProcedureCodeSequence = []
    result.CompletionFlag, result.VerificationFlag, result.PreliminaryFlag = "COMPLETE", "UNVERIFIED", "PRELIMINARY"
    result.CurrentRequestedProcedureEvidenceSequence = [_evidence(origin, result, seg)]
    predecessors = [one for one in origin.job.predecessor if one.get("role") == ROLE]
    if predecessors:
        result.PredecessorDocumentsSequence = [_predecessor(result, one) for one in predecessors]
    root = _container(codes.REPORT, "1500", _content(origin, report, seg))
    del root.RelationshipType
    result.update(root)
    return result, part10(result)


def _evidence(origin: Origin, result: Dataset, seg: Dataset | None) -> Dataset:
    """Every input and the segmentation, by series (PS3.3 C.17.2)."""
    series = [_series(origin.series_uid, [reference(one) for one in origin.datasets])]
    if seg is not None:
        series.append(_series(seg.SeriesInstanceUID, [reference(seg)]))
    item = Dataset()
    item.StudyInstanceUID, item.ReferencedSeriesSequence = result.StudyInstanceUID, series
    return item


def _series(uid: str, instances: list[Dataset]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID, item.ReferencedSOPSequence = UID(uid), instances
    return item


def _predecessor(result: Dataset, given: Mapping[str, str]) -> Dataset:
    instance = Dataset()
    instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = (
        given["sop_class_uid"],
        given["sop_instance_uid"],
    )
    item = Dataset()
    item.StudyInstanceUID, item.ReferencedSeriesSequence = (
        result.StudyInstanceUID,
        [_series(given["series_uid"], [instance])],
    )
    return item


def _content(origin: Origin, report: Report, seg: Dataset | None) -> list[Dataset]:
    items = [
        _code("HAS CONCEPT MOD", codes.LANGUAGE, codes.ENGLISH),
        *_observer(origin),
        _code("HAS CONCEPT MOD", codes.PROCEDURE_REPORTED, _procedure(origin.first)),
    ]
    groups = [_group(origin, one, n, seg) for n, one in enumerate(report.found, 1)]
    groups += [_score_group(origin, score) for score in report.scores]
    groups += [_box_group(origin, box, number) for number, box in enumerate(report.boxes, 1)]
    if groups:
        items.append(_container(codes.MEASUREMENTS, "", groups))
    if report.absent:
        items.append(_container(codes.EVALUATIONS, "", [_absent(label) for label in report.absent]))
    items += [_text("CONTAINS", codes.COMMENT, origin.text(comment, 1024)) for comment in report.comments]
    return items


def _observer(origin: Origin) -> list[Dataset]:
    """TID 1001 and 1004: the model is the observer."""
    model = origin.package.manifest.model
    context = "HAS OBS CONTEXT"
    return [
        _code(context, codes.OBSERVER_TYPE, codes.DEVICE),
        _uid(context, codes.DEVICE_UID, origin.model_uid),
        _text(context, codes.DEVICE_NAME, origin.text(f"{model.name} {model.version}")),
        _text(context, codes.DEVICE_MANUFACTURER, origin.text(model.vendor)),
        _text(context, codes.DEVICE_MODEL, origin.text(model.name)),
        _text(context, codes.DEVICE_SERIAL, origin.package.digest),
    ]


def _procedure(source: Dataset) -> Code:
    """What was done: as the images say, else by their modality."""
    for item in source.get("ProcedureCodeSequence") or []:
        value, scheme, meaning = (item.get(key) for key in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"))
        if value and scheme and meaning:
            return Code(str(value), str(scheme), str(meaning))
    return codes.PROCEDURES.get(str(source.get("Modality")), codes.IMAGING)


def _group(origin: Origin, found: Found, number: int, seg: Dataset | None) -> Dataset:
    """TID 1411 of one segment, or TID 1501 where no segmentation is written."""
    label = found.label
    items = [
        *_tracking(origin, f"{origin.package.name} {label.name}", origin.tracking_uid(label.index)),
        _code("CONTAINS", codes.FINDING_CATEGORY, label.category),
        _code("CONTAINS", codes.FINDING, label.type),
        *_algorithm(origin),
    ]
    if seg is not None:
        items += [_segment(seg, number), _uid("CONTAINS", codes.SOURCE_SERIES, origin.series_uid)]
    items.append(_site(label))
    quantity, unit = codes.QUANTITIES.get(str(origin.first.get("Modality")), codes.PIXEL_VALUE)
    for statistic in label.measurements:
        value = found.measured(statistic)
        if statistic == "volume":
            items.append(_number(codes.VOLUME, value, codes.MILLILITRE))
        else:
            derivation = _code("HAS CONCEPT MOD", codes.DERIVATION, codes.STATISTICS[statistic])
            items.append(_number(quantity, value, unit, [derivation]))
    return _container(codes.GROUP, "1501" if seg is None else "1411", items)


def _score_group(origin: Origin, score: Score) -> Dataset:
    """TID 1501 of one classification: present or absent, and how sure the model is."""
    concept = score.concept
    name = f"{origin.package.name} {concept.concept.meaning}"
    return _container(
        codes.GROUP,
        "1501",
        [
            *_tracking(origin, name, origin.tracking_uid(10_000 + concept.index)),
            _code("CONTAINS", codes.FINDING, concept.concept),
            *_algorithm(origin),
            _number(codes.CERTAINTY, 100 * score.value, codes.PERCENT),
            _code("CONTAINS", concept.concept, concept.present if score.present else concept.absent),
        ],
    )


def _box_group(origin: Origin, box: Box, number: int) -> Dataset:
    """TID 1411 of one box: its faces are the surface of a volume."""
    items = [
        *_tracking(origin, f"{origin.package.name} {box.label.name} {number}", origin.uid(f"box-{number}")),
        _code("CONTAINS", codes.FINDING_CATEGORY, box.label.category),
        _code("CONTAINS", codes.FINDING, box.label.type),
        *_algorithm(origin),
        *[_polygon(face, origin.layout.frame_of_reference) for face in box.faces],
        _uid("CONTAINS", codes.SOURCE_SERIES, origin.series_uid),
        _site(box.label),
        _number(codes.CERTAINTY, 100 * box.score, codes.PERCENT),
    ]
    return _container(codes.GROUP, "1411", items)


def _polygon(points: NDArray[Any], frame_of_reference: str) -> Dataset:
    item = _item("CONTAINS", "SCOORD3D", codes.VOLUME_SURFACE)
    item.GraphicType, item.GraphicData = "POLYGON", [float(one) for one in points.ravel()]
    item.ReferencedFrameOfReferenceUID = UID(frame_of_reference)
    return item


def _tracking(origin: Origin, name: str, uid: str) -> list[Dataset]:
    return [
        _text("HAS OBS CONTEXT", codes.TRACKING_ID, origin.text(name)),
        _uid("HAS OBS CONTEXT", codes.TRACKING_UID, uid),
    ]


def _algorithm(origin: Origin) -> list[Dataset]:
    """TID 4019."""
    model = origin.package.manifest.model
    return [
        _text("HAS CONCEPT MOD", codes.ALGORITHM_NAME, origin.text(model.name)),
        _text("HAS CONCEPT MOD", codes.ALGORITHM_VERSION, origin.text(model.version)),
    ]


def _site(label: Label) -> Dataset:
    site = _code("HAS CONCEPT MOD", codes.FINDING_SITE, label.region or label.type)
    return _with(site, _lateral(label))


def _absent(label: Label) -> Dataset:
    return _with(_code("CONTAINS", label.type, ABSENT), _lateral(label))


def _lateral(label: Label) -> list[Dataset]:
    return [_code("HAS CONCEPT MOD", codes.LATERALITY, label.laterality)] if label.laterality else []


def _segment(seg: Dataset, number: int) -> Dataset:
    item = _item("CONTAINS", "IMAGE", codes.REFERENCED_SEGMENT)
    segment = reference(seg)
    segment.ReferencedSegmentNumber = number
    item.ReferencedSOPSequence = [segment]
    return item


def _item(relationship: str, kind: str, name: Code) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = relationship, kind
    item.ConceptNameCodeSequence = [coded(name)]
    return item


def _with(item: Dataset, children: Sequence[Dataset]) -> Dataset:
    if children:
        item.ContentSequence = list(children)
    return item


def _container(name: Code, template: str, children: Sequence[Dataset]) -> Dataset:
    item = _item("CONTAINS", "CONTAINER", name)
    item.ContinuityOfContent = "SEPARATE"
    if template:
        described = Dataset()
        described.MappingResource, described.TemplateIdentifier = "DCMR", template
        item.ContentTemplateSequence = [described]
    return _with(item, children)


def _code(relationship: str, name: Code, value: Code) -> Dataset:
    item = _item(relationship, "CODE", name)
    item.ConceptCodeSequence = [coded(value)]
    return item


def _text(relationship: str, name: Code, value: str) -> Dataset:
    item = _item(relationship, "TEXT", name)
    item.TextValue = value
    return item


def _uid(relationship: str, name: Code, value: str) -> Dataset:
    item = _item(relationship, "UIDREF", name)
    item.UID = value
    return item


def _number(name: Code, value: float, unit: Code, children: Sequence[Dataset] = ()) -> Dataset:
    item = _item("CONTAINS", "NUM", name)
    measured = Dataset()
    measured.NumericValue = decimal(round(value, DIGITS))
    measured.MeasurementUnitsCodeSequence = [coded(unit)]
    item.MeasuredValueSequence = [measured]
    return _with(item, children)
