"""A whole node: 300 slices of which one was never sent are not committed; when it comes, one AI job runs."""

import time
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from pacs.services.phantom import ChestStudy, files
from tests.dimse.receiver import EXPLICIT, IMPLICIT
from tests.dimse.sender import Sender
from tests.dimse.test_commit import Asker, request
from tests.running import RunningNode

pytestmark = pytest.mark.slow
CT, PUSH = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.20.1"


@pytest.fixture(scope="module")
def node(short_folder: Path) -> Any:
    # quiet soon, so that only the gap can be what keeps the study open
    running = RunningNode(short_folder / "commit", {"AI_STUDY_QUIET_SECONDS": "1"}).start()
    yield running
    running.stop()


def data_set(file: bytes) -> bytes:
    return file[144 + dcmread(BytesIO(file), stop_before_pixels=True).file_meta.FileMetaInformationGroupLength :]


def seen(node: RunningNode, study: str) -> dict[str, Any]:
    answer = httpx.get(f"{node.http_url}/api/v1/ai/studies/{study}", timeout=30)
    return answer.json() if answer.status_code == 200 else {"completeness": {"state": ""}, "jobs": []}


def until(node: RunningNode, study: str, condition: Any, seconds: float = 120) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while not condition(found := seen(node, study)):
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    return found


def test_a_gap_keeps_the_study_open_and_its_closing_runs_one_job(node: RunningNode) -> None:
    raw = list(files(ChestStudy("commit", "C", "Commit^Model", slices=300, size=64)))
    objects = [(str(dcmread(BytesIO(one), stop_before_pixels=True).SOPInstanceUID), one) for one in raw]
    study = str(dcmread(BytesIO(raw[0]), stop_before_pixels=True).StudyInstanceUID)
    late, address = objects.pop(150), ("127.0.0.1", node.dicom_port)
    contexts = [(CT, [EXPLICIT])]
    with Asker(address, [(PUSH, [IMPLICIT]), *contexts], calling="MODALITY") as modality:
        for uid, one in objects:
            assert modality.store(CT, uid, data_set(one), context_id=3).status == 0
        names = [(CT, uid) for uid, _ in [*objects, late]]
        assert modality.ask(request(names, generate_uid())).status == 0
        kind, said = modality.hear()
    assert kind == 2
    assert [item.ReferencedSOPInstanceUID for item in said.FailedSOPSequence] == [late[0]]
    assert len(said.ReferencedSOPSequence) == 299
    found = until(node, study, lambda found: late[0] in str(found["completeness"].get("missing")))
    assert found["completeness"]["state"] in ("open", "reopened")
    time.sleep(5)  # far beyond quiet: nothing but the gap holds it
    found = seen(node, study)
    assert found["completeness"]["state"] in ("open", "reopened")
    with Sender(address, contexts) as sender:
        assert sender.store(CT, late[0], data_set(late[1])).status == 0
    found = until(node, study, lambda found: any(job["state"] == "SUCCEEDED" for job in found["jobs"]))
    assert found["completeness"]["state"] == "confirmed"
    assert [job["state"] for job in found["jobs"]] == ["SUCCEEDED"]
