"""Peers as an operator sees them: who is known, and whether each can be reached."""

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pacs.errors import Conflict, FilmroomError, NotFound, SettingsError
from pacs.services.peers import Peer, PeerBook
from pacs.settings import Settings

ECHO = "pacs.dimse.reach:echo"  # by name: services import no door


@dataclass(frozen=True, slots=True)
class Reached:
    """What a C-ECHO to a peer came to: one sentence, and how long it took in milliseconds."""

    name: str
    ok: bool
    message: str
    ms: float


class Peers:
    """Thread-safe. Methods raise Conflict when the peers file cannot be used, saying why."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def list(self) -> list[dict[str, Any]]:
        """Every peer in the file's order, as the admin API shows it."""
        return [as_json(peer) for peer in self._book().all()]

    def test(self, name: str) -> Reached:
        """C-ECHO to the peer of that AE title; takes seconds where nobody answers. Raises NotFound."""
        peer = self._book().get(name)
        if peer is None:
            raise NotFound(f"No peer of that AE title stands in {self._settings.peers_file}.")
        began = time.monotonic()
        try:
            _echo()(peer, self._settings)
            ok, message = True, f"{peer.title} at {peer.host}:{peer.port} answered{' over TLS' if peer.tls else ''}."
        except FilmroomError as error:
            ok, message = False, error.message
        return Reached(peer.title, ok, message, round((time.monotonic() - began) * 1000, 1))

    def _book(self) -> PeerBook:
        try:
            return PeerBook(self._settings.peers_file, required=self._settings.dicom_peers is not None)
        except SettingsError as error:
            raise Conflict(error.message) from error


def as_json(peer: Peer) -> dict[str, Any]:
    """One peer, by the keys of the file."""
    return {
        "name": peer.title,
        "host": peer.host,
        "port": peer.port or None,
        "networks": [str(network) for network in peer.networks],
        "services": sorted(peer.services),
        "tls": peer.tls,
        "fingerprint": peer.fingerprint or None,
        "require_identity": peer.require_identity,
        "max_associations": peer.max_associations or None,
        "transfer_syntaxes": list(peer.transfer_syntaxes),
        "storage_classes": list(peer.storage_classes),
    }


def _echo() -> Callable[[Peer, Settings], None]:
    module, _, name = ECHO.partition(":")
    found: Callable[[Peer, Settings], None] = getattr(importlib.import_module(module), name)
    return found
