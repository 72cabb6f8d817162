"""Associations that we open: C-MOVE's, the forwarder's and the commitment's. Blocking, each for one thread.

The same protocol core as the door's, without the reactor: whoever sends has a thread of its own anyway.
"""

import itertools
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pacs.dimse import command
from pacs.dimse.associate import AssociateRequest, ProposedContext, Role, UserInformation
from pacs.dimse.command import DATA_SET, NO_DATA_SET, Command, Value
from pacs.dimse.limits import Limits
from pacs.dimse.operation import Context
from pacs.dimse.pdu import ProtocolError, Rejection, message
from pacs.dimse.protocol import Aborted, Accepted, CommandReceived, DataReceived, Event, Protocol, Rejected, Released
from pacs.dimse.states import State
from pacs.domain import uids
from pacs.errors import SettingsError, Unavailable
from pacs.services.peers import Peer
from pacs.services.tls import client_context, files_of, fingerprint
from pacs.settings import Settings

_BUFFER = 65_536
_REASONS = {
    Rejection(1, 1, 1): "without a reason",
    Rejection(1, 1, 3): "because it does not know our AE title",
    Rejection(1, 1, 7): "because its AE title is another one",
    Rejection(2, 3, 1): "because it is busy for now",
    Rejection(2, 3, 2): "because it has too many associations",
}


class NoAssociation(Unavailable):
    """The peer cannot be reached, or does not take the association."""


class Lost(Unavailable):
    """An association ended before its time: aborted, closed, or silent for too long."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: to connect, for the answer to our request, for the socket to move, for a response."""

    connect: float = 10.0
    association: float = 30.0
    network: float = 30.0
    response: float = 120.0


