"""C-STORE sub-operations (PS3.4 C.4.2.2, C.4.3.2): sending, counting, and what the final answer says of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import structlog

from pacs.dimse import command, framing, proposals
from pacs.dimse.command import DATA_SET, Field, Value
from pacs.dimse.operation import Context
from pacs.dimse.proposals import Routes
from pacs.dimse.requestor import Answer, Lost
from pacs.dimse.status import Status
from pacs.errors import FilmroomError
from pacs.services.instances import StoredInstance
from pacs.services.outgoing import Body, Candidate, Outgoing

BATCH = 200  # rows fetched at a time
MOST_COUNTED = 65_535  # sub-operations, in US elements
WARNINGS = frozenset({0x0001, 0x0107, 0x0116, 0xB000, 0xB006, 0xB007})  # stored, with a remark (PS3.4 B.2.3, PS3.7 C)
log = structlog.get_logger()


def is_stored(status: int) -> bool:
    """Whether a C-STORE with this status has put the object there, with a remark or without."""
    return status == Status.SUCCESS or status in WARNINGS


@dataclass
class Tally:
    """The counts of one retrieval."""

    remaining: int
    completed: int = 0
    warning: int = 0
    failed_uids: list[str] = field(default_factory=list)

    def note(self, sop_instance_uid: str, status: int, _why: str = "") -> None:
        """One sub-operation ended with this status."""
        self.remaining -= 1
        if status == Status.SUCCESS:
            self.completed += 1
        elif status in WARNINGS:
            self.warning += 1
        else:
            self.failed_uids.append(sop_instance_uid)

    def values(self, *, final: bool) -> dict[str, Value]:
        """The elements of a response; what remains belongs to those that are not final (PS3.7 9.1.4.1)."""
        counts = {
            "NumberOfCompletedSuboperations": self.completed,
            "NumberOfFailedSuboperations": len(self.failed_uids),
            "NumberOfWarningSuboperations": self.warning,
        }
        if not final:
            counts["NumberOfRemainingSuboperations"] = self.remaining
        return {keyword: min(count, MOST_COUNTED) for keyword, count in counts.items()}

    def status(self, *, cancelled: bool) -> Status:
        """The final status (PS3.4 table C.4-2): cancelled, all failed, some failed or warned, success."""
        if cancelled and self.remaining:
            return Status.CANCEL
        if not self.failed_uids:
            return Status.SUBOPERATIONS_WARNED if self.warning else Status.SUCCESS
        return Status.SUBOPERATIONS_WARNED if self.completed or self.warning else Status.SUBOPERATIONS_FAILED


class Channel(Protocol):
    """An association that takes C-STORE requests of ours, from one thread."""

    @property
    def contexts(self) -> Sequence[Context]:
        """Accepted ones, on which the other side stores."""

    @property
    def max_pdu(self) -> int: ...

    def next_id(self) -> int: ...

    def expect(self, message_id: int) -> None:
        """A request with this number follows. Raises Lost."""

    def send(self, data: bytes | memoryview) -> None:
        """Raises Lost."""

    def offer(self, message_id: int, data: memoryview) -> None:
        """The whole request that will follow: it may be sent at once when the answer comes, without waiting for us."""

    @property
    def ahead(self) -> bool:
        """What was offered is on its way already."""

    def answer(self, message_id: int) -> Answer:
        """Raises Lost."""

    def abort(self) -> None:
        """A message was cut off: nothing more can be said."""


class Watch(Protocol):
    """Who waits for a delivery."""

    def stopped(self) -> bool:
        """No further sub-operation is to begin."""

    def progress(self) -> None:
        """Called between sub-operations, and now and then within a long one."""


class _Parcel(NamedTuple):
    """An instance about to be sent; its first piece is read already."""

    candidate: Candidate
    message_id: int
    body: Body
    first: memoryview
    rest: Iterator[memoryview]


class Delivery:
    """Sends instances one by one. The next is read from disk while the receiver works on the last.

    `more` are the elements of each C-STORE request that its purpose adds (move originator). `tried` counts how many of
    `candidates` have had their turn: when `run` raises Lost, the rest may go by another channel.
    """

    def __init__(
        self,
        outgoing: Outgoing,
        candidates: Sequence[Candidate],
        tally: Tally,
        watch: Watch,
        more: Mapping[str, Value],
    ) -> None:
        self._outgoing, self._candidates, self._tally, self._watch, self._more = (
            outgoing,
            candidates,
            tally,
            watch,
            more,
        )
        self.tried = 0

    def run(self, channel: Channel) -> None:
        """Send what has not been tried, until it is over or stopped. Raises Lost after counting the one it hit."""
        parcels = self._parcels(channel, self._candidates[self.tried :])
        parcel = next(parcels, None)
        try:
            while parcel is not None and (channel.ahead or not self._watch.stopped()):
                current, parcel = parcel, None
                if isinstance(current, _Parcel):
                    parcel = self._send(channel, current, parcels)
                else:
                    self._count(*current)
                    parcel = next(parcels, None)
        finally:
            if isinstance(parcel, _Parcel):
                parcel.body.close()

    def _send(
        self, channel: Channel, parcel: _Parcel, parcels: "Iterator[_Parcel | tuple[Candidate, int, str]]"
    ) -> "_Parcel | tuple[Candidate, int, str] | None":
        """Send one; gives the next, which was prepared meanwhile."""
        following = None
        try:
            self._put(channel, parcel)
            following = next(parcels, None)
            if isinstance(following, _Parcel) and framing.is_one_piece(following.body, channel.max_pdu):
                channel.offer(following.message_id, following.first)
            status = channel.answer(parcel.message_id).status
        except Lost as error:
            self._count(parcel.candidate, Status.PROCESSING_FAILURE, error.message)
            if isinstance(following, _Parcel):
                following.body.close()
            raise
        self._count(parcel.candidate, status, "the receiver refused it")
        return following

    def _put(self, channel: Channel, parcel: _Parcel) -> None:
        try:
            channel.expect(parcel.message_id)
            channel.send(parcel.first)
            for piece in parcel.rest:
                channel.send(piece)
                self._watch.progress()
        except (FilmroomError, OSError) as error:
            if isinstance(error, Lost):
                raise
            channel.abort()
            raise Lost(f"A message was cut off: {error}") from error
        finally:
            parcel.body.close()

    def _count(self, candidate: Candidate, status: int, why: str) -> None:
        self.tried += 1
        self._tally.note(candidate.sop_instance_uid, status, why)
        if not is_stored(status):
            log.warning("not_sent", sop_instance_uid=candidate.sop_instance_uid, status=f"{status:#06x}", reason=why)
        self._watch.progress()

    def _parcels(
        self, channel: Channel, candidates: Sequence[Candidate]
    ) -> "Iterator[_Parcel | tuple[Candidate, int, str]]":
        """Each instance ready to be sent, or why it cannot be."""
        accepted = proposals.routes(channel.contexts)
        for start in range(0, len(candidates), BATCH):
            batch = candidates[start : start + BATCH]
            try:
                rows = self._outgoing.load(batch)
            except FilmroomError as error:
                yield from ((candidate, Status.OUT_OF_RESOURCES, error.message) for candidate in batch)
                continue
            for candidate in batch:
                yield self._parcel(channel, accepted, candidate, rows.get(candidate.pk))

    def _parcel(
        self, channel: Channel, accepted: Routes, candidate: Candidate, row: StoredInstance | None
    ) -> "_Parcel | tuple[Candidate, int, str]":
        context = proposals.route(accepted, candidate)
        if context is None:
            return candidate, Status.CLASS_NOT_SUPPORTED, "the receiver takes neither class nor transfer syntax"
        body = None
        try:
            body = self._outgoing.body(row, context.transfer_syntax)
            number = channel.next_id()
            pieces = framing.pieces(context.context_id, self._command(candidate, number), body, channel.max_pdu)
            return _Parcel(candidate, number, body, next(pieces), pieces)
        except (FilmroomError, OSError) as error:
            if body is not None:
                body.close()
            return candidate, Status.PROCESSING_FAILURE, str(error)

    def _command(self, candidate: Candidate, number: int) -> bytes:
        return command.encode(
            {
                "CommandField": Field.C_STORE_RQ,
                "MessageID": number,
                "AffectedSOPClassUID": candidate.sop_class_uid,
                "AffectedSOPInstanceUID": candidate.sop_instance_uid,
                "Priority": 0,
                "CommandDataSetType": DATA_SET,
                **self._more,
            }
        )
