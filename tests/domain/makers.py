"""Objects for the tests of the vocabulary: written by pydicom, so that the truth comes through another door."""

import io
import os
from pathlib import Path

import pydicom
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

SYNTAXES = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"]


def part10(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """The data set as a Part 10 file of this transfer syntax."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", "1.2.3")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "1.2.3")
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def ct(rows: int = 4, columns: int = 6, **more: object) -> Dataset:
    """A small CT image of random pixels."""
    ds = Dataset()
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid(), generate_uid()
    ds.PatientName, ds.PatientID, ds.Modality = "Doe^Jane", "P1", "CT"
    ds.StudyDate, ds.StudyTime, ds.InstanceNumber = "20240229", "1203", "7"
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = rows, columns, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.add_new("PixelData", "OW", os.urandom(rows * columns * 2))
    for keyword, value in more.items():
        setattr(ds, keyword, value)
    return ds


def nested(depth: int) -> Dataset:
    """A data set with sequences inside sequences."""
    ds = Dataset()
    ds.ContentLabel = "LEAF"
    for _level in range(depth):
        outer = Dataset()
        outer.ContentSequence = Sequence([ds])
        ds = outer
    ds.SOPInstanceUID = "1.2.3"
    return ds


SERIES = 8  # files of a folder that holds one long series


def real_files() -> list[Path]:
    """The real files that this machine has: those inside pydicom's package and those of FILMROOM_TEST_DATA.

    Of long series (ct_head, mr_fmri, ct_chest) a few files stand for all, unless FILMROOM_TEST_ALL is set.
    """
    roots = [Path(pydicom.__file__).parent / "data" / name for name in ("test_files", "charset_files")]
    if named := os.environ.get("FILMROOM_TEST_DATA"):
        roots += [folder for folder in sorted(Path(named).iterdir()) if folder.is_dir()]
    skipped = {".py", ".txt", ".json", ".md", ".pyc", ".tiff", ".gz", ".csv", ".icc", ".dump"}
    found = []
    for root in roots:
        files = [path for path in sorted(root.rglob("*")) if path.is_file()]
        files = [path for path in files if path.suffix not in skipped and path.name != "README"]
        long = root.name in {"ct_head", "mr_fmri", "ct_chest"} and "FILMROOM_TEST_ALL" not in os.environ
        found += files[:: len(files) // SERIES] if long else files
    return found


_text = st.text("abcXYZ019 .-_äÖßéñ", max_size=16)
_word = st.from_regex(r"[A-Z][A-Z0-9_]{0,15}", fullmatch=True)
_uid = st.from_regex(r"[12]\.([1-9][0-9]{0,8}\.){1,4}[1-9]", fullmatch=True)
_number = st.integers(-(2**31), 2**31 - 1)
_VALUES = {
    "PatientName": _text.map(lambda text: f"{text}^x={text}"),
    "PatientID": _text,
    "StudyInstanceUID": _uid,
    "StudyDescription": st.lists(_text, max_size=3),
    "ImageType": st.lists(_word, max_size=4),
    "InstanceNumber": _number.map(str),
    "SliceThickness": st.decimals(-1000, 1000, places=4).map(str),
    "ImagePositionPatient": st.lists(st.floats(-1e6, 1e6).map(lambda x: f"{x:.6g}"), min_size=3, max_size=3),
    "Rows": st.integers(0, 65535),
    "SimpleFrameList": st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5),
    "RealWorldValueSlope": st.floats(allow_nan=True),
    "RecommendedDisplayFrameRateInFloat": st.floats(width=32, allow_nan=True),
    "PatientComments": _text,
    "FrameIncrementPointer": st.integers(0x00080000, 0x00FFFFFF),
    "ICCProfile": st.binary(max_size=40).map(lambda raw: raw + b"\0" * (len(raw) % 2)),
    "ExtendedOffsetTable": st.binary(max_size=5).map(lambda raw: raw * 8),
    "SelectorSVValue": st.integers(-(2**63), 2**63 - 1),
    "SelectorUVValue": st.integers(0, 2**64 - 1),
}


def _data_set(values: dict[str, object], items: "list[Dataset] | None") -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    if items is not None:
        ds.ContentSequence = Sequence(items)
    return ds


_flat = st.fixed_dictionaries({}, optional=_VALUES)
data_sets = st.recursive(
    st.builds(_data_set, _flat, st.none()),
    lambda inner: st.builds(_data_set, _flat, st.lists(inner, max_size=3)),
    max_leaves=6,
)
