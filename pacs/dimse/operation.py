"""What a service's operation offers to its association, and what it may ask of it."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from pacs.dimse.command import Command
from pacs.dimse.limits import Limits
from pacs.dimse.status import Status
from pacs.domain.events import Source
from pacs.services.peers import PeerBook

if TYPE_CHECKING:
    from pacs.node import Node

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Context:
    """An accepted presentation context."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str
    options: frozenset[str] = frozenset()  # what extended negotiation agreed on: relational, fuzzy (PS3.4 C.5)


class Link(Protocol):
    """The association as an operation sees it. Every method is for the reactor's thread."""

    @property
    def node(self) -> "Node": ...

    @property
    def source(self) -> Source: ...

    @property
    def title(self) -> str:
        """Our AE title."""

    @property
    def limits(self) -> Limits: ...

    @property
    def room(self) -> bool:
        """The peer reads: more answers may be queued. Where not, `Operation.more` is called when it does."""

    def send(self, context: Context, messages: list[tuple[bytes, bytes | None]]) -> None:
        """Send whole messages (command set, data set) by one send; dropped when the association is gone."""

    def run(self, work: Callable[[], T], done: "Callable[[Future[T]], None]") -> None:
        """Run blocking `work` on a thread of the pool; `done` gets its finished future on the reactor's thread."""

    def watch(self, future: "Future[T]", done: "Callable[[Future[T]], None]") -> None:
        """`done` gets the future on the reactor's thread when it is finished."""

    def report(self, error: BaseException) -> None:
        """Log a failure that is not the peer's, by its kind and place."""

    @property
    def peers(self) -> PeerBook: ...

    @property
    def max_pdu(self) -> int:
        """What the peer takes, 0 for no limit."""

    @property
    def turn(self) -> threading.Lock:
        """Held, by whatever thread, while a request of ours is unanswered: one at a time (PS3.7 D.3.3.3)."""

    def storable(self) -> tuple[Context, ...]:
        """The contexts on which the peer takes C-STORE requests: it is their SCP (PS3.7 D.3.3.4)."""

    def next_id(self) -> int:
        """A message ID for a request of ours. Safe from every thread."""

    def soon(self, act: Callable[[], None]) -> None:
        """Run `act` on the reactor's thread, unless the association is gone by then. Safe from every thread."""

    def engage(self, work: Callable[[], T], done: "Callable[[Future[T]], None]") -> None:
        """As `run`, for work that takes long or waits for others: a retrieval."""

    def ask(self, message_id: int, answered: Callable[[Command], None]) -> None:
        """`answered` gets the response to a request of ours; without this a response is a breach of the protocol."""

    def stream(self, data: bytes | memoryview) -> bool:
        """Send a piece of a message of ours; nothing else goes before its answer. False: wait for `Operation.more`."""

    def abort(self, why: str) -> None:
        """End the association at once."""

    def finish(self, operation: "Operation", status: Status, outcome: str = "") -> None:
        """The final answer is queued. `outcome` is a word for the counters where the status does not say it."""


class Operation(ABC):
    """One request under way. Its methods never wait; they may raise, which is answered with 0x0110."""

    def __init__(self, link: Link, context: Context, request: Command) -> None:
        self.link = link
        self.context = context
        self.request = request

    def write(self, data: memoryview) -> None:  # noqa: B027 (most services have no data set)
        """A piece of the data set, valid during the call."""

    @abstractmethod
    def end(self) -> None:
        """The request is complete, its data set too."""

    def cancel(self) -> None:  # noqa: B027
        """C-CANCEL came (PS3.7 9.3.2.3)."""

    def more(self) -> None:  # noqa: B027
        """The output has room again."""

    def abort(self) -> None:  # noqa: B027
        """The association is gone: drop what is held."""
