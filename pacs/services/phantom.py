"""An invented chest, as CT slices: the material of `demo seed` and `smoke`.

A body of soft tissue with two lungs, a heart, a spine and a table below it, in Hounsfield units. Everything follows
from the seed, UIDs too, so the same study made twice is the same bytes.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

AIR, FAT, TISSUE, LUNG, BONE, BLOOD, TABLE = -1000, -90, 45, -840, 650, 60, -350
FIELD_OF_VIEW_MM = 380.0
HEIGHT_MM = 240.0
INTERCEPT = -1024


@dataclass(frozen=True, slots=True)
class ChestStudy:
    """What one invented study is made of. `seed` decides anatomy and UIDs; the rest is written as it stands."""

    seed: str
    patient_id: str
    patient_name: str
    sex: str = "O"
    birth_date: str = "19700101"
    study_date: str = "20260105"
    study_time: str = "093000"
    accession: str = ""
    description: str = "Chest CT (invented)"
    slices: int = 48
    size: int = 256

    def uid(self, *parts: object) -> str:
        """A UID that follows from the seed (PS3.5 B.2: `2.25.` and 128 bits)."""
        text = "/".join(map(str, ("filmroom-phantom", self.seed, *parts)))
        return f"2.25.{int.from_bytes(sha256(text.encode()).digest()[:16], 'big')}"

    @property
    def study_uid(self) -> str:
        """The Study Instance UID."""
        return self.uid("study")


def files(study: ChestStudy) -> Iterator[bytes]:
    """The study's slices, feet to head, each a complete Part 10 file in Explicit VR Little Endian."""
    anatomy = _Anatomy(study)
    for index in range(study.slices):
        yield _part10(study, index, anatomy.slice(index))


class _Anatomy:
    """Ellipsoids in patient space (LPS, millimetres); proportions follow from the seed."""

    def __init__(self, study: ChestStudy) -> None:
        self.study = study
        seed = int.from_bytes(sha256(study.seed.encode()).digest()[:8], "big")
        self.random = np.random.default_rng(seed)
        self.width, self.depth = self.random.uniform(150, 172), self.random.uniform(100, 118)
        self.lung_height = self.random.uniform(92, 106)
        self.noise_seed = int(self.random.integers(2**31))
        spacing = FIELD_OF_VIEW_MM / study.size
        axis = ((np.arange(study.size) + 0.5) * spacing - FIELD_OF_VIEW_MM / 2).astype(np.float32)
        self.x, self.y = np.meshgrid(axis, axis)

    def slice(self, index: int) -> NDArray[np.int16]:
        """Hounsfield units of one slice, rows to the back and columns to the patient's left."""
        z = _position(self.study, index)
        image = np.full(self.x.shape, AIR, np.int16)
        image[self._table()] = TABLE
        image[self._ellipse(0, 0, self.width, self.depth)] = FAT
        image[self._ellipse(0, 0, self.width - 12, self.depth - 12)] = TISSUE
        for side in (-1, 1):
            image[self._lung(side, z)] = LUNG
        image[self._ellipsoid(z, (22, -30, -35), (42, 36, 45))] = BLOOD
        image[self._ellipse(0, self.depth * 0.62, 16, 14)] = BONE
        noise = np.random.default_rng([self.noise_seed, index]).normal(0, 9, image.shape)
        return np.clip(image + noise, INTERCEPT, 3000).astype(np.int16)

    def _ellipse(self, x: float, y: float, width: float, depth: float) -> NDArray[np.bool_]:
        return ((self.x - x) / width) ** 2 + ((self.y - y) / depth) ** 2 < 1

    def _ellipsoid(
        self, z: float, centre: tuple[float, float, float], radii: tuple[float, float, float]
    ) -> NDArray[np.bool_]:
        (x, y, middle), (width, depth, height) = centre, radii
        left = 1 - ((z - middle) / height) ** 2
        if left <= 0:
            return np.zeros(self.x.shape, bool)
        return self._ellipse(x, y, width * left**0.5, depth * left**0.5)

    def _lung(self, side: int, z: float) -> NDArray[np.bool_]:
        # the left lung (towards +x in LPS) is the narrower one: the heart takes its room
        width = 54.0 if side < 0 else 48.0
        return self._ellipsoid(z, (side * 76.0, -2, 8), (width, self.depth * 0.66, self.lung_height))

    def _table(self) -> NDArray[np.bool_]:
        top = self.depth + 8
        return (self.y > top) & (self.y < top + 10) & (np.abs(self.x) < 170)


def _position(study: ChestStudy, index: int) -> float:
    """Height of a slice's centre above the middle of the chest, in millimetres."""
    spacing = HEIGHT_MM / study.slices
    return (index + 0.5) * spacing - HEIGHT_MM / 2


def _part10(study: ChestStudy, index: int, hounsfield: NDArray[np.int16]) -> bytes:
    sop_instance_uid = study.uid("instance", index)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.ImplementationClassUID = UID(ChestStudy("implementation", "", "").uid())
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, sop_instance_uid
    _identify(dataset, study, index)
    _place(dataset, study, index)
    _picture(dataset, hounsfield)
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def _identify(dataset: Dataset, study: ChestStudy, index: int) -> None:
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = dataset.AcquisitionDate = study.study_date
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = dataset.AcquisitionTime = study.study_time
    dataset.AccessionNumber = study.accession
    dataset.Modality = "CT"
    dataset.Manufacturer = "Filmroom"
    dataset.ManufacturerModelName = "Invented chest"
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = study.description
    dataset.SeriesDescription = "Axial"
    dataset.PatientName, dataset.PatientID = study.patient_name, study.patient_id
    dataset.PatientBirthDate, dataset.PatientSex = study.birth_date, study.sex
    dataset.BodyPartExamined = "CHEST"
    dataset.PatientPosition = "HFS"
    dataset.KVP = "120"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study.study_uid, study.uid("series")
    dataset.StudyID, dataset.SeriesNumber, dataset.AcquisitionNumber = "1", 1, 1
    dataset.InstanceNumber = index + 1


def _place(dataset: Dataset, study: ChestStudy, index: int) -> None:
    spacing = FIELD_OF_VIEW_MM / study.size
    corner = spacing / 2 - FIELD_OF_VIEW_MM / 2
    dataset.SliceThickness = f"{HEIGHT_MM / study.slices:.4f}"
    dataset.ImagePositionPatient = [f"{corner:.4f}", f"{corner:.4f}", f"{_position(study, index):.4f}"]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.FrameOfReferenceUID = study.uid("frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.SliceLocation = f"{_position(study, index):.4f}"
    dataset.PixelSpacing = [f"{spacing:.6f}", f"{spacing:.6f}"]


def _picture(dataset: Dataset, hounsfield: NDArray[np.int16]) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = hounsfield.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.WindowCenter, dataset.WindowWidth = "40", "400"
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = str(INTERCEPT), "1", "HU"
    dataset.PixelData = (hounsfield.astype(np.int32) - INTERCEPT).astype("<u2").tobytes()
