"""C-GET (PS3.4 C.4.3): the instances come on the requester's own association, as C-STORE requests of ours."""

import queue
from collections import deque
from collections.abc import Callable, Sequence
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
        self._channel = OwnAssociation(link, self.gone, self.stopped)

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

    One piece of a message is queued in the reactor at a time, so a requester that reads slowly costs one piece. The
    next request, where it is offered in time, is sent by the reactor as soon as the answer to the last one comes.
    """

    def __init__(self, link: Link, gone: Event, stopped: Callable[[], bool]) -> None:
        self.contexts = link.storable()
        self.max_pdu = link.max_pdu
        self.has_room = Event()
        self.ahead = False  # the request that was offered last is on its way
        self._link, self._gone, self._stopped = link, gone, stopped
        self._answers: queue.SimpleQueue[tuple[Command, bool] | None] = queue.SimpleQueue()
        self._offers: deque[tuple[int, memoryview]] = deque()
        self._in_turn = False
        self._number = 0

    def next_id(self) -> int:
        return self._link.next_id()

    def expect(self, message_id: int) -> None:
        """A request of ours follows."""
        if self.ahead:
            return
        self._offers.clear()  # no answer is awaited, so nobody takes it meanwhile
        if not self._link.turn.acquire(timeout=self._link.limits.response):
            raise Lost("Another request of ours on this association is still unanswered.")
        self._in_turn = True
        self._number = message_id
        self.has_room.set()

    def offer(self, message_id: int, data: memoryview) -> None:
        self._offers.append((message_id, data))

    def send(self, data: bytes | memoryview) -> None:
        if self.ahead:
            self.ahead = False
            return
        if not self.has_room.wait(self._link.limits.network) or self._gone.is_set():
            raise Lost("The requester does not read.")
        self.has_room.clear()
        number, self._number = self._number, 0
        self._link.soon(lambda: self._put(number, data))

    def _put(self, number: int, data: bytes | memoryview) -> None:
        """The first piece of a message brings its number, so that the answer is expected."""
        if number:
            self._link.ask(number, self._answered)
        if self._link.stream(data):
            self.has_room.set()

    def _answered(self, answer: Command) -> None:
        """On the reactor's thread: go on with what is offered, then tell."""
        taken = bool(self._offers) and not self._stopped()
        if taken:
            self._put(*self._offers.popleft())
        self._answers.put((answer, taken))

    def answer(self, message_id: int) -> Answer:
        try:
            found = self._answers.get(timeout=self._link.limits.response)
        except queue.Empty:
            self.abort()
            raise Lost(f"The requester did not answer request {message_id}.") from None
        if found is None:
            raise Lost("The requester ended the association.")
        answer, self.ahead = found
        if not self.ahead:
            self.leave()
        return Answer(answer)

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
