"""Every real object goes in by C-STORE and out by C-MOVE and C-GET to a receiver of Explicit VR Little Endian only."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psycopg
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset

from pacs.dimse.associate import Role
from pacs.domain.syntaxes import EXPLICIT_BE, EXPLICIT_LE, SYNTAXES
from pacs.domain.uids import storage_classes
from pacs.settings import Settings
from tests.dimse.door import Door, opened
from tests.dimse.receiver import IMPLICIT, Receiver, receiving
from tests.dimse.sender import Sender
from tests.dimse.test_get import GET, Getter
from tests.dimse.test_move import failed, keys, move

if TYPE_CHECKING:
    from pacs.node import Node

pytestmark = [pytest.mark.data, pytest.mark.slow]

LENGTHS = frozenset({0x0000, 0x0001})  # group lengths, retired: the rewriting drops them
DESCRIBES = {0x00280004, 0x00280006, 0x00282110, 0x7FE00010, 0x7FE00001, 0x7FE00002, 0x7FE00003}


ULTRASOUND_RETIRED = "1.2.840.10008.5.1.4.1.1.6"


@dataclass
class Kept:
    """A stored object as the index names it."""

    study: str
    sop_class: str
    syntax: str
    path: Path

    @property
    def data_set(self) -> Dataset:
        return dcmread(self.path, force=True)


@pytest.fixture(scope="module")
def archive() -> Iterator[Receiver]:
    classes = storage_classes() | {"1.2.840.10008.5.1.4.1.1.66.7"}
    with receiving(classes=classes) as receiver:
        yield receiver


@pytest.fixture(scope="module")
def live(node: "Node", archive: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with opened(tmp_path_factory.mktemp("door"), node=node, peers=archive.peer()) as door:
        yield door


@pytest.fixture(scope="module")
def kept(live: Door, settings: Settings, data_dir: Path) -> dict[str, Kept]:
    """All files sent by C-STORE, one association each class and syntax; what was taken, by UID."""
    groups: dict[tuple[str, str], list[tuple[str, bytes]]] = defaultdict(list)
    paths = sorted(path for path in data_dir.rglob("*") if path.is_file() and path.suffix not in {".csv", ".md", ".py"})
    for path in paths:
        raw = path.read_bytes()
        if raw[128:132] != b"DICM":
            continue
        named = dcmread(path, specific_tags=["SOPClassUID", "SOPInstanceUID"])
        meta = named.file_meta
        if "TransferSyntaxUID" not in meta or "SOPInstanceUID" not in named or "SOPClassUID" not in named:
            continue
        start = 144 + meta.FileMetaInformationGroupLength
        groups[str(named.SOPClassUID), str(meta.TransferSyntaxUID)].append((str(named.SOPInstanceUID), raw[start:]))
    sent = 0
    for (sop_class, syntax), objects in groups.items():
        with Sender(live.address, [(sop_class, [syntax])]) as sender:
            if not sender.accepted:
                continue
            for uid, data in objects:
                sender.store(sop_class, uid, data)
                sent += 1
    assert sent > 380
    with psycopg.connect(settings.database_url) as connection:
        rows = connection.execute(
            "SELECT sop_instance_uid, study_uid, sop_class_uid, transfer_syntax_uid, object_name FROM held"
        ).fetchall()
    return {row[0]: Kept(*row[1:4], settings.storage_dir / "objects" / row[4]) for row in rows}


def parsed(data: bytes) -> Dataset:
    whole = Dataset(read_dataset(BytesIO(data), is_implicit_VR=False, is_little_endian=True))
    whole.file_meta = FileMetaDataset()
    whole.file_meta.TransferSyntaxUID = EXPLICIT_LE
    return whole


def pixels(ds: Dataset) -> np.ndarray | None:
    try:
        return ds.pixel_array
    except Exception:  # no pixels, or none that pydicom can read
        return None


def compare(uid: str, kept: Kept, data: bytes) -> list[str]:
    """What differs between an object kept and an object that came."""
    stored, came = kept.data_set, parsed(data)
    compressed = SYNTAXES[kept.syntax].encapsulated
    skip = DESCRIBES if compressed else {0x7FE00010} if kept.syntax == EXPLICIT_BE else set()
    found = []
    for element in stored:
        if element.tag in skip or (element.tag.element in LENGTHS and element.tag.element == 0):
            continue
        other = came.get(element.tag)
        if other is None:
            found.append(f"{element.tag} is missing")
        elif other.value != element.value and not same(element, other):
            found.append(f"{element.tag} {element.VR} differs")
    extra = {e.tag for e in came} - {e.tag for e in stored} - DESCRIBES
    found += [f"{tag} is new" for tag in extra]
    before = pixels(stored)
    after = pixels(came)
    if before is not None:
        if after is None:
            found.append("pixels cannot be read any more")
        elif before.shape != after.shape:
            found.append(f"shape {before.shape} became {after.shape}")
        else:
            worst = int(np.abs(before.astype("i8") - after.astype("i8")).max())
            if worst > (1 if SYNTAXES[kept.syntax].lossy else 0):
                found.append(f"pixels differ by {worst}")
    return found


def same(one, other) -> bool:
    if one.VR == "SQ":
        return str(one.value) == str(other.value)
    return str(one.value) == str(other.value) or (one.VR == "UN" or other.VR == "UN")


def test_all_come_out_by_move(live: Door, archive: Receiver, kept: dict[str, Kept]) -> None:
    archive.came.clear()
    refused: list[str] = []
    for study in sorted({one.study for one in kept.values()}):
        last = move(live, keys(QueryRetrieveLevel="STUDY", StudyInstanceUID=study))[-1]
        assert last.status in (0, 0xB000, 0xA702), hex(last.status)
        refused += failed(last) if last.data else []
    retired = {uid for uid, one in kept.items() if one.sop_class == ULTRASOUND_RETIRED}  # pynetdicom aborts there
    assert set(refused) <= retired
    came = {one.uid: one.data for one in archive.came}
    judge({uid: one for uid, one in kept.items() if uid not in retired}, came, sorted(set(refused) - retired))


def test_all_come_out_by_get(live: Door, kept: dict[str, Kept]) -> None:
    came: dict[str, bytes] = {}
    refused: list[str] = []
    classes = sorted({one.sop_class for one in kept.values()})
    contexts = [(GET, [IMPLICIT]), *((uid, [EXPLICIT_LE]) for uid in classes)]
    roles = tuple(Role(uid, False, True) for uid in classes)
    with Getter(live.address, contexts, roles=roles) as requester:
        for study in sorted({one.study for one in kept.values()}):
            got = requester.get(keys(QueryRetrieveLevel="STUDY", StudyInstanceUID=study))
            came |= {uid: data for uid, (_, data) in got.objects.items()}
            refused += failed(got.last) if got.last.data else []
    judge(kept, came, refused)


def judge(kept: dict[str, Kept], came: dict[str, bytes], refused: list[str]) -> None:
    assert set(came) | set(refused) == set(kept)
    assert not set(came) & set(refused)
    wrong = {uid: found for uid, data in came.items() if (found := compare(uid, kept[uid], data))}
    assert not wrong
    natives = [uid for uid in refused if not SYNTAXES[kept[uid].syntax].encapsulated]
    assert not natives, "what is not compressed can always be sent"
