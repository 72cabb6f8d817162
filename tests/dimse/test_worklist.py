"""The modality worklist by its two ends: filled by whoever plans, asked by C-FIND."""

import itertools
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid
from pynetdicom import AE
from pynetdicom.dsutils import decode, encode
from pynetdicom.sop_class import ModalityWorklistInformationFind

from pacs.domain.events import Source
from pacs.errors import BadRequest, Conflict, NotFound
from pacs.node import Node
from tests.dimse.door import Door, opened
from tests.dimse.sender import LITTLE, Sender

MODEL = "1.2.840.10008.5.1.4.31"
RIS = Source("api", "ris", "127.0.0.1")
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def live(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with opened(tmp_path_factory.mktemp("door"), node=node) as door:
        yield door


@pytest.fixture(autouse=True)
def empty(node: Node) -> None:
    for item in node.worklist.list(None, 1000, 0):
        node.worklist.remove(item["id"], RIS)


def planned(**changes: Any) -> Dataset:
    """A whole item; keys of the step begin with `step_`."""
    number = next(_numbers)
    item, step = Dataset(), Dataset()
    item.SpecificCharacterSet = "ISO_IR 192"
    item.PatientName, item.PatientID = f"Planned^{number}", f"P{number}"
    item.AccessionNumber, item.RequestedProcedureID = f"A{number}", f"R{number}"
    item.StudyInstanceUID = generate_uid()
    step.ScheduledStationAETitle, step.Modality = "CT1", "CT"
    step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime = "20260301", "101500"
    step.ScheduledProcedureStepID = f"S{number}"
    step.ScheduledPerformingPhysicianName = "Röntgen^Wilhelm"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "CTHEAD", "LOCAL", "CT head"
    step.ScheduledProtocolCodeSequence = Sequence([code])
    for keyword, value in changes.items():
        setattr(step if keyword.startswith("step_") else item, keyword.removeprefix("step_"), value)
    item.ScheduledProcedureStepSequence = Sequence([step])
    return item


def fill(node: Node, *items: Dataset) -> list[dict[str, Any]]:
    return node.worklist.add([item.to_json_dict() for item in items], RIS)


def keys(**changes: Any) -> Dataset:
    found, step = Dataset(), Dataset()
    found.PatientName = found.PatientID = found.StudyInstanceUID = found.AccessionNumber = ""
    for keyword in ("ScheduledStationAETitle", "Modality", "ScheduledProcedureStepID", "ScheduledProcedureStepStatus",
                    "ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime"):  # fmt: skip
        setattr(step, keyword, "")
    for keyword, value in changes.items():
        setattr(step if keyword.startswith("step_") else found, keyword.removeprefix("step_"), value)
    found.ScheduledProcedureStepSequence = Sequence([step])
    return found


def ask(door: Door, query: Dataset, syntax: str = LITTLE[0]) -> list[Dataset]:
    from io import BytesIO

    data = encode(query, syntax == LITTLE[0], True)
    assert data is not None
    with Sender(door.address, [(MODEL, [syntax])]) as sender:
        answers = sender.find(MODEL, data)
    assert answers[-1].status == 0
    return [decode(BytesIO(answer.data), syntax == LITTLE[0], True) for answer in answers[:-1]]


def ids(found: list[Dataset]) -> list[str]:
    return [answer.PatientID for answer in found]


def test_a_modality_finds_its_own_steps_of_today(live: Door, node: Node) -> None:
    mine = planned()
    others = [planned(step_ScheduledStationAETitle="CT2"), planned(step_ScheduledProcedureStepStartDate="20260302")]
    fill(node, mine, *others)
    found = ask(live, keys(step_ScheduledStationAETitle="CT1", step_ScheduledProcedureStepStartDate="20260301"))
    assert ids(found) == [mine.PatientID]
    (step,) = found[0].ScheduledProcedureStepSequence
    assert step.ScheduledProcedureStepID == mine.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID
    assert step.ScheduledProcedureStepStatus == "SCHEDULED"
    assert "ScheduledPerformingPhysicianName" not in step
    assert found[0].StudyInstanceUID == mine.StudyInstanceUID


@pytest.mark.parametrize("syntax", LITTLE)
def test_answers_come_by_their_time_with_what_was_asked(live: Door, node: Node, syntax: str) -> None:
    late, early = (
        planned(step_ScheduledProcedureStepStartTime="1700"),
        planned(step_ScheduledProcedureStepStartTime="08"),
    )
    fill(node, late, early)
    query = keys(step_ScheduledPerformingPhysicianName="", step_ScheduledProtocolCodeSequence=Sequence([]))
    query.RequestedProcedureCodeSequence = Sequence([])
    found = ask(live, query, syntax)
    assert ids(found) == [early.PatientID, late.PatientID]
    (step,) = found[0].ScheduledProcedureStepSequence
    assert found[0].SpecificCharacterSet == "ISO_IR 192"
    assert step.ScheduledPerformingPhysicianName == "Röntgen^Wilhelm"
    assert step.ScheduledProtocolCodeSequence[0].CodeMeaning == "CT head"
    assert found[0].RequestedProcedureCodeSequence == Sequence([])


@pytest.mark.parametrize(
    ("changes", "finds"),
    [
        ({"PatientName": "müller^jö*"}, True),
        ({"PatientName": "Muller^J?rg"}, True),
        ({"PatientName": "Müller^Hans"}, False),
        ({"PatientID": "M?77"}, True),
        ({"PatientID": "m?77"}, False),
        ({"AccessionNumber": "ACC*"}, True),
        ({"AccessionNumber": "ACC"}, False),
        ({"StudyInstanceUID": ["1.2.3", "1.2.4"]}, True),
        ({"StudyInstanceUID": "1.2.5"}, False),
        ({"step_Modality": "MR"}, False),
        ({"step_ScheduledProcedureStepStartDate": "20260301-20260303"}, True),
        ({"step_ScheduledProcedureStepStartDate": "-20260301"}, False),
        ({"step_ScheduledProcedureStepStartDate": "20260302-"}, True),
        ({"step_ScheduledProcedureStepStartTime": "1300-1400"}, True),
        ({"step_ScheduledProcedureStepStartTime": "13"}, True),
        ({"step_ScheduledProcedureStepStartTime": "14"}, False),
        ({"step_ScheduledPerformingPhysicianName": "Curie*"}, True),
        ({"ReferringPhysicianName": "Nobody"}, False),
        ({"PatientSex": ""}, True),
    ],
)
def test_keys_match_as_the_standard_says(live: Door, node: Node, changes: dict[str, Any], finds: bool) -> None:
    item = planned(
        PatientName="Müller^Jörg",
        PatientID="M-77",
        AccessionNumber="ACC-1",
        StudyInstanceUID="1.2.4",
        step_ScheduledProcedureStepStartDate="20260302",
        step_ScheduledProcedureStepStartTime="133000",
        step_ScheduledPerformingPhysicianName="Curie^Marie",
    )
    fill(node, item, planned())
    query = keys(**changes)
    query.SpecificCharacterSet = "ISO_IR 100"
    assert ("M-77" in ids(ask(live, query))) is finds


def test_ranges_of_date_and_time_are_one_span(live: Door, node: Node) -> None:
    inside = planned(step_ScheduledProcedureStepStartDate="20260705", step_ScheduledProcedureStepStartTime="2300")
    before = planned(step_ScheduledProcedureStepStartDate="20260705", step_ScheduledProcedureStepStartTime="0900")
    after = planned(step_ScheduledProcedureStepStartDate="20260707", step_ScheduledProcedureStepStartTime="1900")
    fill(node, inside, before, after)
    span = {
        "step_ScheduledProcedureStepStartDate": "20260705-20260707",
        "step_ScheduledProcedureStepStartTime": "10-18",
    }
    assert ids(ask(live, keys(**span))) == [inside.PatientID]


def test_keys_of_a_nested_sequence_match_in_one_item(live: Door, node: Node) -> None:
    fill(node, item := planned(), planned(step_ScheduledProtocolCodeSequence=Sequence([])))
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "CTHEAD", "LOCAL"
    assert ids(ask(live, keys(step_ScheduledProtocolCodeSequence=Sequence([code])))) == [item.PatientID]
    code.CodingSchemeDesignator = "OTHER"
    assert ask(live, keys(step_ScheduledProtocolCodeSequence=Sequence([code]))) == []


def test_more_items_than_one_page_all_come_once(live: Door, node: Node) -> None:
    chance = random.Random(5)
    items = [
        planned(
            step_ScheduledProcedureStepStartDate=f"202603{chance.randrange(1, 4):02}",
            step_ScheduledProcedureStepStartTime=f"{chance.randrange(24):02}",
        )
        for _ in range(550)
    ]
    fill(node, *items)
    found = ask(live, keys())
    assert sorted(ids(found)) == sorted(item.PatientID for item in items)
    starts = [
        answer.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartDate
        + answer.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartTime
        for answer in found
    ]
    assert starts == sorted(starts)


def test_an_empty_worklist_is_success_without_answers(live: Door) -> None:
    assert ask(live, keys()) == []


@pytest.mark.parametrize("data", [b"\xff" * 40, b"\x10\0\x20\0\xff\0\0\0"])
def test_an_identifier_that_cannot_be_read_is_refused(live: Door, data: bytes) -> None:
    with Sender(live.address, [(MODEL, LITTLE)]) as sender:
        (answer,) = sender.find(MODEL, data)
    assert answer.status in {0xC000, 0xA900}


def test_a_malformed_key_is_refused_without_its_value(live: Door, node: Node) -> None:
    fill(node, planned())
    data = encode(keys(step_ScheduledProcedureStepStartDate="20263301"), True, True)
    assert data is not None
    with Sender(live.address, [(MODEL, LITTLE[:1])]) as sender:
        (answer,) = sender.find(MODEL, data)
    assert answer.status == 0xA900
    assert "2026" not in answer.command.text("ErrorComment")


# filling


def test_what_is_left_out_is_made(node: Node) -> None:
    item = planned()
    del item.StudyInstanceUID
    del item.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID
    (added,) = fill(node, item)
    assert added["study_uid"].startswith("2.25.")
    assert added["item"]["00400100"]["Value"][0]["00400009"]["Value"][0]


@pytest.mark.parametrize(
    "given",
    [
        None,
        [],
        {},
        "x",
        {"PatientID": {"vr": "LO", "Value": ["1"]}},
        {"00100020": {"Value": ["1"]}},
        {"00100020": {"vr": "LO", "Value": "1"}},
        {"00100020": {"vr": "LO", "BulkDataURI": "http://192.0.2.1/"}},
        {**planned().to_json_dict(), "00280010": {"vr": "US", "Value": ["x"]}},
        {**planned().to_json_dict(), "00400100": {"vr": "SQ", "Value": []}},
        {**planned().to_json_dict(), "00100020": {"vr": "LO"}},
        {**planned().to_json_dict(), "0020000D": {"vr": "UI", "Value": ["../../x"]}},
        planned(step_ScheduledProcedureStepStartDate="20261399").to_json_dict(),
        planned(step_ScheduledProcedureStepStatus="FLYING").to_json_dict(),
    ],
)
def test_what_no_modality_could_use_is_told_to_whoever_fills(node: Node, given: object) -> None:
    with pytest.raises(BadRequest):
        node.worklist.add([planned().to_json_dict(), given], RIS)
    assert node.worklist.list(None, 10, 0) == []


def test_a_step_is_planned_once_and_changed_under_its_id(live: Door, node: Node) -> None:
    item = planned()
    (added,) = fill(node, item)
    with pytest.raises(Conflict):
        fill(node, item)
    item.ScheduledProcedureStepSequence[0].ScheduledStationAETitle = "CT9"
    node.worklist.replace(added["id"], item.to_json_dict(), RIS)
    assert ids(ask(live, keys(step_ScheduledStationAETitle="CT9"))) == [item.PatientID]
    (other,) = fill(node, planned())
    with pytest.raises(Conflict):
        node.worklist.replace(other["id"], item.to_json_dict(), RIS)
    node.worklist.remove(added["id"], RIS)
    for act in (lambda: node.worklist.get(added["id"]), lambda: node.worklist.remove(added["id"], RIS)):
        with pytest.raises(NotFound):
            act()


def test_who_planned_is_in_the_audit_trail(node: Node, database_url: str) -> None:
    item = planned()
    fill(node, item)
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT action, actor FROM audit WHERE patient_id = %s", (item.PatientID,)).fetchall()
    assert ("worklist-add", "ris") in rows


# other people's tools


@pytest.mark.interop
def test_findscu_reads_the_worklist(live: Door, node: Node, tmp_path: Path) -> None:
    program = shutil.which("findscu")
    if program is None:
        pytest.skip("findscu is not installed")
    items = [planned(step_Modality="MR") for _ in range(5)]
    fill(node, planned(), *items)
    wanted = ("-k", "PatientName", "-k", "(0040,0100)[0].Modality=MR", "-k", "(0040,0100)[0].ScheduledProcedureStepID")
    host, port = live.address
    line = [program, "-W", "-X", "-od", str(tmp_path), "-aec", "FILMROOM", *wanted, host, str(port)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    answers = [dcmread(path, force=True) for path in tmp_path.iterdir()]
    steps = {answer.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID for answer in answers}
    assert steps == {item.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID for item in items}


@pytest.mark.interop
def test_pynetdicom_reads_the_worklist(live: Door, node: Node) -> None:
    fill(node, item := planned(PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう"), planned())
    ae = AE("CT1")
    ae.add_requested_context(ModalityWorklistInformationFind)
    association = ae.associate(*live.address, ae_title="FILMROOM")
    query = keys(PatientName="*=山田*")
    query.SpecificCharacterSet = "ISO_IR 192"
    answers = list(association.send_c_find(query, ModalityWorklistInformationFind))
    association.release()
    assert [status.Status for status, _ in answers] == [0xFF00, 0]
    assert answers[0][1].PatientName == item.PatientName
