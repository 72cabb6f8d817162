"""One peer's socket: bytes to the protocol, events to operations, answers to the socket, and its deadlines."""

import itertools
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from pacs.dimse import command, identity, negotiation, protocol, status
from pacs.dimse.associate import AssociateRequest, Identity
from pacs.dimse.command import RESPONSE, Command, Field
from pacs.dimse.limits import Limits
from pacs.dimse.negotiation import Refusal
from pacs.dimse.operation import Context, Operation
from pacs.dimse.output import Output
from pacs.dimse.pdu import AbortReason, ProtocolError, message
from pacs.dimse.protocol import CommandReceived, DataReceived, Event, Protocol, Requested
from pacs.dimse.services import Service
from pacs.dimse.states import State
from pacs.dimse.status import Status
from pacs.domain.events import Source
from pacs.domain.roles import Identity as Who
from pacs.errors import FilmroomError
from pacs.services.peers import Peer, PeerBook, ip_address

if TYPE_CHECKING:
    from pacs.dimse.reactor import Reactor
    from pacs.node import Node

T = TypeVar("T")

_ALWAYS_TOLD = frozenset({"silent", "crowded-out"})  # also of a socket that never was an association
_UNHEARD = frozenset({"closing", "silent", "unread"})  # deadlines after which nobody would read an A-ABORT
_TALKING = frozenset({State.ESTABLISHED, State.PEER_RELEASING})


