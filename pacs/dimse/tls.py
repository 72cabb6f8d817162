"""TLS before the first PDU: handshakes that nobody waits for, and sockets that then serve as plain ones do."""

import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pacs.services.tls import TlsFiles, fingerprint, server_context

if TYPE_CHECKING:
    from pacs.dimse.reactor import Reactor

RECORD = 16_384  # bytes of content in one TLS record at most (RFC 8446 5.1)
HANDSHAKE = b"\x16"  # the first byte of every TLS connection
_UNTOLD = frozenset({"connection-lost", "draining"})


class Secured(ssl.SSLSocket):
    """Reads, writes and half-closes as a socket that does not block: BlockingIOError where it cannot go on."""

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """All records that are there and that the buffer has room for. What is left inside a record would not wake a
        selector again, so a record is only begun where it fits."""
        view = memoryview(buffer)[: nbytes or None]
        size = 0
        while size == 0 or len(view) - size >= RECORD:
            try:
                taken = super().recv_into(view[size:], None, flags)
            except OSError as error:
                if size:  # an error comes again with the next call
                    break
                raise _blocking(error) from None
            size += taken
            if not taken:
                break
        return size

    def send(self, data: Any, flags: int = 0) -> int:
        """As much as the socket takes, record by record: a retry after a full socket must begin with the same record,
        and does where the caller goes on from what was taken."""
        view = memoryview(data)
        size = 0
        while size < len(view):
            try:
                size += super().send(view[size : size + RECORD], flags)
            except OSError as error:
                if size:
                    break
                raise _blocking(error) from None
        return size

    def shutdown(self, how: int) -> None:
        """Says that nothing follows (close_notify); theirs is not waited for."""
        with suppress(OSError, ValueError):
            self.unwrap()
        super().shutdown(how)


def _blocking(error: OSError) -> OSError:
    wants = isinstance(error, ssl.SSLWantReadError | ssl.SSLWantWriteError)
    return BlockingIOError() if wants else error


class TlsKeys:
    """The context of now, made of the files of the settings. `refresh` reads disk: call it off the event loop."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises SettingsError naming the file that cannot be used."""
        self.files = files
        self._stamp = files.stamp()
        self._context = _secured(server_context(files))

    @property
    def demands_certificates(self) -> bool:
        return self.files.authorities is not None

    def refresh(self) -> bool:
        """Take replaced files into use for connections to come; True when that was done.

        Raises SettingsError, once for each change, and keeps what was in use.
        """
        stamp = self.files.stamp()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        self._context = _secured(server_context(self.files))
        return True

    def wrap(self, sock: socket.socket) -> Secured:
        """The server's end of a connection whose handshake has not begun. Raises OSError when it is gone."""
        wrapped = self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        assert isinstance(wrapped, Secured)
        return wrapped


def _secured(context: ssl.SSLContext) -> ssl.SSLContext:
    context.sslsocket_class = Secured
    return context


@dataclass(frozen=True, slots=True)
class TlsDoor:
    """The socket that listens for TLS, and the keys for it."""

    listener: socket.socket
    keys: TlsKeys


class Handshake:
    """A caller on the TLS port until its handshake is done. To the reactor it is one more connection."""

    associated = False
    counted = False
    peer = None
    calling = ""
    wants_read = True

    def __init__(self, reactor: "Reactor", sock: Secured, address: str) -> None:
        self.sock = sock
        self.address = address
        self.wants_write = False
        self._reactor = reactor
        self._opened = time.monotonic()
        self._known_as_tls = False

    def readable(self, _buffer: memoryview) -> None:
        """Go on; whoever does not speak TLS is turned away at its first byte."""
        try:
            if self._known_as_tls or self._begins():
                self._step()
        except OSError as error:
            self.close("tls-refused" if isinstance(error, ssl.SSLError) else "connection-lost", _reason(error))

    def writable(self) -> None:
        self.readable(memoryview(b""))

    def _begins(self) -> bool:
        try:
            first = socket.socket.recv(self.sock, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        self._known_as_tls = first == HANDSHAKE
        if not self._known_as_tls:
            self.close("not-tls" if first else "connection-lost")
        return self._known_as_tls

    def _step(self) -> None:
        try:
            self.sock.do_handshake()
        except ssl.SSLWantReadError:
            self.wants_write = False
        except ssl.SSLWantWriteError:
            self.wants_write = True
        else:
            self._reactor.secured(self, fingerprint(self.sock.getpeercert(binary_form=True)))

    def check(self) -> None:
        """The whole handshake has the time that a first PDU has."""
        if time.monotonic() - self._opened > self._reactor.limits.artim:
            self.readable(memoryview(b""))  # what it said may not have had its turn
            self.close("silent", "the TLS handshake")

    def drain(self) -> None:
        self.close("draining")

    def close(self, why: str, detail: str = "") -> None:
        """The transport ends, now."""
        if self._reactor.forget(self, why):
            if why not in _UNTOLD:
                self._reactor.meters.aborted(why, self.address, "", detail)
            self.sock.close()


def _reason(error: OSError) -> str:
    """OpenSSL's word, and for a certificate what is wrong with it; neither quotes the peer."""
    words = [str(getattr(error, name, "") or "") for name in ("reason", "verify_message")]
    return ": ".join(filter(None, words))
