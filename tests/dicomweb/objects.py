"""Random small DICOM objects and the bodies that carry them."""

import io
import random

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from dicomweb.multipart import Writer, frame

CT = str(CTImageStorage)


def ct(
    *, study: str | None = None, series: str | None = None, syntax: str = ExplicitVRLittleEndian, **more: object
) -> Dataset:
    """A 4 x 5 CT slice of random pixels, in a study of its own unless told otherwise."""
    found = Dataset()
    found.SOPClassUID, found.SOPInstanceUID = CT, generate_uid()
    found.StudyInstanceUID, found.SeriesInstanceUID = study or generate_uid(), series or generate_uid()
    found.PatientName, found.PatientID = "Random^Person", f"P{random.randrange(10**6)}"
    found.PatientBirthDate, found.PatientSex = "19700101", "O"
    found.StudyDate, found.StudyTime, found.AccessionNumber, found.StudyID = "20200102", "101112", "A1", "S1"
    found.ReferringPhysicianName = "Ref^Doc"
    found.Modality, found.SeriesNumber, found.InstanceNumber = "CT", 1, 1
    found.Rows, found.Columns, found.SamplesPerPixel, found.PhotometricInterpretation = 4, 5, 1, "MONOCHROME2"
    found.BitsAllocated, found.BitsStored, found.HighBit, found.PixelRepresentation = 16, 16, 15, 0
    found.PixelData = random.randbytes(2 * 4 * 5)
    for keyword, value in more.items():
        setattr(found, keyword, value)
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = syntax
    found.file_meta.MediaStorageSOPClassUID, found.file_meta.MediaStorageSOPInstanceUID = CT, found.SOPInstanceUID
    return found


def part10(found: Dataset) -> bytes:
    """The object as a file."""
    held = io.BytesIO()
    found.save_as(held, enforce_file_format=True)
    return held.getvalue()


def multipart(*contents: bytes, kind: str = "application/dicom") -> tuple[dict[str, str], bytes]:
    """Headers and body of a store of these objects."""
    writer = Writer("application/dicom")
    body = b"".join(frame(writer, ((kind, "", iter([content])) for content in contents)))
    return {"Content-Type": writer.content_type}, body
