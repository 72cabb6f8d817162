"""A service class user on our own protocol core and a blocking socket: no Nagle, one send a message."""

import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pacs.dimse import command, protocol
from pacs.dimse.associate import AssociateRequest, Identity, ProposedContext, Role, UserInformation
from pacs.dimse.command import DATA_SET, NO_DATA_SET, Command, Field, Value
from pacs.dimse.limits import Limits
from pacs.dimse.pdu import fragments
from pacs.dimse.protocol import CommandReceived, DataReceived, Event, Protocol
from pacs.domain.uids import VERIFICATION

LITTLE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")


class Refusal(Exception):
    """The association was rejected, aborted or lost; `event` says which."""

    def __init__(self, event: Event | None) -> None:
        super().__init__(repr(event))
        self.event = event


@dataclass
class Answer:
    """A response and its data set."""

    command: Command
    data: bytes = b""

    @property
    def status(self) -> int:
        return self.command.number("Status", -1)


@dataclass
class Sender:
    """One association. `contexts`: (abstract syntax, transfer syntaxes) in order; their IDs are 1, 3, 5, ..."""

    address: tuple[str, int]
    contexts: Sequence[tuple[str, Sequence[str]]] = ((VERIFICATION, LITTLE),)
    called: str = "FILMROOM"
    calling: str = "SENDER"
    window: tuple[int, int] | None = None
    roles: tuple[Role, ...] = ()
    extended: tuple[tuple[str, bytes], ...] = ()
    identity: Identity | None = None
    max_pdu: int = 131_072
    timeout: float = 30.0
    tls: ssl.SSLContext | None = None
    accepted: dict[int, str] = field(default_factory=dict)
    results: dict[int, int] = field(default_factory=dict)

    def __enter__(self) -> "Sender":
        self.sock = socket.create_connection(self.address, self.timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls is not None:
            self.sock = self.tls.wrap_socket(self.sock)
        self.protocol = Protocol(Limits(), requestor=True)
        self._events: Iterator[Event] = self._receive()
        self._number = 0
        proposed = tuple(ProposedContext(2 * n + 1, a, tuple(t)) for n, (a, t) in enumerate(self.contexts))
        user = UserInformation(self.max_pdu, "1.2.3.4", "SENDER", self.window, self.roles, self.extended, self.identity)
        self.sock.sendall(self.protocol.request(AssociateRequest(self.called, self.calling, proposed, user)))
        event = self.event()
        if not isinstance(event, protocol.Accepted):
            self.sock.close()
            raise Refusal(event)
        self.accept = event.accept
        self.results = {r.context_id: r.result for r in event.accept.results}
        self.accepted = {r.context_id: r.transfer_syntax for r in event.accept.results if r.result == 0}
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self.protocol.state is protocol.State.ESTABLISHED:
            self.sock.sendall(self.protocol.release())
            event = self.event()
            assert isinstance(event, protocol.Released), event
        self.sock.close()

    def _receive(self) -> Iterator[Event]:
        buffer = memoryview(bytearray(262_144))
        while size := self.sock.recv_into(buffer):
            # a peer with Nagle's algorithm on holds the second part of its answer back until we acknowledge the first
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            position = 0
            while position < size:
                event, position = self.protocol.receive(buffer[:size], position)
                if event is not None:
                    yield event

    def event(self) -> Event:
        """The next event. Raises Refusal when the peer has closed."""
        event = next(self._events, None)
        if event is None:
            raise Refusal(None)
        return event

    def answer(self) -> Answer:
        """The next whole response."""
        event = self.event()
        if not isinstance(event, CommandReceived):
            raise Refusal(event)
        answer, more = Answer(event.command), event.command.has_data_set
        while more:
            piece = self.event()
            assert isinstance(piece, DataReceived), piece
            answer.data += piece.data
            more = not piece.last
        return answer

    def send(self, context_id: int, values: Mapping[str, Value], data: bytes | memoryview | None = None) -> int:
        """Send a request without waiting; its message ID."""
        self._number = self._number % 65_535 + 1
        kind = NO_DATA_SET if data is None else DATA_SET
        head = command.encode({"MessageID": self._number, "CommandDataSetType": kind, **values})
        limit = self.protocol.peer_max_pdu
        parts = list(fragments(context_id, memoryview(head), command=True, max_pdu=limit))
        if data is not None:
            parts += fragments(context_id, memoryview(data), command=False, max_pdu=limit)
        pieces = [piece for part in parts for piece in part]
        self.sock.sendall(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        return self._number

    def echo(self) -> int:
        """C-ECHO on the first context; the status."""
        values: dict[str, Value] = {"CommandField": Field.C_ECHO_RQ, "AffectedSOPClassUID": VERIFICATION}
        self.send(1, values)
        return self.answer().status

    def store(self, sop_class: str, instance: str, data: bytes | memoryview, context_id: int = 1) -> Answer:
        """C-STORE; the response."""
        self.send(context_id, store_request(sop_class, instance), data)
        return self.answer()

    def find(self, model: str, identifier: bytes, context_id: int = 1) -> list[Answer]:
        """C-FIND; all responses."""
        self.send(context_id, find_request(model), identifier)
        answers = [self.answer()]
        while answers[-1].status in (0xFF00, 0xFF01):
            answers.append(self.answer())
        return answers


def store_request(sop_class: str, instance: str) -> dict[str, Value]:
    """The command of a C-STORE-RQ but for its message ID."""
    return {
        "CommandField": Field.C_STORE_RQ,
        "AffectedSOPClassUID": sop_class,
        "AffectedSOPInstanceUID": instance,
        "Priority": 0,
    }


def find_request(model: str) -> dict[str, Value]:
    """The command of a C-FIND-RQ but for its message ID."""
    return {"CommandField": Field.C_FIND_RQ, "AffectedSOPClassUID": model, "Priority": 0}


def cancel_request(message_id: int) -> dict[str, Value]:
    """The command of a C-CANCEL-RQ."""
    return {
        "CommandField": Field.C_CANCEL_RQ,
        "MessageIDBeingRespondedTo": message_id,
    }
