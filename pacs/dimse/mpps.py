"""Modality Performed Procedure Step (PS3.4 F.7): N-CREATE begins a step, N-SET changes it and ends it."""

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from pacs.dimse import command, status
from pacs.dimse.command import Command, Value
from pacs.dimse.operation import Context, Link, Operation
from pacs.dimse.status import Status
from pacs.dimse.worklist import read
from pacs.domain.uids import is_uid, new_uid
from pacs.errors import Conflict, FilmroomError, NotFound, Reason, Refused
from pacs.services.steps import Ended, Lacking, Wrong

SOP_CLASS = "1.2.840.10008.3.1.2.3.3"
# Error ID and Error Comment of PS3.4 table F.7.2-2
MAY_NO_LONGER_BE_UPDATED, NO_LONGER = 0xA710, "Performed Procedure Step Object may no longer be updated"
# by the first kind that fits (PS3.7 C.4, PS3.4 F.7.2)
STATUSES: tuple[tuple[type[FilmroomError], Status], ...] = (
    (Ended, Status.PROCESSING_FAILURE),
    (Wrong, Status.INVALID_VALUE),
    (Conflict, Status.DUPLICATE_INSTANCE),
    (NotFound, Status.NO_SUCH_INSTANCE),
    (Refused, Status.PROCESSING_FAILURE),
)


class _Step(Operation):
    """What both requests have in common: a data set, work on it, one answer."""

    named = ""  # the command's keywords for class and instance begin so

    def __init__(self, link: Link, context: Context, request: Command) -> None:
        super().__init__(link, context, request)
        self._data = bytearray()
        self._uid = request.text(f"{self.named}SOPInstanceUID")

    def write(self, data: memoryview) -> None:
        if len(self._data) + len(data) > self.link.limits.max_identifier:
            raise Refused(Reason.TOO_LARGE, "The data set is too long.")
        self._data += data

    def end(self) -> None:
        wrong = self._fault()
        if wrong is not None:
            self._answer(wrong)
        else:
            self.link.run(self._work, self._worked)

    def _fault(self) -> Status | None:
        if self.request.text(f"{self.named}SOPClassUID") != SOP_CLASS:
            return Status.NO_SUCH_CLASS
        return None if is_uid(self._uid) else Status.INVALID_INSTANCE

    def _work(self) -> list[int]:
        """On a thread of the pool; tags that were not taken over."""
        raise NotImplementedError

    def _attributes(self) -> dict[str, Any]:
        return read(bytes(self._data), self.context.transfer_syntax)

    def _worked(self, future: "Future[list[int]]") -> None:
        error = future.exception()
        if error is not None:
            if not isinstance(error, FilmroomError):
                self.link.report(error)
            self._answer(_status_of(error), _about(error))
        elif left := future.result():
            self._answer(Status.ATTRIBUTE_LIST, {"AttributeIdentifierList": tuple(left)})
        else:
            self._answer(Status.SUCCESS)

    def _answer(self, answer: Status, more: Mapping[str, Value] | None = None) -> None:
        named: dict[str, Value] = {"AffectedSOPClassUID": SOP_CLASS}
        if is_uid(self._uid):
            named["AffectedSOPInstanceUID"] = self._uid
        self.link.send(self.context, [(command.response(self.request, answer, {**named, **(more or {})}), None)])
        self.link.finish(self, answer)


class CreateStep(_Step):
    """N-CREATE. A UID that the modality leaves to us is ours (PS3.7 10.1.5.1.4)."""

    named = "Affected"

    def __init__(self, link: Link, context: Context, request: Command) -> None:
        super().__init__(link, context, request)
        self._uid = self._uid or new_uid()

    def _work(self) -> list[int]:
        self.link.node.steps.create(self._uid, self._attributes(), self.link.source)
        return []


class SetStep(_Step):
    """N-SET."""

    named = "Requested"

    def _work(self) -> list[int]:
        changed: list[int] = self.link.node.steps.change(self._uid, self._attributes(), self.link.source)
        return changed


def _status_of(error: BaseException) -> Status:
    if isinstance(error, Lacking):
        return Status.MISSING_ATTRIBUTE if error.absent else Status.MISSING_VALUE
    return next((found for kind, found in STATUSES if isinstance(error, kind)), Status.PROCESSING_FAILURE)


def _about(error: BaseException) -> dict[str, Value]:
    about: dict[str, Value] = {"ErrorComment": status.comment(error)}
    if isinstance(error, Lacking | Wrong):
        about["AttributeIdentifierList"] = (error.tag,)
    if isinstance(error, Ended):
        about |= {"ErrorID": MAY_NO_LONGER_BE_UPDATED, "ErrorComment": NO_LONGER}
    return about
