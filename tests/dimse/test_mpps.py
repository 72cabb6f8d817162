"""Performed procedure steps: the rules of their states, what they do to the worklist, and what they tell the ledger."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid
from pynetdicom import AE
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import ModalityPerformedProcedureStep

from pacs.dimse.command import Field
from pacs.domain.syntaxes import EXPLICIT_LE
from pacs.node import Node
from tests.dimse.door import Door, opened
from tests.dimse.sender import LITTLE, Answer, Sender
from tests.dimse.test_node import CT, encoded, image, send
from tests.dimse.test_worklist import RIS, ask, fill, keys, planned

MPPS = "1.2.840.10008.3.1.2.3.3"


@pytest.fixture(scope="module")
def live(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with opened(tmp_path_factory.mktemp("door"), node=node) as door:
        yield door


def begun(study: str = "", step_id: str = "S1", **changes: Any) -> Dataset:
    """What a modality says when it begins."""
    found, scheduled = Dataset(), Dataset()
    found.SpecificCharacterSet = "ISO_IR 192"
    scheduled.StudyInstanceUID, scheduled.ScheduledProcedureStepID = study or generate_uid(), step_id
    scheduled.AccessionNumber = "A1"
    found.ScheduledStepAttributesSequence = Sequence([scheduled])
    found.PatientName, found.PatientID = "Performed^Ä", "PP1"
    found.PerformedProcedureStepID, found.PerformedStationAETitle = "PPS1", "CT1"
    found.PerformedProcedureStepStartDate, found.PerformedProcedureStepStartTime = "20260301", "1010"
    found.PerformedProcedureStepStatus, found.Modality = "IN PROGRESS", "CT"
    found.PerformedSeriesSequence = Sequence([])
    for keyword, value in changes.items():
        setattr(found, keyword, value)
    return found


def ended(status: str = "COMPLETED", instances: tuple[str, ...] = ()) -> Dataset:
    """What a modality says when it ends."""
    found, series = Dataset(), Dataset()
    found.PerformedProcedureStepStatus = status
    found.PerformedProcedureStepEndDate, found.PerformedProcedureStepEndTime = "20260301", "1040"
    series.SeriesInstanceUID, series.ProtocolName = generate_uid(), "HEAD"
    references = []
    for uid in instances:
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CT, uid
        references.append(reference)
    series.ReferencedImageSequence = Sequence(references)
    found.PerformedSeriesSequence = Sequence([series])
    return found


def said(door: Door, field: Field, attributes: Dataset | None, uid: str, sop_class: str = MPPS) -> Answer:
    kind = "Affected" if field is Field.N_CREATE_RQ else "Requested"
    values: dict[str, Any] = {"CommandField": field, f"{kind}SOPClassUID": sop_class}
    if uid:
        values[f"{kind}SOPInstanceUID"] = uid
    data = encode(attributes, False, True) if attributes is not None else None
    with Sender(door.address, [(MPPS, [EXPLICIT_LE])], calling="CT1") as sender:
        sender.send(1, values, data)
        return sender.answer()


def create(door: Door, attributes: Dataset | None, uid: str = "") -> Answer:
    return said(door, Field.N_CREATE_RQ, attributes, uid)


def change(door: Door, attributes: Dataset | None, uid: str) -> Answer:
    return said(door, Field.N_SET_RQ, attributes, uid)


def step(database_url: str, uid: str) -> tuple[str, dict[str, Any]]:
    with psycopg.connect(database_url) as connection:
        found = connection.execute(
            "SELECT state, attributes FROM performed_step WHERE sop_instance_uid = %s", (uid,)
        ).fetchone()
    assert found is not None
    return found


def ledger(database_url: str, study: str) -> tuple[str, dict[str, Any], list[str]]:
    with psycopg.connect(database_url) as connection:
        found = connection.execute(
            "SELECT state, evidence, missing FROM ai_study WHERE study_uid = %s", (study,)
        ).fetchone()
    assert found is not None
    return found


# states


def test_a_step_begins_goes_on_and_ends(live: Door, database_url: str) -> None:
    uid = generate_uid()
    answer = create(live, begun(), uid)
    assert answer.status == 0
    assert answer.command.text("AffectedSOPInstanceUID") == uid
    comment = Dataset()
    comment.CommentsOnThePerformedProcedureStep = "on we go"
    assert change(live, comment, uid).status == 0
    assert step(database_url, uid)[0] == "IN PROGRESS"
    assert change(live, ended(), uid).status == 0
    state, attributes = step(database_url, uid)
    assert state == "COMPLETED"
    assert attributes["00400280"]["Value"] == ["on we go"]
    assert attributes["00100010"]["Value"] == [{"Alphabetic": "Performed^Ä"}]
    assert attributes["00400340"]["Value"][0]["00181030"]["Value"] == ["HEAD"]


def test_a_uid_that_is_left_to_us_is_told(live: Door, database_url: str) -> None:
    uid = create(live, begun()).command.text("AffectedSOPInstanceUID")
    assert uid.startswith("2.25.")
    assert step(database_url, uid)[0] == "IN PROGRESS"


@pytest.mark.parametrize("final", ["COMPLETED", "DISCONTINUED"])
def test_a_step_that_has_ended_is_changed_no_more(live: Door, database_url: str, final: str) -> None:
    uid = generate_uid()
    create(live, begun(), uid)
    assert change(live, ended(final), uid).status == 0
    for again in (ended("COMPLETED"), ended("DISCONTINUED"), begun()):
        answer = change(live, again, uid)
        assert answer.status == 0x0110
        assert answer.command.number("ErrorID") == 0xA710
        assert "may no longer be updated" in answer.command.text("ErrorComment")
    assert step(database_url, uid)[0] == final


def test_a_uid_begins_once(live: Door) -> None:
    uid = generate_uid()
    assert create(live, begun(), uid).status == 0
    assert create(live, begun(), uid).status == 0x0111


def test_an_unknown_step_cannot_be_changed(live: Door) -> None:
    assert change(live, ended(), generate_uid()).status == 0x0112


@pytest.mark.parametrize("state", ["COMPLETED", "DISCONTINUED", "PAUSED", "in progress"])
def test_a_step_begins_in_progress_only(live: Door, state: str) -> None:
    answer = create(live, begun(PerformedProcedureStepStatus=state), generate_uid())
    assert answer.status == 0x0106
    assert answer.command.values["AttributeIdentifierList"] == (0x00400252,)


@pytest.mark.parametrize(
    ("keyword", "status"),
    [("PerformedProcedureStepStatus", 0x0120), ("ScheduledStepAttributesSequence", 0x0120)],
)
def test_what_is_missing_is_named(live: Door, keyword: str, status: int) -> None:
    attributes = begun()
    delattr(attributes, keyword)
    assert create(live, attributes, generate_uid()).status == status
    setattr(attributes, keyword, None if keyword.endswith("Status") else Sequence([]))
    assert create(live, attributes, generate_uid()).status == 0x0121


def test_who_and_when_it_began_may_not_be_changed(live: Door, database_url: str) -> None:
    uid = generate_uid()
    create(live, begun(), uid)
    attributes = ended()
    attributes.PatientID = "ANOTHER"
    answer = change(live, attributes, uid)
    assert answer.status == 0x0107
    assert answer.command.values["AttributeIdentifierList"] == (0x00100020,)
    state, kept = step(database_url, uid)
    assert (state, kept["00100020"]["Value"]) == ("COMPLETED", ["PP1"])


@pytest.mark.parametrize("uid", ["../../etc/passwd", "1.2." + "3" * 70])
def test_an_instance_that_is_no_uid_is_refused(live: Door, uid: str) -> None:
    assert create(live, begun(), uid).status == 0x0117
    assert change(live, ended(), uid).status == 0x0117


def test_another_class_in_the_command_is_refused(live: Door) -> None:
    assert said(live, Field.N_CREATE_RQ, begun(), generate_uid(), sop_class=CT).status == 0x0118


@pytest.mark.parametrize("data", [b"", b"\xff" * 50])
def test_a_data_set_that_cannot_be_read_begins_nothing(live: Door, database_url: str, data: bytes) -> None:
    uid = generate_uid()
    values: dict[str, Any] = {
        "CommandField": Field.N_CREATE_RQ,
        "AffectedSOPClassUID": MPPS,
        "AffectedSOPInstanceUID": uid,
    }
    with Sender(live.address, [(MPPS, LITTLE)]) as sender:
        sender.send(1, values, data)
        assert sender.answer().status in {0x0110, 0x0120}
    assert change(live, ended(), uid).status == 0x0112


# the worklist


def test_the_planned_step_follows(live: Door, node: Node) -> None:
    item = planned()
    (added,) = fill(node, item)
    planned_step = item.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID
    query = keys(step_ScheduledProcedureStepID=planned_step)
    first, second = generate_uid(), generate_uid()

    create(live, begun(item.StudyInstanceUID, planned_step), first)
    (found,) = ask(live, query)
    assert found.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStatus == "STARTED"
    assert node.worklist.get(added["id"])["state"] == "started"
    change(live, ended("DISCONTINUED"), first)
    (found,) = ask(live, query)
    assert found.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStatus == "SCHEDULED"
    create(live, begun(item.StudyInstanceUID, planned_step), second)
    change(live, ended(), second)
    assert ask(live, query) == []
    assert node.worklist.get(added["id"])["state"] == "completed"
    node.worklist.remove(added["id"], RIS)


# the ledger


def stored(live: Door, node: Node, study: str) -> str:
    ds = image(StudyInstanceUID=study)
    assert send(live, encoded(ds), ds.SOPInstanceUID).status == 0
    node.relay.note()
    return str(ds.SOPInstanceUID)


def test_a_completed_step_whose_instances_are_here_confirms_the_study(
    live: Door, node: Node, database_url: str
) -> None:
    study, uid = generate_uid(), generate_uid()
    create(live, begun(study), uid)
    instances = [stored(live, node, study) for _ in range(3)]
    assert ledger(database_url, study)[0] == "open"
    assert change(live, ended(instances=tuple(instances)), uid).status == 0
    state, evidence, missing = ledger(database_url, study)
    assert (state, missing) == ("confirmed", [])
    assert (evidence["signal"], evidence["steps"]) == ("mpps", [uid])


def test_what_a_completed_step_names_and_is_not_here_keeps_the_study_open(
    live: Door, node: Node, database_url: str
) -> None:
    study, uid = generate_uid(), generate_uid()
    late = image(StudyInstanceUID=study)
    here = stored(live, node, study)
    create(live, begun(study), uid)
    change(live, ended(instances=(here, late.SOPInstanceUID)), uid)
    state, evidence, missing = ledger(database_url, study)
    assert (state, evidence["signal"]) == ("open", "mpps_missing")
    assert late.SOPInstanceUID in missing[0]
    _long_quiet(database_url, study)
    assert study not in node.ledger.judge()
    assert send(live, encoded(late), late.SOPInstanceUID).status == 0
    assert study in node.steps.settle()
    assert ledger(database_url, study)[0] == "confirmed"


def test_a_step_in_progress_keeps_its_study_open_however_quiet_it_is(live: Door, node: Node, database_url: str) -> None:
    study, uid = generate_uid(), generate_uid()
    create(live, begun(study), uid)
    stored(live, node, study)
    _long_quiet(database_url, study)
    assert study not in node.ledger.judge()
    change(live, ended("DISCONTINUED"), uid)
    assert study in node.ledger.judge()


def test_a_study_of_two_steps_waits_for_both(live: Door, node: Node, database_url: str) -> None:
    study, first, second = (generate_uid() for _ in range(3))
    create(live, begun(study), first)
    create(live, begun(study, "S2"), second)
    one, two = stored(live, node, study), stored(live, node, study)
    change(live, ended(instances=(one,)), first)
    assert ledger(database_url, study)[0] == "open"
    change(live, ended(instances=(two,)), second)
    assert ledger(database_url, study)[0] == "confirmed"


def test_a_completed_step_that_names_nothing_proves_nothing(live: Door, node: Node, database_url: str) -> None:
    study, uid = generate_uid(), generate_uid()
    create(live, begun(study), uid)
    stored(live, node, study)
    change(live, ended(), uid)
    assert ledger(database_url, study)[0] == "open"


def _long_quiet(database_url: str, study: str) -> None:
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE study SET changed_at = %s WHERE study_uid = %s", (long_ago, study))


# other people's tools


@pytest.mark.interop
def test_pynetdicom_begins_and_ends_a_step(live: Door, database_url: str) -> None:
    ae = AE("CT1")
    ae.add_requested_context(ModalityPerformedProcedureStep)
    association = ae.associate(*live.address, ae_title="FILMROOM")
    uid = generate_uid()
    status, _ = association.send_n_create(begun(), ModalityPerformedProcedureStep, uid)
    assert status.Status == 0
    status, _ = association.send_n_set(ended(), ModalityPerformedProcedureStep, uid)
    assert status.Status == 0
    status, _ = association.send_n_set(ended(), ModalityPerformedProcedureStep, uid)
    assert (status.Status, status.ErrorID) == (0x0110, 0xA710)
    association.release()
    assert step(database_url, uid)[0] == "COMPLETED"
