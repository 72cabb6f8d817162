"""Storage commitment, push model (PS3.4 J.3): the request is kept and answered at once, the report follows.

It goes by the association that asked while that is open, else the clerk opens one (`pacs.dimse.report`).
"""

from collections.abc import Iterable
from concurrent.futures import Future
from typing import NamedTuple

from pacs.dimse import command, status
from pacs.dimse.answer import AnswerWriter, Element
from pacs.dimse.command import DATA_SET, Command, Field, Value
from pacs.dimse.operation import Context, Link, Operation
from pacs.dimse.status import Status
from pacs.domain import admission
from pacs.domain.uids import is_uid
from pacs.errors import BadRequest, FilmroomError, Reason, Refused
from pacs.services.commitment import Reference, Verdict

PUSH_MODEL, INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
ASK, SUCCESS, FAILURES = 1, 1, 2  # action type; event types (PS3.4 J.3.2, J.3.3)
REPORT_SECONDS = 60.0  # for the asker to answer our report on its association
_TRANSACTION, _REFERENCES, _FAILED = 0x00081195, 0x00081199, 0x00081198
_CLASS, _INSTANCE, _REASON, _AE_TITLE = 0x00081150, 0x00081155, 0x00081197, 0x00080054
_LARGEST = 8  # times the longest identifier: 50,000 references or so
_LIMITS = admission.Limits(depth=4, elements=500_000)


class Request(NamedTuple):
    """The Action Information of a request."""

    transaction_uid: str
    references: tuple[Reference, ...]


class Commit(Operation):
    """One N-ACTION, and the report about it."""

    def __init__(self, link: Link, context: Context, request: Command) -> None:
        super().__init__(link, context, request)
        self._data = bytearray()
        self._number = 0

    def write(self, data: memoryview) -> None:
        if len(self._data) + len(data) > _LARGEST * self.link.limits.max_identifier:
            raise Refused(Reason.TOO_LARGE, "The list of instances is too long.")
        self._data += data

    def end(self) -> None:
        wrong = _fault(self.request)
        if wrong is not None:
            self._answer(wrong)
        else:
            self.link.run(self._ask, self._asked)

    def _ask(self) -> int:
        asked = parse(bytes(self._data), self.context.transfer_syntax)
        number: int = self.link.node.commitments.ask(self.link.source, *asked)
        return number

    def _asked(self, future: "Future[int]") -> None:
        error = future.exception()
        if error is not None:
            if not isinstance(error, FilmroomError):
                self.link.report(error)
            self._answer(_status_of(error), {"ErrorComment": status.comment(error)})
            return
        self._number = future.result()
        self._answer(Status.SUCCESS)
        self.link.run(self._check, self._checked)

    def _answer(self, answer: Status, more: dict[str, Value] | None = None) -> None:
        named: dict[str, Value] = {
            "AffectedSOPClassUID": PUSH_MODEL,
            "AffectedSOPInstanceUID": INSTANCE,
            "ActionTypeID": ASK,
        }
        head = command.response(self.request, answer, {**named, **(more or {})})
        self.link.send(self.context, [(head, None)])
        self.link.finish(self, answer)

    # the report on the same association; where that fails, the clerk sees to it soon

    def _check(self) -> Verdict:
        verdict: Verdict = self.link.node.commitments.check(self._number)
        self.link.node.commitments.hold(self._number, REPORT_SECONDS)
        return verdict

    def _checked(self, future: "Future[Verdict]") -> None:
        error = future.exception()
        if error is not None:
            self.link.report(error)
        elif not self.link.room or not self.link.turn.acquire(blocking=False):
            self._leave_to_the_clerk()
        else:
            number = self.link.next_id()
            self.link.ask(number, self._heard)
            head = {"MessageID": number, **event(future.result())}
            data = information(future.result(), self.context.transfer_syntax, self.link.title)
            self.link.send(self.context, [(command.encode(head), data)])

    def _heard(self, answer: Command) -> None:
        self.link.turn.release()
        if answer.number("Status", Status.PROCESSING_FAILURE) == Status.SUCCESS:
            self.link.run(lambda: self.link.node.commitments.reported(self._number), self._noted)
        else:
            self._leave_to_the_clerk()

    def _leave_to_the_clerk(self) -> None:
        self.link.run(lambda: self.link.node.commitments.hold(self._number, 0), self._noted)

    def _noted(self, future: "Future[None]") -> None:
        if future.exception() is not None:  # it is reported once more, which does no harm
            self.link.report(future.exception() or ValueError())


