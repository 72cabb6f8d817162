"""C-GET (PS3.4 C.4.3): the instances come on the requester's own association, as C-STORE requests of ours."""

import queue
from collections.abc import Sequence
from threading import Event

from pacs.dimse.command import Command
from pacs.dimse.operation import Context, Link
from pacs.dimse.requestor import Answer, Lost
from pacs.dimse.retrieve import Retrieve
from pacs.dimse.suboperations import Delivery
from pacs.domain.levels import Level
from pacs.services.outgoing import Candidate

MODELS = {"1.2.840.10008.5.1.4.1.2.1.3": Level.PATIENT, "1.2.840.10008.5.1.4.1.2.2.3": Level.STUDY}


class Get(Retrieve):
    """Sends by the association that the request came by."""

    models = MODELS
    verb = "C-GET"

    def __init__(self, link: Link, context: Context, request: Command) -> None:
        super().__init__(link, context, request)
        self._channel = OwnAssociation(link, self.gone)

    def abort(self) -> None:
        super().abort()
        self._channel.wake()

    def more(self) -> None:
        self._channel.has_room.set()

    def deliver(self, candidates: Sequence[Candidate]) -> None:
        delivery = Delivery(self.link.node.outgoing, candidates, self.tally, self, {})
        try:
            delivery.run(self._channel)
        finally:
            self._channel.leave()


class OwnAssociation:
    """The requester's association as a channel: the reactor has the socket, we wait here for room and for answers.

    One piece of a message is queued in the reactor at a time, so a requester that reads slowly costs one piece.
    """

    def __init__(self, link: Link, gone: Event) -> None:
        self.contexts = link.storable()
        self.max_pdu = link.max_pdu
        self.has_room = Event()
        self._link, self._gone = link, gone
        self._answers: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._in_turn = False
        self._number = 0

    def next_id(self) -> int:
        return self._link.next_id()

    def expect(self, message_id: int) -> None:
        """A request of ours follows."""
        if not self._link.turn.acquire(timeout=self._link.limits.response):
            raise Lost("Another request of ours on this association is still unanswered.")
        self._in_turn = True
        self._number = message_id
        self.has_room.set()

    def send(self, data: bytes | memoryview) -> None:
        if not self.has_room.wait(self._link.limits.network) or self._gone.is_set():
            raise Lost("The requester does not read.")
        self.has_room.clear()
        number, self._number = self._number, 0
        self._link.soon(lambda: self._put(number, data))

    def _put(self, number: int, data: bytes | memoryview) -> None:
        """The first piece of a message brings its number, so that the answer is expected."""
        if number:
            self._link.ask(number, self._answers.put)
        if self._link.stream(data):
            self.has_room.set()

    def answer(self, message_id: int) -> Answer:
        try:
            found = self._answers.get(timeout=self._link.limits.response)
        except queue.Empty:
            self.abort()
            raise Lost(f"The requester did not answer request {message_id}.") from None
        if found is None:
            raise Lost("The requester ended the association.")
        self.leave()
        return Answer(found)

    def abort(self) -> None:
        self._link.soon(lambda: self._link.abort("cut-off"))

    def leave(self) -> None:
        """Others may ask by this association."""
        if self._in_turn:
            self._in_turn = False
            self._link.turn.release()

    def wake(self) -> None:
        """The association is gone: whoever waits gets Lost."""
        self.has_room.set()
        self._answers.put(None)
