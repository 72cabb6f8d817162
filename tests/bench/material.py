"""The objects that are sent: small and large CT slices, as many as wanted, each with UIDs of its own."""

import io
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import generate_uid

from pacs.services.phantom import ChestStudy, files

SMALL, LARGE = 64, 512
PER_STUDY = 50


def make(folder: Path, count: int, size: int, seed: str) -> list[Path]:
    """`count` slices of `size` x `size` in studies of 50 below the folder. The same seed gives the same files."""
    folder.mkdir(parents=True, exist_ok=True)
    template = pydicom.dcmread(io.BytesIO(next(files(ChestStudy("bench", "B", "Bench^Model", slices=40, size=size)))))
    pixels = np.frombuffer(template.PixelData, "<u2").copy()
    paths = []
    for index in range(count):
        study, slice_number = divmod(index, PER_STUDY)
        _identify(template, seed, study, slice_number)
        pixels[0] = index % 4096
        template.PixelData = pixels.tobytes()
        path = folder / f"{index:06}.dcm"
        template.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _identify(dataset: pydicom.Dataset, seed: str, study: int, slice_number: int) -> None:
    def uid(*parts: object) -> str:
        return generate_uid(entropy_srcs=["/".join([seed, *map(str, parts)])])

    dataset.PatientID, dataset.PatientName = f"{seed}-{study % 40:05}", f"Bench{study % 40}^Patient"
    dataset.AccessionNumber = f"{seed[:6]}{study:06}"
    dataset.StudyDate = f"2026{study % 12 + 1:02}{study % 28 + 1:02}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid("study", study), uid("series", study)
    dataset.SOPInstanceUID = uid("instance", study, slice_number)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.InstanceNumber = slice_number + 1
    dataset.ImagePositionPatient[2] = f"{slice_number * 5.0:.1f}"
