"""`filmroom serve dimse`: the listening sockets, and a reactor on them until told to stop."""

import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Event

import structlog

from pacs import node as nodes
from pacs.dimse.identity import NodeAccounts, Verifier
from pacs.dimse.listening import listening
from pacs.dimse.meters import Meters
from pacs.dimse.reactor import Reactor
from pacs.dimse.services import catalogue
from pacs.dimse.tls import TlsDoor, TlsKeys
from pacs.services.peers import PeerBook
from pacs.services.tls import files_of
from pacs.settings import Settings

# how long a thread that computes may keep the event loop waiting after each of its system calls; Python's own 5 ms add
# up to a tenth of a second an answer while threads look at hostile objects
SWITCH_SECONDS = 0.0005


def serve(settings: Settings, stop: Event) -> int:
    """Serve DIMSE until `stop` is set; 0 when all associations ended in time.

    Raises SettingsError when a port is taken, the peers file is wrong, or a TLS file cannot be used.
    """
    _allow_files()
    sys.setswitchinterval(SWITCH_SECONDS)
    peers = PeerBook(settings.peers_file, required=settings.dicom_peers is not None)
    keys = TlsKeys(files_of(settings)) if settings.dicom_tls_port else None
    with _listeners(settings, keys) as (listener, tls):
        node = nodes.build(settings, component="dimse")
        try:
            _ = node.ingest, node.search  # made here, once, before threads ask for them
            meters = Meters(node.metrics)
            reactor = Reactor(
                listener,
                node,
                title=settings.dicom_ae_title.strip(),
                peers=peers,
                services=catalogue(),
                meters=meters,
                tls=tls,
                identities=Verifier(NodeAccounts(node)),
            )
            _announce(settings, listener, tls, meters)
            reactor.run(stop)
        finally:
            node.close()
    return 0


def _allow_files() -> None:
    """As many open files as we are allowed: each peer is one, each object under way another."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def _listeners(settings: Settings, keys: TlsKeys | None) -> Iterator[tuple[socket.socket, TlsDoor | None]]:
    with ExitStack() as stack:
        plain = stack.enter_context(listening(settings, "dicom_port"))
        tls = TlsDoor(stack.enter_context(listening(settings, "dicom_tls_port")), keys) if keys else None
        yield plain, tls


def _announce(settings: Settings, listener: socket.socket, tls: TlsDoor | None, meters: Meters) -> None:
    log, title = structlog.get_logger(), settings.dicom_ae_title.strip()
    host, port = listener.getsockname()[:2]
    log.info("listening", protocol="dicom", host=host, port=port, title=title)
    if tls is not None:
        host, port = tls.listener.getsockname()[:2]
        mutual = tls.keys.demands_certificates
        log.info("listening", protocol="dicom-tls", host=host, port=port, title=title, certificates_demanded=mutual)
        meters.tls_files_taken(tls.keys.files.certificate)
