"""The event loop: one thread that owns every socket of the process (dimse.md 1). It never waits for disk or SQL."""

import errno
import selectors
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Event
from typing import TYPE_CHECKING, TypeVar

from pacs.dimse.connection import Connection
from pacs.dimse.identity import Verifier
from pacs.dimse.limits import Limits
from pacs.dimse.meters import Meters
from pacs.dimse.negotiation import Load
from pacs.dimse.services import Service
from pacs.dimse.tls import Handshake, TlsDoor
from pacs.errors import FilmroomError
from pacs.services.peers import PeerBook

if TYPE_CHECKING:
    from pacs.node import Node

T = TypeVar("T")
Watched = Connection | Handshake

_ACCEPTS_A_TURN = 16
_NEWCOMERS_A_TURN = 6
_OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_FILES_PERIOD = 2.0  # how often the peers file and the TLS files are looked at


class Reactor:
    """Serves a listening socket, and one for TLS where there is one, until told to stop."""

    def __init__(
        self,
        listener: socket.socket,
        node: "Node",
        *,
        title: str,
        peers: PeerBook,
        services: Mapping[str, Service],
        meters: Meters,
        limits: Limits | None = None,
        tls: TlsDoor | None = None,
        identities: Verifier | None = None,
    ) -> None:
        self.node = node
        self.title = title
        self.peers = peers
        self.services = services
        self.meters = meters
        self.limits = limits or Limits()
        self.identities = identities or Verifier(None)
        self._tls = tls
        self._listeners = (listener, tls.listener) if tls else (listener,)
        self._selector = selectors.DefaultSelector()
        self._buffer = memoryview(bytearray(self.limits.receive_buffer))
        self._connections: dict[Watched, int] = {}  # with the events that the selector watches, oldest first
        self._addresses: Counter[str] = Counter()
        self._titles: Counter[str] = Counter()
        self._unknown = 0
        self._soon: deque[tuple[Watched, Callable[[], None]]] = deque()
        self._waker, self._woken = socket.socketpair()
        self._pool = ThreadPoolExecutor(self.limits.workers, "dimse-work")
        self._retrievals = ThreadPoolExecutor(self.limits.retrievals, "dimse-retrieve")
        self._next_sweep = self._next_files = 0.0
        self._peers_fault = ""
        self._paused = False

    def run(self, stop: Event) -> None:
        """Serve until `stop` is set, then let messages under way finish, `limits.drain` seconds at most."""
        for sock in (*self._listeners, self._woken, self._waker):
            sock.setblocking(False)
        for sock in (*self._listeners, self._woken):
            self._selector.register(sock, selectors.EVENT_READ)
        try:
            while not stop.is_set():
                self._turn()
            self._drain()
        finally:
            self._shut()

    def _drain(self) -> None:
        for listener in self._listeners:
            with suppress(KeyError):
                self._selector.unregister(listener)
            listener.close()
        end = time.monotonic() + self.limits.drain
        for connection in list(self._connections):
            self._act(connection, connection.drain)
        while self._connections and time.monotonic() < end:
            self._turn()

    def _shut(self) -> None:
        for connection in list(self._connections):
            connection.close("draining")
        self.identities.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._retrievals.shutdown(wait=True, cancel_futures=True)
        self._selector.close()
        for sock in (*self._listeners, self._waker, self._woken):
            sock.close()

    # one turn

    def _turn(self) -> None:
        """Associations first, then a few of those that are none yet: however many knock, whoever is in is served."""
        newcomers: list[tuple[selectors.SelectorKey, int]] = []
        for key, events in self._selector.select(self.limits.sweep):
            if key.data is not None and key.data.associated:
                self._serve(key.data, events)
            elif key.fileobj is self._woken:
                with suppress(BlockingIOError):
                    self._woken.recv(4096)
            else:
                newcomers.append((key, events))
        for key, events in newcomers[:_NEWCOMERS_A_TURN]:  # the others are as ready in the next turn
            if key.data is not None:
                self._serve(key.data, events)
            elif isinstance(key.fileobj, socket.socket):
                self._accept(key.fileobj)
        for _ in range(len(self._soon)):
            self._act(*self._soon.popleft())
        now = time.monotonic()
        if now >= self._next_sweep:
            self._sweep(now)

    def _serve(self, connection: Watched, events: int) -> None:
        if events & selectors.EVENT_READ:
            self._act(connection, lambda: connection.readable(self._buffer))
        if events & selectors.EVENT_WRITE:
            self._act(connection, connection.writable)

    def _act(self, connection: Watched, act: Callable[[], None]) -> None:
        """Something of one connection: what it raises ends that connection and nothing else."""
        if connection not in self._connections:  # closed meanwhile
            return
        try:
            act()
        except Exception as error:
            self.meters.failed(error)
            connection.close("internal-error")
        self.refresh(connection)

    def refresh(self, connection: Watched) -> None:
        """Watch what the connection wants now."""
        watched = self._connections.get(connection)
        if watched is None:
            return
        wanted = selectors.EVENT_READ * connection.wants_read | selectors.EVENT_WRITE * connection.wants_write
        if wanted == watched:
            return
        if watched == 0:
            self._selector.register(connection.sock, wanted, connection)
        elif wanted == 0:
            self._selector.unregister(connection.sock)
        else:
            self._selector.modify(connection.sock, wanted, connection)
        self._connections[connection] = wanted

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _OUT_OF_FILES and self._make_room():
                    continue
                self._pause()
                return
            try:
                self._welcome(listener, sock, str(address[0]))
            except OSError:  # gone again already
                sock.close()

    def _pause(self) -> None:
        """Do not look at the listeners until the next sweep: they would wake us without end."""
        self._paused = True
        for listener in self._listeners:
            with suppress(KeyError):
                self._selector.unregister(listener)

    def _welcome(self, listener: socket.socket, sock: socket.socket, address: str) -> None:
        if len(self._connections) >= self.limits.sockets and not self._make_room():
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self._tls is not None and listener is self._tls.listener:
            self._watch(Handshake(self, self._tls.keys.wrap(sock), address))
        else:
            self._watch(Connection(self, sock, address))

    def _watch(self, connection: Watched) -> None:
        self._selector.register(connection.sock, selectors.EVENT_READ, connection)
        self._connections[connection] = selectors.EVENT_READ

    def secured(self, handshake: Handshake, certificate: str) -> None:
        """A handshake is done: from here on the connection is as any other, and its first bytes may be here already."""
        self.forget(handshake, "secured")
        connection = Connection(self, handshake.sock, handshake.address, certificate)
        self._watch(connection)
        self._act(connection, lambda: connection.readable(self._buffer))

    def reads(self, connection: Connection) -> bool:
        """Read once from a connection whose time is up; False when that ended it."""
        connection.readable(self._buffer)
        return connection in self._connections

    def _make_room(self) -> bool:
        """Close the oldest socket that is no association, so that silent ones lock nobody out."""
        oldest = next((connection for connection in self._connections if not connection.associated), None)
        if oldest is None:
            return False
        oldest.close("crowded-out")
        return True

    def _sweep(self, now: float) -> None:
        self._next_sweep = now + self.limits.sweep
        if self._paused and all(listener.fileno() >= 0 for listener in self._listeners):
            self._paused = False
            for listener in self._listeners:
                self._selector.register(listener, selectors.EVENT_READ)
        for connection in list(self._connections):
            self._act(connection, connection.check)
        if now >= self._next_files:
            self._next_files = now + _FILES_PERIOD
            self.submit(self._read_files)

    def _read_files(self) -> None:
        self._read_peers()
        if self._tls is not None:
            self._read_keys(self._tls)

    def _read_keys(self, tls: TlsDoor) -> None:
        try:
            if tls.keys.refresh():
                self.meters.tls_files_taken(tls.keys.files.certificate)
        except FilmroomError as error:
            self.meters.tls_files_refused(error.message)

    def _read_peers(self) -> None:
        try:
            self.peers.refresh()
            self._peers_fault = ""
        except FilmroomError as error:
            if error.message != self._peers_fault:
                self._peers_fault = error.message
                self.meters.peers_unreadable(error.message)

    # bookkeeping

    def load(self, address: str, title: str) -> Load:
        """Associations open now, seen from this caller."""
        return Load(self._addresses.total(), self._unknown, self._addresses[address], self._titles[title])

    def associated(self, connection: Connection) -> None:
        """Count a new association."""
        connection.counted = True
        self._addresses[connection.address] += 1
        self._titles[connection.calling] += 1
        self._unknown += connection.peer is None
        self.meters.accepted(self._addresses.total())

    def dissociated(self, connection: Watched, why: str) -> None:
        """An association is over, whatever its transport still does."""
        if not isinstance(connection, Connection) or not connection.counted:
            return
        connection.counted = False
        for counter, key in ((self._addresses, connection.address), (self._titles, connection.calling)):
            counter[key] -= 1
            if counter[key] == 0:
                del counter[key]
        self._unknown -= connection.peer is None
        self.meters.ended(why, self._addresses.total())

    def forget(self, connection: Watched, why: str) -> bool:
        """Stop watching a connection; False when that was done before."""
        watched = self._connections.pop(connection, None)
        if watched is None:
            return False
        if watched:
            self._selector.unregister(connection.sock)
        self.dissociated(connection, why)
        return True

    # from other threads

    def soon(self, connection: Watched, act: Callable[[], None]) -> None:
        """Run `act` of a connection on the loop's thread in its next turn. Safe from every thread."""
        self._soon.append((connection, act))
        with suppress(OSError):  # full: it wakes anyway; closed: the loop is over
            self._waker.send(b"\0")

    def submit(self, work: Callable[[], T]) -> "Future[T]":
        """Run blocking work on the pool."""
        return self._pool.submit(work)

    def engage(self, work: Callable[[], T]) -> "Future[T]":
        """Run work that takes long, or waits for others, on threads of its own."""
        return self._retrievals.submit(work)
