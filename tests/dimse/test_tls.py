"""The TLS port: who gets in, what everybody else gets, and that it serves as the plain port does."""

import os
import random
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from pacs.dimse.limits import Limits
from pacs.dimse.pdu import HEADER, PduType, Rejection
from pacs.errors import SettingsError
from pacs.services.tls import TlsFiles, client_context, parse_fingerprint, server_context
from tests.dimse.certificates import Authority, Credential
from tests.dimse.conftest import OpenDoor
from tests.dimse.door import Door
from tests.dimse.sender import LITTLE, Refusal, Sender, find_request
from tests.dimse.test_hostile import BRISK, CT, HURRY, all_of, eventually, rejection

CUT = "filmroom_dimse_associations_aborted_total"


@dataclass
class Hospital:
    """An authority, our certificate and a peer's."""

    authority: Authority
    ours: Credential
    peer: Credential

    @property
    def files(self) -> TlsFiles:
        return TlsFiles(self.ours.certificate, self.ours.key, self.authority.file)

    def calls(self) -> ssl.SSLContext:
        return calling(self.authority, self.peer)


def calling(authority: Authority, credential: Credential | None) -> ssl.SSLContext:
    """What a caller with this certificate uses."""
    files = TlsFiles(credential.certificate, credential.key) if credential else None
    return client_context(files, authority.file, pinned=False)


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    authority = Authority(tmp_path)
    return Hospital(authority, authority.issue("ours"), authority.issue("peer"))


@pytest.fixture
def secure(open_door: OpenDoor, hospital: Hospital) -> Door:
    return open_door(tls=hospital.files)


def secured(door: Door, context: ssl.SSLContext) -> Sender:
    return Sender(door.tls_address, [("1.2.840.10008.1.1", LITTLE), (CT, LITTLE)], tls=context)


def test_a_caller_with_a_certificate_echoes_and_stores_large_objects(secure: Door, hospital: Hospital) -> None:
    data = random.Random(1).randbytes(3_000_001)
    with secured(secure, hospital.calls()) as sender:
        assert sender.echo() == 0
        assert sender.store(CT, "1.2.3", data, 3).status == 0
        assert sender.echo() == 0
    assert secure.node.ingest.stored["1.2.3"] == data


def test_the_plain_port_serves_beside(secure: Door) -> None:
    with Sender(secure.address) as sender:
        assert sender.echo() == 0


def test_thousands_of_answers_come_whole_to_a_slow_reader(secure: Door, hospital: Hospital) -> None:
    model = "1.2.840.10008.5.1.4.1.2.1.1"
    secure.node.search.rows = [{"00100020": {"vr": "LO", "Value": [f"{n}".zfill(60)]}} for n in range(5_000)]
    sender = Sender(secure.tls_address, [(model, LITTLE)], tls=hospital.calls())
    keys = struct.pack("<HHL8sHHL", 8, 0x52, 8, b"PATIENT ", 0x10, 0x20, 0)
    with sender:
        sender.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 60_000)
        sender.send(1, find_request(model), keys)
        answers = [sender.answer() for _ in range(5_001)]
    assert answers[-1].status == 0
    assert [int(answer.data[-60:]) for answer in answers[:-1]] == list(range(5_000))


def test_a_caller_without_a_certificate_is_turned_away(secure: Door, hospital: Hospital) -> None:
    with structlog.testing.capture_logs() as events:
        with pytest.raises((OSError, Refusal)), secured(secure, calling(hospital.authority, None)) as sender:
            sender.echo()
        assert eventually(lambda: secure.metric(CUT, reason="tls-refused") == 1)
    (told,) = (event for event in events if event.get("reason") == "tls-refused")
    assert told["detail"] == "PEER_DID_NOT_RETURN_A_CERTIFICATE"


