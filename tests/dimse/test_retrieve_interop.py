"""Other people's tools retrieve: DCMTK, pynetdicom, Orthanc."""

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from tests.bench.servers import free_port
from tests.dicomweb.objects import ct
from tests.dimse.door import Door, opened
from tests.dimse.receiver import Receiver, receiving
from tests.dimse.test_move import store

if TYPE_CHECKING:
    from pacs.node import Node

pytestmark = pytest.mark.interop
LEVELS = ("PATIENT", "STUDY", "SERIES", "IMAGE")


def need(name: str) -> str:
    program = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if program is None:
        pytest.skip(f"{name} is not installed")
    return program


@pytest.fixture(scope="module")
def study(node: "Node") -> list[Dataset]:
    uid, series = generate_uid(), [generate_uid(), generate_uid()]
    objects = [
        ct(study=uid, series=series[number // 3], PatientID="TOOLS", InstanceNumber=number + 1) for number in range(6)
    ]
    store(node, *objects)
    return objects


@pytest.fixture(scope="module")
def archive() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def orthanc_ports() -> tuple[int, int]:
    return free_port(), free_port()


@pytest.fixture(scope="module")
def scp_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def live(
    node: "Node",
    archive: Receiver,
    orthanc_ports: tuple[int, int],
    scp_port: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Door]:
    peers = archive.peer() | {
        "ORTHANC": f'host = "127.0.0.1"\nport = {orthanc_ports[0]}',
        "STORESCP": f'host = "localhost"\nport = {scp_port}',
    }
    with opened(tmp_path_factory.mktemp("door"), node=node, peers=peers) as door:
        yield door


def keys(study: list[Dataset], level: str, *, patient_root: bool) -> dict[str, str]:
    """What names the first thing of a level."""
    first = study[0]
    upper = {
        "PatientID": first.PatientID,
        "StudyInstanceUID": first.StudyInstanceUID,
        "SeriesInstanceUID": first.SeriesInstanceUID,
        "SOPInstanceUID": first.SOPInstanceUID,
    }
    given = dict(list(upper.items())[: LEVELS.index(level) + 1])
    if not patient_root:
        given.pop("PatientID")
    return {"QueryRetrieveLevel": level, **given}


def expected(study: list[Dataset], level: str) -> set[str]:
    count = {"PATIENT": 6, "STUDY": 6, "SERIES": 3, "IMAGE": 1}[level]
    return {one.SOPInstanceUID for one in study[:count]}


CASES = [(root, level) for root in ("-P", "-S") for level in LEVELS if not (root == "-S" and level == "PATIENT")]


def options(given: dict[str, str]) -> list[str]:
    return [word for name, value in given.items() for word in ("-k", f"{name}={value}")]


@pytest.mark.parametrize(("root", "level"), CASES)
def test_getscu_gets_each_level_of_both_models(
    live: Door, study: list[Dataset], root: str, level: str, tmp_path: Path
) -> None:
    given = keys(study, level, patient_root=root == "-P")
    line = [need("getscu"), root, "-aec", "FILMROOM", "-od", str(tmp_path), *options(given)]
    done = subprocess.run([*line, *map(str, live.address)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    got = {dcmread(path).SOPInstanceUID: dcmread(path) for path in tmp_path.iterdir()}
    assert set(got) == expected(study, level)
    assert all(got[one.SOPInstanceUID].PixelData == one.PixelData for one in study if one.SOPInstanceUID in got)


@pytest.mark.parametrize(("root", "level"), CASES)
def test_movescu_moves_each_level_of_both_models(
    live: Door, archive: Receiver, study: list[Dataset], root: str, level: str
) -> None:
    archive.came.clear()
    given = keys(study, level, patient_root=root == "-P")
    line = [need("movescu"), root, "-aec", "FILMROOM", "-aem", "ARCHIVE", *options(given)]
    done = subprocess.run([*line, *map(str, live.address)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert {one.uid for one in archive.came} == expected(study, level)


@pytest.mark.parametrize("syntax", ["+xe", "+xi", "+xb"])
def test_storescp_is_sent_what_it_takes(
    live: Door, study: list[Dataset], scp_port: int, syntax: str, tmp_path: Path
) -> None:
    """`+xb` prefers Big Endian, which nothing is rewritten to: it takes Implicit VR then."""
    with running([need("storescp"), syntax, "-aet", "STORESCP", "-od", str(tmp_path), str(scp_port)], scp_port):
        given = keys(study, "STUDY", patient_root=False)
        line = [need("movescu"), "-S", "-aec", "FILMROOM", "-aem", "STORESCP", *options(given)]
        done = subprocess.run([*line, *map(str, live.address)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    got = {dcmread(path).SOPInstanceUID: dcmread(path) for path in tmp_path.iterdir()}
    assert {uid: one.PixelData for uid, one in got.items()} == {one.SOPInstanceUID: one.PixelData for one in study}


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    import socket

    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "model", [StudyRootQueryRetrieveInformationModelGet, PatientRootQueryRetrieveInformationModelGet]
)
def test_pynetdicom_gets(live: Door, study: list[Dataset], model: Any) -> None:
    came: list[str] = []

    def take(event: Any) -> int:
        came.append(event.dataset.SOPInstanceUID)
        return 0x0000

    ae = AE("PYNETDICOM")
    ae.add_requested_context(model)
    ae.add_requested_context(CTImageStorage)
    association = ae.associate(
        *live.address,
        ae_title="FILMROOM",
        ext_neg=[build_role(CTImageStorage, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, take)],
    )
    answers = list(association.send_c_get(asked(study, model), model))
    association.release()
    assert answers[-1][0].Status == 0
    assert answers[-1][0].NumberOfCompletedSuboperations == 6
    assert set(came) == expected(study, "STUDY")


@pytest.mark.parametrize(
    "model", [StudyRootQueryRetrieveInformationModelMove, PatientRootQueryRetrieveInformationModelMove]
)
def test_pynetdicom_moves(live: Door, archive: Receiver, study: list[Dataset], model: Any) -> None:
    archive.came.clear()
    ae = AE("PYNETDICOM")
    ae.add_requested_context(model)
    association = ae.associate(*live.address, ae_title="FILMROOM")
    answers = list(association.send_c_move(asked(study, model), "ARCHIVE", model))
    association.release()
    assert answers[-1][0].Status == 0
    assert {one.uid for one in archive.came} == expected(study, "STUDY")


def asked(study: list[Dataset], model: Any) -> Dataset:
    query = Dataset()
    for keyword, value in keys(study, "STUDY", patient_root="Patient Root" in model.name).items():
        setattr(query, keyword, value)
    return query


def test_orthanc_finds_and_retrieves_to_itself(
    live: Door, study: list[Dataset], orthanc_ports: tuple[int, int], tmp_path: Path
) -> None:
    dicom, http = orthanc_ports
    configuration = {
        "StorageDirectory": str(tmp_path / "storage"),
        "IndexDirectory": str(tmp_path / "index"),
        "HttpPort": http,
        "DicomPort": dicom,
        "DicomAet": "ORTHANC",
        "DicomAlwaysAllowStore": True,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomModalities": {"film": ["FILMROOM", *live.address]},
    }
    (tmp_path / "orthanc.json").write_text(json.dumps(configuration))
    with running([need("Orthanc"), str(tmp_path / "orthanc.json")], http):
        query = {"Level": "Study", "Query": {"StudyInstanceUID": study[0].StudyInstanceUID}}
        found = rest(http, "/modalities/film/query", query)
        rest(http, f"{found['Path']}/retrieve", "ORTHANC")
        kept = {rest(http, f"/instances/{one}/simplified-tags")["SOPInstanceUID"] for one in rest(http, "/instances")}
    assert kept == expected(study, "STUDY")


def rest(port: int, path: str, body: Any = None) -> Any:
    data = None if body is None else (body if isinstance(body, str) else json.dumps(body)).encode()
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, timeout=30) as answer:
                return json.loads(answer.read())
        except ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
