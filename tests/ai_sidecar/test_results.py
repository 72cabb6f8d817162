"""SEG and SR through other doors: highdicom reads them, dciodvfy finds no error, nothing of the patient is lost."""

import io
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from ai_sidecar.package import load
from ai_sidecar.pipeline import run
from ai_sidecar.results.codes import cielab
from ai_sidecar.results.seg import packed
from ai_sidecar.runtime import Runtime
from pacs.domain.uids import AI_DEVICE_UID
from tests.ai_sidecar import packages
from tests.ai_sidecar.phantom import Stack, context, dice, labels_at

MODEL = Path(__file__).parents[2] / "config" / "models" / "ct-lung-body" / "1.0.0"
WHEN = datetime(2026, 3, 4, 23, 30, tzinfo=UTC)
SERIES, EARLIER = "2.25.77", "2.25.78"
ODD = Stack(slices=6, size=(61, 83), spacing=(5.0, 5.0), gap=20.0)  # rows x columns is no multiple of 8
PREDECESSOR = {"role": "sr", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.88.34", "sop_instance_uid": EARLIER,
               "series_uid": SERIES}  # fmt: skip


@pytest.fixture(scope="module")
def runtime():
    return Runtime("cpu", threads=2)


@pytest.fixture(scope="module")
def results(runtime, tmp_path_factory):
    """A segmentation and a report of the reference model, as files."""
    folder = tmp_path_factory.mktemp("results")
    stack = Stack(slices=12, size=(96, 128), spacing=(3.0, 3.0), gap=14.0)
    job = context("ab" * 32, WHEN, predecessor=[PREDECESSOR])
    outcome = run(load(MODEL, runtime), [stack.series()], job, runtime)
    for file in outcome.files:
        (folder / f"{file.role}.dcm").write_bytes(file.content)
    return folder, stack


@pytest.fixture(scope="module")
def odd(runtime, tmp_path_factory):
    """A segmentation whose frames do not end with a byte."""
    folder = tmp_path_factory.mktemp("odd")
    package = load(packages.write(folder, packages.above(-500.0)), runtime)
    outcome = run(package, [ODD.series()], context("cd" * 32, WHEN), runtime)
    (folder / "seg.dcm").write_bytes(outcome.seg.content)
    (folder / "sr.dcm").write_bytes(outcome.sr.content)
    return folder


def test_highdicom_reads_segments_and_their_places(results):
    folder, _ = results
    seg = hd.seg.segread(folder / "seg.dcm")
    assert seg.segmentation_type == hd.seg.SegmentationTypeValues.BINARY
    volume = seg.get_volume(combine_segments=True)
    affine = volume.affine
    indices = np.stack(np.meshgrid(*map(np.arange, volume.array.shape), indexing="ij"), -1)
    points = indices @ affine[:3, :3].T + affine[:3, 3]
    truth = labels_at(points)
    assert all(dice(volume.array, truth, label) > 0.95 for label in (1, 2, 3))


def test_highdicom_reads_the_codes_of_segments(results):
    seg = hd.seg.segread(results[0] / "seg.dcm")
    right = seg.get_segment_description(2)
    assert right.segment_label == "Right lung"
    assert right.segmented_property_type == codes.SCT.Lung
    assert (
        right.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == "24028007"
    )
    assert right.algorithm_type == hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC
    assert right.algorithm_identification.name == "ct-lung-body"
    assert seg.get_segment_numbers(segmented_property_type=codes.SCT.Lung) == [2, 3]


def test_highdicom_finds_measurement_groups_that_point_at_segments(results):
    report = hd.sr.srread(results[0] / "sr.dcm")
    groups = report.content.get_volumetric_roi_measurement_groups()
    seg = pydicom.dcmread(results[0] / "seg.dcm")
    assert [group.finding_type.meaning for group in groups] == ["Trunk", "Lung", "Lung"]
    for number, group in enumerate(groups, 1):
        assert group.referenced_segment.referenced_sop_instance_uid == seg.SOPInstanceUID
        assert group.referenced_segment.referenced_segment_numbers == [number]
        names = [measurement.name.meaning for measurement in group.get_measurements()]
        assert names == ["Volume", "Attenuation Coefficient"]
        assert group.tracking_uid == seg.SegmentSequence[number - 1].TrackingUID
    lungs = [group.get_measurements(name=codes.SCT.Volume)[0] for group in groups]
    assert {one.unit.value for one in lungs} == {"mL"}


