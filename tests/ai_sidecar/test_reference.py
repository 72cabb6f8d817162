"""The reference model: its package is what the script makes, and it finds lungs in chests that it never saw."""

import io
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import pydicom
import pytest

from ai_sidecar.facts import attributes_of
from ai_sidecar.package import check, load
from ai_sidecar.pipeline import run
from ai_sidecar.ports import SourceSeries, Unsuitable
from ai_sidecar.reference import ct_lung_body
from ai_sidecar.runtime import Runtime
from ai_sidecar.volume import arrange
from tests.ai_sidecar.phantom import Instance, context, dice

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "config" / "models" / ct_lung_body.NAME / ct_lung_body.VERSION
DATA = os.environ.get("FILMROOM_TEST_DATA", "")
needs_data = pytest.mark.skipif(not DATA, reason="FILMROOM_TEST_DATA is not set")
WHEN = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
LABELS = {"Body": 1, "Right lung": 2, "Left lung": 3}


def test_the_package_in_the_repository_is_what_the_script_makes(tmp_path):
    assert ct_lung_body.main([str(tmp_path)]) == 0
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    kept = {path.relative_to(MODEL.parents[1]): path.read_bytes() for path in MODEL.rglob("*") if path.is_file()}
    assert made == kept


def test_the_package_passes_its_checks_and_is_small():
    assert check(MODEL, Runtime("cpu")) == []
    assert sum(path.stat().st_size for path in MODEL.rglob("*") if path.is_file()) < 100_000


def test_the_model_is_valid_onnx():
    onnx.checker.check_model(onnx.load(MODEL / "model.onnx"), full_check=True)


def test_the_script_says_how_it_is_called(capsys):
    assert ct_lung_body.main([]) == 2
    assert "OUTDIR" in capsys.readouterr().err


def read(folder):
    """A folder of one series, by position."""
    made = []
    for path in sorted(folder.glob("*.dcm")):
        content = path.read_bytes()
        made.append(Instance(pydicom.dcmread(io.BytesIO(content)), content))
    return sorted(made, key=lambda one: float(one.dataset.ImagePositionPatient[2]))


def found_labels(instances, runtime):
    series = SourceSeries(str(instances[0].dataset.SeriesInstanceUID), instances)
    outcome = run(load(MODEL, runtime), [series], context("0" * 64, WHEN), runtime)
    seg = pydicom.dcmread(io.BytesIO(outcome.seg.content))
    names = {item.SegmentNumber: LABELS[item.SegmentLabel] for item in seg.SegmentSequence}
    heights = [float(one.dataset.ImagePositionPatient[2]) for one in instances]
    found = np.zeros((len(instances), seg.Rows, seg.Columns), np.uint8)
    for frame, groups in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        height = float(groups.PlanePositionSequence[0].ImagePositionPatient[2])
        k = int(np.argmin(np.abs(np.array(heights) - height)))
        found[k][frame.astype(bool)] = names[groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
    return found, outcome


@needs_data
@pytest.mark.data
@pytest.mark.parametrize("seed", [4, 11])
def test_an_invented_chest_is_segmented_with_a_dice_of_98_percent(seed, tmp_path):
    command = [sys.executable, Path(DATA) / "make_study.py", tmp_path, "--slices", "40", "--size", "256", "--mask",
               "--seed", str(seed)]  # fmt: skip
    subprocess.run(command, check=True, timeout=120)
    found, _ = found_labels(read(tmp_path / "p00000" / "s00" / "e00"), Runtime("cpu"))
    truth = np.load(tmp_path / "p00000" / "labels.npy")
    assert all(dice(found, truth, label) >= 0.98 for label in (1, 2, 3))


def hounsfield(instances):
    return np.stack([one.dataset.pixel_array * float(one.dataset.RescaleSlope) + float(one.dataset.RescaleIntercept)
                     for one in instances])  # fmt: skip


def grown(seed, within):
    """The part of a mask that is connected to the seed (in three axes), by growing one voxel at a time."""
    region = seed & within
    while True:
        bigger = region.copy()
        for axis in range(3):
            for one, other in ((slice(1, None), slice(None, -1)), (slice(None, -1), slice(1, None))):
                to = tuple(one if n == axis else slice(None) for n in range(3))
                of = tuple(other if n == axis else slice(None) for n in range(3))
                bigger[to] |= region[of]
        bigger &= within
        if np.array_equal(bigger, region):
            return region
        region = bigger


def eroded(mask):
    """A mask without its outermost voxels, in the plane."""
    inner = mask.copy()
    for axis, step in ((1, 1), (1, -1), (2, 1), (2, -1)):
        inner &= np.roll(mask, step, axis)
    return inner


def airy_lungs(values):
    """Lungs by another road: air inside the body without bronchi, grown from the middle of each half."""
    air = values < -400
    border = np.zeros_like(air)
    border[:, [0, -1], :] = border[:, :, [0, -1]] = True
    inside = air & ~grown(border, air)
    core = eroded(inside)
    lungs = []
    middle = values.shape[2] // 2
    for half in (slice(None, middle), slice(middle, None)):
        deep = core
        while eroded(deep)[:, :, half].any():
            deep = eroded(deep)
        seed = np.zeros_like(core)
        seed[:, :, half] = deep[:, :, half]
        lung = grown(seed, core)
        lungs.append(inside & ~eroded(~lung))
    return lungs


@needs_data
@pytest.mark.data
def test_a_real_chest_fed_feet_first_has_its_lungs_on_the_right_sides():
    instances = read(Path(DATA) / "ct_chest")
    found, outcome = found_labels(instances, Runtime("cpu"))
    right, left = airy_lungs(hounsfield(instances)[:, ::2, ::2])
    dices = [dice(found[:, ::2, ::2] == label, lung, True) for label, lung in ((2, right), (3, left))]
    assert min(dices) >= 0.9
    columns = [np.argwhere(found == label)[:, 2].mean() for label in (2, 3)]
    assert columns[0] < 256 < columns[1]
    assert "28 frames of reference" in outcome.evidence[0]


@needs_data
@pytest.mark.data
def test_a_series_of_time_points_is_never_taken_for_a_volume():
    attributes = []
    for path in sorted((Path(DATA) / "mr_fmri").glob("*.dcm")):
        attributes.append(attributes_of(pydicom.dcmread(path, stop_before_pixels=True)))
    with pytest.raises(Unsuitable) as raised:
        arrange(attributes, "1.2")
    assert raised.value.code == "duplicate_positions"


@needs_data
@pytest.mark.data
def test_no_real_series_crashes_the_geometry():
    series = {}
    for path in sorted(Path(DATA).rglob("*.dcm")):
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
        except pydicom.errors.InvalidDicomError:
            continue
        series.setdefault(str(dataset.get("SeriesInstanceUID", "")), []).append(attributes_of(dataset))
    said = {}
    for uid, attributes in series.items():
        try:
            said[uid] = arrange(attributes, uid or "1.2").grid.shape
        except Unsuitable as reason:
            said[uid] = reason.code
    assert sum(isinstance(one, tuple) for one in said.values()) > 3
