"""Other people's tools against the door."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pynetdicom import AE, QueryRetrievePresentationContexts, StoragePresentationContexts
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from tests.dimse.door import Door
from tests.dimse.test_find import row

pytestmark = pytest.mark.interop


def tool(name: str, door: Door, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    host, port = door.address
    line = [program, *arguments[:-1], "-aec", "FILMROOM", host, str(port), *arguments[-1:]]
    return subprocess.run([part for part in line if part], capture_output=True, text=True, timeout=60, check=False)


def sample(name: str) -> Path:
    return Path(str(get_testdata_file(name, download=False)))


def test_echoscu_gets_its_echo(door: Door) -> None:
    done = tool("echoscu", door, "-v", "")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("syntax", ["-x=", "-xi"])
def test_storescu_stores_pixels_byte_for_byte(door: Door, syntax: str) -> None:
    path = sample("CT_small.dcm")
    done = tool("storescu", door, "-v", syntax, str(path))
    assert done.returncode == 0, done.stderr
    (kept,) = door.node.ingest.stored.values()
    assert kept.endswith(dcmread(path).PixelData)


@pytest.mark.parametrize("name", ["JPEG2000.dcm", "SC_rgb_rle.dcm", "JPEG-lossy.dcm", "SC_rgb_jpeg_dcmtk.dcm"])
def test_dcmsend_stores_compressed_objects(door: Door, name: str) -> None:
    done = tool("dcmsend", door, "-v", "-aet", "SEND", str(sample(name)))
    assert done.returncode == 0, done.stderr + done.stdout
    assert len(door.node.ingest.stored) == 1


def test_findscu_reads_every_answer(door: Door, tmp_path: Path) -> None:
    door.node.search.rows = [row(number, "Müller^X") for number in range(300)]
    out = tmp_path / "answers"
    out.mkdir()
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID", "-k", "PatientName=M*")
    done = tool("findscu", door, "-S", "-X", "-od", str(out), *keys, "")
    assert done.returncode == 0, done.stderr
    assert len(os.listdir(out)) == 300


def test_pynetdicom_echoes_stores_and_finds(door: Door) -> None:
    door.node.search.rows = [row(number) for number in range(3)]
    ae = AE("PYNETDICOM")
    ae.requested_contexts = StoragePresentationContexts[:120]
    for context in (
        Verification,
        StudyRootQueryRetrieveInformationModelFind,
        PatientRootQueryRetrieveInformationModelFind,
    ):
        ae.add_requested_context(context)
    association = ae.associate(*door.address, ae_title="FILMROOM")
    assert association.is_established
    assert association.send_c_echo().Status == 0
    assert association.send_c_store(dcmread(sample("CT_small.dcm"))).Status == 0
    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    query.StudyInstanceUID = ""
    answers = list(association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind))
    assert [status.Status for status, _ in answers] == [0xFF00] * 3 + [0]
    assert [found.StudyInstanceUID for _, found in answers[:3]] == ["1.2.0", "1.2.1", "1.2.2"]
    association.release()
    assert association.is_released


def test_pynetdicom_is_rejected_for_another_title(door: Door) -> None:
    ae = AE()
    ae.requested_contexts = QueryRetrievePresentationContexts
    assert ae.associate(*door.address, ae_title="OTHER").is_rejected
