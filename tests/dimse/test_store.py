import os
import socket
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pacs.dimse import command
from pacs.dimse.limits import Limits
from pacs.domain import uids
from pacs.domain.syntaxes import SYNTAXES
from pacs.errors import Reason, Refused
from tests.dimse.conftest import OpenDoor
from tests.dimse.door import Door, opened
from tests.dimse.sender import LITTLE, Refusal, Sender, store_request
from tests.dimse.test_hostile import eventually

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
OPERATIONS = "filmroom_dimse_operations_total"


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 400_000), st.integers(64, 131_072), st.randoms(use_true_random=False))
def test_any_data_set_arrives_byte_for_byte(door: Door, size: int, max_pdu: int, chance: object) -> None:
    data = chance.randbytes(size)  # type: ignore[attr-defined]
    with Sender(door.address, [(CT, LITTLE)]) as sender:
        sender.protocol.peer_max_pdu = max_pdu
        assert sender.store(CT, f"1.2.{size}", data).status == 0
    assert door.node.ingest.stored[f"1.2.{size}"] == data


def test_many_objects_on_one_association_and_many_at_once(door: Door) -> None:
    def send(branch: int) -> None:
        with Sender(door.address, [(CT, LITTLE)]) as sender:
            for n in range(30):
                assert sender.store(CT, f"1.{branch}.{n}", bytes([branch, n]) * 500).status == 0

    threads = [threading.Thread(target=send, args=(branch,)) for branch in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(door.node.ingest.stored[f"1.{b}.{n}"] == bytes([b, n]) * 500 for b in range(1, 5) for n in range(30))
    assert door.metric(OPERATIONS, service="c-store", outcome="stored") == 120


def test_the_answer_waits_for_the_commit(door: Door) -> None:
    door.node.ingest.gate.clear()
    with Sender(door.address, [(CT, LITTLE)], timeout=0.3) as sender:
        sender.send(1, store_request(CT, "1.2.3"), b"12")
        with pytest.raises(TimeoutError):
            sender.sock.recv(1)
        with Sender(door.address) as other:
            assert other.echo() == 0
        door.node.ingest.gate.set()
        assert sender.answer().status == 0


def test_the_source_names_title_and_address(door: Door) -> None:
    with Sender(door.address, [(CT, LITTLE)], calling="MODALITY") as sender:
        sender.store(CT, "1.2.3", b"")
    (source,) = door.node.ingest.sources
    assert (source.door, source.peer, source.address) == ("dimse", "MODALITY", "127.0.0.1")


@pytest.mark.parametrize(
    ("sop_class", "instance", "expected", "reason"),
    [
        (MR, "1.2.3", 0xA900, Reason.CLASS_MISMATCH),
        ("", "1.2.3", 0xA900, Reason.CLASS_MISMATCH),
        (CT, "../../etc/x", 0x0117, Reason.BAD_UID),
        (CT, "1.2.3/../4", 0x0117, Reason.BAD_UID),
        (CT, "", 0x0117, Reason.BAD_UID),
        (CT, "1." + "2" * 63, 0x0117, Reason.BAD_UID),
        (CT, "1..2", 0x0117, Reason.BAD_UID),
    ],
)
def test_a_command_that_lies_is_refused_and_nothing_stored(
    door: Door, folder: Path, sop_class: str, instance: str, expected: int, reason: Reason
) -> None:
    with Sender(door.address, [(CT, LITTLE)]) as sender:
        answer = sender.store(sop_class, instance, bytes(300_000))
        assert answer.status == expected
        assert answer.command.text("ErrorComment") == f"refusal-1 {reason.value}"
        assert sender.store(CT, "1.2.3", b"").status == 0
    assert door.node.ingest.refused == [reason]
    assert door.node.ingest.stored == {"1.2.3": b""}
    assert not any(folder.glob("*.part"))


def test_leading_zeros_of_a_component_are_taken(door: Door) -> None:
    with Sender(door.address, [(CT, LITTLE)]) as sender:
        assert sender.store(CT, "1.02.003", b"").status == 0


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (Reason.UNREADABLE, 0xC000),
        (Reason.CLASS_MISMATCH, 0xA900),
        (Reason.INSTANCE_MISMATCH, 0x0117),
        (Reason.DUPLICATE, 0x0111),
        (Reason.UNAVAILABLE, 0xA700),
        (Reason.OUT_OF_SPACE, 0xA700),
        (Reason.NOT_ALLOWED, 0x0124),
        (Reason.INTERNAL, 0x0110),
    ],
)
def test_a_refusal_of_the_node_becomes_its_status_and_names_its_id(door: Door, reason: Reason, expected: int) -> None:
    def refuse(data: bytes) -> None:
        raise Refused(reason, "Because.", refusal_id="0123")

    door.node.ingest.judge = refuse
    with Sender(door.address, [(CT, LITTLE)]) as sender:
        answer = sender.store(CT, "1.2.3", b"x")
    assert answer.status == expected
    assert answer.command.text("ErrorComment") == f"0123 {reason.value}"
    assert door.metric(OPERATIONS, service="c-store", outcome=reason.value) == 1


