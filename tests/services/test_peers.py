import os
from pathlib import Path

import pytest

from pacs.errors import SettingsError
from pacs.services.peers import PeerBook


def book(folder: Path, text: str) -> PeerBook:
    file = folder / "peers.toml"
    file.write_text(text)
    return PeerBook(file)


def test_a_peer_is_at_its_networks_and_nowhere_else(tmp_path: Path) -> None:
    peer = book(tmp_path, '[peers.CT1]\nhost = "192.0.2.7"\nnetworks = ["192.0.2.0/24", "2001:db8::/64"]').get("CT1")
    assert peer is not None
    assert [peer.is_at(place) for place in ("192.0.2.9", "::ffff:192.0.2.9", "2001:db8::1%eth0")] == [True] * 3
    assert [peer.is_at(place) for place in ("192.0.3.9", "2001:db9::1", "nonsense")] == [False] * 3


def test_the_network_of_a_peer_is_its_host_unless_said(tmp_path: Path) -> None:
    peer = book(tmp_path, '[peers.CT1]\nhost = "192.0.2.7"').get("CT1")
    assert peer is not None
    assert peer.is_at("192.0.2.7")
    assert not peer.is_at("192.0.2.8")


def test_a_host_name_is_looked_up_and_an_unknown_one_matches_nothing(tmp_path: Path) -> None:
    peers = book(tmp_path, '[peers.A]\nhost = "localhost"\n[peers.B]\nhost = "no-such-host.invalid"')
    first, second = peers.all()
    assert first.is_at("127.0.0.1")
    assert second.networks == ()


def test_every_service_is_allowed_unless_said(tmp_path: Path) -> None:
    peers = book(tmp_path, '[peers.A]\n[peers."B C"]\nservices = ["echo", "find"]')
    assert {"store", "find", "move"} <= peers.all()[0].services
    assert peers.all()[1].services == {"echo", "find"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[peers.A]\nport = 0", "peers.A.port"),
        ('[peers.A]\nport = "104"', "peers.A.port"),
        ('[peers.A]\nnetworks = ["192.0.2.0/99"]', "peers.A.networks"),
        ('[peers.A]\nnetworks = "192.0.2.0/24"', "peers.A.networks"),
        ('[peers.A]\nservices = ["fly"]', "peers.A.services"),
        ('[peers.A]\ntransfer_syntaxes = ["JPEG"]', "peers.A.transfer_syntaxes"),
        ("[peers.A]\nrequire_identity = 1", "peers.A.require_identity"),
        ('[peers.A]\nhots = "x"', "peers.A.hots"),
        ("[peers.ABCDEFGHIJKLMNOPQ]", "ABCDEFGHIJKLMNOPQ"),
        ('[peer.A]\nhost = "x"', "'peer'"),
        ("peers = 3", "peers"),
        ("[peers", "peers.toml"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        book(tmp_path, text)


def test_the_file_is_read_again_when_it_changes_and_a_mistake_keeps_what_was_known(tmp_path: Path) -> None:
    peers = book(tmp_path, "[peers.A]\n")
    assert not peers.refresh()
    (tmp_path / "peers.toml").write_text("[peers.A]\n[peers.B]\n")
    assert peers.refresh()
    assert [peer.title for peer in peers.all()] == ["A", "B"]
    (tmp_path / "peers.toml").write_text("[peers.A]\nport = -1\n")
    with pytest.raises(SettingsError):
        peers.refresh()
    assert peers.get("B")
    os.unlink(tmp_path / "peers.toml")
    assert peers.refresh()
    assert peers.all() == ()


def test_a_missing_file_is_empty_unless_it_was_named(tmp_path: Path) -> None:
    assert PeerBook(tmp_path / "none.toml").all() == ()
    with pytest.raises(SettingsError, match="DICOM_PEERS"):
        PeerBook(tmp_path / "none.toml", required=True)
