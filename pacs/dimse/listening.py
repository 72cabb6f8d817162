"""A listening socket that several processes of one home share (SO_REUSEPORT), and strangers do not."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from pacs.errors import SettingsError
from pacs.places import port_lock
from pacs.settings import Settings

_BACKLOG = 1_024


@contextmanager
def listening(settings: Settings, name: str) -> Iterator[socket.socket]:
    """The socket for the port that the setting `name` holds, on DICOM_HOST. Raises SettingsError in one sentence.

    The kernel would let any two processes of one user share it, so a lock file in the home tells siblings apart.
    """
    port: int = getattr(settings, name)
    settings.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(port_lock(settings.run_dir, port), "w") as lock:
        alone = _lock_alone(lock)
        if alone and port:
            _bind(settings.dicom_host, port, name, shared=False).close()
        listener = _bind(settings.dicom_host, port, name, shared=True)
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


def _bind(host: str, port: int, name: str, *, shared: bool) -> socket.socket:
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
        raise SettingsError(_bind_fault(error, host, port, name.upper())) from error
    return sock


def _bind_fault(error: OSError, host: str, port: int, name: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{name} {port} on {host} is in use by another program; stop it or set {name}."
    if error.errno == errno.EACCES:
        return f"{name} {port} may not be opened by this user; choose one above 1023."
    return f"DICOM_HOST {host} cannot be listened on ({os.strerror(error.errno or 0)})."