def test_every_reason_has_a_status() -> None:
    from pacs.dimse.status import BY_REASON

    assert set(BY_REASON) == set(Reason)


def test_a_failure_that_nobody_foresaw_is_no_success(door: Door, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(data: bytes) -> None:
        raise RuntimeError("DOE^JANE is no words for a log")

    door.node.ingest.judge = fail
    with Sender(door.address, [(CT, LITTLE)]) as sender:
        answer = sender.store(CT, "1.2.3", b"x")
    assert answer.status == 0x0110
    assert "DOE" not in answer.command.text("ErrorComment")


def test_no_space_is_told_without_staging_anything(door: Door) -> None:
    def full() -> None:
        raise Refused(Reason.OUT_OF_SPACE, "The disk is below its reserve.", refusal_id="r1")

    door.node.ingest.begins = full
    with Sender(door.address, [(CT, LITTLE)]) as sender:
        assert sender.store(CT, "1.2.3", bytes(100_000)).status == 0xA700
        door.node.ingest.begins = lambda: None
        assert sender.store(CT, "1.2.3", bytes(100_000)).status == 0


def test_a_failing_begin_is_answered(door: Door) -> None:
    def fail() -> None:
        raise RuntimeError

    door.node.ingest.begins = fail
    with Sender(door.address, [(CT, LITTLE)]) as sender:
        assert sender.store(CT, "1.2.3", bytes(100_000)).status == 0x0110


def test_an_object_that_is_too_large_is_answered_before_its_end(door: Door, folder: Path) -> None:
    door.node.ingest.limit = 1_000_000
    with Sender(door.address, [(CT, LITTLE)]) as sender:
        from pacs.dimse.pdu import fragments

        head = command.encode({"MessageID": 1, "CommandDataSetType": 1, **store_request(CT, "1.2.3")})
        rest = list(fragments(1, memoryview(bytes(2_000_000)), command=False, max_pdu=131_072))
        for header, part in [*fragments(1, memoryview(head), command=True, max_pdu=131_072), *rest[:10]]:
            sender.sock.sendall(header + part)
        answer = sender.answer()
        assert answer.status == 0xA700
        assert answer.command.text("ErrorComment") == "big too-large"
        assert not any(folder.glob("*.part"))
        for header, part in rest[10:]:
            sender.sock.sendall(header + part)
        assert sender.store(CT, "1.2.4", b"x").status == 0
    assert set(door.node.ingest.stored) == {"1.2.4"}


def test_a_store_without_a_data_set_is_refused(door: Door) -> None:
    with Sender(door.address, [(CT, LITTLE)]) as sender:
        sender.send(1, store_request(CT, "1.2.3"))
        assert sender.answer().status == 0xC000


def test_a_request_that_the_context_does_not_serve_is_told_so(door: Door) -> None:
    with Sender(door.address, [(CT, LITTLE), (uids.VERIFICATION, LITTLE)]) as sender:
        sender.send(3, store_request(CT, "1.2.3"), bytes(50_000))
        assert sender.answer().status == 0x0211
        sender.send(1, {"CommandField": 0x0030, "AffectedSOPClassUID": uids.VERIFICATION})
        assert sender.answer().status == 0x0211
        assert sender.store(CT, "1.2.3", b"x").status == 0


def test_a_response_that_nobody_asked_for_aborts(door: Door) -> None:
    sender = Sender(door.address, [(CT, LITTLE)])
    sender.__enter__()
    sender.send(1, {"CommandField": 0x8001, "Status": 0})
    with pytest.raises(Refusal):
        sender.answer()
    sender.sock.close()


def test_requests_within_the_negotiated_window_are_under_way_together(door: Door) -> None:
    door.node.ingest.gate.clear()
    with Sender(door.address, [(CT, LITTLE)], window=(4, 1)) as sender:
        assert sender.accept.user.window == (4, 1)
        numbers = [sender.send(1, store_request(CT, f"1.2.{n}"), bytes(20_000)) for n in range(8)]
        door.node.ingest.gate.set()
        answered = [sender.answer().command.number("MessageIDBeingRespondedTo") for _ in numbers]
        assert sorted(answered) == numbers
    assert len(door.node.ingest.stored) == 8


def test_requests_beyond_the_window_wait_and_none_is_lost(open_door: OpenDoor) -> None:
    door = open_door(limits=Limits(receive_buffer=8_192))
    door.node.ingest.gate.clear()
    with Sender(door.address, [(CT, LITTLE)]) as sender:
        assert sender.accept.user.window is None
        for n in range(20):
            sender.send(1, store_request(CT, f"1.2.{n}"), os.urandom(1_000))
        door.node.ingest.gate.set()
        assert [sender.answer().status for _ in range(20)] == [0] * 20


def test_a_message_id_in_use_is_refused(door: Door) -> None:
    door.node.ingest.gate.clear()
    with Sender(door.address, [(CT, LITTLE)], window=(4, 1)) as sender:
        sender.send(1, store_request(CT, "1.2.1"), b"x")
        sender._number = 0
        sender.send(1, store_request(CT, "1.2.2"), b"x")
        assert sender.answer().status == 0x0210
        door.node.ingest.gate.set()
        assert sender.answer().status == 0


def test_a_release_waits_for_the_answer(door: Door) -> None:
    door.node.ingest.gate.clear()
    with Sender(door.address, [(CT, LITTLE)]) as sender:
        sender.send(1, store_request(CT, "1.2.1"), b"x")
        sender.sock.sendall(sender.protocol.release())
        door.node.ingest.gate.set()
        assert sender.answer().status == 0
        assert type(sender.event()).__name__ == "Released"


def test_stopping_lets_the_message_under_way_finish(tmp_path: Path) -> None:
    with opened(tmp_path) as door:
        door.node.ingest.gate.clear()
        sender = Sender(door.address, [(CT, LITTLE)])
        sender.__enter__()
        sender.send(1, store_request(CT, "1.2.1"), b"x")
        with Sender(door.address) as idle:
            door.stop.set()
            with pytest.raises(Refusal):
                idle.answer()
        door.node.ingest.gate.set()
        assert sender.answer().status == 0
        with pytest.raises(Refusal):
            sender.answer()
        door.thread.join(10)
        assert not door.thread.is_alive()
        with pytest.raises(OSError, match="refused"):
            Sender(door.address).__enter__()


def test_stopping_begins_nothing_new(tmp_path: Path) -> None:
    with opened(tmp_path) as door:
        door.node.ingest.gate.clear()
        sender = Sender(door.address, [(CT, LITTLE)], window=(4, 1))
        sender.__enter__()
        sender.send(1, store_request(CT, "1.2.1"), b"x")
        assert eventually(lambda: bool(door.node.ingest.sources))
        door.stop.set()
        assert eventually(lambda: not listens(door))
        sender.send(1, store_request(CT, "1.2.2"), b"x")
        door.node.ingest.gate.set()
        assert sender.answer().command.text("AffectedSOPInstanceUID") == "1.2.1"
        with pytest.raises(Refusal):
            sender.answer()
    assert set(door.node.ingest.stored) == {"1.2.1"}


def listens(door: Door) -> bool:
    try:
        socket.create_connection(door.address).close()
    except OSError:
        return False
    return True


def test_every_storage_class_in_every_syntax_is_taken(door: Door) -> None:
    classes = sorted(uids.storage_classes())
    assert len(classes) > 150
    for start in range(0, len(classes), 128):
        part = classes[start : start + 128]
        with Sender(door.address, [(sop_class, list(SYNTAXES)) for sop_class in part]) as sender:
            assert len(sender.accepted) == len(part)
    with Sender(door.address, [(CT, [syntax]) for syntax in SYNTAXES]) as sender:
        assert list(sender.accepted.values()) == list(SYNTAXES)
