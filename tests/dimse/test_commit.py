"""Storage commitment: what is kept is confirmed, what is not is named, whoever is there to hear it."""

import threading
import time
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.dsutils import decode, encode
from pynetdicom.sop_class import StorageCommitmentPushModel

from pacs.dimse import command
from pacs.dimse.command import Field
from pacs.dimse.commit import INSTANCE, PUSH_MODEL
from pacs.dimse.pdu import message
from pacs.dimse.report import report
from pacs.settings import Settings
from tests.dicomweb.objects import CT, ct
from tests.dimse.door import Door, opened
from tests.dimse.receiver import IMPLICIT
from tests.dimse.sender import Answer, Sender
from tests.dimse.test_move import store

if TYPE_CHECKING:
    from pacs.node import Node


def request(objects: list[tuple[str, str]], transaction: str) -> bytes:
    asked = Dataset()
    asked.TransactionUID = transaction
    asked.ReferencedSOPSequence = []
    for sop_class, uid in objects:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        asked.ReferencedSOPSequence.append(item)
    data = encode(asked, True, True)
    assert data is not None
    return data


class Asker(Sender):
    """A modality that asks for commitment and may wait for the report."""

    def ask(self, data: bytes | None, instance: str = INSTANCE, action: int = 1) -> Answer:
        values = {
            "CommandField": Field.N_ACTION_RQ,
            "RequestedSOPClassUID": PUSH_MODEL,
            "RequestedSOPInstanceUID": instance,
            "ActionTypeID": action,
        }
        self.send(1, values, data)
        return self.answer()

    def hear(self, status: int = 0) -> tuple[int, Dataset]:
        """The event type and information of the next report, which is answered."""
        said = self.answer()
        assert said.command.field == Field.N_EVENT_REPORT_RQ
        self.sock.sendall(message(1, command.response(said.command, status), None, self.protocol.peer_max_pdu))
        return said.command.number("EventTypeID"), decode(BytesIO(said.data), True, True)


