"""What the network may throw at the door (dimse.md 2): each row of the table, by raw sockets."""

import gc
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import structlog

from pacs.dimse import command, pdu, protocol
from pacs.dimse.associate import AssociateRequest, ProposedContext, UserInformation, encode_request
from pacs.dimse.command import Field
from pacs.dimse.limits import Limits
from pacs.dimse.pdu import HEADER, PDV_HEADER, Abort, PduType, Rejection
from pacs.domain.uids import VERIFICATION
from tests.dimse.conftest import OpenDoor
from tests.dimse.door import Door
from tests.dimse.sender import LITTLE, Refusal, Sender, cancel_request, store_request

CT = "1.2.840.10008.5.1.4.1.1.2"
CONTEXT = (ProposedContext(1, VERIFICATION, LITTLE), ProposedContext(3, CT, LITTLE))
HURRY = Limits(artim=0.3, pdu=0.5, network=0.5, idle=1.0, linger=0.2, sweep=0.05, drain=2.0)
BRISK = Limits(artim=2.0, pdu=2.0, network=2.0, idle=2.0, linger=0.2, sweep=0.05, drain=2.0)  # an honest caller beside


def connected(door: Door) -> socket.socket:
    return socket.create_connection(door.address, 10)


def all_of(sock: socket.socket) -> bytes:
    """What the door says until it closes."""
    data = b""
    try:
        while piece := sock.recv(4096):
            data += piece
    except ConnectionResetError:
        pass
    return data


def request(called: str = "FILMROOM", calling: str = "X", **user: object) -> bytes:
    return encode_request(AssociateRequest(called, calling, CONTEXT, UserInformation(16_384, **user)))  # type: ignore[arg-type]


def associated(door: Door) -> socket.socket:
    sock = connected(door)
    sock.sendall(request())
    kind, length = HEADER.unpack(sock.recv(6, socket.MSG_WAITALL))
    assert kind == PduType.ASSOCIATE_AC
    sock.recv(length, socket.MSG_WAITALL)
    return sock


def memory() -> int:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@pytest.mark.parametrize(
    "opening",
    [
        b"GET /dicom-web/studies HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        bytes(1_000),
        os.urandom(1_000).replace(b"\x01", b"\x09"),
        HEADER.pack(PduType.ASSOCIATE_RQ, 0xFFFF_FFFF) + bytes(1_000),
        HEADER.pack(PduType.DATA, 100) + bytes(100),
        HEADER.pack(PduType.RELEASE_RQ, 4) + bytes(4),
    ],
    ids=["http", "tls", "ssh", "zeros", "random", "four gigabytes", "data first", "release first"],
)
def test_what_is_no_association_request_is_aborted(door: Door, opening: bytes) -> None:
    with connected(door) as sock:
        sock.sendall(opening)
        assert all_of(sock)[:1] in (b"\x07", b"")
    with Sender(door.address) as sender:
        assert sender.echo() == 0


def test_a_pdu_longer_than_announced_is_aborted(door: Door) -> None:
    with associated(door) as sock:
        sock.sendall(HEADER.pack(PduType.DATA, Limits().max_pdu + 1))
        assert all_of(sock) == bytes([7, 0, 0, 0, 0, 4, 0, 0, 2, 6])


def test_claims_of_four_gigabytes_take_no_memory(door: Door) -> None:
    before = memory()
    socks = [associated(door) for _ in range(4)] + [connected(door) for _ in range(4)]
    for sock in socks[:4]:
        sock.sendall(HEADER.pack(PduType.DATA, 0xFFFF_FFFF) + bytes(10_000))
    for sock in socks[4:]:
        sock.sendall(HEADER.pack(PduType.ASSOCIATE_RQ, 0xFFFF_FFFF) + bytes(10_000))
    for sock in socks:
        assert all_of(sock)[:1] in (b"\x07", b"")
        sock.close()
    assert memory() - before < 20 << 20


def test_two_hundred_silent_sockets_do_not_keep_an_echo_from_its_answer(door: Door) -> None:
    silent = [connected(door) for _ in range(200)]
    with Sender(door.address, timeout=5) as sender:
        assert sender.echo() == 0
    for sock in silent:
        sock.close()


def test_a_silent_socket_is_closed(open_door: OpenDoor) -> None:
    door = open_door(limits=HURRY)
    with connected(door) as sock:
        assert all_of(sock) == b""
    assert door.metric("filmroom_dimse_associations_aborted_total", reason="silent") == 1


