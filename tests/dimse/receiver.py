"""A storage service of somebody else's making (pynetdicom), which keeps what it is sent as bytes."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from pacs.domain.uids import storage_classes

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"


@dataclass
class Received:
    """One C-STORE request."""

    uid: str
    sop_class: str
    syntax: str
    data: bytes
    originator: tuple[str, int]


@dataclass
class Receiver:
    """What came, in order; `answer` decides the status of each request, `asked` counts associations."""

    title: str
    port: int = 0
    came: list[Received] = field(default_factory=list)
    answer: Callable[[Received], int] = lambda received: 0x0000
    associations: int = 0
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def take(self, event: Any) -> int:
        request = event.request
        received = Received(
            str(request.AffectedSOPInstanceUID),
            str(request.AffectedSOPClassUID),
            str(event.context.transfer_syntax),
            request.DataSet.getvalue(),
            (str(request.MoveOriginatorApplicationEntityTitle or ""), int(request.MoveOriginatorMessageID or 0)),
        )
        status = self.answer(received)
        with self.arrived:
            self.came.append(received)
            self.arrived.notify_all()
        return status

    def wait(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        with self.arrived:
            assert self.arrived.wait_for(condition, seconds), f"{len(self.came)} came"

    def peer(self) -> dict[str, str]:
        """Its table of peers.toml, by title."""
        return {self.title: f'host = "127.0.0.1"\nport = {self.port}'}


@contextmanager
def receiving(
    title: str = "ARCHIVE",
    syntaxes: Iterable[str] = (EXPLICIT,),
    classes: Iterable[str] | None = None,
    port: int = 0,
    max_pdu: int = 65_536,
) -> Iterator[Receiver]:
    """A running receiver that takes these syntaxes only."""
    receiver = Receiver(title)
    ae = AE(title)
    ae.maximum_pdu_size = max_pdu
    ae.require_called_aet = True
    for sop_class in classes if classes is not None else storage_classes():
        ae.add_supported_context(sop_class, list(syntaxes))
    ae.add_supported_context(Verification)

    def count(event: Any) -> None:
        receiver.associations += 1

    handlers = [(evt.EVT_C_STORE, receiver.take), (evt.EVT_ACCEPTED, count)]
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    receiver.port = server.socket.getsockname()[1]
    try:
        yield receiver
    finally:
        server.shutdown()
