"""C-MOVE: what is stored arrives at the peer, and the answers say what did not."""

import threading
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING

import psycopg
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom.dsutils import decode, encode

from pacs.domain.events import Source
from tests.dicomweb.objects import ct, part10
from tests.dimse.door import Door, opened
from tests.dimse.receiver import EXPLICIT, IMPLICIT, Receiver, receiving
from tests.dimse.sender import Answer, Sender, cancel_request

if TYPE_CHECKING:
    from pacs.node import Node

PATIENT_MOVE, STUDY_MOVE = "1.2.840.10008.5.1.4.1.2.1.2", "1.2.840.10008.5.1.4.1.2.2.2"


def store(node: "Node", *objects: Dataset) -> None:
    for one in objects:
        incoming = node.ingest.begin(Source("import", "test"))
        incoming.write(part10(one))
        node.ingest.store(incoming)


def keys(**values: str) -> bytes:
    """An identifier in Implicit VR."""
    identifier = Dataset()
    for keyword, value in values.items():
        setattr(identifier, keyword, value)
    data = encode(identifier, True, True)
    assert data is not None
    return data


@pytest.fixture(scope="module")
def study(node: "Node") -> list[Dataset]:
    """Two series of five slices of one patient."""
    uid, patient = generate_uid(), "MOVED"
    series = [generate_uid(), generate_uid()]
    objects = [
        ct(
            study=uid,
            series=series[number // 5],
            PatientID=patient,
            InstanceNumber=number + 1,
            SeriesNumber=number // 5,
        )
        for number in range(10)
    ]
    store(node, *objects)
    return objects


@pytest.fixture(scope="module")
def archive() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def live(node: "Node", archive: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    peers = archive.peer() | {"NOWHERE": 'host = "127.0.0.1"\nport = 1', "CALLER": 'host = "127.0.0.1"'}
    with opened(tmp_path_factory.mktemp("door"), node=node, peers=peers) as door:
        yield door


def move(door: Door, identifier: bytes, to: str = "ARCHIVE", model: str = STUDY_MOVE) -> list[Answer]:
    with Sender(door.address, [(model, [IMPLICIT])], calling="CALLER") as sender:
        sender.send(
            1, {"CommandField": 0x0021, "AffectedSOPClassUID": model, "MoveDestination": to, "Priority": 0}, identifier
        )
        answers = [sender.answer()]
        while answers[-1].status == 0xFF00:
            answers.append(sender.answer())
        return answers


def counts(answer: Answer) -> tuple[int, int, int]:
    """Completed, failed, warning."""
    names = ("Completed", "Failed", "Warning")
    return tuple(answer.command.number(f"NumberOf{name}Suboperations", -1) for name in names)  # type: ignore[return-value]


def failed(answer: Answer) -> list[str]:
    found = decode(BytesIO(answer.data), True, True).get("FailedSOPInstanceUIDList", [])
    return [found] if isinstance(found, str) else list(found)


def test_a_study_arrives_whole_and_in_order(live: Door, archive: Receiver, study: list[Dataset]) -> None:
    archive.came.clear()
    before = archive.associations
    answers = move(live, keys(QueryRetrieveLevel="STUDY", StudyInstanceUID=study[0].StudyInstanceUID))
    assert answers[-1].status == 0
    assert counts(answers[-1]) == (10, 0, 0)
    assert not answers[-1].data
    assert [one.uid for one in archive.came] == [one.SOPInstanceUID for one in study]
    assert archive.associations == before + 1
    for sent, came in zip(study, archive.came, strict=True):
        found = decode(BytesIO(came.data), False, True)
        assert found == sent
        assert came.originator == ("CALLER", 1)
        assert came.syntax == EXPLICIT
    for pending in answers[:-1]:
        assert pending.command.number("NumberOfRemainingSuboperations", -1) == 10 - sum(counts(pending))


@pytest.mark.parametrize("level", ["PATIENT", "STUDY", "SERIES", "IMAGE"])
@pytest.mark.parametrize("model", [PATIENT_MOVE, STUDY_MOVE])
def test_each_level_of_both_models(live: Door, archive: Receiver, study: list[Dataset], level: str, model: str) -> None:
    first = study[0]
    given = {
        "PatientID": first.PatientID,
        "StudyInstanceUID": first.StudyInstanceUID,
        "SeriesInstanceUID": first.SeriesInstanceUID,
        "SOPInstanceUID": "\\".join(one.SOPInstanceUID for one in study[:2]),
    }
    place = ["PATIENT", "STUDY", "SERIES", "IMAGE"].index(level)
    start = 0 if model == PATIENT_MOVE else 1
    named = dict(list(given.items())[start : place + 1])
    archive.came.clear()
    [*_, last] = move(live, keys(QueryRetrieveLevel=level, **named), model=model)
    if model == STUDY_MOVE and level == "PATIENT":
        assert last.status == 0xA900
        return
    assert last.status == 0
    expected = {"PATIENT": 10, "STUDY": 10, "SERIES": 5, "IMAGE": 2}[level]
    assert {one.uid for one in archive.came} == {one.SOPInstanceUID for one in study[:expected]}


@pytest.mark.parametrize(
    ("given", "offending"),
    [
        ({"QueryRetrieveLevel": "STUDY"}, 0x0020000D),
        ({"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2.*"}, 0x0020000D),
        ({"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": "1.2.3"}, 0x0020000D),
        ({"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": "1.2\\1.3", "SeriesInstanceUID": "1.2.3"}, 0x0020000D),
        ({"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3"}, 0x0020000E),
        ({"QueryRetrieveLevel": "FRAME", "StudyInstanceUID": "1.2"}, 0x00080052),
        ({"StudyInstanceUID": "1.2"}, 0x00080052),
    ],
)
def test_keys_that_the_model_forbids_move_nothing(
    live: Door, archive: Receiver, given: dict[str, str], offending: int
) -> None:
    archive.came.clear()
    [last] = move(live, keys(**given))
    assert last.status == 0xA900
    assert last.command.values["OffendingElement"] == (offending,)
    assert not archive.came


def test_an_unknown_destination_is_named_as_such(live: Door, study: list[Dataset]) -> None:
    given = keys(QueryRetrieveLevel="STUDY", StudyInstanceUID=study[0].StudyInstanceUID)
    assert [one.status for one in move(live, given, to="NOBODY")] == [0xA801]
    assert [one.status for one in move(live, given, to="CALLER")] == [0xA801], "a peer without a port cannot be called"


def test_a_destination_that_is_down_fails_every_instance_by_name(live: Door, study: list[Dataset]) -> None:
    given = keys(
        QueryRetrieveLevel="SERIES",
        StudyInstanceUID=study[0].StudyInstanceUID,
        SeriesInstanceUID=study[0].SeriesInstanceUID,
    )
    [last] = move(live, given, to="NOWHERE")
    assert last.status == 0xA702
    assert counts(last) == (0, 5, 0)
    assert set(failed(last)) == {one.SOPInstanceUID for one in study[:5]}


def test_nothing_found_is_success_with_nothing_done(live: Door) -> None:
    [last] = move(live, keys(QueryRetrieveLevel="STUDY", StudyInstanceUID="1.2.3.4"))
    assert (last.status, counts(last)) == (0, (0, 0, 0))


def test_what_the_receiver_refuses_is_listed_and_the_rest_arrives(
    live: Door, archive: Receiver, study: list[Dataset]
) -> None:
    bad, odd = study[3].SOPInstanceUID, study[7].SOPInstanceUID
    archive.came.clear()
    archive.answer = lambda one: {bad: 0xC000, odd: 0xB000}.get(one.uid, 0)
    try:
        [*_, last] = move(live, keys(QueryRetrieveLevel="STUDY", StudyInstanceUID=study[0].StudyInstanceUID))
    finally:
        archive.answer = lambda one: 0
    assert last.status == 0xB000
    assert counts(last) == (8, 1, 1)
    assert failed(last) == [bad]
    assert len(archive.came) == 10


def test_moves_are_in_the_audit_trail(live: Door, node: "Node", study: list[Dataset]) -> None:
    move(live, keys(QueryRetrieveLevel="STUDY", StudyInstanceUID=study[0].StudyInstanceUID))
    node.audit.close()
    rows = [row for row in node.audit.of_study(study[0].StudyInstanceUID) if row["action"] == "read"]
    assert rows[0]["actor"] == "CALLER"
    assert rows[0]["patient_id"] == "MOVED"
    assert rows[0]["detail"]["destination"] == "ARCHIVE"


@pytest.fixture(scope="module")
def large(node: "Node") -> list[Dataset]:
    """A study of 300 slices."""
    uid, series = generate_uid(), generate_uid()
    objects = [ct(study=uid, series=series, PatientID="LARGE", InstanceNumber=number + 1) for number in range(300)]
    futures = []
    for one in objects:
        incoming = node.ingest.begin(Source("import", "test"))
        incoming.write(part10(one))
        futures.append(node.ingest.submit(incoming))
    assert {future.result().outcome for future in futures} == {"stored"}
    return objects


def test_of_300_instances_five_that_cannot_be_sent_are_named(
    live: Door, archive: Receiver, node: "Node", large: list[Dataset]
) -> None:
    lost = [large[number].SOPInstanceUID for number in (0, 77, 150, 151, 299)]
    with psycopg.connect(node.settings.database_url) as connection:
        statement = "SELECT object_name FROM instance WHERE sop_instance_uid = ANY(%s)"
        paths = [
            node.settings.storage_dir / "objects" / name
            for (name,) in connection.execute(statement, (lost,)).fetchall()
        ]
    moved = [path.rename(path.with_suffix(".away")) for path in paths]
    archive.came.clear()
    try:
        [*pending, last] = move(live, keys(QueryRetrieveLevel="STUDY", StudyInstanceUID=large[0].StudyInstanceUID))
    finally:
        for path in moved:
            path.rename(path.with_suffix(""))
    assert last.status == 0xB000
    assert counts(last) == (295, 5, 0)
    assert failed(last) == lost
    assert {one.uid for one in archive.came} == {one.SOPInstanceUID for one in large} - set(lost)
    assert pending
    assert len(pending) < 100, "not an answer for each instance"


def test_a_cancel_in_the_middle_stops_within_one_instance(live: Door, archive: Receiver, large: list[Dataset]) -> None:
    reached, cancelled = threading.Event(), threading.Event()

    def answer(_: object) -> int:
        if len(archive.came) == 99:  # the hundredth is under way
            reached.set()
            assert cancelled.wait(20)
        return 0

    archive.came.clear()
    archive.answer = answer  # type: ignore[assignment]
    request = {"CommandField": 0x0021, "AffectedSOPClassUID": STUDY_MOVE, "MoveDestination": "ARCHIVE", "Priority": 0}
    identifier = keys(QueryRetrieveLevel="STUDY", StudyInstanceUID=large[0].StudyInstanceUID)
    try:
        with Sender(live.address, [(STUDY_MOVE, [IMPLICIT])]) as sender:
            number = sender.send(1, request, identifier)
            assert reached.wait(20)
            sender.send(1, cancel_request(number))
            [(operation, _)] = [one for link in live.reactor._connections for one in link._operations.values()]
            assert operation._cancelled.wait(20)
            cancelled.set()
            last = sender.answer()
            while last.status == 0xFF00:
                last = sender.answer()
    finally:
        cancelled.set()
        archive.answer = lambda one: 0
    assert last.status == 0xFE00
    assert len(archive.came) in (100, 101)
    assert counts(last)[0] == len(archive.came)
    assert last.command.number("NumberOfRemainingSuboperations") == 300 - len(archive.came)


def test_a_requester_that_aborts_stops_the_sending(live: Door, archive: Receiver, large: list[Dataset]) -> None:
    reached, gone = threading.Event(), threading.Event()

    def answer(_: object) -> int:
        if len(archive.came) == 49:
            reached.set()
            assert gone.wait(20)
        return 0

    archive.came.clear()
    archive.answer = answer  # type: ignore[assignment]
    request = {"CommandField": 0x0021, "AffectedSOPClassUID": STUDY_MOVE, "MoveDestination": "ARCHIVE", "Priority": 0}
    try:
        sender = Sender(live.address, [(STUDY_MOVE, [IMPLICIT])]).__enter__()
        sender.send(1, request, keys(QueryRetrieveLevel="STUDY", StudyInstanceUID=large[0].StudyInstanceUID))
        assert reached.wait(20)
        sender.sock.sendall(sender.protocol.abort())
        sender.sock.close()
        while live.reactor._connections:
            threading.Event().wait(0.02)
    finally:
        gone.set()
        archive.answer = lambda one: 0
    live.reactor._retrievals.submit(lambda: None).result(20)
    assert len(archive.came) <= 51
