"""Random objects for the tests of the archive, and short ways to store them."""

import io
import os
import random
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import dcmwrite, write_dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from pacs.domain.events import Expected, Source, Stored

SOURCE = Source("stow", "tester", "127.0.0.1")


def ct(study: str = "", series: str = "", **more: Any) -> Dataset:
    """A small CT image with random pixels and a patient of its study's own."""
    study, series = study or generate_uid(), series or generate_uid()
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, generate_uid()
    data.StudyInstanceUID, data.SeriesInstanceUID = study, series
    data.PatientName, data.PatientID = "Canary^Anna", f"ID{study[-8:]}"
    data.StudyDate, data.Modality, data.InstanceNumber = "20240229", "CT", str(random.randint(1, 999))
    data.Rows = data.Columns = 8
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation, data.SamplesPerPixel = 15, 0, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.PixelData = os.urandom(128)
    for keyword, value in more.items():
        setattr(data, keyword, value)
    return data


def part10(data: Dataset, preamble: bytes = bytes(128)) -> bytes:
    """The object as a file."""
    out = io.BytesIO()
    data.preamble = preamble
    dcmwrite(out, data, enforce_file_format=True)
    return out.getvalue()


def bare(data: Dataset) -> bytes:
    """The object as C-STORE sends it."""
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, False
    write_dataset(out, data)
    return out.getvalue()


def put(node: Any, raw: bytes, source: Source = SOURCE, expected: Expected = Expected()) -> Stored:  # noqa: B008
    """Store a file through the one door."""
    incoming = node.ingest.begin(source, expected)
    incoming.write(raw)
    return node.ingest.store(incoming)


def counters(node: Any, study_uid: str) -> tuple[Any, ...] | None:
    """What the index says of a study: series, instances, modalities, classes, change_seq, and instances by series."""
    with node.pool.connection() as connection:
        return connection.execute(
            """SELECT series_count, instance_count, modalities, sop_classes, change_seq,
                      (SELECT json_agg(instance_count ORDER BY series_uid) FROM series WHERE study_pk = study.pk)
               FROM study WHERE study_uid = %s""",
            (study_uid,),
        ).fetchone()


def query(node: Any, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Rows of the database, read beside the services."""
    with node.pool.connection() as connection:
        return connection.execute(statement, parameters).fetchall()
