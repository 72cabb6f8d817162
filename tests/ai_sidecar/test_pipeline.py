"""From slices of a formula to SEG and SR: right places, right sides, the same bytes every time."""

import io
import random
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest

from ai_sidecar.package import load
from ai_sidecar.pipeline import run
from ai_sidecar.ports import Interrupted, RunFailed, SourceSeries, Unsuitable
from ai_sidecar.runtime import Deadline, Runtime
from tests.ai_sidecar import packages
from tests.ai_sidecar.phantom import CORONAL, FEET_FIRST_PRONE, SAGITTAL, Stack, context, dice, instance

MODEL = Path(__file__).parents[2] / "config" / "models" / "ct-lung-body" / "1.0.0"
WHEN = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
NAMES = {"Body": 1, "Right lung": 2, "Left lung": 3, "Dense": 1}


@pytest.fixture(scope="module")
def runtime():
    return Runtime("cpu", threads=2)


@pytest.fixture(scope="module")
def chest(runtime):
    return load(MODEL, runtime)


def segmented(outcome, stack):
    """The labels of a SEG on the stack's grid, by the positions of its frames."""
    seg = pydicom.dcmread(io.BytesIO(outcome.seg.content))
    names = {item.SegmentNumber: NAMES[item.SegmentLabel] for item in seg.SegmentSequence}
    found = np.zeros((stack.slices, *stack.size), np.uint8)
    pixels = seg.pixel_array.reshape(-1, *stack.size)
    for frame, groups in zip(pixels, seg.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        k = round(float((position - stack.corner) @ stack.normal) / stack.gap)
        found[k][frame.astype(bool)] = names[groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
    return found


def everything(stack, package, runtime, order=None, **given):
    return run(package, [stack.series(order)], context("0" * 64, WHEN, **given), runtime)


def oblique():
    """Axes that are not the patient's."""
    row = np.array([1, 0.12, 0.05])
    return row, np.cross(np.cross(row, [0, 1, 0]), row)


STACKS = {
    "axial": Stack(),
    "numbered head to foot": Stack(slices=17, gap=10.0, numbering=-1),
    "feet first, prone": Stack(slices=17, gap=10.0, axes=FEET_FIRST_PRONE),
    "sagittal": Stack(slices=60, size=(24, 110), spacing=(9.0, 2.4), gap=6.0, axes=SAGITTAL),
    "coronal": Stack(slices=50, size=(24, 150), spacing=(9.0, 2.4), gap=5.0, axes=CORONAL),
    "oblique": Stack(slices=20, gap=8.0, axes=oblique()),
}


@pytest.mark.parametrize("name", STACKS)
def test_lungs_and_body_are_found_where_they_are(name, chest, runtime):
    stack = STACKS[name]
    outcome = everything(stack, chest, runtime)
    found, truth = segmented(outcome, stack), stack.truth()
    for label in (1, 2, 3):
        assert dice(found, truth, label) > (0.96 if label > 1 else 0.98)


def test_two_runs_give_equal_bytes_whatever_the_order_of_the_inputs(chest, runtime):
    stack = Stack(slices=12, size=(96, 128), spacing=(3.0, 3.0), gap=14.0)
    order = list(range(12))
    first = everything(stack, chest, runtime)
    random.Random(5).shuffle(order)
    second = everything(stack, chest, runtime, order)
    assert [file.content for file in first.files] == [file.content for file in second.files]
    assert [file.role for file in first.files] == ["seg", "sr"]


def test_another_job_key_names_other_objects(chest, runtime):
    stack = Stack(slices=12, size=(96, 128), spacing=(3.0, 3.0), gap=14.0)
    one = run(chest, [stack.series()], context("1" * 64, WHEN), runtime)
    other = run(chest, [stack.series()], context("2" * 64, WHEN), runtime)
    assert {file.sop_instance_uid for file in one.files}.isdisjoint(file.sop_instance_uid for file in other.files)
    assert all(file.sop_instance_uid.startswith("2.25.") for file in one.files)


def test_measurements_agree_with_the_formula(chest, runtime):
    stack = STACKS["axial"]
    outcome = everything(stack, chest, runtime)
    report = pydicom.dcmread(io.BytesIO(outcome.sr.content))
    measured = dict(volumes(report))
    voxel = 2.0 * 2.4 * 7.0 / 1000
    truth = stack.truth()
    for number, label in enumerate((1, 2, 3)):
        assert list(measured.values())[number] == pytest.approx(np.count_nonzero(truth == label) * voxel, rel=0.06)


def volumes(report):
    """(tracking identifier, mL) of each measurement group."""
    for container in report.ContentSequence:
        for group in container.get("ContentSequence", []):
            names = {item.ConceptNameCodeSequence[0].CodeValue: item for item in group.get("ContentSequence", [])}
            if "118565006" in names:
                value = names["118565006"].MeasuredValueSequence[0].NumericValue
                yield names["112039"].TextValue, float(value)


def test_nothing_found_is_no_segmentation_and_a_report_of_absence(chest, runtime):
    air = Stack(slices=12, size=(96, 128), gap=14.0, hounsfield=lambda points: np.full(points.shape[:-1], -1000.0))
    outcome = everything(air, chest, runtime)
    assert outcome.seg is None
    report = pydicom.dcmread(io.BytesIO(outcome.sr.content))
    evaluations = report.ContentSequence[-1]
    assert [item.ConceptCodeSequence[0].CodeValue for item in evaluations.ContentSequence] == ["272519000"] * 3
    assert len(report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence) == 1


def test_frames_of_reference_that_differ_from_slice_to_slice_are_told_not_refused(chest, runtime):
    def another(k, dataset):
        dataset.FrameOfReferenceUID = f"1.2.3.{k}"

    outcome = everything(Stack(slices=12, size=(96, 128), gap=14.0, change=another), chest, runtime)
    assert "12 frames of reference" in outcome.evidence[0]
    assert pydicom.dcmread(io.BytesIO(outcome.seg.content)).FrameOfReferenceUID == "1.2.3.0"
    report = pydicom.dcmread(io.BytesIO(outcome.sr.content))
    assert report.ContentSequence[-1].TextValue == outcome.evidence[0]


def test_a_missing_slice_is_unsuitable_and_named(chest, runtime):
    series = Stack(slices=12, size=(96, 128), gap=14.0).series()
    with pytest.raises(Unsuitable, match=r"1 slice is missing: at 35\.0 mm") as raised:
        run(chest, [SourceSeries(series.series_uid, series.instances[:8] + series.instances[9:])],
            context("0" * 64, WHEN), runtime)  # fmt: skip
    assert (raised.value.code, raised.value.may_come) == ("missing_slices", True)


def test_a_file_that_holds_another_instance_fails(chest, runtime):
    series = Stack(slices=12, size=(64, 64), gap=14.0).series()
    series.instances[3].content = series.instances[4].content
    with pytest.raises(RunFailed) as raised:
        run(chest, [series], context("0" * 64, WHEN), runtime)
    assert raised.value.code == "wrong_instance"


def test_truncated_pixels_fail_for_good(chest, runtime):
    def cut(k, dataset):
        dataset.PixelData = dataset.PixelData[:100]

    with pytest.raises(RunFailed) as raised:
        everything(Stack(slices=12, size=(64, 64), gap=14.0, change=cut), chest, runtime)
    assert (raised.value.code, raised.value.permanent) == ("undecodable", True)


def test_a_run_that_was_told_to_stop_stops(chest, runtime):
    stop = Deadline(0.0)
    while not stop.is_set():
        pass
    with pytest.raises(Interrupted):
        run(chest, [Stack(slices=12, size=(64, 64)).series()], context("0" * 64, WHEN), runtime, stop)


@pytest.mark.parametrize(
    ("window", "output"),
    [
        ('mode = "whole"', 'decode = "argmax"'),
        ('mode = "sliding"\nroi = [8, 40, 40]\noverlap = 0.3\nbatch = 3', 'decode = "argmax"\nactivation = "softmax"'),
        ('mode = "sliding"\nroi = [8, 40, 40]\nblend = "gaussian_monai"', 'decode = "argmax"'),
    ],
)
def test_whole_and_sliding_windows_give_the_same_labels(window, output, tmp_path, runtime):
    package = load(packages.write(tmp_path, packages.two_channels(0.0), window=window, output=output), runtime)
    stack = Stack(slices=9, size=(70, 90), spacing=(4.0, 4.0), gap=14.0, noise=0.0)
    found = segmented(everything(stack, package, runtime), stack)
    dense = np.stack([stack.hounsfield(stack.points(k)) > 0 for k in range(9)])
    assert np.array_equal(found == 1, dense)


def test_slices_of_two_axes_are_segmented_one_by_one(tmp_path, runtime):
    content = packages.model([packages.helper.make_node("Sigmoid", ["x"], ["y"])], rank=4)
    path = packages.write(tmp_path, content, layout="NCHW", shape=(2, 1, 8, 9), window='mode = "slice"\nbatch = 4',
                          output='decode = "threshold"\nthreshold = 0.5')  # fmt: skip
    stack = Stack(slices=9, size=(70, 90), spacing=(4.0, 4.0), gap=14.0, noise=0.0)
    found = segmented(everything(stack, load(path, runtime), runtime), stack)
    dense = np.stack([stack.hounsfield(stack.points(k)) > 0 for k in range(9)])
    assert np.array_equal(found == 1, dense)


def test_statistics_of_a_label_are_those_of_its_voxels(tmp_path, runtime):
    package = load(packages.write(tmp_path, packages.above(0.0)), runtime)
    stack = Stack(slices=9, size=(70, 90), spacing=(4.0, 4.0), gap=14.0)
    outcome = everything(stack, package, runtime)
    values = np.stack([np.frombuffer(stack.dataset(k).PixelData, "<u2").astype(float) - 1024 for k in range(9)])
    dense = values[values > 0]
    report = pydicom.dcmread(io.BytesIO(outcome.sr.content))
    group = next(item for item in report.ContentSequence if item.ValueType == "CONTAINER").ContentSequence[0]
    numbers = [
        float(item.MeasuredValueSequence[0].NumericValue) for item in group.ContentSequence if item.ValueType == "NUM"
    ]
    wanted = [len(dense) * 4 * 4 * 14 / 1000, dense.mean(), dense.std(), dense.min(), dense.max()]
    assert numbers == pytest.approx(wanted, abs=1e-3)


def test_a_classification_reports_presence_and_certainty_of_single_pictures(tmp_path, runtime):
    def radiograph(k, dataset):
        dataset.Modality = "CR"
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID"):
            del dataset[keyword]

    path = packages.write(
        tmp_path, packages.mean_scores(), task="classification", layout="NCHW", shape=(2, 1, 8, 9),
        more=packages.FINDING,
        window='mode = "slice"\nroi = [32, 32]', output='decode = "scores"\nactivation = "sigmoid"',
        input="ops = [{ window = [0.0, 4000.0] }]", edit=lambda text: text.replace('"CT"', '"CR"'),
    )  # fmt: skip
    stack = Stack(
        slices=1, size=(70, 90), change=radiograph, hounsfield=lambda points: np.full(points.shape[:-1], 1000)
    )
    outcome = everything(stack, load(path, runtime), runtime)
    assert outcome.seg is None
    report = pydicom.dcmread(io.BytesIO(outcome.sr.content))
    groups = next(item for item in report.ContentSequence if item.ValueType == "CONTAINER").ContentSequence
    said = [(group.ContentSequence[-1].ConceptNameCodeSequence[0].CodeMeaning,
             group.ContentSequence[-1].ConceptCodeSequence[0].CodeMeaning,
             float(group.ContentSequence[-2].MeasuredValueSequence[0].NumericValue)) for group in groups]  # fmt: skip
    sure = 100 / (1 + np.exp(-0.75))
    assert [one[:2] for one in said] == [("Pneumonia", "Present"), ("Pneumothorax", "Absent")]
    assert [one[2] for one in said] == pytest.approx([sure, 100 - sure], abs=0.1)


def test_padding_is_no_image(tmp_path, runtime):
    def padded(k, dataset):
        dataset.PixelPaddingValue = 0
        pixels = np.frombuffer(dataset.PixelData, "<u2").copy()
        pixels[:500] = 0
        dataset.PixelData = pixels.tobytes()

    path = packages.write(tmp_path, packages.above(-1500.0), input="pad_value = -2000.0")
    stack = Stack(slices=3, size=(40, 50), change=padded, noise=0.0)
    found = segmented(everything(stack, load(path, runtime), runtime), stack)
    assert not found.reshape(3, -1)[:, :500].any()
    assert found.reshape(3, -1)[:, 500:].all()


def test_what_a_model_gives_in_another_shape_fails_for_good(tmp_path, runtime):
    content = packages.model(
        [
            packages.helper.make_node("MaxPool", ["x"], ["p"], kernel_shape=[1, 2, 2], strides=[1, 2, 2]),
            packages.helper.make_node("Cast", ["p"], ["y"], to=packages.TensorProto.UINT8),
        ],
        out_type=packages.TensorProto.UINT8,
    )
    package = load(packages.write(tmp_path, content), runtime)
    with pytest.raises(RunFailed) as raised:
        everything(Stack(slices=3, size=(40, 50)), package, runtime)
    assert (raised.value.code, raised.value.permanent) == ("output_shape", True)


@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [("RescaleType", "ED", "not_hounsfield"), ("RescaleIntercept", None, "not_hounsfield"),
     ("ModalityLUTSequence", [pydicom.Dataset()], "modality_lut")],
)  # fmt: skip
def test_values_whose_meaning_is_not_known_are_not_measured(keyword, value, code, chest, runtime):
    def change(k, dataset):
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)

    with pytest.raises(Unsuitable) as raised:
        everything(Stack(slices=3, size=(16, 16), change=change), chest, runtime)
    assert raised.value.code == code