def test_half_a_request_is_closed_like_silence(open_door: OpenDoor) -> None:
    with connected(open_door(limits=HURRY)) as sock:
        sock.sendall(request()[:50])
        assert all_of(sock) == b""


def test_a_dripping_pdu_is_cut_while_others_are_served(open_door: OpenDoor) -> None:
    door = open_door(limits=BRISK)
    with associated(door) as sock, Sender(door.address) as sender:
        data = HEADER.pack(PduType.DATA, 1_000) + PDV_HEADER.pack(996, 1, 1) + bytes(990)
        answer = b""
        sock.settimeout(0.05)
        for n in range(200):
            sock.sendall(data[n : n + 1])
            assert n % 20 or sender.echo() == 0
            try:
                answer = sock.recv(100)
                break
            except TimeoutError:
                pass
        assert answer[:1] == b"\x07"
    assert door.metric("filmroom_dimse_associations_aborted_total", reason="dripping") == 1


def test_an_idle_association_is_aborted(open_door: OpenDoor) -> None:
    with associated(open_door(limits=HURRY)) as sock:
        assert all_of(sock)[:1] == b"\x07"


def test_sockets_beyond_the_cap_crowd_out_the_oldest_silent_one(open_door: OpenDoor) -> None:
    door = open_door(limits=Limits(sockets=20))
    silent = [connected(door) for _ in range(40)]
    with Sender(door.address) as sender:
        assert sender.echo() == 0
    assert all_of(silent[0]) == b""
    for sock in silent:
        sock.close()


def rejection(door: Door, **options: object) -> Rejection:
    with pytest.raises(Refusal) as caught, Sender(door.address, **options):  # type: ignore[arg-type]
        pass
    assert isinstance(caught.value.event, protocol.Rejected)
    return caught.value.event.rejection


def test_associations_beyond_the_cap_are_rejected_for_now(open_door: OpenDoor) -> None:
    door = open_door(limits=Limits(associations=4, reserved=1))
    held = [associated(door) for _ in range(3)]
    assert rejection(door) == Rejection(2, 3, 2)
    held.pop().close()
    assert eventually(lambda: door.metric("filmroom_dimse_associations_open") == 2)
    with Sender(door.address) as sender:
        assert sender.echo() == 0
    for sock in held:
        sock.close()


def test_a_known_peer_has_a_reserved_place(open_door: OpenDoor) -> None:
    known = {"KNOWN": 'host = "127.0.0.1"'}
    door = open_door(limits=Limits(associations=3, reserved=1), peers=known)
    held = [associated(door) for _ in range(2)]
    assert rejection(door) == Rejection(2, 3, 2)
    with Sender(door.address, calling="KNOWN") as sender:
        assert sender.echo() == 0
        assert rejection(door, calling="KNOWN") == Rejection(2, 3, 2)
    for sock in held:
        sock.close()


def test_a_peer_has_a_cap_of_its_own(open_door: OpenDoor) -> None:
    door = open_door(peers={"KNOWN": 'host = "127.0.0.1"\nmax_associations = 1'})
    with Sender(door.address, calling="KNOWN"):
        assert rejection(door, calling="KNOWN") == Rejection(2, 3, 2)
        with Sender(door.address) as sender:
            assert sender.echo() == 0


def test_one_address_has_a_cap(open_door: OpenDoor) -> None:
    door = open_door(limits=Limits(per_address=2))
    with Sender(door.address), Sender(door.address):
        assert rejection(door) == Rejection(2, 3, 2)


@pytest.mark.parametrize("called", ["OTHER", "filmroom", "FILMROOM2", ""])
def test_another_called_title_is_rejected(door: Door, called: str) -> None:
    assert rejection(door, called=called) == Rejection(1, 1, 7)


def test_an_identity_that_is_required_cannot_be_given_yet(open_door: OpenDoor) -> None:
    door = open_door(peers={"STRICT": 'host = "127.0.0.1"\nrequire_identity = true'})
    assert rejection(door, calling="STRICT") == Rejection(1, 1, 1)


def test_a_reader_that_does_not_read_is_cut(open_door: OpenDoor) -> None:
    door = open_door(limits=HURRY)
    door.node.search.rows = [{"00100020": {"vr": "LO", "Value": ["x" * 60]}} for _ in range(20_000)]
    model = "1.2.840.10008.5.1.4.1.2.1.1"
    sender = Sender(door.address, [(model, LITTLE)])
    sender.__enter__()
    sender.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    keys = struct.pack("<HHL8sHHL", 8, 0x52, 8, b"PATIENT ", 0x10, 0x20, 0)
    from tests.dimse.sender import find_request

    sender.send(1, find_request(model), keys)
    unread = "filmroom_dimse_associations_aborted_total"
    assert eventually(lambda: door.metric(unread, reason="unread") == 1)
    assert len(door.node.search.queries) < 100  # pages are made as they are read
    sender.sock.close()


