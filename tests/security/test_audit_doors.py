"""Every way to a patient's data, on a whole node: one row each, found by the patient (security.md 3)."""

import io
import json
import os
import random
import subprocess
import sys

import httpx
import psycopg
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
)

from tests.dicomweb.objects import ct, multipart, part10
from tests.running import RunningNode


@pytest.fixture(scope="module")
def http(running_node):
    with httpx.Client(base_url=running_node.http_url, timeout=30) as client:
        yield client


def filmroom(node: RunningNode, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pacs", *words],
        env=node._environment(),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def patient():
    return f"AUDIT{random.getrandbits(48)}"


def noted(http, node, question, count):
    """The rows, once so many are there."""
    rows = []

    def all_there():
        rows[:] = http.get("/api/v1/audit", params={**question, "limit": 500}).json()["items"]
        return len(rows) >= count

    node.wait(all_there, 20)
    return rows


def associate(node, *models, handlers=(), roles=()):
    ae = AE(ae_title="VIEWER")
    for model in models:
        ae.add_requested_context(model)
    association = ae.associate(
        "127.0.0.1", node.dicom_port, ae_title="FILMROOM", evt_handlers=list(handlers), ext_neg=list(roles)
    )
    assert association.is_established
    return association


def asked(**keys):
    found = Dataset()
    for keyword, value in keys.items():
        setattr(found, keyword, value)
    return found


def find(node, data):
    association = associate(node, StudyRootQueryRetrieveInformationModelFind)
    keys = asked(QueryRetrieveLevel="STUDY", PatientID=data.PatientID, StudyInstanceUID="")
    answers = [status.Status for status, _ in association.send_c_find(keys, StudyRootQueryRetrieveInformationModelFind)]
    association.release()
    assert answers[-1] == 0
    assert len(answers) == 2


def get(node, data):
    came = []

    def stored(event):
        came.append(event.dataset)
        return 0

    role = build_role(CTImageStorage, scp_role=True)
    association = associate(
        node,
        StudyRootQueryRetrieveInformationModelGet,
        CTImageStorage,
        handlers=[(evt.EVT_C_STORE, stored)],
        roles=[role],
    )
    keys = asked(QueryRetrieveLevel="STUDY", StudyInstanceUID=data.StudyInstanceUID)
    list(association.send_c_get(keys, StudyRootQueryRetrieveInformationModelGet))
    association.release()
    assert len(came) == 1


def c_store(node, data):
    association = associate(node, CTImageStorage)
    assert association.send_c_store(data).Status == 0
    association.release()


def test_twelve_kinds_of_access_to_one_patient_are_twelve_rows_found_by_patient(running_node, http):
    data = ct(PatientID=patient())
    study = f"/dicom-web/studies/{data.StudyInstanceUID}"
    instance = f"{study}/series/{data.SeriesInstanceUID}/instances/{data.SOPInstanceUID}"
    uri = f"/wado?requestType=WADO&studyUID={data.StudyInstanceUID}&seriesUID={data.SeriesInstanceUID}"
    c_store(running_node, data)  # 1
    find(running_node, data)  # 2
    get(running_node, data)  # 3
    for path in (  # 4 to 11
        f"/dicom-web/studies?PatientID={data.PatientID}",
        f"{study}/metadata",
        f"{instance}/frames/1",
        f"{instance}/rendered",
        instance,
        f"{uri}&objectUID={data.SOPInstanceUID}",
        f"/console/studies/{data.StudyInstanceUID}",
        f"/api/v1/ai/studies/{data.StudyInstanceUID}",
    ):
        accept = {"accept": "text/html"} if "console" in path else {}
        answer = http.get(path, headers=accept)
        assert answer.status_code == 200, (path, answer.text)
    assert http.delete(study).is_success  # 12
    rows = noted(http, running_node, {"patient": data.PatientID}, 12)
    assert len(rows) == 12
    assert {row["patient_id"] for row in rows} == {data.PatientID}
    assert {row["study_uid"] for row in rows} == {data.StudyInstanceUID}
    assert {row["outcome"] for row in rows} == {"ok"}
    assert {row["door"] for row in rows} == {"dimse", "dicomweb", "console", "api"}
    assert {row["address"] for row in rows} == {"127.0.0.1"}
    assert {row["actor"] for row in rows} == {"VIEWER", "local"}
    ids = {row["id"] for row in rows}
    assert {
        row["id"] for row in http.get("/api/v1/audit", params={"study": data.StudyInstanceUID}).json()["items"]
    } == ids
    said = filmroom(running_node, "audit", "query", "--patient", "-", "--json", stdin=f"{data.PatientID}\n")
    assert {row["id"] for row in map(json.loads, said.stdout.splitlines())} >= ids


def test_stow_import_the_command_line_and_the_purge_of_demo_data_are_noted(running_node, http, tmp_path):
    stowed, imported = ct(PatientID=patient()), ct(PatientID=patient())
    headers, body = multipart(part10(stowed))
    assert http.post("/dicom-web/studies", headers=headers, content=body).status_code == 200
    (tmp_path / "one.dcm").write_bytes(part10(imported))
    assert filmroom(running_node, "import", str(tmp_path)).returncode == 0
    filmroom(running_node, "ai", "show", stowed.StudyInstanceUID)
    rows = noted(http, running_node, {"patient": stowed.PatientID}, 2)
    assert [(row["door"], row["action"]) for row in rows] == [("cli", "ai"), ("stow", "store")]
    [row] = noted(http, running_node, {"patient": imported.PatientID}, 1)
    assert (row["door"], row["action"]) == ("import", "store")


def test_what_failed_or_was_refused_is_noted_too(running_node, http):
    data = ct(PatientID=patient())
    headers, body = multipart(part10(data))
    assert http.post("/dicom-web/studies", headers=headers, content=body).status_code == 200
    data.PatientComments = "other"
    other = multipart(part10(data))
    assert http.post("/dicom-web/studies", headers=other[0], content=other[1]).status_code == 409
    study = f"/dicom-web/studies/{data.StudyInstanceUID}"
    assert http.get(f"{study}/series/1.2.3/metadata").status_code == 404
    assert http.get(f"/dicom-web/studies?PatientID={data.PatientID}&limit=x").status_code == 400
    assert http.delete(f"{study}/series/1.2.3").status_code == 404
    assert http.get(f"{study}/metadata", headers={"authorization": "Bearer nonsense"}).status_code == 401
    rows = noted(http, running_node, {"patient": data.PatientID}, 6)
    assert sorted((row["action"], row["outcome"]) for row in rows) == [
        ("delete", "failed"),
        ("read", "failed"),
        ("read", "refused"),
        ("search", "failed"),
        ("store", "ok"),
        ("store", "refused"),
    ]


def test_a_rejected_association_is_noted_by_its_title(running_node, http):
    title = f"ROGUE{random.getrandbits(30)}"
    association = AE(ae_title=title)
    association.add_requested_context(CTImageStorage)
    assert association.associate("127.0.0.1", running_node.dicom_port, ae_title="NOBODY").is_rejected
    [row] = noted(http, running_node, {"user": title}, 1)
    assert (row["action"], row["outcome"], row["detail"]) == ("associate", "refused", {"reason": "called-title"})


def test_pages_of_the_trail_join_and_looking_at_it_is_noted(running_node, http):
    wanted = patient()
    for turn in range(5):
        http.get(f"/dicom-web/studies?PatientID={wanted}&offset={turn}&limit=1&StudyID={turn}")
    whole = noted(http, running_node, {"patient": wanted}, 5)
    seen, after = [], 0
    while after is not None:
        page = http.get("/api/v1/audit", params={"patient": wanted, "limit": 2, "after": after}).json()
        seen += [row["id"] for row in page["items"]]
        after = page["next"]
    assert seen == [row["id"] for row in whole] == sorted(seen, reverse=True)
    looked = noted(http, running_node, {"user": "local"}, 1)
    assert any(row["action"] == "audit" and row["detail"]["asked"] == {"patient": wanted} for row in looked)
    assert http.get("/api/v1/audit?from=never").status_code == 400
    assert http.get("/api/v1/audit?from=2999-01-01").json() == {"items": [], "next": None}


def test_verify_names_a_row_that_was_edited_and_the_trail_is_whole_before_and_after(running_node, http):
    data = ct(PatientID=patient())
    headers, body = multipart(part10(data))
    http.post("/dicom-web/studies", headers=headers, content=body)
    [row] = noted(http, running_node, {"patient": data.PatientID}, 1)

    def verified(*words):
        said = filmroom(running_node, "audit", "verify", "--json", *words)
        return said.returncode, json.loads(said.stdout)

    with psycopg.connect(running_node.settings.database_url, autocommit=True) as reader:
        sealed = "SELECT FROM audit_seal WHERE audit_id = %s"
        running_node.wait(lambda: reader.execute(sealed, (row["id"],)).fetchone() is not None)
    code, found = verified()
    assert (code, found["broken"]) == (0, None)
    with psycopg.connect(running_node.settings.database_url, autocommit=True) as owner:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            owner.execute("UPDATE audit SET actor = 'nobody' WHERE id = %s", (row["id"],))
        owner.execute("ALTER TABLE audit DISABLE TRIGGER audit_append_only")
        try:
            owner.execute("UPDATE audit SET actor = 'nobody' WHERE id = %s", (row["id"],))
            said = filmroom(running_node, "audit", "verify")
            assert said.returncode == 1
            assert f"row {row['id']} does not fit" in said.stdout
        finally:
            owner.execute("UPDATE audit SET actor = %s WHERE id = %s", (row["actor"], row["id"]))
            owner.execute("ALTER TABLE audit ENABLE ALWAYS TRIGGER audit_append_only")
    assert verified("--head", found["head"])[0] == 0


def test_export_prints_the_rows_as_audit_messages(running_node, http):
    from xml.etree import ElementTree

    data = ct(PatientID=patient())
    headers, body = multipart(part10(data))
    http.post("/dicom-web/studies", headers=headers, content=body)
    noted(http, running_node, {"patient": data.PatientID}, 1)
    said = filmroom(running_node, "audit", "export", "--study", data.StudyInstanceUID)
    [message] = [ElementTree.fromstring(line) for line in io.StringIO(said.stdout)]
    subjects = {one.get("ParticipantObjectID") for one in message.iter("ParticipantObjectIdentification")}
    assert subjects == {data.PatientID, data.StudyInstanceUID}
    assert os.linesep not in ElementTree.tostring(message, "unicode")


def test_the_worklist_conflicts_and_lists_of_the_api_are_noted_with_their_patients(running_node, http):
    planned, data = patient(), ct(PatientID=patient())
    step = {
        "00400001": {"vr": "AE", "Value": ["CT1"]},
        "00400002": {"vr": "DA", "Value": ["20990101"]},
        "00400003": {"vr": "TM", "Value": ["080000"]},
        "00080060": {"vr": "CS", "Value": ["CT"]},
    }
    item = {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Random^Person"}]},
        "00100020": {"vr": "LO", "Value": [planned]},
        "00400100": {"vr": "SQ", "Value": [step]},
    }
    added = http.post("/api/v1/worklist", json=item)
    assert added.status_code == 201, added.text
    assert http.get(f"/api/v1/worklist/{added.json()['id']}").status_code == 200
    assert http.get("/api/v1/worklist").status_code == 200
    rows = noted(http, running_node, {"patient": planned}, 3)
    assert sorted(row["action"] for row in rows) == ["worklist", "worklist", "worklist-add"]
    assert http.delete(f"/api/v1/worklist/{added.json()['id']}").is_success
    for comment in ("", "other"):
        data.PatientComments = comment
        headers, body = multipart(part10(data))
        http.post("/dicom-web/studies", headers=headers, content=body)
    [conflict] = [
        one for one in http.get("/api/v1/conflicts").json()["items"] if one["sop_instance_uid"] == data.SOPInstanceUID
    ]
    assert http.post(f"/api/v1/conflicts/{conflict['id']}/resolve", json={"decision": "keep"}).status_code == 200
    rows = noted(http, running_node, {"patient": data.PatientID}, 4)
    assert [row["action"] for row in rows if row["action"] not in {"store", "changes"}] == [
        "resolve-conflict",
        "status",
    ]