@pytest.mark.parametrize("kind", ["stranger", "expired"])
def test_a_certificate_that_does_not_verify_is_turned_away(
    secure: Door, hospital: Hospital, tmp_path: Path, kind: str
) -> None:
    others = tmp_path / "others"
    others.mkdir()
    signer = Authority(others, "other") if kind == "stranger" else hospital.authority
    wrong = signer.issue("wrong", days=30 if kind == "stranger" else -1)
    with pytest.raises((OSError, Refusal)), secured(secure, calling(hospital.authority, wrong)) as sender:
        sender.echo()
    assert eventually(lambda: secure.metric(CUT, reason="tls-refused") == 1)


def test_without_an_authority_nobody_is_asked_for_a_certificate(open_door: OpenDoor, hospital: Hospital) -> None:
    door = open_door(tls=TlsFiles(hospital.ours.certificate, hospital.ours.key))
    with secured(door, calling(hospital.authority, None)) as sender:
        assert sender.echo() == 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_work(secure: Door, hospital: Hospital, version: ssl.TLSVersion) -> None:
    context = hospital.calls()
    context.minimum_version = context.maximum_version = version
    with secured(secure, context) as sender:
        assert sender.echo() == 0


def refused_handshake(secure: Door, context: ssl.SSLContext) -> None:
    with pytest.raises(OSError, match=r"\w"), socket.create_connection(secure.tls_address, 10) as sock:
        context.wrap_socket(sock).recv(1)
    assert eventually(lambda: secure.metric(CUT, reason="tls-refused") == 1)


@pytest.mark.parametrize("ciphers", ["AES256-SHA256:AES128-SHA", "ECDHE+AES:!AESGCM:!AESCCM", "kRSA"])
def test_ciphers_without_fresh_keys_or_authentication_are_refused(
    secure: Door, hospital: Hospital, ciphers: str
) -> None:
    context = hospital.calls()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    refused_handshake(secure, context)


@pytest.mark.filterwarnings("ignore:.*TLSv1")
def test_an_old_version_is_refused(secure: Door, hospital: Hospital) -> None:
    context = hospital.calls()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    refused_handshake(secure, context)


@pytest.mark.parametrize(
    "opening",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"G",
        HEADER.pack(PduType.ASSOCIATE_RQ, 200) + bytes(200),
        b"SSH-2.0-x\r\n",
        b"\x16\x03\x01\x40\x00" + os.urandom(500),
        b"\x16\x03\x01\x00\x04" + os.urandom(4),
        b"\x16\x03\x01\xff\xff" + bytes(20_000),
    ],
    ids=["http", "one byte", "plain dicom", "ssh", "record with a random body", "short record", "long record"],
)
def test_what_is_no_tls_is_closed_at_once(secure: Door, opening: bytes) -> None:
    """Without waiting for the deadline of handshakes, where what came tells."""
    with socket.create_connection(secure.tls_address, 10) as sock:
        with suppress(OSError):
            sock.sendall(opening)
        if opening[:3] != b"\x16\x03\x01" or len(opening) < 500:
            sock.settimeout(Limits().artim - 1)
            all_of(sock)


