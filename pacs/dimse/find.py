"""C-FIND (PS3.4 C.4.1): pages of rows fetched off the loop, answers made as fast as the peer reads, never faster."""

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace

from pacs.dimse import command, identifier, status
from pacs.dimse.answer import AnswerWriter
from pacs.dimse.command import Command, Value
from pacs.dimse.identifier import INSTANCE_AVAILABILITY, QUERY_RETRIEVE_LEVEL, RETRIEVE_AE_TITLE, Mismatch
from pacs.dimse.operation import Context, Link, Operation
from pacs.dimse.status import Status
from pacs.domain.levels import Level
from pacs.domain.query import Query
from pacs.errors import BadRequest, FilmroomError, Reason, Refused

# information models by abstract syntax, with their highest level (PS3.4 C.6)
MODELS = {"1.2.840.10008.5.1.4.1.2.1.1": Level.PATIENT, "1.2.840.10008.5.1.4.1.2.2.1": Level.STUDY}
PAGE = 1_000  # rows a statement; the next is asked for when the peer has read these
MOST_NOTED = 2_000  # rows whose patients the audit trail may name
BATCH = 32  # answers a send: a cancel is seen after so many at most


class Find(Operation):
    """One query. Rows of one page, encoded, are all that is held for a peer that reads slowly."""

    def __init__(self, link: Link, context: Context, request: Command) -> None:
        super().__init__(link, context, request)
        self._data = bytearray()
        self._prepared: tuple[Query, AnswerWriter] | None = None
        self._answers: deque[bytes] = deque()
        self._offset = 0
        self._shown: list[dict[str, dict[str, object]]] = []  # for the audit trail
        self._partly = False  # a key is not matched, or not returned (PS3.4 table C.4-1, 0xFF01)
        self._fetching = False
        self._exhausted = False
        self._cut = False  # more may match than one query is answered
        self._over = False

    def write(self, data: memoryview) -> None:
        if len(self._data) + len(data) > self.link.limits.max_identifier:
            raise Refused(Reason.TOO_LARGE, "The identifier is too long.")
        self._data += data

    def end(self) -> None:
        if not self._over:  # cancelled before it was complete
            self._fetch()

    def cancel(self) -> None:
        self._answers.clear()
        self._close(Status.CANCEL)

    def abort(self) -> None:
        self._over = True
        self._answers.clear()

    def more(self) -> None:
        if self._over or self._fetching:
            return
        while self._answers and self.link.room:
            self._send_batch()
        if not self._answers:
            if self._exhausted and self._cut:  # matching ended before its time, as after a C-CANCEL
                self._close(Status.CANCEL, {"ErrorComment": f"Only the first {self._offset} matches are answered."})
            elif self._exhausted:
                self._close(Status.SUCCESS)
            else:
                self._fetch()

    def _send_batch(self) -> None:
        pending = Status.PENDING_UNSUPPORTED_KEYS if self._partly else Status.PENDING
        head = command.response(self.request, pending, data_set=True)
        batch = [self._answers.popleft() for _ in range(min(BATCH, len(self._answers)))]
        self.link.send(self.context, [(head, data) for data in batch])

    def _fetch(self) -> None:
        self._fetching = True
        self.link.run(self._page, self._arrived)

    def _page(self) -> tuple[list[bytes], bool]:
        """On a thread of the pool: the encoded answers of the next page, and whether it is the last."""
        query, writer = self._prepared = self._prepared or self._prepare()
        limit = min(PAGE, self.link.limits.answers - self._offset)
        page = self.link.node.search.find(replace(query, limit=limit, offset=self._offset))
        self._shown.extend(page.rows[: MOST_NOTED - len(self._shown)])
        self._offset += len(page.rows)
        self._partly |= bool(page.warnings)
        self._cut = self._offset >= self.link.limits.answers
        return [writer.write(row) for row in page.rows], self._cut or len(page.rows) < PAGE

    def _prepare(self) -> tuple[Query, AnswerWriter]:
        syntax = self.context.transfer_syntax
        asked = identifier.parse(
            bytes(self._data),
            syntax,
            MODELS[self.context.abstract_syntax],
            relational="relational" in self.context.options,
            combined="combined" in self.context.options,
            fuzzy="fuzzy" in self.context.options,
        )
        self._partly = asked.unsupported
        always = {  # PS3.4 C.4.1.1.3.2
            f"{QUERY_RETRIEVE_LEVEL:08X}": {"vr": "CS", "Value": [asked.level_name]},
            f"{RETRIEVE_AE_TITLE:08X}": {"vr": "AE", "Value": [self.link.title]},
            f"{INSTANCE_AVAILABILITY:08X}": {"vr": "CS", "Value": ["ONLINE"]},
        }
        return asked.query, AnswerWriter(syntax, asked.wanted, always)

    def _arrived(self, future: "Future[tuple[list[bytes], bool]]") -> None:
        self._fetching = False
        if self._over:
            return
        error = future.exception()
        if error is not None:
            self._fail(error)
            return
        answers, self._exhausted = future.result()
        self._answers.extend(answers)
        self.more()

    def _fail(self, error: BaseException) -> None:
        more: dict[str, Value] = {"ErrorComment": status.comment(error)}
        if isinstance(error, Mismatch) and error.offending:
            more["OffendingElement"] = error.offending
        elif isinstance(error, BadRequest):
            more["ErrorComment"] = "A key of the identifier has a malformed value."  # ours may quote no value
        if not isinstance(error, FilmroomError):
            self.link.report(error)
        self._close(status.of(error), more)

    def _close(self, final: Status, more: Mapping[str, Value] | None = None) -> None:
        if self._over:
            return
        self._over = True
        self._note(final)
        self.link.send(self.context, [(command.response(self.request, final, more), None)])
        self.link.finish(self, final)

    def _note(self, final: Status) -> None:
        """Who asked for what, and whom the answers were about (security.md 3)."""
        trail = self.link.node.audit
        fields = trail.searched(self._prepared[0], self._shown) if self._prepared else {}
        detail = {**fields.pop("detail", {}), "service": "find", "status": f"{final:#06x}"}
        outcome = "ok" if final in {Status.SUCCESS, Status.CANCEL} else "failed"
        trail.note(self.link.source, "search", outcome=outcome, **fields, detail=detail)
