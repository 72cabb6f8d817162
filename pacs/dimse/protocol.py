"""One association without I/O: received bytes in, events out; what we say in, bytes out (PS3.8 9, PS3.7 9).

Data set bytes are handed on as slices of the caller's buffer as they arrive. Nothing is kept but what is announced
small: a header, an A-ASSOCIATE PDU, a command set; a PDU's length is judged before its first byte is taken.
"""

from collections.abc import Iterator
from typing import NamedTuple

from pacs.dimse import associate, command, pdu
from pacs.dimse.associate import AssociateAccept, AssociateRequest
from pacs.dimse.command import Command
from pacs.dimse.limits import Limits
from pacs.dimse.pdu import Abort, AbortReason, PduType, ProtocolError, Rejection
from pacs.dimse.states import OVER, SENT, Send, State, after_receiving


class Requested(NamedTuple):
    """The peer asks for an association; `accept` or `reject` answers."""

    request: AssociateRequest


class Accepted(NamedTuple):
    """Our request was accepted."""

    accept: AssociateAccept


class Rejected(NamedTuple):
    """Our request was rejected."""

    rejection: Rejection


class CommandReceived(NamedTuple):
    """A whole command set; `DataReceived` events follow when it announces a data set."""

    context_id: int
    command: Command


class DataReceived(NamedTuple):
    """A piece of the data set of the last command. `data` is valid until the caller's buffer is reused."""

    data: memoryview
    last: bool


class ReleaseRequested(NamedTuple):
    """The peer wants to end; `release_answer` answers."""


class Released(NamedTuple):
    """The peer agreed to our release."""


class Aborted(NamedTuple):
    """The peer aborted."""

    abort: Abort


Event = Requested | Accepted | Rejected | CommandReceived | DataReceived | ReleaseRequested | Released | Aborted

_SMALL = {PduType.ASSOCIATE_RJ, PduType.RELEASE_RQ, PduType.RELEASE_RP, PduType.ABORT}
_ASSOCIATE = {PduType.ASSOCIATE_RQ, PduType.ASSOCIATE_AC}


