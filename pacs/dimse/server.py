"""`filmroom serve dimse`: the listening socket, and a reactor on it until told to stop."""

import errno
import fcntl
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import IO

import structlog

from pacs import node as nodes
from pacs.dimse.meters import Meters
from pacs.dimse.reactor import Reactor
from pacs.dimse.services import catalogue
from pacs.errors import SettingsError
from pacs.services.peers import PeerBook
from pacs.settings import Settings

_BACKLOG = 1_024


def serve(settings: Settings, stop: Event) -> int:
    """Serve DIMSE until `stop` is set; 0 when all associations ended in time.

    Raises SettingsError when the port is taken, the peers file is wrong, or TLS is asked for, which is not built yet.
    """
    if settings.dicom_tls_port:
        raise SettingsError("DICOM_TLS_PORT is set, but TLS for DIMSE is not built yet; unset it to serve without TLS.")
    _allow_files()
    peers = PeerBook(settings.peers_file, required=settings.dicom_peers is not None)
    with _listening(settings) as listener:
        node = nodes.build(settings, component="dimse")
        try:
            _ = node.ingest, node.search  # made here, once, before threads ask for them
            reactor = Reactor(
                listener,
                node,
                title=settings.dicom_ae_title.strip(),
                peers=peers,
                services=catalogue(),
                meters=Meters(node.metrics),
            )
            _announce(settings, listener)
            reactor.run(stop)
        finally:
            node.close()
    return 0


def _allow_files() -> None:
    """As many open files as we are allowed: each peer is one, each object under way another."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _announce(settings: Settings, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    title = settings.dicom_ae_title.strip()
    structlog.get_logger().info("listening", protocol="dicom", host=host, port=port, title=title)


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """The listening socket. Several processes of one home share the port (SO_REUSEPORT); strangers do not.

    The kernel would let any two processes of one user share it, so a lock file in the home tells siblings apart.
    """
    settings.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(settings.run_dir / f"dimse-{settings.dicom_port}.lock", "w") as lock:
        alone = _lock_alone(lock)
        if alone and settings.dicom_port:
            _bind(settings, shared=False).close()
        listener = _bind(settings, shared=True)
        fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            listener.listen(_BACKLOG)
            yield listener
        finally:
            listener.close()


def _lock_alone(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _bind(settings: Settings, *, shared: bool) -> socket.socket:
    host, port = settings.dicom_host, settings.dicom_port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SettingsError(f"DICOM_HOST names {host}, which is no address of this machine.") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise SettingsError(_bind_fault(error, host, port)) from error
    return sock


def _bind_fault(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"DICOM_PORT {port} on {host} is in use by another program; stop it or set DICOM_PORT."
    if error.errno == errno.EACCES:
        return f"DICOM_PORT {port} may not be opened by this user; choose one above 1023."
    return f"DICOM_HOST {host} cannot be listened on ({os.strerror(error.errno or 0)})."