def test_the_report_lists_every_input_and_the_segmentation(results):
    folder, stack = results
    report, seg = pydicom.dcmread(folder / "sr.dcm"), pydicom.dcmread(folder / "seg.dcm")
    series = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    named = {item.ReferencedSOPInstanceUID for one in series for item in one.ReferencedSOPSequence}
    assert named == {one.sop_instance_uid for one in stack.instances()} | {seg.SOPInstanceUID}
    listed = {item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert listed == {one.sop_instance_uid for one in stack.instances()}


def test_a_report_names_the_report_that_it_replaces(results):
    report = pydicom.dcmread(results[0] / "sr.dcm")
    series = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert (series.SeriesInstanceUID, series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) == (SERIES, EARLIER)


@pytest.mark.parametrize("role", ["seg", "sr"])
def test_patient_study_and_character_set_are_those_of_the_images(results, role):
    folder, stack = results
    result, source = pydicom.dcmread(folder / f"{role}.dcm"), stack.instances()[0].dataset
    for keyword in ("SpecificCharacterSet", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate",
                    "StudyTime", "StudyInstanceUID", "AccessionNumber", "ReferringPhysicianName"):  # fmt: skip
        assert result[keyword].value == source[keyword].value
    assert result.SeriesInstanceUID != source.SeriesInstanceUID


@pytest.mark.parametrize("role", ["seg", "sr"])
def test_results_say_what_made_them_and_what_they_are_not_for(results, role):
    result = pydicom.dcmread(results[0] / f"{role}.dcm")
    assert "not for diagnosis" in result.SeriesDescription
    assert result.DeviceUID == AI_DEVICE_UID
    model, sidecar = result.ContributingEquipmentSequence
    assert (model.ManufacturerModelName, model.SoftwareVersions) == ("ct-lung-body", "1.0.0")
    assert "sha256" in model.ContributionDescription
    assert sidecar.Manufacturer == "Filmroom"
    assert (result.ContentDate, result.ContentTime) == ("20260304", "233000")


def test_the_report_is_complete_preliminary_and_unverified(results):
    report = pydicom.dcmread(results[0] / "sr.dcm")
    assert (report.CompletionFlag, report.PreliminaryFlag, report.VerificationFlag) == (
        "COMPLETE", "PRELIMINARY", "UNVERIFIED",
    )  # fmt: skip


def test_times_are_written_in_the_zone_of_the_images(runtime):
    def zoned(k, dataset):
        dataset.TimezoneOffsetFromUTC = "+0200"

    stack = Stack(slices=12, size=(64, 64), spacing=(6.0, 6.0), gap=14.0, change=zoned)
    outcome = run(load(MODEL, runtime), [stack.series()], context("ab" * 32, WHEN), runtime)
    report = pydicom.dcmread(io.BytesIO(outcome.sr.content))
    assert (report.ContentDate, report.ContentTime, report.TimezoneOffsetFromUTC) == ("20260305", "013000", "+0200")


def test_images_that_say_little_get_results_all_the_same(runtime):
    def bare(k, dataset):
        for keyword in ("StudyDate", "StudyTime", "AccessionNumber", "PatientBirthDate", "SeriesNumber", "StudyID",
                        "FrameOfReferenceUID", "SpecificCharacterSet", "PatientName", "SliceThickness"):  # fmt: skip
            del dataset[keyword]

    stack = Stack(slices=12, size=(64, 64), spacing=(6.0, 6.0), gap=14.0, change=bare)
    outcome = run(load(MODEL, runtime), [stack.series()], context("ab" * 32, WHEN, evidence=["Größe ist Φ"]), runtime)
    seg, report = (pydicom.dcmread(io.BytesIO(file.content)) for file in outcome.files)
    assert seg.FrameOfReferenceUID.startswith("2.25.")
    assert report.StudyDate == ""
    assert report.ContentSequence[-2].TextValue == "Groe ist"


def test_positions_longer_than_their_vr_are_cut_to_it(runtime):
    def long(k, dataset):
        dataset.ImagePositionPatient = ["-201.1234567", "-59", f"{-469.800049 + 14.123456789 * k:.11g}"]

    stack = Stack(slices=12, size=(64, 64), spacing=(6.0, 6.0), gap=14.123456789, change=long)
    outcome = run(load(MODEL, runtime), [stack.series()], context("ab" * 32, WHEN), runtime)
    raw = pydicom.dcmread(io.BytesIO(outcome.sr.content))
    assert raw.SOPClassUID
    if outcome.seg:
        seg = pydicom.dcmread(io.BytesIO(outcome.seg.content))
        texts = [str(one) for one in seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing]
        assert all(len(text) <= 16 for text in texts)


def test_frames_are_packed_across_bytes(odd):
    seg = pydicom.dcmread(odd / "seg.dcm")
    want = np.stack([np.frombuffer(ODD.dataset(k).PixelData, "<u2").reshape(ODD.size) > 524 for k in range(6)])
    assert np.array_equal(seg.pixel_array.astype(bool), want)
    assert len(seg.PixelData) == -(-want.size // 8) + (-(-want.size // 8)) % 2


def test_packed_frames_join_bit_by_bit():
    frames = [np.array([1, 0, 1], bool), np.array([1, 1, 0], bool), np.array([0, 1, 1], bool)]
    joined = packed([np.packbits(frame, bitorder="little").tobytes() for frame in frames], 3)
    bits = np.unpackbits(np.frombuffer(joined, np.uint8), bitorder="little")
    assert bits[:9].tolist() == np.concatenate(frames).astype(int).tolist()
    assert len(joined) == 2


def test_a_label_map_holds_the_same_voxels_as_binary_segments(runtime, tmp_path):
    stack = Stack(slices=6, size=(41, 51), spacing=(6.0, 6.0), gap=20.0)
    second = packages.LABEL.replace("index = 1", "index = 2").replace("Dense", "Denser")
    found = {}
    for form in ("binary", "labelmap"):
        more = f'{packages.LABEL}{second}\n[result]\nseg = "{form}"\n'
        path = packages.write(tmp_path / form, packages.two_levels(-500.0, 30.0), more=more)
        outcome = run(load(path, runtime), [stack.series()], context("ef" * 32, WHEN), runtime)
        (tmp_path / f"{form}.dcm").write_bytes(outcome.seg.content)
        report = pydicom.dcmread(io.BytesIO(outcome.sr.content))
        assert report.SOPClassUID.endswith("88.34")
        found[form] = hd.seg.segread(tmp_path / f"{form}.dcm").get_volume(combine_segments=True).array
    assert np.array_equal(found["binary"], found["labelmap"])
    assert set(np.unique(found["labelmap"])) == {0, 1, 2}
    seg = pydicom.dcmread(tmp_path / "labelmap.dcm")
    assert (seg.SegmentationType, seg.SOPClassUID) == ("LABELMAP", "1.2.840.10008.5.1.4.1.1.66.7")
    assert [item.SegmentNumber for item in seg.SegmentSequence] == [0, 1, 2]


@pytest.mark.parametrize(
    ("colour", "lab"),
    [((0, 0, 0), (0, 0, 0)), ((255, 255, 255), (100, 0, 0)), ((255, 0, 0), (54.29, 80.80, 69.89)),
     ((0, 0, 255), (29.57, 68.30, -112.03))],
)  # fmt: skip
def test_colours_become_cielab_with_the_white_of_d50(colour, lab):
    scaled = (lab[0] * 655.35, (lab[1] + 128) * 257, (lab[2] + 128) * 257)
    assert cielab(colour) == pytest.approx(scaled, abs=8)


@pytest.fixture(scope="module")
def reports(runtime, tmp_path_factory):
    """Reports of a detection and of a classification."""
    folder = tmp_path_factory.mktemp("reports")
    stack = Stack(slices=6, size=(40, 50), spacing=(6.0, 6.0), gap=20.0)
    packs = {
        "boxes": packages.write(folder / "a", packages.detector(), task="detection",
                                output='decode = "boxes"\nscore = "s"'),
        "scores": packages.write(folder / "b", packages.mean_scores(), task="classification", layout="NCHW",
                                 shape=(2, 1, 8, 9), more=packages.FINDING, window='mode = "slice"',
                                 output='decode = "scores"\nactivation = "sigmoid"'),
    }  # fmt: skip
    for name, path in packs.items():
        outcome = run(load(path, runtime), [stack.series()], context(name[0] * 64, WHEN), runtime)
        (folder / f"{name}.dcm").write_bytes(outcome.sr.content)
    return folder


def test_highdicom_finds_the_faces_of_boxes(reports):
    report = hd.sr.srread(reports / "boxes.dcm")
    (group,) = report.content.get_volumetric_roi_measurement_groups(graphic_type=hd.sr.GraphicTypeValues3D.POLYGON)
    assert group.finding_type.meaning == "Lung"
    assert len(group.roi.graphic_data if hasattr(group.roi, "graphic_data") else group.roi) == 6
    assert [one.name.meaning for one in group.get_measurements()] == ["Certainty of Finding"]


def test_highdicom_finds_what_a_classification_says(reports):
    report = hd.sr.srread(reports / "scores.dcm")
    groups = report.content.get_image_measurement_groups()
    said = [[(one.name.meaning, one.value.meaning) for one in group.get_qualitative_evaluations()] for group in groups]
    assert [one[0][0] for one in said] == ["Pneumonia", "Pneumothorax"]


def errors_of(path):
    """What dciodvfy calls an error."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")
    said = subprocess.run(["dciodvfy", path], check=False, capture_output=True, text=True, timeout=60)
    return [line for line in (said.stderr + said.stdout).splitlines() if line.startswith("Error")]


@pytest.mark.interop
@pytest.mark.parametrize("role", ["seg", "sr"])
def test_dciodvfy_finds_no_error(results, odd, role):
    assert errors_of(results[0] / f"{role}.dcm") + errors_of(odd / f"{role}.dcm") == []


@pytest.mark.interop
@pytest.mark.parametrize("name", ["boxes", "scores"])
def test_dciodvfy_finds_no_error_in_reports_without_segments(reports, name):
    assert errors_of(reports / f"{name}.dcm") == []
