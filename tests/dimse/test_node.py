"""The door on the real node: what a modality sends is what the store holds, and what it may not send is refused."""

import hashlib
import os
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom.dsutils import decode, encode

from pacs.domain.syntaxes import DEFLATED_LE, EXPLICIT_LE, IMPLICIT_LE
from pacs.settings import Settings
from tests.dimse.door import Door, opened
from tests.dimse.sender import Answer, Sender

if TYPE_CHECKING:
    from pacs.node import Node

CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture(scope="module")
def live(node: "Node", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with opened(tmp_path_factory.mktemp("door"), node=node) as door:
        yield door


def image(**changes: object) -> Dataset:
    ds = dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = (generate_uid() for _ in range(3))
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    return ds


def encoded(ds: Dataset, syntax: str = EXPLICIT_LE) -> bytes:
    data = encode(ds, syntax == IMPLICIT_LE, True)
    assert data is not None
    return data


def send(door: Door, data: bytes, instance: str, syntax: str = EXPLICIT_LE, sop_class: str = CT) -> Answer:
    with Sender(door.address, [(sop_class, [syntax])], calling="MODALITY") as sender:
        return sender.store(sop_class, instance, data)


def kept(settings: Settings, instance: str) -> bytes | None:
    """The data set in the file store, found by SQL and read by hand."""
    with psycopg.connect(settings.database_url) as connection:
        statement = "SELECT object_name, data_offset, size FROM instance WHERE sop_instance_uid = %s"
        row = connection.execute(statement, (instance,)).fetchone()
    if row is None:
        return None
    raw = (settings.storage_dir / "objects" / row[0]).read_bytes()
    assert len(raw) == row[2]
    return raw[row[1] :]


def nothing_left(settings: Settings) -> bool:
    return not any((settings.storage_dir / "tmp").glob("*"))


@pytest.mark.parametrize("syntax", [EXPLICIT_LE, IMPLICIT_LE])
def test_a_stored_object_is_kept_byte_for_byte(live: Door, settings: Settings, syntax: str) -> None:
    ds = image(PixelData=os.urandom(128 * 128 * 2))
    data = encoded(ds, syntax)
    assert send(live, data, ds.SOPInstanceUID, syntax).status == 0
    assert kept(settings, ds.SOPInstanceUID) == data


def test_the_file_names_who_sent_it_and_how_it_is_encoded(live: Door, settings: Settings) -> None:
    ds = image()
    send(live, encoded(ds, IMPLICIT_LE), ds.SOPInstanceUID, IMPLICIT_LE)
    with psycopg.connect(settings.database_url) as connection:
        statement = "SELECT object_name, door, peer FROM instance WHERE sop_instance_uid = %s"
        name, door, peer = connection.execute(statement, (ds.SOPInstanceUID,)).fetchone() or ("", "", "")
    assert (door, peer) == ("dimse", "MODALITY")
    meta = dcmread(settings.storage_dir / "objects" / name).file_meta
    assert meta.TransferSyntaxUID == IMPLICIT_LE
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (CT, ds.SOPInstanceUID)


def test_a_deflated_object_is_kept_byte_for_byte(live: Door, settings: Settings) -> None:
    ds = image()
    packer = zlib.compressobj(wbits=-15)
    data = packer.compress(encoded(ds)) + packer.flush()
    assert send(live, data, ds.SOPInstanceUID, DEFLATED_LE).status == 0
    assert (kept(settings, ds.SOPInstanceUID) or b"")[: len(data)] == data


def test_sending_twice_is_success_and_other_content_is_a_duplicate(live: Door, settings: Settings) -> None:
    ds = image()
    data = encoded(ds)
    assert [send(live, data, ds.SOPInstanceUID).status for _ in range(2)] == [0, 0]
    ds.PixelData = os.urandom(len(ds.PixelData))
    assert send(live, encoded(ds), ds.SOPInstanceUID).status == 0x0111
    assert kept(settings, ds.SOPInstanceUID) == data


def bomb() -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    zeros = bytes(1 << 20)
    start = encoded(image())
    return packer.compress(start) + b"".join(packer.compress(zeros) for _ in range(100)) + packer.flush()


NESTED = (b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 200
LYING = b"\x10\0\x20\0UN\0\0\xff\xff\xff\xfeABC"


@pytest.mark.parametrize(
    ("make", "syntax"),
    [
        (lambda ds: encoded(ds)[: len(encoded(ds)) // 2], EXPLICIT_LE),
        (lambda ds: encoded(ds)[:400] + NESTED, EXPLICIT_LE),
        (lambda ds: NESTED, EXPLICIT_LE),
        (lambda ds: LYING, EXPLICIT_LE),
        (lambda ds: b"", EXPLICIT_LE),
        (lambda ds: os.urandom(5_000), EXPLICIT_LE),
        (lambda ds: bomb(), DEFLATED_LE),
        (encoded, DEFLATED_LE),
    ],
    ids=["truncated", "cut into nested", "nested", "four gigabytes", "empty", "random", "bomb", "not deflated"],
)
def test_what_cannot_be_read_is_refused_with_an_id_that_is_found_again(
    live: Door, node: "Node", settings: Settings, make: object, syntax: str
) -> None:
    ds = image()
    answer = send(live, make(ds), ds.SOPInstanceUID, syntax)  # type: ignore[operator]
    assert answer.status == 0xC000
    refusal_id, _, word = answer.command.text("ErrorComment").partition(" ")
    assert word == "unreadable"
    assert node.refusals.get(refusal_id).reason == "unreadable"
    assert kept(settings, ds.SOPInstanceUID) is None
    assert nothing_left(settings)
    good = image()
    assert send(live, encoded(good), good.SOPInstanceUID).status == 0


def test_the_data_set_must_be_what_the_command_says(live: Door, settings: Settings) -> None:
    ds, other = image(), generate_uid()
    assert send(live, encoded(ds), other).status == 0x0117
    mr = image(SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    assert send(live, encoded(mr), mr.SOPInstanceUID).status == 0xA900
    assert [kept(settings, uid) for uid in (ds.SOPInstanceUID, other, mr.SOPInstanceUID)] == [None] * 3
    assert nothing_left(settings)


def test_a_uid_that_climbs_is_refused_and_can_be_looked_up(live: Door, node: "Node", settings: Settings) -> None:
    answer = send(live, encoded(image()), "../../etc/x")
    assert answer.status == 0x0117
    assert node.refusals.get(answer.command.text("ErrorComment").split()[0]).reason == "bad-uid"
    assert nothing_left(settings)


@pytest.mark.data
def test_every_real_file_is_kept_byte_for_byte_or_refused_with_a_reason(
    live: Door, settings: Settings, data_dir: Path
) -> None:
    """One of each folder here; the whole set is a campaign of its own."""
    for folder in sorted(path for path in data_dir.iterdir() if path.is_dir()):
        path = next(iter(sorted(folder.glob("*.dcm"))), None)
        if path is None:
            continue
        meta = dcmread(path, stop_before_pixels=True, force=True).file_meta
        if "TransferSyntaxUID" not in meta:
            continue
        raw = path.read_bytes()
        data = raw[raw.index(b"DICM") + 4 + 12 + meta.FileMetaInformationGroupLength :]
        instance = str(meta.MediaStorageSOPInstanceUID)
        answer = send(live, data, instance, meta.TransferSyntaxUID, str(meta.MediaStorageSOPClassUID))
        if answer.status == 0:
            found = kept(settings, instance) or b""
            assert hashlib.sha256(found).digest() == hashlib.sha256(data).digest(), path.name
        else:
            assert answer.command.text("ErrorComment"), path.name


STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2.1"
PATIENT_ROOT = "1.2.840.10008.5.1.4.1.2.1.1"


def find(door: Door, level: str, model: str = STUDY_ROOT, **keys: object) -> list[Dataset]:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    with Sender(door.address, [(model, [EXPLICIT_LE])]) as sender:
        *pending, final = sender.find(model, encoded(query))
    assert final.status == 0, final
    return [decode(BytesIO(answer.data), False, True) for answer in pending]


@pytest.fixture(scope="module")
def archive(live: Door) -> list[Dataset]:
    """Two patients, three studies, a CT and an MR series each, two images a series; names beyond ASCII."""
    images = []
    with Sender(live.address, [(CT, [EXPLICIT_LE])]) as sender:
        for study, (patient, name, date) in enumerate(
            [("P1", "Müller^Jürgen", "20200101"), ("P1", "Müller^Jürgen", "20210615"), ("P2", "山田^太郎", "20211231")]
        ):
            for series, modality in enumerate(("CT", "MR")):
                for number in (1, 2):
                    ds = image(
                        SpecificCharacterSet="ISO_IR 192", PatientID=patient, PatientName=name, StudyDate=date,
                        StudyInstanceUID=f"1.2.3.{study}", SeriesInstanceUID=f"1.2.3.{study}.{series}",
                        Modality=modality, InstanceNumber=number, StudyID=str(study),
                    )  # fmt: skip
                    images.append(ds)
                    assert sender.store(CT, ds.SOPInstanceUID, encoded(ds)).status == 0
    return images


def test_studies_are_found_by_name_date_and_modality(live: Door, archive: list[Dataset]) -> None:
    def uids(**keys: object) -> set[str]:
        found = find(live, "STUDY", StudyInstanceUID="", **keys)
        return {ds.StudyInstanceUID for ds in found if ds.StudyInstanceUID.startswith("1.2.3.")}

    assert uids() == {"1.2.3.0", "1.2.3.1", "1.2.3.2"}
    assert uids(SpecificCharacterSet="ISO_IR 100", PatientName="müll*") == {"1.2.3.0", "1.2.3.1"}
    assert uids(SpecificCharacterSet="ISO_IR 192", PatientName="山田*") == {"1.2.3.2"}
    assert uids(StudyDate="20210101-20210701") == {"1.2.3.1"}
    assert uids(PatientID="P1", ModalitiesInStudy="MR") == {"1.2.3.0", "1.2.3.1"}
    assert uids(PatientID="P?", StudyDate="20220101-") == set()


def test_answers_carry_counts_and_text_beyond_ascii(live: Door, archive: list[Dataset]) -> None:
    (ds,) = find(
        live, "STUDY", StudyInstanceUID="1.2.3.2", PatientName="", NumberOfStudyRelatedSeries=None,
        NumberOfStudyRelatedInstances=None, ModalitiesInStudy="",
    )  # fmt: skip
    assert str(ds.PatientName) == "山田^太郎"
    assert (ds.NumberOfStudyRelatedSeries, ds.NumberOfStudyRelatedInstances) == (2, 4)
    assert sorted(ds.ModalitiesInStudy) == ["CT", "MR"]
    assert ds.RetrieveAETitle == "FILMROOM"


def test_every_level_of_both_models_is_answered(live: Door, archive: list[Dataset]) -> None:
    patients = find(live, "PATIENT", PATIENT_ROOT, PatientID="P?", NumberOfPatientRelatedStudies=None)
    assert {ds.PatientID: ds.NumberOfPatientRelatedStudies for ds in patients} == {"P1": 2, "P2": 1}
    studies = find(live, "STUDY", PATIENT_ROOT, PatientID="P1", StudyInstanceUID="", StudyDate="")
    assert [ds.StudyDate for ds in studies] == ["20210615", "20200101"]
    for model in (PATIENT_ROOT, STUDY_ROOT):
        upper = {"PatientID": "P1", "StudyInstanceUID": "1.2.3.1"}
        series = find(live, "SERIES", model, **upper, SeriesInstanceUID="", Modality="")
        assert {ds.SeriesInstanceUID: ds.Modality for ds in series} == {"1.2.3.1.0": "CT", "1.2.3.1.1": "MR"}
        images = find(
            live, "IMAGE", model, **upper, SeriesInstanceUID="1.2.3.1.1", SOPInstanceUID="", InstanceNumber=""
        )
        sent = [ds.SOPInstanceUID for ds in archive if ds.SeriesInstanceUID == "1.2.3.1.1"]
        assert [ds.SOPInstanceUID for ds in images] == sent
        assert [ds.InstanceNumber for ds in images] == [1, 2]


def test_a_malformed_date_is_refused_without_its_value(live: Door) -> None:
    with Sender(live.address, [(STUDY_ROOT, [IMPLICIT_LE])]) as sender:
        head = b"\x08\0\x20\0\x04\0\0\0DOE^\x08\0\x52\0\x06\0\0\0STUDY "
        (final,) = sender.find(STUDY_ROOT, head)
    assert final.status == 0xA900
    assert "DOE" not in final.command.text("ErrorComment")


@pytest.mark.interop
def test_findscu_finds_what_storescu_stored(live: Door, archive: list[Dataset], tmp_path: Path) -> None:
    if shutil.which("findscu") is None:
        pytest.skip("findscu is not installed")
    host, port = live.address
    keys = ["-k", "QueryRetrieveLevel=IMAGE", "-k", "SOPInstanceUID", "-k", "StudyInstanceUID=1.2.3.0"]
    keys += ["-k", "SeriesInstanceUID=1.2.3.0.0", "-aec", "FILMROOM", "-X", "-od", str(tmp_path)]
    done = subprocess.run(["findscu", "-S", *keys, host, str(port)], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = {str(dcmread(path, force=True).SOPInstanceUID) for path in tmp_path.glob("*.dcm")}
    assert found == {ds.SOPInstanceUID for ds in archive if ds.SeriesInstanceUID == "1.2.3.0.0"}
