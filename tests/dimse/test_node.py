"""The door on the real node: what a modality sends is what the store holds, and what it may not send is refused."""

import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom.dsutils import encode

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
    return packer.compress(start) + b"".join(packer.compress(zeros) for _ in range(600)) + packer.flush()


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
