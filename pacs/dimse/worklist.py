"""Modality Worklist (PS3.4 K): C-FIND of what is planned. The flow is C-FIND's, items and matching are its own."""

from collections.abc import Iterator, Sequence
from typing import Any

from pacs.dimse.answer import AnswerWriter, Row, Wanted
from pacs.dimse.find import MOST_NOTED, Find
from pacs.dimse.status import Status
from pacs.domain import admission, jsonmodel, worklist
from pacs.errors import BadRequest, Reason, Refused

MODEL = "1.2.840.10008.5.1.4.31"
_LIMITS = admission.Limits(depth=worklist.MOST_DEPTH, elements=10_000)


class FindWorklist(Find):
    """One query of the worklist. The items of one page are all that is held for a peer that reads slowly."""

    _pages: Iterator[Sequence[Row]] | None = None
    _writer: AnswerWriter

    def _page(self) -> tuple[list[bytes], bool]:
        """On a thread of the pool: the encoded answers of the next page, and whether it is the last."""
        if self._pages is None:
            keys = read(bytes(self._data), self.context.transfer_syntax)
            self._writer = AnswerWriter(self.context.transfer_syntax, wanted(keys), {})
            self._pages = self.link.node.worklist.find(worklist.compiled(keys))
        rows = next(self._pages, None)
        if rows is None:
            return [], True
        self._shown.extend(rows[: MOST_NOTED - len(self._shown)])  # type: ignore[arg-type]
        return [self._writer.write(row) for row in rows], False

    def _note(self, final: Status) -> None:
        """Who asked, and whom the answers were about."""
        detail = {"service": "worklist", "status": f"{final:#06x}", "answers": len(self._shown)}
        outcome = "ok" if final in {Status.SUCCESS, Status.CANCEL} else "failed"
        patients = sorted({worklist.text(row, worklist.PATIENT_ID) for row in self._shown})
        only = patients[0] if len(patients) == 1 else ""
        self.link.node.audit.note(self.link.source, "search", outcome=outcome, patient_id=only, detail=detail)


def read(data: bytes, transfer_syntax: str) -> dict[str, Any]:
    """A data set as DICOM JSON, its texts decoded. Raises Refused(UNREADABLE)."""
    if not data:
        return {}
    try:
        admitted = admission.admit(data, raw_syntax=transfer_syntax, limits=_LIMITS, nested=True)
        return dict(jsonmodel.to_json(data, admitted=admitted))
    except admission.Inadmissible as error:
        raise Refused(Reason.UNREADABLE, "The data set is not readable.") from error


def wanted(keys: Row) -> tuple[Wanted, ...]:
    """What each answer holds: every key but the character set, of a sequence the keys of its item.

    A sequence key without an item wants the sequence whole (PS3.4 K.2.2.1.3).
    """
    found = []
    for tag, element in keys.items():
        if tag in worklist.NO_KEYS:
            continue
        items = worklist.items_of(keys, tag) if element["vr"] == "SQ" else ()
        if len(items) > 1:
            raise BadRequest("A sequence key has one item.")
        found.append((tag, element["vr"], wanted(items[0]) if items else ()))
    return tuple(found)