class Protocol:
    """The state of one association. Raises ProtocolError when the peer leaves the protocol: then `abort` it."""

    def __init__(self, limits: Limits, *, requestor: bool = False) -> None:
        self.state = State.CONNECTED if requestor else State.AWAITING_REQUEST
        self.peer_max_pdu = 0
        self.pdus = 0  # begun to be received: tells one slow PDU from many
        self._limits = limits
        self._requestor = requestor
        self._contexts: frozenset[int] = frozenset()
        self._scrap = bytearray()  # an incomplete header or small body
        self._step = self._header
        self._kind = PduType.DATA
        self._pdu_left = 0
        self._fragment_left = 0
        self._fragment_context = 0
        self._fragment_control = 0
        self._command = bytearray()
        self._context: int | None = None  # of the message under way
        self._in_data_set = False

    # receiving

    @property
    def within_pdu(self) -> bool:
        """Some bytes of a PDU have come and others have not."""
        return self._step != self._header or bool(self._scrap)

    @property
    def within_message(self) -> bool:
        """A command set or its data set has begun and is not complete."""
        return self._context is not None

    def receive(self, data: memoryview, start: int) -> tuple[Event | None, int]:
        """Read from `data[start:]` up to the next event: (event, position behind it), or (None, len(data))."""
        end = len(data)
        while start < end and self.state is not State.CLOSED:
            event, start = self._step(data, start, end)
            if event is not None:
                return event, start
        return None, end

    def _take(self, data: memoryview, start: int, end: int, size: int) -> tuple[bytes | memoryview | None, int]:
        """The next `size` bytes, joined over calls where they come in pieces; None until they are there."""
        if not self._scrap and end - start >= size:
            return data[start : start + size], start + size
        stop = min(end, start + size - len(self._scrap))
        self._scrap += data[start:stop]
        if len(self._scrap) < size:
            return None, stop
        whole = bytes(self._scrap)
        self._scrap.clear()
        return whole, stop

    def _header(self, data: memoryview, start: int, end: int) -> tuple[Event | None, int]:
        if not self._scrap:
            self.pdus += 1
            self._known_type(data[start])
        head, start = self._take(data, start, end, pdu.HEADER.size)
        if head is None:
            return None, start
        number, length = pdu.HEADER.unpack(head)
        self._kind = PduType(number)
        self._judge_length(self._kind, length)
        self._pdu_left = length
        self._step = self._fragment_header if self._kind is PduType.DATA else self._body
        return None, start

    def _known_type(self, number: int) -> None:
        """Judge a PDU by its first byte: HTTP and TLS on our port are turned away at once."""
        if number not in PduType._value2member_map_:
            raise ProtocolError("A PDU of unknown type came.", AbortReason.UNRECOGNIZED_PDU)
        if after_receiving(self.state, PduType(number), requestor=self._requestor) is None:
            raise ProtocolError("A PDU came that this state does not expect.", AbortReason.UNEXPECTED_PDU)

    def _judge_length(self, kind: PduType, length: int) -> None:
        low, high = pdu.FIXED_LENGTH, pdu.FIXED_LENGTH
        if kind is PduType.DATA:
            low, high = pdu.PDV_HEADER.size, self._limits.max_pdu
        elif kind in _ASSOCIATE:
            low, high = associate.FIXED_SIZE, self._limits.max_associate_pdu
        if not low <= length <= high:
            raise ProtocolError("A PDU is longer than what we announced, or shorter than its fields.")

    def _body(self, data: memoryview, start: int, end: int) -> tuple[Event | None, int]:
        body, start = self._take(data, start, end, self._pdu_left)
        if body is None:
            return None, start
        self._step = self._header
        return self._control(bytes(body)), start

    def _control(self, body: bytes) -> Event | None:
        kind = self._kind
        event: Event
        if kind is PduType.ASSOCIATE_RQ:
            event = Requested(self._requested(body))
        elif kind is PduType.ASSOCIATE_AC:
            event = Accepted(self._accepted(body))
        elif kind is PduType.ASSOCIATE_RJ:
            event = Rejected(pdu.decode_rejection(body))
        elif kind is PduType.RELEASE_RQ:
            self._require_between_messages()
            event = ReleaseRequested()
        elif kind is PduType.RELEASE_RP:
            event = Released()
        else:
            event = Aborted(pdu.decode_abort(body))
        self._advance(kind)
        # The acceptor's half of a release collision ends with its own answer, not here (PS3.8 9.2, state 12).
        return event

    def _requested(self, body: bytes) -> AssociateRequest:
        request = associate.decode_request(body)
        self.peer_max_pdu = request.user.max_pdu
        return request

    def _accepted(self, body: bytes) -> AssociateAccept:
        accept = associate.decode_accept(body)
        self.peer_max_pdu = accept.user.max_pdu
        self._contexts = frozenset(result.context_id for result in accept.results if result.result == 0)
        return accept

    def _require_between_messages(self) -> None:
        if self.within_message:
            raise ProtocolError("A release came in the middle of a message.", AbortReason.UNEXPECTED_PDU)

    def _advance(self, kind: PduType) -> None:
        following = after_receiving(self.state, kind, requestor=self._requestor)
        if following is None:
            raise ProtocolError("A PDU came that this state does not expect.", AbortReason.UNEXPECTED_PDU)
        self.state = following

    # presentation data values

    def _fragment_header(self, data: memoryview, start: int, end: int) -> tuple[Event | None, int]:
        head, start = self._take(data, start, end, pdu.PDV_HEADER.size)
        if head is None:
            return None, start
        item, self._fragment_context, self._fragment_control = pdu.PDV_HEADER.unpack(head)
        self._fragment_left = item - pdu.PDV_OVERHEAD
        self._pdu_left -= pdu.PDV_HEADER.size + self._fragment_left
        room = 0 if self._pdu_left == 0 else pdu.PDV_HEADER.size
        if self._fragment_left < 0 or self._pdu_left < room:
            raise ProtocolError("A presentation data value is longer than its PDU.")
        self._judge_fragment()
        self._step = self._fragment
        return self._fragment(data, start, end) if self._fragment_left == 0 else (None, start)

    def _judge_fragment(self) -> None:
        """Messages of one association are not interleaved, commands before their data sets (PS3.8 annex E)."""
        if self._fragment_context not in self._contexts:
            raise ProtocolError("A presentation data value names a context that was not accepted.")
        if self._context is not None and self._context != self._fragment_context:
            raise ProtocolError("Two messages are interleaved.")
        if bool(self._fragment_control & pdu.COMMAND_BIT) == self._in_data_set:
            raise ProtocolError("A command set or a data set came where the other was due.")
        if not self._in_data_set and len(self._command) + self._fragment_left > self._limits.max_command:
            raise ProtocolError("A command set is too long.")
        self._context = self._fragment_context

    def _fragment(self, data: memoryview, start: int, end: int) -> tuple[Event | None, int]:
        stop = min(end, start + self._fragment_left)
        self._fragment_left -= stop - start
        complete = self._fragment_left == 0
        if complete:
            self._step = self._fragment_header if self._pdu_left else self._header
        last = complete and bool(self._fragment_control & pdu.LAST_BIT)
        if self._in_data_set:
            if last:
                self._in_data_set, self._context = False, None
            return DataReceived(data[start:stop], last), stop
        self._command += data[start:stop]
        return (self._whole_command() if last else None), stop

    def _whole_command(self) -> Event:
        decoded = command.decode(self._command)
        self._command.clear()
        context_id = self._fragment_context
        self._in_data_set = decoded.has_data_set
        if not self._in_data_set:
            self._context = None
        return CommandReceived(context_id, decoded)

    # sending

    def _say(self, what: Send) -> None:
        following = SENT.get((self.state, what))
        if following is None:
            raise ValueError(f"{what.name} cannot be said in state {self.state.name}")
        self.state = following

    def request(self, request: AssociateRequest) -> bytes:
        """A-ASSOCIATE-RQ."""
        self._say(Send.REQUEST)
        return associate.encode_request(request)

    def accept(self, accept: AssociateAccept) -> bytes:
        """A-ASSOCIATE-AC; from here on its accepted contexts, and only those, carry messages."""
        self._say(Send.ACCEPT)
        self._contexts = frozenset(result.context_id for result in accept.results if result.result == 0)
        return associate.encode_accept(accept)

    def reject(self, rejection: Rejection) -> bytes:
        """A-ASSOCIATE-RJ."""
        self._say(Send.REJECT)
        return pdu.encode_rejection(rejection)

    def message(self, context_id: int, command_set: bytes, data_set: bytes | None = None) -> bytes:
        """A whole small message as the bytes of one send."""
        self._say(Send.DATA)
        return pdu.message(context_id, command_set, data_set, self.peer_max_pdu)

    def data_set(self, context_id: int, data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
        """A large data set as (headers, slice) pairs for a gathering send."""
        self._say(Send.DATA)
        return pdu.fragments(context_id, data, command=False, max_pdu=self.peer_max_pdu)

    def release(self) -> bytes:
        """A-RELEASE-RQ."""
        self._say(Send.RELEASE)
        return pdu.RELEASE_RQ

    def release_answer(self) -> bytes:
        """A-RELEASE-RP."""
        self._say(Send.RELEASE_ANSWER)
        return pdu.RELEASE_RP

    def abort(self, reason: AbortReason = AbortReason.NOT_SPECIFIED) -> bytes:
        """A-ABORT by the provider; empty when the association is over already."""
        if self.state in OVER:
            return b""
        self._say(Send.ABORT)
        return pdu.encode_abort(Abort(2, reason))

    def closed(self) -> None:
        """The transport is gone."""
        self.state = State.CLOSED
