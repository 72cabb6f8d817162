"""kill -9 of each process under load: nothing acknowledged is lost, nothing is half there, results come once."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter

import pydicom
import pytest
from pynetdicom import AE

from tests.bench.servers import free_port
from tests.torture.ledger import CT, SLICES, Ledger, Sender, by_dimse, by_stow, digest
from tests.torture.processes import kill
from tests.torture.stand import Stand

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROLES = ("dimse", "web", "clerk", "ai", "postgres", "valkey")
ROUNDS = 5
LOAD_SECONDS = 3
FIND = "1.2.840.10008.5.1.4.1.2.2.1"


@pytest.fixture(scope="module")
def stand(tmp_path_factory):
    """A node with short quiet times, started as an operator starts it."""
    ports = {"HTTP_PORT": free_port(), "WEB_PORT": free_port(), "DICOM_PORT": free_port()}
    with Stand(tmp_path_factory.mktemp("torture"), ports) as running:
        yield running


@pytest.fixture(scope="module")
def ledger(stand):
    """The ledger after every role was killed five times under load."""
    kept, stop = Ledger(), threading.Event()
    senders = [
        Sender(kept, "dimse", stop, by_dimse(stand.dicom_port)),
        Sender(kept, "stow", stop, by_stow(stand.http_port)),
    ]
    for sender in senders:
        sender.start()
    for _ in range(ROUNDS):
        for role in ROLES:
            time.sleep(LOAD_SECONDS)
            kill(stand.pid, role)
            stand.wait_ready()
    time.sleep(LOAD_SECONDS)
    stop.set()
    for sender in senders:
        sender.join(60)
    stand.wait_ready()
    return kept


def test_something_was_sent_and_accepted(ledger):
    assert len(ledger.accepted) > 200


def test_every_success_is_in_qido_and_wado_whole(stand, ledger):
    shown = {row["00080018"]["Value"][0]: row for row in stand.qido("/instances?limit=100000")}
    assert ledger.accepted <= shown.keys()
    for uid in ledger.sent:
        if uid in shown:
            assert digest(stand.wado(shown[uid])) == ledger.sent[uid]


def test_every_success_is_in_c_find(stand, ledger):
    found = set()
    client = AE("TORTURE")
    client.add_requested_context(FIND)
    association = client.associate("127.0.0.1", stand.dicom_port, ae_title="FILMROOM")
    for study in ledger.studies:
        for series in stand.qido(f"/studies/{study}/series"):
            identifier = pydicom.Dataset()
            identifier.QueryRetrieveLevel = "IMAGE"
            identifier.StudyInstanceUID, identifier.SeriesInstanceUID = study, series["0020000E"]["Value"][0]
            identifier.SOPInstanceUID = ""
            found |= {str(a.SOPInstanceUID) for s, a in association.send_c_find(identifier, FIND) if a is not None}
    association.release()
    assert ledger.accepted <= found


def test_what_is_absent_answers_404(stand, ledger):
    shown = {row["00080018"]["Value"][0] for row in stand.qido("/instances?limit=100000")}
    missing = [uid for uid in ledger.sent if uid not in shown]
    for uid in missing[:20]:
        with pytest.raises(urllib.error.HTTPError) as answer:
            stand.get(f"/dicom-web/studies/{uid}/series/{uid}/instances/{uid}")
        assert answer.value.code == 404


def test_each_study_gets_one_set_of_results(stand, ledger):
    deadline = time.monotonic() + 600
    complete = waiting = _complete(stand)
    while waiting and time.monotonic() < deadline:
        waiting = {uid for uid in waiting if not _finished(stand, uid)}
        time.sleep(2)
    assert not waiting
    for uid in complete:
        series = Counter(row["00080060"]["Value"][0] for row in stand.qido(f"/studies/{uid}/series"))
        assert series["SR"] == 1, (uid, series)
        assert series["SEG"] == 1, (uid, series)


def test_counters_are_exact_when_all_results_are_there(stand, ledger):
    for study in stand.qido("/studies?limit=10000"):
        uid = study["0020000D"]["Value"][0]
        assert study["00201208"]["Value"] == [len(stand.qido(f"/studies/{uid}/instances?limit=10000"))]


def _complete(stand) -> set[str]:
    """The studies whose images all arrived; the last ones were cut off when the senders were told to stop."""
    images = Counter(row["0020000D"]["Value"][0] for row in stand.qido("/instances?limit=100000&SOPClassUID=" + CT))
    return {uid for uid, count in images.items() if count == SLICES}


def _finished(stand, study_uid: str) -> bool:
    timeline = json.loads(stand.get(f"/api/v1/ai/studies/{study_uid}"))
    states = [job["state"] for job in timeline["jobs"]]
    return bool(states) and all(state in {"SUCCEEDED", "SUPERSEDED"} for state in states)