class Connection:
    """An association and its transport. All methods are for the reactor's thread."""

    def __init__(self, reactor: "Reactor", sock: socket.socket, address: str, certificate: str | None = None) -> None:
        """`certificate`: the fingerprint of the peer's, empty where TLS came without one, None without TLS."""
        self.sock = sock
        self.address = address
        self.title = reactor.title
        self.node: Node = reactor.node
        self.limits: Limits = reactor.limits
        self.peer: Peer | None = None
        self.calling = ""
        self.certificate = certificate
        self.counted = False  # among the associations of the reactor
        self.source = Source("dimse", "", address)
        self._reactor = reactor
        self._protocol = Protocol(reactor.limits)
        self._contexts: dict[int, tuple[Context, Service]] = {}
        self._window = 1
        self._operations: dict[int, tuple[Operation, float]] = {}
        self._current: Operation | None = None  # whose data set is coming
        self._sendable: frozenset[str] = frozenset()  # classes that the peer takes C-STORE requests of
        self._asked: dict[int, Callable[[Command], None]] = {}  # requests of ours, by message ID
        self._numbers = itertools.cycle(range(1, 65_536))
        self._streaming = False  # a message of ours is under way in pieces
        self._behind: list[bytes] = []  # what waits for its end
        self.turn = threading.Lock()
        self._blocked: CommandReceived | None = None  # a request beyond the window, and what came behind it
        self._held = bytearray()
        self._output = Output(sock)
        self._releasing = False
        self._draining = False
        self._closing_after_output = False
        now = time.monotonic()
        self._opened = self._heard = self._pdu_since = now
        self._closing_since = 0.0
        self._linger = 0.0
        self._pdu_seen = 0

    # what the reactor asks

    @property
    def associated(self) -> bool:
        """Past its A-ASSOCIATE-RQ and not over."""
        return self._protocol.state not in (State.AWAITING_REQUEST, State.CLOSING, State.CLOSED)

    @property
    def wants_read(self) -> bool:
        """False while a request waits for an earlier one, or while the peer does not take our answers."""
        return self._blocked is None and self._output.size < self.limits.output_high

    @property
    def wants_write(self) -> bool:
        return self._output.size > 0

    def check(self) -> None:
        """Close or abort when a deadline has passed (dimse.md 2)."""
        why = self._overdue(time.monotonic())
        if why == "silent":  # what it said may not have had its turn
            if not self._reactor.reads(self):
                return
            why = self._overdue(time.monotonic())
        if why in _UNHEARD:
            self.close(why)
        elif why:
            self.abort(why)

    def _overdue(self, now: float) -> str:
        state, limits = self._protocol.state, self.limits
        if state is State.CLOSING:
            return "closing" if now - self._closing_since > self._linger else ""
        if state is State.AWAITING_REQUEST:
            return "silent" if now - self._opened > limits.artim else ""
        if state is State.DECIDING:
            return "undecided" if now - self._heard > limits.network else ""
        if self._output.size and now - self._output.moved_at > limits.network:
            return "unread"
        if self.wants_read and self._protocol.within_pdu and now - self._pdu_since > limits.pdu:
            return "dripping"
        quiet = not self._operations or self._current is not None
        return "idle" if quiet and now - self._heard > limits.idle else ""

    # receiving

    def readable(self, buffer: memoryview) -> None:
        """Read once. TCP_QUICKACK holds for one receive only: set again after each (dimse.md 1)."""
        try:
            size = self.sock.recv_into(buffer)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if size == 0:
            self.close("connection-lost")
        elif self._protocol.state is not State.CLOSING:  # what comes behind our last word is not read
            self._heard = time.monotonic()
            self.feed(buffer[:size])

    def feed(self, data: memoryview) -> None:
        """Act on received bytes. A peer that leaves the protocol is aborted."""
        position, end = 0, len(data)
        try:
            while position < end:
                event, position = self._protocol.receive(data, position)
                if event is not None:
                    self._dispatch(event)
                if self._blocked is not None:
                    self._held += data[position:]
                    break
                if self._protocol.state is State.CLOSING:
                    break
        except ProtocolError as error:
            self.abort("protocol-error", error.reason, detail=error.message)
        self._note_pdu()

    def _note_pdu(self) -> None:
        if self._protocol.within_pdu and self._protocol.pdus != self._pdu_seen:
            self._pdu_seen, self._pdu_since = self._protocol.pdus, self._heard

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            self._data(event)
        elif isinstance(event, CommandReceived):
            self._command(event)
        elif isinstance(event, Requested):
            self._requested(event)
        elif isinstance(event, protocol.ReleaseRequested):
            self._releasing = True
            self._settle()
        elif isinstance(event, protocol.Aborted):
            self.close("peer-aborted")

    # association

    def _requested(self, event: Requested) -> None:
        request = event.request
        known = self._reactor.peers.get(request.calling)
        peer = known if known is not None and known.is_at(self.address) else None
        refusal, given = self._judge(request, peer), request.user.identity
        if refusal is not None:
            self._reject(request, refusal)
        elif given is not None and identity.wants_check(given, peer):
            self._verify(request, peer, given)
        else:
            self._accept(request, peer)

    def _judge(self, request: AssociateRequest, peer: Peer | None) -> Refusal | None:
        place = ip_address(self.address)
        return negotiation.judge(
            request,
            self.title,
            peer,
            local=place is None or place.is_loopback,
            load=self._reactor.load(self.address, request.calling),
            limits=self.limits,
            certified=self._reactor.peers.certified(request.calling, self.certificate),
        )

    def _verify(self, request: AssociateRequest, peer: Peer | None, given: Identity) -> None:
        checked = self._reactor.identities.submit(given, self.address)
        if checked is None:
            self._reject(request, Refusal.TOO_MANY)
        else:
            self.watch(checked, lambda future: self._verified(request, peer, future))

    def _verified(self, request: AssociateRequest, peer: Peer | None, future: "Future[Who | None]") -> None:
        """The answer about an identity is there; meanwhile others may have come, or this caller gone."""
        if self._protocol.state is not State.DECIDING or future.cancelled():
            return
        error = future.exception()
        who = None if error is not None else future.result()
        if error is not None:
            self._reject(request, Refusal.UNAVAILABLE)
            if not isinstance(error, FilmroomError):
                self.report(error)
        elif who is None:
            self._reject(request, Refusal.IDENTITY)
        elif (refusal := self._judge(request, peer)) is not None:
            self._reject(request, refusal)
        else:
            self._reactor.meters.identified(request.calling, who.actor)
            self._accept(request, peer, who)

    def _reject(self, request: AssociateRequest, refusal: Refusal) -> None:
        self._reactor.meters.rejected(refusal.word, self.address, request.calling)
        caller = Source("dimse", request.calling, self.address)
        self._reactor.node.audit.note(caller, "associate", outcome="refused", detail={"reason": refusal.word})
        self._say(self._protocol.reject(refusal.rejection))
        self._await_close(self.limits.artim)

    def _accept(self, request: AssociateRequest, peer: Peer | None, who: Who | None = None) -> None:
        """`who`: the user that the caller has shown to be."""
        self.peer, self.calling = peer, request.calling
        self.source = Source("dimse", request.calling, self.address)
        services = self._reactor.services
        accept, self._contexts = negotiation.negotiate(request, services, peer, self.limits, who)
        self._window = accept.user.window[0] if accept.user.window else 1
        self._sendable = frozenset(role.sop_class_uid for role in accept.user.roles if role.scp)
        self._reactor.associated(self)
        self._reactor.meters.negotiated(request, accept)
        self._say(self._protocol.accept(accept))

    def _settle(self) -> None:
        """Between messages: answer a release that waits, or end because the node stops."""
        if self._operations or self._output.size or self._protocol.within_message:
            return
        if self._blocked is not None and not self._draining:
            return
        if self._releasing and self._protocol.state is State.PEER_RELEASING:
            self._say(self._protocol.release_answer())
            self._reactor.dissociated(self, "released")
            self._await_close(self.limits.artim)
        elif self._draining and self._protocol.state is not State.CLOSING:
            self.abort("draining")

    def drain(self) -> None:
        """The node stops: finish the message under way, then abort."""
        if not self.associated:
            self.close("draining")
        self._draining = True
        self._settle()

    # messages

    def _command(self, event: CommandReceived) -> None:
        request = event.command
        if request.field == Field.C_CANCEL_RQ:
            found = self._operations.get(request.number("MessageIDBeingRespondedTo"))
            if found is not None:
                found[0].cancel()
        elif request.field & RESPONSE:
            self._responded(request)
        elif len(self._operations) >= self._window or self._draining:
            self._blocked = event
        else:
            self._begin(event)

    def _responded(self, answer: Command) -> None:
        answered = self._asked.pop(answer.number("MessageIDBeingRespondedTo", -1), None)
        if answered is None:
            raise ProtocolError("A response came to a request that we never made.", AbortReason.UNEXPECTED_PDU)
        self._streaming = False
        behind, self._behind = self._behind, []
        for data in behind:
            self._say(data)
        answered(answer)
        if behind:
            self._tell_room()

    def _begin(self, event: CommandReceived) -> None:
        request = event.command
        context, service = self._contexts[event.context_id]
        make = service.operations.get(request.field)
        wrong = None
        if make is None:
            wrong = Status.UNRECOGNIZED_OPERATION
        elif request.message_id in self._operations:
            wrong = Status.DUPLICATE_INVOCATION
        if make is None or wrong is not None:
            self.send(context, [(command.response(request, wrong or Status.UNRECOGNIZED_OPERATION), None)])
            return  # a data set that follows belongs to nobody and is dropped
        self._start(make, context, request)

    def _start(self, make: Callable[..., Operation], context: Context, request: Command) -> None:
        try:
            operation = make(self, context, request)
        except Exception as error:
            self._failed(context, request, error)
            return
        self._operations[request.message_id] = (operation, time.monotonic())
        if request.has_data_set:
            self._current = operation
        else:
            self._guard(operation, operation.end)

    def _data(self, event: DataReceived) -> None:
        operation = self._current
        if operation is not None and event.data:
            self._guard(operation, operation.write, event.data)
            operation = self._current
        if event.last:
            self._current = None
            if operation is not None:
                self._guard(operation, operation.end)
            self._settle()

    def _guard(self, operation: Operation, act: Callable[..., None], *arguments: object) -> None:
        """An operation that raises is answered with a failure: never silence, never success (PS3.7 C.5)."""
        try:
            act(*arguments)
        except ProtocolError:
            raise
        except Exception as error:
            operation.abort()
            if self._current is operation:
                self._current = None
            self._failed(operation.context, operation.request, error)
            self.finish(operation, status.of(error))

    def _failed(self, context: Context, request: Command, error: Exception) -> None:
        if not isinstance(error, FilmroomError):
            self.report(error)
        answer = command.response(request, status.of(error), {"ErrorComment": status.comment(error)})
        self.send(context, [(answer, None)])

    def _resume(self) -> None:
        """The window has a place again: go on with the request that waited and what came behind it."""
        event, self._blocked = self._blocked, None
        held, self._held = self._held, bytearray()
        if event is None or self._protocol.state not in _TALKING:
            return
        self._pdu_since = time.monotonic()
        self._begin(event)
        if held:
            self.feed(memoryview(held))
        self._settle()

    # what operations ask (operation.Link)

    @property
    def room(self) -> bool:
        return self._clear and not self._streaming

    @property
    def _clear(self) -> bool:
        return self._output.size < self.limits.output_low and self._protocol.state in _TALKING

    @property
    def peers(self) -> PeerBook:
        return self._reactor.peers

    @property
    def max_pdu(self) -> int:
        return self._protocol.peer_max_pdu

    def storable(self) -> tuple[Context, ...]:
        found = (context for context, _ in self._contexts.values())
        return tuple(context for context in found if context.abstract_syntax in self._sendable)

    def next_id(self) -> int:
        return next(self._numbers)

    def soon(self, act: Callable[[], None]) -> None:
        self._reactor.soon(self, act)

    def ask(self, message_id: int, answered: Callable[[Command], None]) -> None:
        self._asked[message_id] = answered

    def stream(self, data: bytes | memoryview) -> bool:
        if self._protocol.state in _TALKING:
            self._streaming = True
            self._say(data)
        return self._clear

    def send(self, context: Context, messages: list[tuple[bytes, bytes | None]]) -> None:
        if self._protocol.state not in _TALKING:
            return
        limit = self._protocol.peer_max_pdu
        whole = b"".join(message(context.context_id, head, data, limit) for head, data in messages)
        self._behind.append(whole) if self._streaming else self._say(whole)

    def run(self, work: Callable[[], T], done: Callable[["Future[T]"], None]) -> None:
        self.watch(self._reactor.submit(work), done)

    def engage(self, work: Callable[[], T], done: Callable[["Future[T]"], None]) -> None:
        self.watch(self._reactor.engage(work), done)

    def watch(self, future: "Future[T]", done: Callable[["Future[T]"], None]) -> None:
        future.add_done_callback(lambda finished: self._reactor.soon(self, lambda: done(finished)))

    def report(self, error: BaseException) -> None:
        self._reactor.meters.failed(error)

    def finish(self, operation: Operation, final: Status, outcome: str = "") -> None:
        message_id = operation.request.message_id
        _, began = self._operations.pop(message_id, (operation, time.monotonic()))
        self._heard = time.monotonic()
        self._reactor.meters.served(operation.request.field, final, outcome, self._heard - began, self.calling)
        if self._blocked is not None and not self._draining:
            self._reactor.soon(self, self._resume)
        else:
            self._settle()

    # sending

    def _say(self, data: bytes | memoryview) -> None:
        try:
            self._output.put(data)
        except OSError:
            self._reactor.soon(self, lambda: self.close("connection-lost"))

    def writable(self) -> None:
        """The socket takes bytes again."""
        try:
            self._output.flush()
        except OSError:
            self.close("connection-lost")
            return
        if not self._output.size:
            self._half_close() if self._closing_after_output else self._settle()
        if self._clear:
            self._tell_room()

    def _tell_room(self) -> None:
        for operation, _ in list(self._operations.values()):
            self._guard(operation, operation.more)

    # ending

    def abort(self, why: str, reason: AbortReason = AbortReason.NOT_SPECIFIED, *, detail: str = "") -> None:
        """A-ABORT, then close soon. `why` is the counters' word."""
        if self._protocol.state in (State.CLOSING, State.CLOSED):
            return
        self._reactor.meters.aborted(why, self.address, self.calling, detail)
        self._reactor.dissociated(self, why)
        self._drop_operations()
        if self._output.size:  # nothing can follow a PDU that the peer does not take
            self.close(why)
            return
        self._say(self._protocol.abort(reason))
        self._await_close(self.limits.linger)

    def _await_close(self, linger: float) -> None:
        self._closing_since, self._linger = time.monotonic(), linger
        self._blocked = None
        self._held.clear()
        if self._output.size:
            self._closing_after_output = True
        else:
            self._half_close()

    def _half_close(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._reactor.soon(self, lambda: self.close("connection-lost"))

    def _drop_operations(self) -> None:
        operations = [operation for operation, _ in self._operations.values()]
        self._operations.clear()
        self._asked.clear()
        self._behind.clear()
        self._current = None
        for operation in operations:
            try:
                operation.abort()
            except Exception as error:
                self.report(error)

    def close(self, why: str) -> None:
        """The transport ends, now."""
        if self.counted or why in _ALWAYS_TOLD:
            self._reactor.meters.aborted(why, self.address, self.calling)
        if self._reactor.forget(self, why):
            self._protocol.closed()
            self._drop_operations()
            self._output.clear()
            self.sock.close()