@dataclass(frozen=True, slots=True)
class Destination:
    """A peer as we call it. `fingerprint`: its certificate must be that one."""

    title: str
    host: str
    port: int
    tls: ssl.SSLContext | None = None
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response and its data set."""

    command: Command
    data: bytes = b""

    @property
    def status(self) -> int:
        """Status (0000,0900); a response without one counts as a failure."""
        return self.command.number("Status", 0x0110)


def destination(peer: Peer, settings: Settings) -> Destination:
    """How to call a peer. Raises SettingsError when its entry says no host or port, or TLS cannot be set up."""
    if not peer.host or not peer.port:
        raise SettingsError(f"{settings.peers_file}: peers.{peer.title} needs host and port to be called.")
    if not peer.tls:
        return Destination(peer.title, peer.host, peer.port)
    files = files_of(settings) if settings.dicom_tls_cert else None
    context = client_context(files, settings.dicom_tls_ca, pinned=bool(peer.fingerprint))
    return Destination(peer.title, peer.host, peer.port, context, peer.fingerprint)


class Association:
    """One association, open from the start. Leaving it as a context manager releases it, or aborts after an error."""

    def __init__(
        self,
        called: Destination,
        calling: str,
        proposed: Sequence[ProposedContext],
        roles: Sequence[Role] = (),
        patience: Patience = Patience(),
    ) -> None:
        """Connect and ask. Raises NoAssociation saying why not."""
        self.destination, self.patience = called, patience
        self.contexts: tuple[Context, ...] = ()
        self._numbers = itertools.cycle(range(1, 65_536))
        self._protocol = Protocol(Limits(), requestor=True)
        self._sock = _connect(called, patience)
        self._events = self._receive()
        try:
            self._ask(calling, proposed, roles)
        except BaseException:
            self._sock.close()
            raise

    def _ask(self, calling: str, proposed: Sequence[ProposedContext], roles: Sequence[Role]) -> None:
        user = UserInformation(
            max_pdu=Limits().max_pdu,
            implementation_class_uid=uids.IMPLEMENTATION_CLASS_UID,
            implementation_version=uids.IMPLEMENTATION_VERSION_NAME,
            roles=tuple(roles),
        )
        title = self.destination.title
        try:
            self.send(self._protocol.request(AssociateRequest(title, calling, tuple(proposed), user)))
            event = self._event(self.patience.association)
        except Lost as error:
            raise NoAssociation(f"{title} did not answer our association request: {error.message}") from error
        if isinstance(event, Rejected):
            why = _REASONS.get(event.rejection, f"({event.rejection.source}, {event.rejection.reason})")
            raise NoAssociation(f"{title} rejected our association {why}.")
        if not isinstance(event, Accepted):
            raise NoAssociation(f"{title} aborted instead of answering our association request.")
        syntaxes = {context.context_id: context.abstract_syntax for context in proposed}
        self.contexts = tuple(
            Context(one.context_id, syntaxes[one.context_id], one.transfer_syntax)
            for one in event.accept.results
            if one.result == 0 and one.context_id in syntaxes
        )

    @property
    def max_pdu(self) -> int:
        """What the peer takes, 0 for no limit."""
        return self._protocol.peer_max_pdu

    def next_id(self) -> int:
        """A message ID for a request of ours."""
        return next(self._numbers)

    ahead = False

    def expect(self, message_id: int) -> None:
        """Nothing to do: each association of ours is for one thread, which asks one thing at a time."""

    def offer(self, message_id: int, data: memoryview) -> None:
        """Nobody else could send it."""

    def send(self, data: bytes | memoryview) -> None:
        """Raises Lost."""
        try:
            self._sock.settimeout(self.patience.network)
            self._sock.sendall(data)
        except OSError as error:
            raise Lost(f"{self.destination.title} closed the connection or does not read.") from error

    def request(self, context: Context, values: Mapping[str, Value], data: bytes | None = None) -> Answer:
        """Send a small request and wait for its response. Raises Lost."""
        number = self.next_id()
        kind = NO_DATA_SET if data is None else DATA_SET
        head = command.encode({"MessageID": number, "CommandDataSetType": kind, **values})
        self.send(message(context.context_id, head, data, self.max_pdu))
        return self.answer(number)

    def answer(self, message_id: int) -> Answer:
        """The response to one of our requests. Raises Lost when another thing comes, or nothing."""
        event = self._event(self.patience.response)
        if isinstance(event, Aborted):
            raise Lost(f"{self.destination.title} aborted the association.")
        if not isinstance(event, CommandReceived):
            raise Lost(f"{self.destination.title} ended the association instead of answering.")
        if event.command.number("MessageIDBeingRespondedTo", -1) != message_id:
            raise Lost(f"{self.destination.title} answered a request that we did not make.")
        return Answer(event.command, self._data_set() if event.command.has_data_set else b"")

    def _data_set(self) -> bytes:
        data = b""
        while isinstance(event := self._event(self.patience.network), DataReceived):
            data += event.data
            if event.last:
                return data
            if len(data) > Limits().max_identifier:
                break
        raise Lost(f"{self.destination.title} did not end its answer.")

    def release(self) -> None:
        """End in good order; a peer that does not answer is left."""
        if self._protocol.state is State.ESTABLISHED:
            with suppress(Lost):
                self.send(self._protocol.release())
                while not isinstance(self._event(self.patience.network), Released | Aborted):
                    pass
        self._sock.close()

    def abort(self) -> None:
        """End at once."""
        with suppress(Lost):
            self.send(self._protocol.abort())
        self._sock.close()

    def kill(self) -> None:
        """Safe from every thread: whoever sends or waits here gets Lost."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> "Association":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.release() if kind is None else self.abort()

    def _event(self, seconds: float) -> Event:
        self._deadline = time.monotonic() + seconds
        try:
            event = next(self._events, None)
        except ProtocolError as error:
            raise Lost(f"{self.destination.title} left the protocol: {error.message}") from error
        except OSError as error:
            late = isinstance(error, TimeoutError)
            said = f"said nothing for {seconds:g} s" if late else "closed the connection"
            raise Lost(f"{self.destination.title} {said}.") from error
        if event is None:
            raise Lost(f"{self.destination.title} closed the connection.")
        return event

    def _receive(self) -> Iterator[Event]:
        buffer = memoryview(bytearray(_BUFFER))
        while size := self._some(buffer):
            position = 0
            while position < size:
                event, position = self._protocol.receive(buffer[:size], position)
                if event is not None:
                    yield event

    def _some(self, buffer: memoryview) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        size = self._sock.recv_into(buffer)
        if not isinstance(self._sock, ssl.SSLSocket):  # the peer may wait for our ACK (dimse.md 1)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return size


def _connect(called: Destination, patience: Patience) -> socket.socket:
    where = f"{called.title} at {called.host}:{called.port}"
    try:
        sock = socket.create_connection((called.host, called.port), patience.connect)
    except OSError as error:
        raise NoAssociation(f"{where} cannot be reached ({error.strerror or 'no answer'}).") from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock if called.tls is None else _secured(sock, called, called.tls, where)


def _secured(sock: socket.socket, called: Destination, context: ssl.SSLContext, where: str) -> socket.socket:
    try:
        wrapped = context.wrap_socket(sock)
    except OSError as error:
        sock.close()
        reason = getattr(error, "reason", None) or error.strerror or "no answer"
        raise NoAssociation(f"{where} does not agree on TLS ({reason}).") from error
    if called.fingerprint and fingerprint(wrapped.getpeercert(binary_form=True)) != called.fingerprint:
        wrapped.close()
        raise NoAssociation(f"{where} shows another certificate than its fingerprint in the peers file says.")
    return wrapped
