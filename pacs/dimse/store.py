"""C-STORE (PS3.4 B): the data set goes from the socket to the staging file, the answer waits for fsync and commit."""

from concurrent.futures import Future
from typing import TYPE_CHECKING

from pacs.dimse import command, status
from pacs.dimse.command import Command
from pacs.dimse.operation import Context, Link, Operation
from pacs.dimse.status import Status
from pacs.domain import uids
from pacs.domain.events import Expected, Stored
from pacs.errors import Reason, Refused

if TYPE_CHECKING:
    from pacs.services.ingest import Incoming

_ANSWERED_EARLY = frozenset({Reason.TOO_LARGE, Reason.OUT_OF_SPACE})


class Store(Operation):
    """One object. What the command claims is judged before its first byte is taken."""

    def __init__(self, link: Link, context: Context, request: Command) -> None:
        super().__init__(link, context, request)
        self._expected = Expected(
            sop_class_uid=request.text("AffectedSOPClassUID"),
            sop_instance_uid=request.text("AffectedSOPInstanceUID"),
            transfer_syntax_uid=context.transfer_syntax,
        )
        self._fault = _fault(context, request)
        self._refused: Refused | None = None
        self._answered = False
        self._incoming = None if self._fault else self._begin()

    def _begin(self) -> "Incoming | None":
        try:
            return self.link.node.ingest.begin(self.link.source, self._expected, raw=True)
        except Refused as refused:
            self._refused = refused
            return None

    def write(self, data: memoryview) -> None:
        if self._incoming is None:
            return
        try:
            self._incoming.write(data)
        except Refused as refused:
            self.abort()
            self._refused = refused
            if refused.reason in _ANSWERED_EARLY:  # the rest is read and dropped; the sender need not finish first
                self._answer(refused)

    def end(self) -> None:
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            self.link.watch(self.link.node.ingest.submit(incoming, at_once=True), self._submitted)
        elif self._fault is not None:
            self.link.run(self._record, self._recorded)
        elif self._answered:
            self.link.finish(self, status.of(self._refused or ValueError()))
        elif self._refused is not None:
            self._answer(self._refused)
            self.link.finish(self, status.of(self._refused), self._refused.code)

    def abort(self) -> None:
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.abort()

    def _record(self) -> Refused:
        assert self._fault is not None
        refused: Refused = self.link.node.ingest.refuse(self.link.source, self._expected, *self._fault)
        return refused

    def _recorded(self, future: "Future[Refused]") -> None:
        assert self._fault is not None
        self._close(Refused(*self._fault) if future.exception() else future.result())

    def _submitted(self, future: "Future[Stored]") -> None:
        error = future.exception()
        if error is not None:
            self._close(error)
            return
        self.link.send(self.context, [(command.response(self.request, Status.SUCCESS), None)])
        self.link.finish(self, Status.SUCCESS, future.result().outcome)

    def _close(self, error: BaseException) -> None:
        if not isinstance(error, Refused):
            self.link.report(error)
        self._answer(error)
        self.link.finish(self, status.of(error), error.code if isinstance(error, Refused) else "")

    def _answer(self, error: BaseException) -> None:
        more = {"ErrorComment": status.comment(error)}
        self.link.send(self.context, [(command.response(self.request, status.of(error), more), None)])
        self._answered = True


def _fault(context: Context, request: Command) -> tuple[Reason, str] | None:
    """What is wrong with the command itself, before its data set is looked at (dimse.md 2)."""
    if request.text("AffectedSOPClassUID") != context.abstract_syntax:
        return Reason.CLASS_MISMATCH, "The SOP class of the command is not that of its presentation context."
    if not uids.is_uid(request.text("AffectedSOPInstanceUID")):
        return Reason.BAD_UID, "The SOP Instance UID of the command is not a UID."
    if not request.has_data_set:
        return Reason.UNREADABLE, "The command announces no data set."
    return None
