"""One job, images to results: assemble, resample, run, blend, labels, back to the grid, measure, SEG, SR (ai.md 5)."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ai_sidecar import detection, postprocess, preprocess, window
from ai_sidecar.assemble import Assembled, LayOut, assemble
from ai_sidecar.detection import Box, Place
from ai_sidecar.package import Package
from ai_sidecar.ports import JobContext, Outcome, ResultFile, RunFailed, SourceSeries, StopSignal
from ai_sidecar.preprocess import Mapped
from ai_sidecar.results import seg, sr
from ai_sidecar.results.header import Origin
from ai_sidecar.runtime import CPU, Halt, Runtime, Session
from ai_sidecar.survey import Found, survey
from ai_sidecar.volume import arrange, line_up

Array = NDArray[Any]
HIGHEST = "Every image was looked at on its own; of each finding the highest score counts."


@dataclass(slots=True)
class Clock:
    """Seconds by stage."""

    timings: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - begun


@dataclass(frozen=True, slots=True)
class _Run:
    """What the stages of one run share."""

    package: Package
    job: JobContext
    runtime: Runtime
    halt: Halt
    clock: Clock
    session: Session


def run(
    package: Package,
    series: Sequence[SourceSeries],
    job: JobContext,
    runtime: Runtime,
    stop: StopSignal | None = None,
) -> Outcome:
    """The results of a model on one series; two runs of one job give equal bytes.

    Raises Unsuitable (the inputs are not what the model takes), RunFailed, Interrupted (`stop` was set), PackageError
    (the package changed), and what reading the images raises.
    """
    if len(series) != 1:
        raise RunFailed("several_series", "A job takes one series.", permanent=True)
    halt, clock = Halt(stop), Clock()
    with clock.stage("load"):
        session = package.session(runtime, cpu=package.manifest.run.device == "cpu")
        _proved(package, session)
    given = _Run(package, job, runtime, halt, clock, session)
    with clock.stage("decode"):
        assembled = assemble(series[0], _lay_out(package, series[0].series_uid), halt)
    origin = Origin(package, job, series[0].series_uid, assembled.datasets, assembled.volume.layout)
    report, seg_file, seg_dataset = _report(given, origin, assembled)
    with clock.stage("write"):
        sr_file = _sr(origin, report, seg_dataset)
    return Outcome(seg_file, sr_file, clock.timings, tuple(report.comments), session.provider)


def _proved(package: Package, session: Session) -> None:
    wanted = package.manifest.run
    if wanted.strict_device and wanted.device.startswith("cuda") and session.provider == CPU:
        raise RunFailed("device", "The model insists on a GPU, and this sidecar has none.")


def _lay_out(package: Package, series_uid: str) -> LayOut:
    """How the planner laid the series out, on the images themselves."""
    manifest = package.manifest
    if manifest.needs_grid:
        return lambda attributes: arrange(attributes, series_uid, manifest.required)
    return line_up


def _report(given: _Run, origin: Origin, assembled: Assembled) -> tuple[sr.Report, ResultFile | None, Dataset | None]:
    told = (*given.job.evidence, *assembled.volume.layout.evidence, *_device_notes(given))
    comments = tuple(dict.fromkeys(told))
    if given.package.manifest.model.task == "classification":
        scores = _classify(given, assembled)
        several = given.package.manifest.window.mode == "slice" and len(assembled.datasets) > 1
        return sr.Report(scores=scores, comments=(*comments, HIGHEST) if several else comments), None, None
    if given.package.manifest.model.task == "detection":
        boxes = _detect(given, assembled)
        missing = [one for one in given.package.manifest.labels if all(box.label != one for box in boxes)]
        return sr.Report(boxes=boxes, absent=missing, comments=comments), None, None
    found = _segment(given, assembled)
    present = {one.label.index for one in found}
    absent = [label for label in given.package.manifest.labels if label.index not in present]
    report = sr.Report(found, absent, comments=comments)
    if not found or given.package.manifest.result.seg == "none":
        return report, None, None
    with given.clock.stage("write"):
        form, overlap = given.package.manifest.result.seg, _decode(given.package) == "threshold"
        dataset, content = seg.write(origin, found, form=form, overlap=overlap)
    return report, _file(seg.ROLE, dataset, content), dataset


def _sr(origin: Origin, report: sr.Report, seg_dataset: Dataset | None) -> ResultFile | None:
    if origin.package.manifest.result.sr == "never":
        return None
    dataset, content = sr.write(origin, report, seg_dataset)
    return _file(sr.ROLE, dataset, content)


def _file(role: str, dataset: Dataset, content: bytes) -> ResultFile:
    names = (str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), str(dataset.SeriesInstanceUID))
    return ResultFile(role, *names, content)


def _device_notes(given: _Run) -> list[str]:
    wanted = given.package.manifest.run.device
    notes = [given.runtime.device.note] if given.runtime.device.note else []
    if wanted.startswith("cuda") and given.session.provider == CPU and not notes:
        notes.append("The model asks for a GPU; it ran on the CPU.")
    return notes


def _decode(package: Package) -> str:
    return next(iter(package.manifest.outputs.values())).decode


def _scores(given: _Run, assembled: Assembled) -> tuple[Array, Mapped]:
    """What the model gives, put together: (1, channel, D, H, W), or (D, channel, ...) of slices."""
    manifest = given.package.manifest
    _, tensor = manifest.input
    mapped = preprocess.mapping(assembled.volume.grid, tensor, manifest.window)
    with given.clock.stage("resample"):
        values = preprocess.prepare(assembled.volume, tensor, mapped, given.runtime, given.halt)
    with given.clock.stage("infer"):
        return _infer(given, values), mapped


def _infer(given: _Run, values: NDArray[np.float32]) -> Array:
    manifest = given.package.manifest
    name, tensor = manifest.input
    output_name, output = next(iter(manifest.outputs.items()))

    def infer(batch: NDArray[np.float32]) -> Array:
        feeds = {name: batch.astype(tensor.dtype, copy=False)}
        found = given.session.run(feeds, given.halt, [output_name])[0]
        return found if output.decode == "labels" else postprocess.activate(found, output, given.runtime, given.halt)

    batch = min(manifest.window.batch, manifest.run.max_batch or manifest.window.batch)
    if manifest.window.mode == "slice":
        return window.by_slice(values, infer, batch, given.halt)
    if manifest.window.mode == "sliding":
        return window.sliding(values, infer, manifest.window, tensor.pad_value, batch=batch, halt=given.halt)
    return window.whole(values, infer)


def _segment(given: _Run, assembled: Assembled) -> list[Found]:
    manifest = given.package.manifest
    scores, mapped = _scores(given, assembled)
    output = next(iter(manifest.outputs.values()))
    with given.clock.stage("labels"):
        labels = postprocess.decode(scores, output, given.runtime, given.halt)
        del scores
        if labels.shape != mapped.shape:
            sentence = f"The model gave labels of {labels.shape} voxels for an input of {mapped.shape}."
            raise RunFailed("output_shape", sentence, permanent=True)
        labels = postprocess.clean(labels, manifest.labels, output, mapped.voxel_ml)
        segmentation = postprocess.Segmentation.of(labels, mapped, assembled.volume.grid)
    with given.clock.stage("measure"):
        given.halt.check()
        return survey(segmentation, assembled.volume, manifest.labels, pack=manifest.result.seg != "none")


def _detect(given: _Run, assembled: Assembled) -> list[Box]:
    manifest = given.package.manifest
    tensor_name, tensor = manifest.input
    mapped = preprocess.mapping(assembled.volume.grid, tensor, manifest.window)
    with given.clock.stage("resample"):
        values = preprocess.prepare(assembled.volume, tensor, mapped, given.runtime, given.halt)
    name, output = next((name, one) for name, one in manifest.outputs.items() if one.decode == "boxes")
    wanted = [name, output.score, *([output.class_] if output.class_ else [])]
    with given.clock.stage("infer"):
        feeds = {tensor_name: values[None, None].astype(tensor.dtype, copy=False)}
        found = given.session.run(feeds, given.halt, wanted)
    classes = found[2] if output.class_ else None
    place = Place(assembled.volume.grid, mapped)
    return detection.boxes(found[0], found[1], classes, output, labels=manifest.labels, place=place)


def _classify(given: _Run, assembled: Assembled) -> list[sr.Score]:
    """One score for each finding; of several slices the highest."""
    scores, _ = _scores(given, assembled)
    flat = scores.reshape(len(scores), -1).max(axis=0) if scores.ndim > 1 else scores
    findings = given.package.manifest.findings
    if max(finding.index for finding in findings) >= len(flat):
        raise RunFailed(
            "output_shape", f"The model gave {len(flat)} scores, fewer than [[finding]] names.", permanent=True
        )
    if not np.isfinite(flat).all():
        raise RunFailed("output_values", "The model gave scores that are no numbers.", permanent=True)
    return [sr.Score(finding, float(flat[finding.index])) for finding in findings]