class Modality:
    """Takes reports on an association of ours (pynetdicom)."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, Dataset]] = []
        self.came = threading.Event()
        ae = AE("MODALITY")
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        self.server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self.take)])
        self.port = self.server.socket.getsockname()[1]

    def take(self, event: Any) -> tuple[int, None]:
        self.heard.append((event.event_type, event.event_information))
        self.came.set()
        return 0x0000, None


@pytest.fixture(scope="module")
def modality() -> Iterator[Modality]:
    made = Modality()
    yield made
    made.server.shutdown()


@pytest.fixture(scope="module")
def settings(settings: Settings, modality: Modality, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    import dataclasses

    peers = tmp_path_factory.mktemp("peers") / "peers.toml"
    peers.write_text(f'[peers.MODALITY]\nhost = "127.0.0.1"\nport = {modality.port}\n')
    return dataclasses.replace(settings, dicom_peers=peers)


@pytest.fixture(scope="module")
def live(node: "Node", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with opened(tmp_path_factory.mktemp("door"), node=node) as door:
        yield door


def asker(door: Door, **more: Any) -> Asker:
    return Asker(door.address, [(PUSH_MODEL, [IMPLICIT])], calling="MODALITY", **more)


def slices(count: int) -> list[Dataset]:
    study, series = generate_uid(), generate_uid()
    return [ct(study=study, series=series, InstanceNumber=number) for number in range(count)]


def names(objects: list[Dataset]) -> list[tuple[str, str]]:
    return [(CT, one.SOPInstanceUID) for one in objects]


def rows(settings: Settings, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(settings.database_url) as connection:
        return connection.execute(statement, values).fetchall()


def due(settings: Settings) -> None:
    with psycopg.connect(settings.database_url) as connection:
        connection.execute("UPDATE commitment SET due_at = now() WHERE state IN ('asked', 'checked')")


def reports(node: "Node", settings: Settings, modality: Modality, transaction: str) -> list[tuple[int, Dataset]]:
    """What is said of a transaction to a modality of ours, once the association that asked is done with it."""
    deadline = time.monotonic() + 30
    while not (heard := [one for one in modality.heard if one[1].TransactionUID == transaction]):
        assert time.monotonic() < deadline, "nothing was said"
        due(settings)
        report(node)
    return heard


def test_all_that_is_kept_is_confirmed_on_the_association_that_asked(
    live: Door, node: "Node", settings: Settings
) -> None:
    objects, transaction = slices(5), generate_uid()
    store(node, *objects)
    with asker(live) as modality:
        assert modality.ask(request(names(objects), transaction)).status == 0
        kind, said = modality.hear()
    assert kind == 1
    assert said.TransactionUID == transaction
    assert [item.ReferencedSOPInstanceUID for item in said.ReferencedSOPSequence] == [uid for _, uid in names(objects)]
    assert "FailedSOPSequence" not in said
    assert said.RetrieveAETitle == "FILMROOM"


def test_each_instance_that_is_not_kept_is_named_with_the_reason(live: Door, node: "Node", settings: Settings) -> None:
    objects, absent = slices(4), generate_uid()
    store(node, *objects)
    name, size = rows(
        settings, "SELECT object_name, size FROM instance WHERE sop_instance_uid = %s", objects[1].SOPInstanceUID
    )[0]
    changed = settings.storage_dir / "objects" / name
    changed.chmod(0o600)
    changed.write_bytes(bytes(size))
    name = rows(settings, "SELECT object_name FROM instance WHERE sop_instance_uid = %s", objects[2].SOPInstanceUID)[0][
        0
    ]
    (settings.storage_dir / "objects" / name).unlink()
    asked = [*names(objects)[:3], ("1.2.840.10008.5.1.4.1.1.4", objects[3].SOPInstanceUID), (CT, absent)]
    with asker(live) as modality:
        modality.ask(request(asked, generate_uid()))
        kind, said = modality.hear()
    assert kind == 2
    assert [item.ReferencedSOPInstanceUID for item in said.ReferencedSOPSequence] == [objects[0].SOPInstanceUID]
    found = {item.ReferencedSOPInstanceUID: item.FailureReason for item in said.FailedSOPSequence}
    uids = [uid for _, uid in asked]
    assert found == {uids[1]: 0x0110, uids[2]: 0x0110, uids[3]: 0x0119, absent: 0x0112}


def test_an_asker_that_has_gone_is_called_back(
    live: Door, node: "Node", settings: Settings, modality: Modality
) -> None:
    objects, transaction = slices(2), generate_uid()
    store(node, *objects)
    asking = asker(live)
    asking.__enter__()
    assert asking.ask(request(names(objects), transaction)).status == 0
    asking.sock.close()
    modality.heard.clear()
    (kind, said), *more = reports(node, settings, modality, transaction)
    assert not more
    assert kind == 1
    assert len(said.ReferencedSOPSequence) == 2
    due(settings)
    report(node)
    assert len(modality.heard) == 1, "once it was heard it is not said again"


def test_a_report_that_nobody_takes_is_said_again(
    live: Door, node: "Node", settings: Settings, modality: Modality
) -> None:
    transaction = generate_uid()
    with asker(live) as asking:
        asking.ask(request([(CT, generate_uid())], transaction))
        asking.hear(status=0x0110)
    modality.heard.clear()
    assert len(reports(node, settings, modality, transaction)) == 1


def test_a_peer_that_cannot_be_called_is_tried_again_later_and_given_up_in_the_end(
    node: "Node", settings: Settings
) -> None:
    from pacs.domain.events import Source
    from pacs.services.commitment import Reference

    number = node.commitments.ask(Source("dimse", "STRANGER"), generate_uid(), [Reference(CT, generate_uid())])
    due(settings)
    report(node)
    state, message, later = rows(
        settings, "SELECT state, message, due_at > now() FROM commitment WHERE id = %s", number
    )[0]
    assert (state, later) == ("asked", True)
    assert "peers file" in message
    with psycopg.connect(settings.database_url) as connection:
        connection.execute(
            "UPDATE commitment SET made_at = now() - interval '2 days', due_at = now() WHERE id = %s", (number,)
        )
    report(node)
    assert rows(settings, "SELECT state FROM commitment WHERE id = %s", number) == [("dead",)]


@pytest.mark.parametrize(
    ("data", "instance", "action", "status"),
    [
        (request([(CT, "1.2.3")], "1.2.4"), "1.2.3.4", 1, 0x0112),
        (request([(CT, "1.2.3")], "1.2.4"), INSTANCE, 2, 0x0123),
        (None, INSTANCE, 1, 0x0115),
        (b"\x00" * 7, INSTANCE, 1, 0x0115),
        (request([], "1.2.4"), INSTANCE, 1, 0x0115),
        (request([(CT, "")], "1.2.4"), INSTANCE, 1, 0x0115),
    ],
)
def test_requests_that_ask_nothing_sensible_are_refused(
    live: Door, settings: Settings, data: bytes | None, instance: str, action: int, status: int
) -> None:
    before = rows(settings, "SELECT count(*) FROM commitment")
    with asker(live) as modality:
        assert modality.ask(data, instance, action).status == status
    assert rows(settings, "SELECT count(*) FROM commitment") == before


def test_a_list_that_is_here_whole_completes_its_study(live: Door, node: "Node", settings: Settings) -> None:
    objects = slices(3)
    store(node, *objects)
    with asker(live) as modality:
        modality.ask(request(names(objects), generate_uid()))
        modality.hear()
    [(state, evidence)] = ledger(settings, objects[0])
    assert (state, evidence["signal"]) == ("confirmed", "commitment")


def ledger(settings: Settings, one: Dataset) -> list[tuple[Any, ...]]:
    return rows(settings, "SELECT state, evidence FROM ai_study WHERE study_uid = %s", one.StudyInstanceUID)


def test_a_study_with_a_gap_stays_open_until_the_instance_comes(live: Door, node: "Node", settings: Settings) -> None:
    objects = slices(4)
    late, uid = objects[3], objects[0].StudyInstanceUID
    store(node, *objects[:3])
    with asker(live) as modality:
        modality.ask(request(names(objects), generate_uid()))
        kind, said = modality.hear()
    assert (kind, said.FailedSOPSequence[0].ReferencedSOPInstanceUID) == (2, late.SOPInstanceUID)
    with psycopg.connect(settings.database_url) as connection:  # quiet for long
        connection.execute("UPDATE study SET changed_at = now() - interval '10 minutes' WHERE study_uid = %s", (uid,))
    node.relay.note()
    node.ledger.judge()
    assert node.commitments.settle() == []
    [(state, missing)] = rows(settings, "SELECT state, missing FROM ai_study WHERE study_uid = %s", uid)
    assert state == "open"
    assert late.SOPInstanceUID in missing[0]
    store(node, late)
    node.relay.note()
    assert node.commitments.settle() == [uid]
    statement = (
        "SELECT a.state, a.missing, a.change_seq = s.change_seq FROM ai_study a JOIN study s USING (study_uid) "
        "WHERE study_uid = %s"
    )
    [(state, missing, seq)] = rows(settings, statement, uid)
    assert (state, missing, seq) == ("confirmed", [], True)
    node.relay.note()
    assert ledger(settings, late)[0][0] == "confirmed", "what the relay tells late opens nothing again"