def _fault(request: Command) -> Status | None:
    if request.text("RequestedSOPInstanceUID") != INSTANCE:
        return Status.NO_SUCH_INSTANCE
    if request.number("ActionTypeID") != ASK:
        return Status.NO_SUCH_ACTION
    return None if request.has_data_set else Status.INVALID_ARGUMENT


def _status_of(error: BaseException) -> Status:
    """Of N-ACTION, which has no statuses of its own for what a service class says (PS3.7 10.1.4.1.10)."""
    wrong = isinstance(error, BadRequest) or (isinstance(error, Refused) and error.reason is Reason.UNREADABLE)
    return Status.INVALID_ARGUMENT if wrong else Status.PROCESSING_FAILURE


def parse(data: bytes, transfer_syntax: str) -> Request:
    """The Action Information (PS3.4 table J.3-1). Raises Refused(UNREADABLE), and BadRequest for what it lacks."""
    try:
        admitted = admission.admit(data, raw_syntax=transfer_syntax, limits=_LIMITS, nested=True)
    except admission.Inadmissible as error:
        raise Refused(Reason.UNREADABLE, "The list of instances is not a readable data set.") from error
    transaction = _uid(data, admitted.elements, _TRANSACTION)
    sequence = admitted.elements.get(_REFERENCES)
    items = (sequence.items or ()) if sequence is not None else ()
    if not items:
        raise BadRequest("The request names no instance.")
    references = (Reference(_uid(data, item.elements, _CLASS), _uid(data, item.elements, _INSTANCE)) for item in items)
    return Request(transaction, tuple(references))


def _uid(data: bytes, elements: dict[int, admission.Element], tag: int) -> str:
    element = elements.get(tag)
    raw = data[element.value_offset : element.value_offset + element.length] if element is not None else b""
    text = raw.decode("ascii", "replace").strip("\0 ")
    if not is_uid(text):
        raise BadRequest(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) of the request is missing or no UID.")
    return text


def event(verdict: Verdict) -> dict[str, Value]:
    """The command of the N-EVENT-REPORT, but for its message ID (PS3.4 J.3.3)."""
    return {
        "CommandField": Field.N_EVENT_REPORT_RQ,
        "AffectedSOPClassUID": PUSH_MODEL,
        "AffectedSOPInstanceUID": INSTANCE,
        "EventTypeID": FAILURES if verdict.failed else SUCCESS,
        "CommandDataSetType": DATA_SET,
    }


def information(verdict: Verdict, transfer_syntax: str, title: str) -> bytes:
    """The Event Information (PS3.4 table J.3-2); what is kept can be retrieved from us, by `title`."""
    row: dict[str, Element] = {
        _hex(_TRANSACTION): {"vr": "UI", "Value": [verdict.transaction_uid]},
        _hex(_AE_TITLE): {"vr": "AE", "Value": [title]},
    }
    if verdict.failed:
        row[_hex(_FAILED)] = {"vr": "SQ", "Value": list(_items(verdict.failed, failed=True))}
    if verdict.kept:
        row[_hex(_REFERENCES)] = {"vr": "SQ", "Value": list(_items(verdict.kept, failed=False))}
    return AnswerWriter(transfer_syntax, (), row).write({})


def _items(references: Iterable[Reference], *, failed: bool) -> Iterable[dict[str, object]]:
    for one in references:
        item: dict[str, object] = {
            _hex(_CLASS): {"vr": "UI", "Value": [one.sop_class_uid]},
            _hex(_INSTANCE): {"vr": "UI", "Value": [one.sop_instance_uid]},
        }
        if failed:
            item[_hex(_REASON)] = {"vr": "US", "Value": [one.reason]}
        yield item


def _hex(tag: int) -> str:
    return f"{tag:08X}"
