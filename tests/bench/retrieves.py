"""C-FIND, C-GET and C-MOVE work: a requester and a receiver that take the bytes and throw them away."""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode

from pacs.dimse import command, protocol
from pacs.dimse.associate import AssociateAccept, ContextResult, Role, UserInformation
from pacs.dimse.command import Command, Field
from pacs.dimse.limits import Limits
from pacs.dimse.pdu import message
from pacs.dimse.protocol import CommandReceived, DataReceived, Protocol, ReleaseRequested, Requested
from pacs.domain.syntaxes import EXPLICIT_LE, IMPLICIT_LE
from tests.bench.servers import SINK, Server
from tests.dimse.sender import Sender, find_request

STUDY_FIND, STUDY_MOVE, STUDY_GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))
CT = "1.2.840.10008.5.1.4.1.1.2"
PENDING = frozenset({0xFF00, 0xFF01})


def keys(**values: str) -> bytes:
    """An identifier in Implicit VR."""
    identifier = Dataset()
    for keyword, value in values.items():
        setattr(identifier, keyword, value)
    data = encode(identifier, True, True)
    assert data is not None
    return data


def find(server: Server, identifier: bytes) -> tuple[float, int]:
    """Seconds of one C-FIND on an association that is open, and how many answers it had."""
    with _requester(server, STUDY_FIND) as requester:
        started = time.perf_counter()
        requester.send(1, find_request(STUDY_FIND), identifier)
        answers = 0
        while requester.answer().status in PENDING:
            answers += 1
        return time.perf_counter() - started, answers


def get(server: Server, studies: Sequence[str], expected: int) -> float:
    """Objects a second by one C-GET. Raises RuntimeError unless all came."""
    request = {"CommandField": Field.C_GET_RQ, "AffectedSOPClassUID": STUDY_GET, "Priority": 0}
    with _requester(server, STUDY_GET, [(CT, (EXPLICIT_LE,))], (Role(CT, False, True),)) as requester:
        started = time.perf_counter()
        requester.send(1, request, keys(QueryRetrieveLevel="STUDY", StudyInstanceUID="\\".join(studies)))
        final = _take_all(requester)
        seconds = time.perf_counter() - started
    return _rate(server, final, expected, seconds)


def move(server: Server, studies: Sequence[str], expected: int) -> float:
    """Objects a second by one C-MOVE to the sink. Raises RuntimeError unless all came."""
    request = {
        "CommandField": Field.C_MOVE_RQ,
        "AffectedSOPClassUID": STUDY_MOVE,
        "MoveDestination": SINK,
        "Priority": 0,
    }
    with _requester(server, STUDY_MOVE) as requester:
        started = time.perf_counter()
        requester.send(1, request, keys(QueryRetrieveLevel="STUDY", StudyInstanceUID="\\".join(studies)))
        answer = requester.answer()
        while answer.status in PENDING:
            answer = requester.answer()
        seconds = time.perf_counter() - started
    return _rate(server, answer.command, expected, seconds)


def _rate(server: Server, final: Command, expected: int, seconds: float) -> float:
    completed = final.number("NumberOfCompletedSuboperations")
    if completed != expected:
        raise RuntimeError(f"{server.name} sent {completed} of {expected}, status {final.number('Status'):#06x}")
    return expected / seconds


def _requester(server: Server, model: str, more: Sequence = (), roles: tuple[Role, ...] = ()) -> Sender:
    contexts = [(model, (IMPLICIT_LE,)), *more]
    return Sender(("127.0.0.1", server.port), contexts, called=server.aet, calling="BENCH", roles=roles)


def _take_all(requester: Sender) -> Command:
    """Store what comes by C-GET until the final answer."""
    context_id, request = 0, Command({})
    while True:
        event = requester.event()
        if isinstance(event, CommandReceived):
            context_id, request = event.context_id, event.command
            if request.field != Field.C_STORE_RQ and request.number("Status") not in PENDING:
                while request.has_data_set and not getattr(requester.event(), "last", True):
                    pass
                return request
        elif isinstance(event, DataReceived) and event.last:
            answer = command.response(request, 0)
            requester.sock.sendall(message(context_id, answer, None, requester.protocol.peer_max_pdu))


@contextmanager
def sink(port: int) -> Iterator[None]:
    """A receiver on this port of loopback that answers success to everything."""
    listener = socket.create_server(("127.0.0.1", port), backlog=16)
    threading.Thread(target=_accept, args=(listener,), daemon=True).start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _accept(listener: socket.socket) -> None:
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(sock,), daemon=True).start()


def _serve(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    core, buffer, last = Protocol(Limits()), memoryview(bytearray(262_144)), None
    with sock:
        while size := sock.recv_into(buffer):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            position = 0
            while position < size:
                event, position = core.receive(buffer[:size], position)
                if isinstance(event, Requested):
                    sock.sendall(core.accept(_accepted(event)))
                elif isinstance(event, CommandReceived):
                    last = event
                elif isinstance(event, DataReceived) and event.last and last is not None:
                    sock.sendall(message(last.context_id, command.response(last.command, 0), None, core.peer_max_pdu))
                elif isinstance(event, ReleaseRequested):
                    sock.sendall(core.release_answer())
                elif isinstance(event, protocol.Aborted):
                    return


def _accepted(event: Requested) -> AssociateAccept:
    request = event.request
    results = tuple(ContextResult(one.context_id, 0, one.transfer_syntaxes[0]) for one in request.contexts)
    return AssociateAccept(request.called, request.calling, results, UserInformation(131_072, "1.2.3.4"))
