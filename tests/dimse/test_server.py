"""`serve` as the supervisor calls it, on the real node."""

import dataclasses
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog

from pacs.cli.components import COMPONENTS, with_ports
from pacs.dimse import server
from pacs.domain.syntaxes import IMPLICIT_LE
from pacs.errors import SettingsError
from pacs.settings import Settings
from tests.dimse.certificates import Authority
from tests.dimse.sender import LITTLE, Refusal, Sender
from tests.dimse.test_find import STUDY_ROOT
from tests.dimse.test_hostile import CT, eventually
from tests.dimse.test_node import encoded, image
from tests.dimse.test_tls import calling


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def serving(settings: Settings) -> Iterator[threading.Event]:
    stop, codes = threading.Event(), list[int]()
    thread = threading.Thread(target=lambda: codes.append(server.serve(settings, stop)))
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(20)
        assert codes == [0]


def answers(port: int) -> bool:
    try:
        with Sender(("127.0.0.1", port)) as sender:
            return sender.echo() == 0
    except (OSError, Refusal):
        return False


def test_it_answers_until_it_is_told_to_stop(settings: Settings) -> None:
    port = free_port()
    with serving(dataclasses.replace(settings, dicom_port=port)):
        assert eventually(lambda: answers(port))
    assert not answers(port)


def test_the_port_that_was_found_is_told(settings: Settings) -> None:
    with structlog.testing.capture_logs() as events, serving(settings):
        assert eventually(lambda: any(event["event"] == "listening" for event in events))
    (told,) = (event for event in events if event["event"] == "listening")
    assert told["port"] > 0


def test_without_a_database_it_serves_and_refuses_with_the_reason(settings: Settings) -> None:
    port = free_port()
    away = dataclasses.replace(settings, dicom_port=port, database_url="postgresql://127.0.0.1:1/none")
    with serving(away):
        assert eventually(lambda: answers(port))
        with Sender(("127.0.0.1", port), [(CT, LITTLE), (STUDY_ROOT, LITTLE)]) as sender:
            ds = image()
            answer = sender.store(CT, ds.SOPInstanceUID, encoded(ds, IMPLICIT_LE))
            assert answer.status == 0xA700
            assert answer.command.text("ErrorComment")
            found = sender.find(STUDY_ROOT, b"\x08\0\x52\0\x06\0\0\0STUDY ", 3)
            assert [answer.status for answer in found] == [0xA700]


def test_processes_of_one_home_share_the_port(settings: Settings) -> None:
    port = free_port()
    ours = dataclasses.replace(settings, dicom_port=port)
    with serving(ours):
        assert eventually(lambda: answers(port))
        with serving(ours):
            assert all(answers(port) for _ in range(10))
        assert all(answers(port) for _ in range(10))


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_of_another_program_is_one_sentence_naming_the_setting(settings: Settings, shared: bool) -> None:
    with socket.socket() as other:
        if shared:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = dataclasses.replace(settings, dicom_port=other.getsockname()[1])
        with pytest.raises(SettingsError, match="DICOM_PORT"):
            server.serve(taken, threading.Event())


def test_an_address_of_another_machine_is_told(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="DICOM_HOST"):
        server.serve(dataclasses.replace(settings, dicom_host="192.0.2.1"), threading.Event())


def test_tls_without_its_files_is_one_sentence_naming_the_setting(settings: Settings, tmp_path: Path) -> None:
    secure = dataclasses.replace(settings, dicom_tls_port=2762)
    with pytest.raises(SettingsError, match="DICOM_TLS_CERT"):
        server.serve(secure, threading.Event())
    named = dataclasses.replace(secure, dicom_tls_cert=tmp_path / "none", dicom_tls_key=tmp_path / "none")
    with pytest.raises(SettingsError, match=r"DICOM_TLS_CERT .* cannot be read"):
        server.serve(named, threading.Event())


def test_both_ports_serve(settings: Settings, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ours, peer = authority.issue("ours"), authority.issue("peer")
    ports = free_port(), free_port()
    secure = dataclasses.replace(
        settings,
        dicom_port=ports[0],
        dicom_tls_port=ports[1],
        dicom_tls_cert=ours.certificate,
        dicom_tls_key=ours.key,
        dicom_tls_ca=authority.file,
    )
    with serving(secure):
        assert eventually(lambda: answers(ports[0]))
        with Sender(("127.0.0.1", ports[1]), tls=calling(authority, peer)) as sender:
            assert sender.echo() == 0


def test_the_probe_of_ports_knows_siblings_from_strangers(settings: Settings) -> None:
    port, dimse = free_port(), tuple(one for one in COMPONENTS if one.name == "dimse")
    ours = dataclasses.replace(settings, dicom_port=port)
    with serving(ours):
        assert eventually(lambda: answers(port))
        assert with_ports(ours, dimse).dicom_port == port
        elsewhere = dataclasses.replace(ours, filmroom_home=settings.home / "elsewhere")
        with pytest.raises(SettingsError, match=f"Port {port} .* DICOM_PORT"):
            with_ports(elsewhere, dimse)
    assert with_ports(ours, dimse).dicom_port == port
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", port))
        stranger.listen()
        with pytest.raises(SettingsError, match="DICOM_PORT"):
            with_ports(ours, dimse)
