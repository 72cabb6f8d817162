"""Peers as an operator sees them: each way in which one can fail to answer is told in one sentence."""

import argparse
import dataclasses
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pacs.cli import peers as verb
from pacs.domain.uids import VERIFICATION
from pacs.errors import Conflict, NotFound
from pacs.services.calls import Peers, Reached
from pacs.services.tls import TlsFiles
from pacs.settings import Settings, load
from tests.dimse.certificates import Authority
from tests.dimse.door import opened

Ask = Callable[..., Reached]


@pytest.fixture
def plain(tmp_path: Path) -> Settings:
    return load({"FILMROOM_HOME": str(tmp_path), "FILMROOM_CONFIG": "/dev/null"})


def asked(settings: Settings, tmp_path: Path, entry: str, **changes: object) -> Reached:
    file = tmp_path / "asked.toml"
    file.write_text(f"[peers.FILMROOM]\n{entry}\n")
    return Peers(dataclasses.replace(settings, dicom_peers=file, **changes)).test("FILMROOM")


def at(address: tuple[str, int]) -> str:
    return f'host = "{address[0]}"\nport = {address[1]}'


@contextmanager
def saying(answer: bytes) -> Iterator[tuple[str, int]]:
    """A server that answers each caller's first bytes so, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(10_000)
                sock.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()


def test_a_peer_that_answers_is_well(plain: Settings, tmp_path: Path) -> None:
    with opened(tmp_path) as door:
        reached = asked(plain, tmp_path, at(door.address))
    assert reached.ok
    assert "answered" in reached.message
    assert reached.ms > 0


def test_a_port_that_nobody_serves_is_told(plain: Settings, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    reached = asked(plain, tmp_path, at(address))
    assert not reached.ok
    assert "cannot be reached" in reached.message


def test_an_entry_without_an_address_is_told(plain: Settings, tmp_path: Path) -> None:
    reached = asked(plain, tmp_path, 'networks = ["192.0.2.0/24"]')
    assert not reached.ok
    assert "needs host and port" in reached.message


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (bytes([3, 0, 0, 0, 0, 4, 0, 1, 1, 7]), "rejected"),
        (bytes([7, 0, 0, 0, 0, 4, 0, 0, 2, 0]), "abort"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "protocol"),
        (b"", "closed"),
    ],
)
def test_what_is_no_acceptance_is_told(plain: Settings, tmp_path: Path, answer: bytes, told: str) -> None:
    with saying(answer) as address:
        reached = asked(plain, tmp_path, at(address))
    assert not reached.ok
    assert told in reached.message


def test_a_peer_that_takes_no_echo_is_told(plain: Settings, tmp_path: Path) -> None:
    entry = 'host = "127.0.0.1"\nservices = ["store"]'
    with opened(tmp_path, peers={"FILMROOM": entry}) as door:
        reached = asked(plain, tmp_path, at(door.address))
    assert not reached.ok
    assert "no C-ECHO" in reached.message
    assert VERIFICATION not in reached.message


def test_over_tls_both_show_their_certificates(plain: Settings, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ours, theirs, other = (authority.issue(name) for name in ("ours", "theirs", "other"))
    keys = {"dicom_tls_cert": ours.certificate, "dicom_tls_key": ours.key, "dicom_tls_ca": authority.file}
    with opened(tmp_path, tls=TlsFiles(theirs.certificate, theirs.key, authority.file)) as door:
        entry = at(door.tls_address) + "\ntls = true\n"
        reached = asked(plain, tmp_path, entry + f'fingerprint = "{theirs.fingerprint}"', **keys)
        assert reached.ok, reached.message
        assert "TLS" in reached.message
        wrong = asked(plain, tmp_path, entry + f'fingerprint = "{other.fingerprint}"', **keys)
        assert "another certificate" in wrong.message
        alone = asked(plain, tmp_path, entry, dicom_tls_ca=authority.file)
        assert not alone.ok
        unsure = asked(plain, tmp_path, entry)
        assert "DICOM_TLS_CA" in unsure.message


def test_a_name_that_is_not_in_the_file_is_told(plain: Settings) -> None:
    with pytest.raises(NotFound, match="AE title"):
        Peers(plain).test("NOBODY")


def test_a_broken_file_is_told_with_its_fault(plain: Settings, tmp_path: Path) -> None:
    file = tmp_path / "broken.toml"
    file.write_text("[peers.A]\nport = 0")
    with pytest.raises(Conflict, match=r"peers\.A\.port"):
        Peers(dataclasses.replace(plain, dicom_peers=file)).list()


def typed(settings: Settings, *words: str) -> int:
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    return verb.run(parser.parse_args(words), settings)


def test_the_command_lists_and_tests(plain: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed(plain, "list") == 0
    assert "No peers" in capsys.readouterr().out
    file = tmp_path / "two.toml"
    with opened(tmp_path) as door:
        more = "max_associations = 2\nrequire_identity = true"
        file.write_text(f'[peers.FILMROOM]\n{at(door.address)}\n[peers.CT1]\nhost = "192.0.2.1"\n{more}')
        settings = dataclasses.replace(plain, dicom_peers=file)
        assert typed(settings, "list") == 0
        shown = capsys.readouterr().out
        assert "CT1" in shown
        assert "at most 2 associations" in shown
        assert typed(settings, "list", "--json") == 0
        assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["FILMROOM", "CT1"]
        assert typed(settings, "test", "FILMROOM", "--json") == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["ok"] is True
        assert typed(settings, "test", "CT1") == 1
        assert "needs host and port" in capsys.readouterr().out