def test_an_abort_in_the_middle_of_a_data_set_leaves_no_file(door: Door, folder: Path) -> None:
    for ending in (bytes([7, 0, 0, 0, 0, 4, 0, 0, 0, 0]), b"\x09garbage", b""):
        sender = Sender(door.address, [(CT, LITTLE)])
        sender.__enter__()
        sender.send(1, store_request(CT, "1.2.3"), None)
        sender.sock.close()
        sender = Sender(door.address, [(CT, LITTLE)])
        sender.__enter__()
        head = command.encode({"MessageID": 1, "CommandDataSetType": 1, **store_request(CT, "1.2.3")})
        for kind, data in ((True, head), (False, bytes(100_000))):
            pieces = list(pdu.fragments(1, memoryview(data), command=kind, max_pdu=16_000))
            for header, part in pieces if kind else pieces[:-1]:
                sender.sock.sendall(header + part)
        assert eventually(lambda: any(folder.glob("*.part")))
        sender.sock.sendall(ending)
        sender.sock.close()
        assert eventually(lambda: not any(folder.glob("*.part")))
    assert "1.2.3" not in door.node.ingest.stored


def test_a_thousand_associations_leave_nothing_behind(door: Door, folder: Path) -> None:
    def cycle(number: int) -> None:
        sock = associated(door) if number % 4 else connected(door)
        if number % 4 == 1:
            sock.sendall(bytes([7, 0, 0, 0, 0, 4, 0, 0, 0, 0]))
        elif number % 4 == 2:
            sock.sendall(b"garbage, garbage")
        elif number % 4 == 0:
            sock.sendall(request(called="OTHER"))
        sock.close()

    for number in range(100):
        cycle(number)
    idle = "filmroom_dimse_associations_open"
    assert eventually(lambda: door.metric(idle) == 0)
    gc.collect()
    threads, files, before = threading.active_count(), descriptors(), memory()
    for number in range(1_000):
        cycle(number)
    assert eventually(lambda: door.metric(idle) == 0 and descriptors() <= files)
    gc.collect()
    assert threading.active_count() <= threads
    assert memory() - before < 8 << 20
    assert not any(folder.glob("*.part"))


def test_an_abort_comes_with_its_source_and_reason(door: Door) -> None:
    with Sender(door.address) as sender:
        sender.sock.sendall(b"\x0bxxxxx")
        assert sender.event() == protocol.Aborted(Abort(2, 1))


def a_message(chance: random.Random) -> bytes:
    """One of the messages that a peer may send, with a message ID that may be in use."""
    number, size = chance.randrange(1, 5), chance.randrange(64, 4_000)
    store = {"MessageID": number, "CommandDataSetType": 1, **store_request(CT, f"1.2.{number}")}
    echo = {"MessageID": number, "CommandDataSetType": 0x0101, "CommandField": Field.C_ECHO_RQ}
    cancel = {"CommandDataSetType": 0x0101, **cancel_request(number)}
    return chance.choice(
        [
            pdu.message(3, command.encode(store), chance.randbytes(chance.randrange(3_000)), size),
            pdu.message(1, command.encode(echo), None, size),
            pdu.message(1, command.encode(cancel), None, size),
        ]
    )


def test_damaged_sessions_leave_the_door_whole(open_door: OpenDoor, folder: Path) -> None:
    door, chance = open_door(limits=BRISK), random.Random(7)
    with structlog.testing.capture_logs() as events:
        for _ in range(200):
            session = bytearray(request(window=(4, 1)) + b"".join(a_message(chance) for _ in range(5)) + pdu.RELEASE_RQ)
            for _ in range(chance.choice((0, 1, 1, 3))):
                session[chance.randrange(len(session))] = chance.randrange(256)
            with connected(door) as sock, suppress(OSError):
                sock.sendall(session[: chance.choice((len(session), chance.randrange(len(session))))])
        with Sender(door.address) as sender:
            assert sender.echo() == 0
        assert eventually(lambda: door.metric("filmroom_dimse_associations_open") == 0)
        assert eventually(lambda: not any(folder.glob("*.part")))
    assert "dimse_failure" not in {event["event"] for event in events}