def half_handshakes(context: ssl.SSLContext, address: tuple[str, int], count: int) -> Iterator[socket.socket]:
    """Sockets that have sent half of a ClientHello."""
    for _ in range(count):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        with suppress(ssl.SSLWantReadError):
            context.wrap_bio(incoming, outgoing).do_handshake()
        hello = outgoing.read()
        sock = socket.create_connection(address, 10)
        sock.sendall(hello[: len(hello) // 2])
        yield sock


def test_half_handshakes_keep_nobody_from_an_answer_and_are_closed(open_door: OpenDoor, hospital: Hospital) -> None:
    door = open_door(tls=hospital.files, limits=BRISK)
    context = hospital.calls()
    halves = list(half_handshakes(context, door.tls_address, 50))
    for _ in range(5):
        with secured(door, context) as sender:
            assert sender.echo() == 0
    for sock in halves:
        assert all_of(sock) == b""
    assert door.metric(CUT, reason="silent") == 50


def test_a_handshake_that_drips_is_closed(open_door: OpenDoor, hospital: Hospital) -> None:
    door = open_door(tls=hospital.files, limits=HURRY)
    with socket.create_connection(door.tls_address, 10) as sock:
        sock.settimeout(0.02)
        closed = False
        for byte in b"\x16\x03\x01\x02\x00" + bytes(400):
            try:
                sock.sendall(bytes([byte]))
                closed = sock.recv(10) == b""
            except TimeoutError:
                continue
            except OSError:
                closed = True
            if closed:
                break
        assert closed


def test_a_secured_caller_that_says_nothing_is_closed(open_door: OpenDoor, hospital: Hospital) -> None:
    door = open_door(tls=hospital.files, limits=HURRY)
    with socket.create_connection(door.tls_address, 10) as sock:
        assert hospital.calls().wrap_socket(sock).recv(1) == b""


def test_a_secured_reader_that_does_not_read_is_cut(open_door: OpenDoor, hospital: Hospital) -> None:
    door = open_door(tls=hospital.files, limits=HURRY)
    door.node.search.rows = [{"00100020": {"vr": "LO", "Value": ["x" * 60]}} for _ in range(20_000)]
    model = "1.2.840.10008.5.1.4.1.2.1.1"
    sender = Sender(door.tls_address, [(model, LITTLE)], tls=hospital.calls())
    sender.__enter__()
    keys = struct.pack("<HHL8sHHL", 8, 0x52, 8, b"PATIENT ", 0x10, 0x20, 0)
    sender.send(1, find_request(model), keys)
    assert eventually(lambda: door.metric(CUT, reason="unread") == 1)
    assert len(door.node.search.queries) < 100
    sender.sock.close()


# which certificate may say which title


def test_a_title_with_a_fingerprint_needs_its_certificate(open_door: OpenDoor, hospital: Hospital) -> None:
    other = hospital.authority.issue("other")
    entry = f'host = "127.0.0.1"\nfingerprint = "{hospital.peer.fingerprint}"'
    door = open_door(tls=hospital.files, peers={"CT1": entry})
    with Sender(door.tls_address, calling="CT1", tls=hospital.calls()) as sender:
        assert sender.echo() == 0
    refused = Rejection(1, 1, 3)
    assert rejection(door, calling="CT1") == refused
    secure = Door(door.tls_address, door.node, door.reactor, door.stop, door.thread)
    assert rejection(secure, calling="CT1", tls=calling(hospital.authority, other)) == refused
    assert rejection(secure, calling="ELSE", tls=hospital.calls()) == refused
    assert door.metric("filmroom_dimse_associations_rejected_total", reason="certificate") == 3


@pytest.mark.parametrize("form", ["{}", "SHA256:{}", "sha256 Fingerprint={}", " {} "])
def test_a_fingerprint_is_read_as_tools_print_it(form: str) -> None:
    digits = random.Random(3).randbytes(32).hex()
    for text in (digits, digits.upper(), ":".join(digits[n : n + 2] for n in range(0, 64, 2)).upper()):
        assert parse_fingerprint(form.format(text)) == digits
    for wrong in (digits[:-2], digits + "00", digits[:-1] + "g", ""):
        with pytest.raises(ValueError, match="SHA-256"):
            parse_fingerprint(form.format(wrong))


# files


def replaced(path: Path, other: Path) -> None:
    os.replace(shutil.copy(other, path.with_suffix(".new")), path)


def served_certificate(door: Door, context: ssl.SSLContext) -> bytes:
    with socket.create_connection(door.tls_address, 10) as sock, context.wrap_socket(sock) as secure:
        found = secure.getpeercert(binary_form=True)
        assert found
        return found


def test_replaced_files_serve_the_next_caller_while_others_go_on(open_door: OpenDoor, hospital: Hospital) -> None:
    door, context = open_door(tls=hospital.files), hospital.calls()
    first = served_certificate(door, context)
    second = hospital.authority.issue("second")
    with secured(door, context) as sender:
        replaced(hospital.ours.certificate, second.certificate)
        replaced(hospital.ours.key, second.key)
        assert eventually(lambda: served_certificate(door, context) != first)
        assert sender.echo() == 0


@pytest.mark.parametrize("what", ["key of another", "garbage", "gone"])
def test_broken_new_files_keep_the_old_ones_and_are_told_once(
    open_door: OpenDoor, hospital: Hospital, what: str
) -> None:
    door, context = open_door(tls=hospital.files), hospital.calls()
    with structlog.testing.capture_logs() as events:
        if what == "key of another":
            replaced(hospital.ours.key, hospital.peer.key)
        elif what == "garbage":
            hospital.ours.certificate.write_text("-----BEGIN CERTIFICATE-----\nxxxx\n-----END CERTIFICATE-----\n")
        else:
            hospital.authority.file.unlink()
        assert eventually(lambda: any(event["event"] == "tls_files_refused" for event in events))
        with secured(
            door,
            context
            if what != "gone"
            else client_context(TlsFiles(hospital.peer.certificate, hospital.peer.key), None, pinned=True),
        ) as sender:
            assert sender.echo() == 0
        door.reactor._read_files()
    (told,) = (event for event in events if event["event"] == "tls_files_refused")
    assert "DICOM_TLS_" in told["reason"]


def test_a_key_with_a_passphrase_is_told_and_nobody_is_asked_for_it(hospital: Hospital) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    locked = hospital.ours.key.with_name("locked.key")
    line = [openssl, "pkcs8", "-topk8", "-in", hospital.ours.key, "-out", locked, "-passout", "pass:secret"]
    subprocess.run(line, check=True, capture_output=True)
    with pytest.raises(SettingsError, match="encrypted"):
        server_context(TlsFiles(hospital.ours.certificate, locked))


def test_handshakes_that_fail_by_the_hundred_leave_nothing_behind(secure: Door, hospital: Hospital) -> None:
    context = hospital.calls()
    anonymous = calling(hospital.authority, None)

    def cycle(number: int) -> None:
        kinds: tuple[Callable[[], object], ...] = (
            lambda: [sock.close() for sock in half_handshakes(context, secure.tls_address, 1)],
            lambda: served_certificate(secure, anonymous),
            lambda: socket.create_connection(secure.tls_address, 10).close(),
            lambda: served_certificate(secure, context),
        )
        with suppress(OSError):
            kinds[number % 4]()

    watched = secure.reactor._connections
    for number in range(40):
        cycle(number)
    assert eventually(lambda: not watched)
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for number in range(400):
        cycle(number)
    assert eventually(lambda: not watched)
    assert eventually(lambda: len(os.listdir("/proc/self/fd")) <= files)
    assert threading.active_count() <= threads


# other people's tools


def dcmtk(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    line = [program, "-v", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.interop
def test_dcmtk_echoes_and_stores_over_tls(secure: Door, hospital: Hospital) -> None:
    from tests.dimse.test_interop import sample

    at = ("-aec", "FILMROOM", secure.tls_address[0], secure.tls_address[1])
    keys = ("+tls", hospital.peer.key, hospital.peer.certificate, "+cf", hospital.authority.file)
    done = dcmtk("echoscu", *keys, *at)
    assert done.returncode == 0, done.stderr
    done = dcmtk("storescu", *keys, *at, sample("CT_small.dcm"))
    assert done.returncode == 0, done.stderr
    assert len(secure.node.ingest.stored) == 1
    assert dcmtk("echoscu", "+tla", "+cf", hospital.authority.file, *at).returncode != 0
    assert dcmtk("echoscu", *at).returncode != 0


@pytest.mark.interop
def test_pynetdicom_echoes_over_tls(secure: Door, hospital: Hospital) -> None:
    ae = AE("PYNETDICOM")
    ae.add_requested_context(Verification)
    began = time.monotonic()
    association = ae.associate(*secure.tls_address, ae_title="FILMROOM", tls_args=(hospital.calls(), None))
    assert association.is_established, time.monotonic() - began
    assert association.send_c_echo().Status == 0
    association.release()
    assert association.is_released
