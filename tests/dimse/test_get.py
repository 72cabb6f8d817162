"""C-GET: the instances come on the requester's own association."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom.dsutils import decode

from pacs.dimse import command
from pacs.dimse.associate import Role
from pacs.dimse.command import Field
from pacs.dimse.pdu import message
from pacs.dimse.protocol import CommandReceived, DataReceived
from tests.dicomweb.objects import CT, ct
from tests.dimse.door import Door, opened
from tests.dimse.receiver import EXPLICIT, IMPLICIT
from tests.dimse.sender import Answer, Sender, cancel_request
from tests.dimse.test_move import counts, failed, keys, store

if TYPE_CHECKING:
    from pacs.node import Node

GET = "1.2.840.10008.5.1.4.1.2.2.3"
PATIENT_GET = "1.2.840.10008.5.1.4.1.2.1.3"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"


@pytest.fixture(scope="module")
def study(node: "Node") -> list[Dataset]:
    """Ten slices, each of 40 KB."""
    uid, series = generate_uid(), generate_uid()
    size = {"Rows": 100, "Columns": 200, "PixelData": bytes(range(250)) * 160}
    objects = [ct(study=uid, series=series, PatientID="GOTTEN", InstanceNumber=n + 1, **size) for n in range(10)]
    store(node, *objects)
    return objects


@pytest.fixture(scope="module")
def live(node: "Node", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    peers = {"VIEWER": 'host = "127.0.0.1"\nservices = ["get", "echo"]'}
    with opened(tmp_path_factory.mktemp("door"), node=node, peers=peers) as door:
        yield door


@dataclass
class Got:
    """What came by one C-GET: objects by UID as (syntax, bytes), and the answers."""

    objects: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)

    @property
    def last(self) -> Answer:
        return self.answers[-1]


class Getter(Sender):
    """A requester that stores; `judge` decides the status of each object by its number."""

    def get(self, identifier: bytes, model: str = GET, judge=lambda number: 0, cancel_after: int = -1) -> Got:
        got = Got()
        number = self.send(1, {"CommandField": Field.C_GET_RQ, "AffectedSOPClassUID": model, "Priority": 0}, identifier)
        while not got.answers or got.last.status == 0xFF00:
            self._one(got, judge)
            if len(got.objects) == cancel_after:
                cancel_after = -1
                head = {**cancel_request(number), "CommandDataSetType": 0x0101}
                self.sock.sendall(message(1, command.encode(head), None, self.protocol.peer_max_pdu))
        return got

    def _one(self, got: Got, judge) -> None:
        event = self.event()
        assert isinstance(event, CommandReceived), event
        data, more = b"", event.command.has_data_set
        while more:
            piece = self.event()
            assert isinstance(piece, DataReceived), piece
            data += piece.data
            more = not piece.last
        if event.command.field != Field.C_STORE_RQ:
            got.answers.append(Answer(event.command, data))
            return
        uid = event.command.text("AffectedSOPInstanceUID")
        status = judge(len(got.objects))
        got.objects[uid] = (self.accepted[event.context_id], data)
        answer = command.response(event.command, status)
        self.sock.sendall(message(event.context_id, answer, None, self.protocol.peer_max_pdu))


def getter(door: Door, syntaxes=(EXPLICIT,), role: bool = True, model: str = GET, **more) -> Getter:
    roles = (Role(CT, False, True),) if role else ()
    return Getter(door.address, [(model, [IMPLICIT]), (CT, list(syntaxes))], roles=roles, **more)


def whole(study: list[Dataset]) -> bytes:
    return keys(QueryRetrieveLevel="STUDY", StudyInstanceUID=study[0].StudyInstanceUID)


@pytest.mark.parametrize("max_pdu", [4_096, 16_384, 131_072])
def test_a_study_comes_whole(live: Door, study: list[Dataset], max_pdu: int) -> None:
    with getter(live, max_pdu=max_pdu) as requester:
        got = requester.get(whole(study))
    assert got.last.status == 0
    assert counts(got.last) == (10, 0, 0)
    assert list(got.objects) == [one.SOPInstanceUID for one in study]
    for sent in study:
        syntax, data = got.objects[sent.SOPInstanceUID]
        assert syntax == EXPLICIT
        assert decode(BytesIO(data), False, True) == sent


def test_a_requester_of_implicit_vr_gets_implicit_vr(live: Door, study: list[Dataset]) -> None:
    with getter(live, syntaxes=[IMPLICIT]) as requester:
        got = requester.get(whole(study))
    assert counts(got.last) == (10, 0, 0)
    for sent in study:
        assert decode(BytesIO(got.objects[sent.SOPInstanceUID][1]), True, True) == sent


def test_of_several_syntaxes_in_a_context_one_is_taken_that_suits_all_objects(live: Door) -> None:
    with getter(live, syntaxes=["1.2.840.10008.1.2.4.90", IMPLICIT, EXPLICIT]) as requester:
        assert requester.accepted[3] == EXPLICIT


def test_without_the_role_of_a_receiver_nothing_is_sent(live: Door, study: list[Dataset]) -> None:
    with getter(live, role=False) as requester:
        got = requester.get(whole(study))
    assert got.last.status == 0xA702
    assert not got.objects
    assert set(failed(got.last)) == {one.SOPInstanceUID for one in study}


def test_a_peer_that_may_get_and_not_store_is_sent_objects_and_may_not_send_any(
    live: Door, study: list[Dataset]
) -> None:
    with getter(live, calling="VIEWER") as requester:
        assert counts(requester.get(whole(study)).last) == (10, 0, 0)
        assert requester.store(CT, generate_uid(), b"x", context_id=3).status == 0x0211


def test_what_the_requester_refuses_is_listed(live: Door, study: list[Dataset]) -> None:
    with getter(live) as requester:
        got = requester.get(whole(study), judge=lambda number: {2: 0xA700, 5: 0xB007}.get(number, 0))
    assert got.last.status == 0xB000
    assert counts(got.last) == (8, 1, 1)
    assert failed(got.last) == [study[2].SOPInstanceUID]


def test_a_cancel_ends_it_within_one_instance(live: Door, study: list[Dataset]) -> None:
    with getter(live) as requester:
        got = requester.get(whole(study), cancel_after=4)
        assert requester.get(whole(study)).last.status == 0, "the association goes on"
    assert got.last.status == 0xFE00
    assert 4 <= len(got.objects) <= 6  # the one under way when the cancel came
    assert sum(counts(got.last)) == len(got.objects)
    assert got.last.command.number("NumberOfRemainingSuboperations") == 10 - len(got.objects)


def test_patients_are_gotten_in_the_patient_model(live: Door, study: list[Dataset]) -> None:
    with getter(live, model=PATIENT_GET) as requester:
        got = requester.get(keys(QueryRetrieveLevel="PATIENT", PatientID="GOTTEN"), model=PATIENT_GET)
    assert counts(got.last) == (10, 0, 0)


def test_a_requester_that_goes_away_leaves_no_thread_at_work(live: Door, study: list[Dataset]) -> None:
    for _ in range(5):
        requester = getter(live)
        requester.__enter__()
        requester.send(1, {"CommandField": Field.C_GET_RQ, "AffectedSOPClassUID": GET, "Priority": 0}, whole(study))
        requester.event()
        requester.sock.close()
    with getter(live) as requester:
        assert requester.get(whole(study)).last.status == 0
    pool = live.reactor._retrievals
    pool.submit(lambda: None).result(10)
    busy = [thread for thread in threading.enumerate() if thread.name.startswith("dimse-retrieve")]
    assert len(busy) == pool._idle_semaphore._value, "every thread of retrievals is idle again"