def test_an_image_in_colour_is_unsuitable(chest, runtime):
    def coloured(k, dataset):
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit, dataset.PixelData = 7, b"\0" * (64 * 64 * 3)

    instances = [instance(Stack(slices=3, size=(64, 64), change=coloured).dataset(k)) for k in range(3)]
    with pytest.raises((Unsuitable, RunFailed)):
        run(chest, [SourceSeries("1.2", instances)], context("0" * 64, WHEN), runtime)


@pytest.mark.parametrize(("axes", "orientation"), [(((1, 0, 0), (0, 1, 0)), "RAS"), (SAGITTAL, "LPS")])
def test_a_box_lies_in_the_patient_where_the_thing_is(axes, orientation, tmp_path, runtime):
    def ball(points):
        inside = ((points - np.array([20, -30, 10])) ** 2).sum(axis=-1) < 24**2
        return np.where(inside, 100, -1000)

    path = packages.write(tmp_path, packages.detector(), task="detection", output='decode = "boxes"\nscore = "s"',
                          input=f'orientation = "{orientation}"\nspacing_mm = [0.0, 1.5, 1.5]')  # fmt: skip
    stack = Stack(slices=50, size=(70, 60), spacing=(3.0, 3.0), gap=3.0, axes=axes, hounsfield=ball, noise=0.0)
    outcome = everything(stack, load(path, runtime), runtime)
    report = pydicom.dcmread(io.BytesIO(outcome.sr.content))
    (group,) = next(item for item in report.ContentSequence if item.ValueType == "CONTAINER").ContentSequence
    faces = [np.reshape(item.GraphicData, (-1, 3)) for item in group.ContentSequence if item.ValueType == "SCOORD3D"]
    assert len(faces) == 6
    assert all(np.array_equal(face[0], face[-1]) for face in faces)
    corners = np.concatenate(faces)
    assert corners.min(axis=0) == pytest.approx([-4, -54, -14], abs=3.1)
    assert corners.max(axis=0) == pytest.approx([44, -6, 34], abs=3.1)
    assert float(group.ContentSequence[-1].MeasuredValueSequence[0].NumericValue) == pytest.approx(90)
    assert outcome.seg is None


def test_errors_and_evidence_hold_nothing_of_the_patient(chest, runtime):
    def planted(breaks):
        def change(k, dataset):
            dataset.PatientName, dataset.PatientID, dataset.AccessionNumber = "CANARY^NAME", "CANARYID", "CANARYACC"
            dataset.PatientBirthDate = "19010203"
            breaks(k, dataset)

        return change

    def cut(k, dataset):
        dataset.PixelData = dataset.PixelData[:10]

    def moved(k, dataset):
        dataset.ImagePositionPatient = [0, 0, 0]

    def wrong(k, dataset):
        dataset.RescaleType = "CANARY"

    def fine(k, dataset):
        dataset.FrameOfReferenceUID = f"1.2.{k}"

    said = []
    for breaks in (cut, moved, wrong, fine):
        stack = Stack(slices=6, size=(64, 64), spacing=(6.0, 6.0), gap=28.0, change=planted(breaks))
        try:
            said += everything(stack, chest, runtime).evidence
        except (Unsuitable, RunFailed) as error:
            said.append(error.message)
    assert len(said) == 4
    assert not any("CANARY" in sentence or "19010203" in sentence for sentence in said)
