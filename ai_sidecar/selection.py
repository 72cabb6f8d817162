"""Which packages run on which series of a study, and why the others do not (ai.md 2, 3).

Text is matched as QIDO matches it (`pacs.domain.matching`), without regard to case: `*` and `?` are wildcards, and
`""` in quotes finds what is absent.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ai_sidecar.facts import numbers, texts
from ai_sidecar.manifest import Select
from ai_sidecar.package import Package
from ai_sidecar.ports import InstanceFacts, SeriesFacts, Unsuitable, job_key
from ai_sidecar.tables import Range
from ai_sidecar.volume import Layout, arrange, line_up
from pacs.domain.attributes import Rule
from pacs.domain.jobs import Decision
from pacs.domain.matching import matches, normal_values, parse

FORM = 1  # of the results: raised when the same job would write other bytes
NOT_IMAGES = frozenset({"SEG", "SR", "PR", "KO", "REG", "RTSTRUCT", "RTPLAN", "DOC", "RWV", "FID", "AU", "ECG", "HD"})
DESCRIPTIONS = ("SeriesDescription", "StudyDescription", "ProtocolName")
DATES = ("AcquisitionDate", "SeriesDate", "ContentDate")
TIMES = ("AcquisitionTime", "SeriesTime", "ContentTime")


def plan(packages: Sequence[Package], series: Sequence[SeriesFacts]) -> list[Decision]:
    """What each package does with each series of a study: a job to run, or the reason why not."""
    images = [one for one in series if one.instances and not NOT_IMAGES & set(_modality(one))]
    return [decision for package in packages for decision in _of_package(package, images)]


def _of_package(package: Package, series: Sequence[SeriesFacts]) -> list[Decision]:
    if not series:
        return [_skipped(package, (), Unsuitable("no_images", "The study holds no images."))]
    fitting: list[_Fit] = []
    decisions: list[Decision] = []
    for one in series:
        try:
            fitting.append(fit(package, one))
        except Unsuitable as reason:
            decisions.append(_skipped(package, (one.series_uid,), reason))
    chosen = _choose(package.manifest.select, fitting)
    decisions += [_job(package, one) for one in chosen]
    passed = Unsuitable("not_chosen", f"Another series of the study is the {package.manifest.select.choose} that fits.")
    return decisions + [_skipped(package, (one.series.series_uid,), passed) for one in fitting if one not in chosen]


@dataclass(frozen=True, slots=True)
class _Fit:
    """A series that a package takes, and how it is laid out."""

    series: SeriesFacts
    layout: Layout


def fit(package: Package, series: SeriesFacts) -> _Fit:
    """The series as the package takes it. Raises Unsuitable with the reason where it does not."""
    select = package.manifest.select
    for check in _CHECKS:
        check(select, series.instances)
    attributes = [instance.attributes for instance in series.instances]
    if package.manifest.needs_grid:
        return _Fit(series, arrange(attributes, series.series_uid, package.manifest.required))
    return _Fit(series, line_up(attributes))


def _job(package: Package, chosen: _Fit) -> Decision:
    series, run = chosen.series, package.manifest.run
    parameters: Mapping[str, Any] = {"form": FORM}
    inputs = [_input(series.series_uid, instance) for instance in series.instances]
    inputs.sort(key=lambda one: one["sop_instance_uid"])
    pairs = [(one["sop_instance_uid"], one["data_sha256"]) for one in inputs]
    grid = chosen.layout.grid
    return Decision(
        package.name,
        package.version,
        package.digest,
        (series.series_uid,),
        job_key(package.model_sha256, package.manifest_sha256, pairs, parameters),
        inputs,
        parameters,
        {"shape": list(grid.shape), "spacing_mm": [round(one, 4) for one in grid.spacing],
         "notes": list(chosen.layout.evidence)},
        run.priority,
        run.max_attempts,
        run.timeout_s,
    )  # fmt: skip


def _input(series_uid: str, instance: InstanceFacts) -> dict[str, str]:
    return {
        "series_uid": series_uid,
        "sop_class_uid": instance.sop_class_uid,
        "sop_instance_uid": instance.sop_instance_uid,
        "transfer_syntax_uid": instance.transfer_syntax_uid,
        "data_sha256": instance.data_sha256,
    }


def _skipped(package: Package, series_uids: tuple[str, ...], reason: Unsuitable) -> Decision:
    return Decision(
        package.name, package.version, package.digest, series_uids,
        reason=reason.code, message=reason.message, may_come=reason.may_come,
    )  # fmt: skip


def _choose(select: Select, fitting: Sequence[_Fit]) -> list[_Fit]:
    order = _ORDERS.get(select.choose)
    return [min(fitting, key=order)] if order and fitting else list(fitting)


def _thinnest(one: _Fit) -> tuple[Any, ...]:
    attributes = one.series.instances[0].attributes
    thickness = numbers(attributes, "SliceThickness") or [0.0]
    return one.layout.grid.spacing[0], thickness[0], -len(one.series.instances), one.series.series_uid


def _newest(one: _Fit) -> tuple[Any, ...]:
    attributes = one.series.instances[0].attributes
    stamp = _first(attributes, DATES) + _first(attributes, TIMES)
    return tuple(-ord(letter) for letter in stamp), one.series.series_uid


_ORDERS: Mapping[str, Callable[[_Fit], tuple[Any, ...]]] = {"thinnest": _thinnest, "newest": _newest}


def _first(attributes: Mapping[str, tuple[Any, ...]], keywords: Iterable[str]) -> str:
    return next((values[0] for keyword in keywords if (values := texts(attributes, keyword))), "")


def _modality(series: SeriesFacts) -> list[str]:
    return texts(series.instances[0].attributes, "Modality")


# the checks, cheapest first; each raises Unsuitable


def fits_text(patterns: Sequence[str], values: Sequence[str]) -> bool:
    """Whether a value fits one of the patterns, as QIDO would have it but for case."""
    wanted = parse(Rule.TEXT, [pattern.upper() for pattern in patterns])
    return matches(wanted, normal_values(Rule.TEXT, [value.upper() for value in values]))


def _text(reason: str, words: str, wanted: Callable[[Select], tuple[str, ...]], keywords: Sequence[str]) -> "_Check":
    def check(select: Select, instances: Sequence[InstanceFacts]) -> None:
        patterns = wanted(select)
        values = [value for keyword in keywords for value in texts(instances[0].attributes, keyword)]
        if patterns and not fits_text(patterns, values):
            raise Unsuitable(reason, f"The {words} of the series is not one that the model takes.")

    return check


def _image_type(select: Select, instances: Sequence[InstanceFacts]) -> None:
    values = texts(instances[0].attributes, "ImageType")
    if not all(fits_text([pattern], values) for pattern in select.image_type):
        raise Unsuitable("image_type", "The image type of the series is not one that the model takes.")


def _classes(select: Select, instances: Sequence[InstanceFacts]) -> None:
    if select.sop_classes and any(instance.sop_class_uid not in select.sop_classes for instance in instances):
        raise Unsuitable("sop_class", "The series holds objects of a SOP class that the model does not take.")


def _range(reason: str, words: str, wanted: Callable[[Select], Range | None], keyword: str) -> "_Check":
    def check(select: Select, instances: Sequence[InstanceFacts]) -> None:
        limits = wanted(select)
        if limits is None:
            return
        for instance in instances:
            found = numbers(instance.attributes, keyword)
            if not found:
                raise Unsuitable(reason, f"The images do not state their {words}, which the model limits.")
            if not all(limits.low <= one <= limits.high for one in found):
                sentence = f"The {words} is {found[0]:g}; the model takes {limits.low:g} to {limits.high:g}."
                raise Unsuitable(reason, sentence)

    return check


def _count(select: Select, instances: Sequence[InstanceFacts]) -> None:
    count = len(instances)
    if count < select.min_slices:
        sentence = f"The series has {count} images; the model takes {select.min_slices} or more."
        raise Unsuitable("too_few_slices", sentence, may_come=True)
    if count > select.max_slices:
        sentence = f"The series has {count} images; the model takes {select.max_slices} or fewer."
        raise Unsuitable("too_many_slices", sentence)


_Check = Callable[[Select, Sequence[InstanceFacts]], None]
_CHECKS: Sequence[_Check] = (
    _text("modality", "modality", lambda select: select.modality, ["Modality"]),
    _classes,
    _text("body_part", "body part", lambda select: select.body_part, ["BodyPartExamined"]),
    _text("description", "description", lambda select: select.description, DESCRIPTIONS),
    _image_type,
    _range("slice_thickness", "slice thickness", lambda select: select.slice_thickness, "SliceThickness"),
    _range("pixel_spacing", "pixel spacing", lambda select: select.spacing, "PixelSpacing"),
    _range("rows", "number of rows", lambda select: select.rows, "Rows"),
    _count,
)
