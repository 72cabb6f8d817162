"""The invented chest is a valid, repeatable CT with its anatomy where it says."""

import io
import shutil
import subprocess

import numpy as np
import pydicom
import pytest

from pacs.services.phantom import LUNG, ChestStudy, files

STUDY = ChestStudy("test", "ID-1", "Müller^Jürgen", slices=6, size=64)


def test_same_seed_gives_same_bytes_and_another_seed_other_uids():
    assert list(files(STUDY)) == list(files(STUDY))
    assert ChestStudy("other", "ID-1", "X").study_uid != STUDY.study_uid


def test_slices_share_a_study_and_differ_in_position():
    slices = [pydicom.dcmread(io.BytesIO(data)) for data in files(STUDY)]
    assert len({ds.StudyInstanceUID for ds in slices}) == 1
    assert len({ds.SOPInstanceUID for ds in slices}) == len({ds.ImagePositionPatient[2] for ds in slices}) == 6
    assert str(slices[0].PatientName) == "Müller^Jürgen"


def test_lungs_lie_left_and_right_in_the_middle_slice():
    middle = pydicom.dcmread(io.BytesIO(list(files(STUDY))[3]))
    hounsfield = middle.pixel_array.astype(int) + int(middle.RescaleIntercept)
    lung = np.abs(hounsfield - LUNG) < 60
    assert lung[32, 20]
    assert lung[32, 44]
    assert not lung[32, 32]


@pytest.mark.interop
def test_dciodvfy_finds_no_error(tmp_path):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian package dicom3tools)")
    path = tmp_path / "slice.dcm"
    path.write_bytes(next(files(STUDY)))
    said = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False).stderr
    assert "Error" not in said, said
