"""Storage commitment (PS3.4 J): what a modality asks to be sure of, looked up in the index and on the disk.

A request is a row before it is answered, so its report outlives every process. It also tells the ledger of complete
studies: a list that is here whole is a positive signal, one with a gap keeps its studies open (ai.md 3).
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import structlog

from pacs.domain.events import Source
from pacs.index.named import queries
from pacs.services.books import Books, Cursor, Row
from pacs.services.duties import Duty
from pacs.store.base import Store

if TYPE_CHECKING:
    from pacs.node import Node

SQL = queries("commitment")
KEPT = 0
PROCESSING_FAILURE, NO_SUCH_INSTANCE, CLASS_CONFLICT = 0x0110, 0x0112, 0x0119  # failure reasons, PS3.3 C.14.1.1
DIGESTED_BYTES = 64 << 20  # a list that is no larger is hashed too; of a larger one each file's size is compared
GRACE_SECONDS = 3.0  # in which the association that asked reports by itself
FIRST_SECONDS, LONGEST_SECONDS = 5.0, 900.0  # between attempts to report, doubling
PATIENCE_SECONDS = 86_400.0  # then it is given up
CHUNK = 1 << 20
log = structlog.get_logger()


class Reference(NamedTuple):
    """An instance as a request or report names it; `reason` is 0 for one that is kept."""

    sop_class_uid: str
    sop_instance_uid: str
    reason: int = KEPT


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a request came to."""

    transaction_uid: str
    kept: tuple[Reference, ...]
    failed: tuple[Reference, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request whose report is due. `last`: when it fails now it is given up."""

    id: int
    peer: str
    attempts: int
    last: bool


class Commitments:
    """Thread-safe. All methods raise Unavailable when the database is away."""

    def __init__(self, books: Books, store: Store) -> None:
        self._books, self._store = books, store

    def ask(self, source: Source, transaction_uid: str, references: Sequence[Reference]) -> int:
        """Keep a request; its number. It is durable when this returns."""
        values = {"transaction_uid": transaction_uid, "peer": source.peer, "address": source.address}
        with self._books.transaction() as cursor:
            row = cursor.execute(SQL["ask"], {**values, "grace": GRACE_SECONDS}).fetchone()
            assert row is not None
            names = {
                "classes": [one.sop_class_uid for one in references],
                "instances": [one.sop_instance_uid for one in references],
            }
            cursor.execute(SQL["items"], {"id": row["id"], **names})
            return int(row["id"])

    def check(self, number: int) -> Verdict:
        """Look at each instance's row and file, once; later calls repeat what was found then."""
        with self._books.transaction() as cursor:
            rows = cursor.execute(SQL["named"], {"id": number}).fetchall()
        reasons = self._reasons(rows)
        with self._books.transaction() as cursor:
            request = cursor.execute(SQL["request"], {"id": number}).fetchone()
            assert request is not None
            if request["state"] == "asked":
                found = {"numbers": [row["number"] for row in rows], "reasons": reasons}
                cursor.execute(SQL["found"], {"id": number, **found})
                cursor.execute(SQL["checked"], {"id": number})
                _feed(cursor, number, rows, reasons)
            else:
                reasons = [row["reason"] for row in cursor.execute(SQL["named"], {"id": number})]
        named = [
            Reference(row["sop_class_uid"], row["sop_instance_uid"], reason)
            for row, reason in zip(rows, reasons, strict=True)
        ]
        kept = tuple(one for one in named if one.reason == KEPT)
        return Verdict(request["transaction_uid"], kept, tuple(one for one in named if one.reason != KEPT))

    def _reasons(self, rows: Sequence[Row]) -> list[int]:
        hashed = sum(row["size"] or 0 for row in rows) <= DIGESTED_BYTES
        return [self._reason(row, hashed=hashed) for row in rows]

    def _reason(self, row: Row, *, hashed: bool) -> int:
        if row["object_name"] is None:
            return NO_SUCH_INSTANCE
        if row["held_class"] != row["sop_class_uid"]:
            return CLASS_CONFLICT
        if self._store.size(row["object_name"]) != row["size"]:
            return PROCESSING_FAILURE
        return KEPT if not hashed or self._digest(row["object_name"]) == row["sha256"] else PROCESSING_FAILURE

    def _digest(self, object_name: str) -> str:
        digest = hashlib.sha256()
        try:
            with self._store.open(object_name) as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
        except OSError as error:
            log.warning("commitment_file_unreadable", object_name=object_name, exc_info=error)
            return ""
        return digest.hexdigest()

    def hold(self, number: int, seconds: float) -> None:
        """Keep others from reporting for a while."""
        with self._books.transaction() as cursor:
            cursor.execute(SQL["hold"], {"id": number, "seconds": seconds})

    def reported(self, number: int) -> None:
        """The asker knows."""
        with self._books.transaction() as cursor:
            cursor.execute(SQL["reported"], {"id": number})

    def failed(self, waiting: Waiting, message: str) -> None:
        """The asker could not be told; there is another attempt unless this was the last."""
        with self._books.transaction() as cursor:
            cursor.execute(SQL["failed"], {"id": waiting.id, "message": message, "last": waiting.last})

    def take(self, limit: int) -> list[Waiting]:
        """Requests whose report is due, ours until their next attempt is."""
        times = {"first": FIRST_SECONDS, "longest": LONGEST_SECONDS, "patience": PATIENCE_SECONDS}
        with self._books.transaction() as cursor:
            return [Waiting(**row) for row in cursor.execute(SQL["take"], {"limit": limit, **times}).fetchall()]

    def settle(self) -> list[str]:
        """Studies that were waiting for instances of a list and have them all now; the planner hears of them."""
        with self._books.transaction() as cursor:
            studies = {row["study_uid"] for row in cursor.execute(SQL["arrived"])}
            return _settled(cursor, studies)

    def prune(self) -> None:
        """Forget requests that are a month old."""
        with self._books.transaction() as cursor:
            cursor.execute(SQL["prune"])


def _feed(cursor: Cursor, number: int, rows: Sequence[Row], reasons: Sequence[int]) -> None:
    """Tell the ledger."""
    studies = {row["study_uid"] for row in rows if row["study_uid"]}
    missing = [row["sop_instance_uid"] for row, reason in zip(rows, reasons, strict=True) if reason == NO_SUCH_INSTANCE]
    if not studies:
        return
    cursor.execute(SQL["open_ledger"], {"study_uids": sorted(studies)})
    if missing:
        cursor.execute(SQL["gaps"], {"id": number, "study_uids": sorted(studies), "missing": missing})
    _settled(cursor, studies)


def _settled(cursor: Cursor, studies: Iterable[str]) -> list[str]:
    names = {"study_uids": sorted(studies)}
    if not names["study_uids"]:
        return []
    cursor.execute(SQL["incomplete"], names)
    confirmed = [row["study_uid"] for row in cursor.execute(SQL["complete"], names).fetchall()]
    if confirmed:
        cursor.execute(SQL["wake_planner"])
    return confirmed


def settle(node: "Node") -> None:
    """Notice that what a commitment list named has come."""
    for study_uid in node.commitments.settle():
        log.info("study_complete", study_uid=study_uid, signal="commitment")


def prune(node: "Node") -> None:
    """Forget old requests."""
    node.commitments.prune()


DUTIES = (Duty("commitment-gaps", 1.0, settle), Duty("commitment-prune", 3600.0, prune))
