"""A chest that is a formula in patient space, so that any stack of slices through it has a known answer.

Points are LPS millimetres. Labels: 0 outside, 1 body, 2 right lung, 3 left lung; the left lung is the smaller one.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from ai_sidecar.facts import attributes_of
from ai_sidecar.ports import InstanceFacts, JobContext, SeriesFacts, SourceSeries, derived_uid

AXIAL = ((1, 0, 0), (0, 1, 0))
SAGITTAL = ((0, 1, 0), (0, 0, -1))
CORONAL = ((1, 0, 0), (0, 0, -1))
FEET_FIRST_PRONE = ((-1, 0, 0), (0, -1, 0))


def labels_at(points):
    """The truth at points (..., 3)."""
    x, y, z = np.moveaxis(points, -1, 0)
    body = ((x / 150) ** 2 + (y / 105) ** 2 < 1) & (np.abs(z) < 400)
    found = body.astype(np.uint8)
    found[((x + 68) / 48) ** 2 + ((y - 4) / 70) ** 2 + (z / 85) ** 2 < 1] = 2
    found[((x - 74) / 38) ** 2 + ((y - 4) / 62) ** 2 + ((z + 8) / 72) ** 2 < 1] = 3
    return found


def hounsfield_at(points):
    """Hounsfield units without noise: also a table, a nodule and vessels in the right lung, gas in the bowel."""
    x, y, z = np.moveaxis(points, -1, 0)
    labels = labels_at(points)
    values = np.select([labels == 0, labels == 1], [-1000.0, 42.0], -850.0).astype(np.float32)
    values[(y > 116) & (y < 122) & (np.abs(x) < 190)] = -60
    values[(x + 60) ** 2 + (y - 10) ** 2 + (z - 20) ** 2 < 49] = 50
    values[((x + 80) ** 2 + (y + 20) ** 2 < 4) & (labels == 2)] = 30
    values[((x - 20) / 22) ** 2 + ((y + 50) / 12) ** 2 + ((z + 95) / 12) ** 2 < 1] = -995
    return values


@dataclass
class Instance:
    """One slice as the pipeline takes it, from memory."""

    dataset: Dataset
    content: bytes

    sop_class_uid = property(lambda self: str(self.dataset.SOPClassUID))
    sop_instance_uid = property(lambda self: str(self.dataset.SOPInstanceUID))
    transfer_syntax_uid = property(lambda self: str(self.dataset.file_meta.TransferSyntaxUID))
    data_sha256 = property(lambda self: derived_uid(self.sop_instance_uid, "digest")[5:])

    def read(self):
        return self.content


@dataclass
class Stack:
    """Slices through the phantom: the first voxel at `corner`, `gap` mm along the normal times `direction`."""

    slices: int = 24
    size: tuple[int, int] = (128, 160)
    spacing: tuple[float, float] = (2.0, 2.4)
    gap: float = 7.0
    axes: tuple[Sequence[float], Sequence[float]] = AXIAL
    numbering: int = 1  # -1: instance numbers run against the normal
    noise: float = 8.0
    seed: int = 7
    change: Callable[[int, Dataset], None] = lambda k, dataset: None
    hounsfield: Callable = field(default=hounsfield_at)

    def __post_init__(self):
        self.row, self.column = (np.array(axis, float) / np.linalg.norm(axis) for axis in self.axes)
        self.normal = np.cross(self.row, self.column)
        extent = self.row * (self.size[1] - 1) * self.spacing[1] + self.column * (self.size[0] - 1) * self.spacing[0]
        self.corner = -(extent + self.normal * (self.slices - 1) * self.gap) / 2

    def position(self, k):
        return self.corner + k * self.gap * self.normal

    def points(self, k):
        """Patient coordinates of the voxel centres of a slice, (rows, columns, 3)."""
        rows, columns = np.mgrid[0 : self.size[0], 0 : self.size[1]]
        right = columns[..., None] * self.spacing[1] * self.row
        return self.position(k) + right + rows[..., None] * self.spacing[0] * self.column

    def truth(self):
        """Labels (slice along the normal, row, column)."""
        return np.stack([labels_at(self.points(k)) for k in range(self.slices)])

    def dataset(self, k):
        values = self.hounsfield(self.points(k))
        values = values + self.noise * np.random.default_rng([self.seed, k]).standard_normal(values.shape)
        dataset = header(self.seed, k)
        dataset.InstanceNumber = k + 1 if self.numbering > 0 else self.slices - k
        dataset.ImagePositionPatient = [f"{one:.4f}" for one in self.position(k)]
        dataset.ImageOrientationPatient = [f"{one:.8f}" for one in (*self.row, *self.column)]
        dataset.PixelSpacing = [f"{one:g}" for one in self.spacing]
        dataset.SliceThickness = f"{self.gap:g}"
        dataset.Rows, dataset.Columns = self.size
        dataset.PixelData = (np.clip(values, -1024, 3000).round() + 1024).astype("<u2").tobytes()
        self.change(k, dataset)
        return dataset

    def instances(self):
        return [instance(self.dataset(k)) for k in range(self.slices)]

    def series(self, order=None):
        """The series, its instances in any order."""
        made = self.instances()
        return SourceSeries(str(made[0].dataset.SeriesInstanceUID), [made[n] for n in order] if order else made)


def header(seed, k):
    """A CT slice without geometry and pixels."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, UID(derived_uid(f"phantom {seed}", f"slice {k}"))
    dataset.StudyInstanceUID = UID(derived_uid(f"phantom {seed}", "study"))
    dataset.SeriesInstanceUID = UID(derived_uid(f"phantom {seed}", "series"))
    dataset.FrameOfReferenceUID = UID(derived_uid(f"phantom {seed}", "frame"))
    dataset.PatientName, dataset.PatientID = "Φαντάσμα^Ένα", f"PH-{seed}"
    dataset.PatientBirthDate, dataset.PatientSex = "19500102", "O"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20260203", "101112", "1"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "ACC1", "Doe^Jane"
    dataset.StudyDescription, dataset.SeriesDescription = "Thorax", "Axial"
    dataset.Modality, dataset.BodyPartExamined, dataset.Manufacturer = "CT", "CHEST", "Phantoms"
    dataset.SeriesNumber, dataset.ImageType = 3, ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = -1024, 1, "HU"
    dataset.PositionReferenceIndicator = ""
    return dataset


def instance(dataset):
    """A data set as a stored instance."""
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return Instance(dataset, stream.getvalue())


def facts(series):
    """The series as the planner sees it."""
    return SeriesFacts(
        series.series_uid,
        [
            InstanceFacts(
                one.sop_class_uid, one.sop_instance_uid, one.transfer_syntax_uid, one.data_sha256,
                attributes_of(one.dataset),
            )
            for one in series.instances
        ],
    )  # fmt: skip


def context(key, when, **given):
    """A job on the phantom's study."""
    return JobContext(key, given.pop("study_uid", "2.25.1"), when, software_version="0.1.0", **given)


def dice(found, truth, label):
    """The overlap of one label."""
    one, other = found == label, truth == label
    return 2 * np.count_nonzero(one & other) / max(1, np.count_nonzero(one) + np.count_nonzero(other))
