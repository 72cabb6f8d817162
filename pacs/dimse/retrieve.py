"""What C-MOVE and C-GET have in common (PS3.4 C.4.2, C.4.3): which instances, how far we are, how it ended."""

import threading
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from pacs.dimse import command, identifier, status
from pacs.dimse.answer import AnswerWriter
from pacs.dimse.command import Command
from pacs.dimse.identifier import Mismatch
from pacs.dimse.operation import Context, Link, Operation
from pacs.dimse.status import Status
from pacs.dimse.suboperations import Tally
from pacs.domain.levels import Level
from pacs.domain.query import Query
from pacs.errors import BadRequest, FilmroomError, Reason, Refused
from pacs.services.outgoing import Candidate, TooMany

PENDING_SECONDS = 0.5  # between two answers that only count
FAILED_UIDS = "00080058"  # Failed SOP Instance UID List


@dataclass(frozen=True, slots=True)
class Outcome:
    """The final answer; `remark` is its Error Comment, `offending` what was wrong with the identifier."""

    status: Status
    tally: Tally
    remark: str = ""
    offending: tuple[int, ...] = ()


class Impossible(FilmroomError):
    """Nothing can be sent; `status` is the answer."""

    def __init__(self, answer: Status, message: str) -> None:
        super().__init__(message)
        self.status = answer


class Retrieve(Operation):
    """One retrieval. The work is done on a thread of its own; this class is the Watch of its delivery."""

    models: ClassVar[dict[str, Level]]
    verb: ClassVar[str]

    def __init__(self, link: Link, context: Context, request: Command) -> None:
        super().__init__(link, context, request)
        self._data = bytearray()
        self._cancelled = threading.Event()
        self.gone = threading.Event()
        self.tally = Tally(0)
        self.remark = ""
        self._said_at = 0.0
        self._noted = False  # in the audit trail

    # on the reactor's thread

    def write(self, data: memoryview) -> None:
        if len(self._data) + len(data) > self.link.limits.max_identifier:
            raise Refused(Reason.TOO_LARGE, "The identifier is too long.")
        self._data += data

    def end(self) -> None:
        self.link.engage(self._work, self._ended)

    def cancel(self) -> None:
        self._cancelled.set()

    def abort(self) -> None:
        self.gone.set()

    def _ended(self, future: "Future[Outcome]") -> None:
        if self.gone.is_set():
            return
        error = future.exception()
        if error is None:
            self._close(future.result())
            return
        self.link.report(error)
        self._close(Outcome(status.of(error), self.tally, status.comment(error)))

    def _close(self, outcome: Outcome) -> None:
        more = outcome.tally.values(final=outcome.status is not Status.CANCEL)
        if outcome.remark:
            more["ErrorComment"] = outcome.remark[: status.MAX_COMMENT]
        if outcome.offending:
            more["OffendingElement"] = outcome.offending
        failed = outcome.tally.failed_uids
        data = None
        if failed and outcome.status is not Status.SUCCESS:
            writer = AnswerWriter(self.context.transfer_syntax, (), {FAILED_UIDS: {"vr": "UI", "Value": failed}})
            data = writer.write({})
        head = command.response(self.request, outcome.status, more, data_set=data is not None)
        self.link.send(self.context, [(head, data)])
        self.link.finish(self, outcome.status)

    # on the thread of the retrieval

    def _work(self) -> Outcome:
        outcome = self._attempt()
        if not self._noted:
            self._note_nothing(outcome.status)
        return outcome

    def _attempt(self) -> Outcome:
        try:
            candidates = self._candidates()
            self.tally = Tally(len(candidates))
            self.deliver(candidates)
        except Impossible as error:
            return Outcome(error.status, self.tally, error.message)
        except TooMany as error:
            return Outcome(Status.MATCHES_UNKNOWN, self.tally, error.message)
        except Mismatch as error:
            return Outcome(status.of(error), self.tally, error.message, error.offending)
        except BadRequest as error:  # its message may be of a value
            return Outcome(status.of(error), self.tally, "A key of the identifier has a malformed value.")
        except FilmroomError as error:
            return Outcome(status.of(error), self.tally, status.comment(error))
        self._note(candidates)
        return Outcome(self.tally.status(cancelled=self._cancelled.is_set()), self.tally, self._remark())

    def _candidates(self) -> list[Candidate]:
        self.prepare()
        found: list[Candidate] = self.link.node.outgoing.select(self._query())
        return found

    def _query(self) -> Query:
        return identifier.parse_retrieval(
            bytes(self._data),
            self.context.transfer_syntax,
            self.models[self.context.abstract_syntax],
            relational="relational" in self.context.options,
        )

    def prepare(self) -> None:
        """Look at what the request needs beside its identifier. Raises Impossible."""

    @abstractmethod
    def deliver(self, candidates: Sequence[Candidate]) -> None:
        """Send them, counting each in `tally`. Raises Impossible."""

    def stopped(self) -> bool:
        return self._cancelled.is_set() or self.gone.is_set()

    def progress(self) -> None:
        """Tell how far we are, at a sane rate; the first time at once, so that the requester sees that we are at it."""
        now = time.monotonic()
        if now - self._said_at < PENDING_SECONDS or not self.tally.remaining:
            return
        self._said_at = now
        pending = command.response(self.request, Status.PENDING, self.tally.values(final=False))
        self.link.soon(lambda: self.link.send(self.context, [(pending, None)]))

    def _remark(self) -> str:
        failed = len(self.tally.failed_uids)
        return f"{failed} not sent. {self.remark}".strip() if failed else ""

    def _note(self, candidates: Sequence[Candidate]) -> None:
        """Who was given what, for the audit trail: one row a study."""
        studies = Counter((one.patient_id, one.study_uid) for one in candidates)
        failed = set(self.tally.failed_uids)
        lost = Counter(one.study_uid for one in candidates if one.sop_instance_uid in failed)
        for (patient_id, study_uid), count in studies.items():
            detail = {"service": self.verb, "instances": count, "failed": lost[study_uid], **self.described()}
            self._noted = True
            outcome = "failed" if lost[study_uid] == count else "ok"
            self.link.node.audit.note(
                self.link.source, "read", outcome=outcome, patient_id=patient_id, study_uid=study_uid, detail=detail
            )

    def _note_nothing(self, final: Status) -> None:
        """A retrieval that was refused, failed or found nothing: of what was asked, as far as that can be read."""
        trail, fields = self.link.node.audit, {}
        with suppress(FilmroomError):
            fields = trail.searched(self._query(), ())
        detail = {**fields.pop("detail", {}), "service": self.verb, "status": f"{final:#06x}", **self.described()}
        outcome = "ok" if final in {Status.SUCCESS, Status.CANCEL} else "failed"
        trail.note(self.link.source, "read", outcome=outcome, **fields, detail=detail)

    def described(self) -> dict[str, str]:
        """What else the audit trail should say."""
        return {}
