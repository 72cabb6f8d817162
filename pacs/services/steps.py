"""Modality performed procedure steps (PS3.4 F.7): begun, changed, ended by modalities.

A step in progress keeps its studies open in the ledger. A completed one whose instances are all here confirms them;
one with a gap keeps them open until it closes, or until AI_MAX_WAIT_MINUTES are over.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import structlog
from psycopg.types.json import Jsonb

from pacs.domain import worklist
from pacs.domain.events import Source
from pacs.domain.uids import is_uid
from pacs.domain.worklist import Row
from pacs.errors import BadRequest, Conflict, NotFound
from pacs.index.named import queries
from pacs.services import audit
from pacs.services.books import Books, Cursor
from pacs.services.duties import Duty
from pacs.services.worklist import follow

if TYPE_CHECKING:
    from pacs.node import Node

SQL = queries("steps")
STATUS, SCHEDULED, PERFORMED = "00400252", "00400270", "00400340"
IMAGES, OTHERS, INSTANCE = "00081140", "00400220", "00081155"
STUDY_UID, PATIENT_ID = "0020000D", "00100020"
IN_PROGRESS, COMPLETED, DISCONTINUED = "IN PROGRESS", "COMPLETED", "DISCONTINUED"
STATES = (IN_PROGRESS, COMPLETED, DISCONTINUED)
# what N-SET may not change (PS3.4 table F.7.2-1): who, for what, when it began
FIXED = frozenset(
    {
        "00100010",
        PATIENT_ID,
        "00100021",
        "00100030",
        "00100040",
        SCHEDULED,
        "00400253",
        "00400241",
        "00400244",
        "00400245",
        "00080060",
    }
)
log = structlog.get_logger()


class Ended(Conflict):
    """The step is completed or discontinued and can be changed no more."""


class Lacking(BadRequest):
    """An attribute is missing (`absent`) or has no value; `tag` names it."""

    def __init__(self, tag: str, *, absent: bool) -> None:
        super().__init__(f"({tag[:4]},{tag[4:]}) is missing or empty.")
        self.tag, self.absent = int(tag, 16), absent


class Wrong(BadRequest):
    """An attribute has a value that it may not have; `tag` names it."""

    def __init__(self, tag: str) -> None:
        super().__init__(f"({tag[:4]},{tag[4:]}) has a value that it may not have.")
        self.tag = int(tag, 16)


class Steps:
    """Thread-safe. All methods raise Unavailable when the database is away; what they did is durable."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def create(self, uid: str, attributes: Row, source: Source) -> None:
        """N-CREATE: a step begins. Raises Conflict for a UID that is known, Lacking, Wrong."""
        if _state(attributes) != IN_PROGRESS:
            raise Wrong(STATUS)
        studies = _studies(attributes)
        row = {"sop_instance_uid": uid, "state": IN_PROGRESS, "peer": source.peer, "address": source.address}
        with self._books.transaction() as cursor:
            made = cursor.execute(SQL["add"], {**row, "attributes": Jsonb(dict(attributes))}).fetchone()
            if made is None:
                raise Conflict("A performed procedure step of this UID is known already.")
            cursor.execute(SQL["studies"], {"id": made["id"], "study_uids": studies})
            follow(cursor, attributes, IN_PROGRESS)
            _note(cursor, source, "step-begin", attributes, uid)

    def change(self, uid: str, attributes: Row, source: Source) -> list[int]:
        """N-SET: a step goes on or ends. Returns the tags that may not be changed and were not.

        Raises NotFound, Ended, Lacking, Wrong.
        """
        with self._books.transaction() as cursor:
            step = cursor.execute(SQL["lock"], {"sop_instance_uid": uid}).fetchone()
            if step is None:
                raise NotFound("There is no performed procedure step of this UID.")
            if step["state"] != IN_PROGRESS:
                raise Ended(f"The step is {step['state'].lower()} and can be changed no more.")
            state = _state(attributes) if STATUS in attributes else IN_PROGRESS
            merged = _merged(step["attributes"], attributes)
            named = _instances(merged)
            cursor.execute(SQL["change"], {"id": step["id"], "state": state, "attributes": Jsonb(merged)})
            if state != IN_PROGRESS:
                follow(cursor, merged, state)
                self._end(cursor, step["id"], state, _studies(merged), named)
                _note(cursor, source, "step-end", merged, uid, state=state)
        return sorted(int(tag, 16) for tag in FIXED & set(attributes) if attributes[tag] != step["attributes"].get(tag))

    def _end(self, cursor: Cursor, number: int, state: str, studies: list[str], named: list[str]) -> None:
        cursor.execute(SQL["open_ledger"], {"study_uids": studies})
        if state == COMPLETED and named:
            cursor.execute(SQL["gaps"], {"id": number, "study_uids": studies, "instances": named})
            _settled(cursor, studies)

    def settle(self) -> list[str]:
        """Studies that waited for instances of a completed step and have them now; the planner hears of them."""
        with self._books.transaction() as cursor:
            return _settled(cursor, {row["study_uid"] for row in cursor.execute(SQL["arrived"])})

    def prune(self) -> None:
        """Forget steps of three months ago."""
        with self._books.transaction() as cursor:
            cursor.execute(SQL["prune"])


def _state(attributes: Row) -> str:
    if STATUS not in attributes or not worklist.text(attributes, STATUS):
        raise Lacking(STATUS, absent=STATUS not in attributes)
    state = worklist.text(attributes, STATUS)
    if state not in STATES:
        raise Wrong(STATUS)
    return state


def _studies(attributes: Row) -> list[str]:
    """The studies of the scheduled steps (PS3.3 C.4.13). Raises Lacking, Wrong."""
    items = worklist.items_of(attributes, SCHEDULED)
    if not items:
        raise Lacking(SCHEDULED, absent=SCHEDULED not in attributes)
    found = sorted({worklist.text(item, STUDY_UID) for item in items})
    if not all(found):
        raise Lacking(STUDY_UID, absent=False)
    if not all(map(is_uid, found)):
        raise Wrong(STUDY_UID)
    return found


def _instances(attributes: Row) -> list[str]:
    """All that the performed series name. Raises Wrong."""
    found = {
        worklist.text(reference, INSTANCE)
        for series in worklist.items_of(attributes, PERFORMED)
        for tag in (IMAGES, OTHERS)
        for reference in worklist.items_of(series, tag)
    }
    if not all(map(is_uid, found)):
        raise Wrong(INSTANCE)
    return sorted(found)


def _merged(before: Mapping[str, Any], change: Row) -> dict[str, Any]:
    changed = {tag: element for tag, element in change.items() if tag not in FIXED}
    return dict(sorted({**before, **changed}.items()))


def _settled(cursor: Cursor, studies: Iterable[str]) -> list[str]:
    names = {"study_uids": sorted(studies)}
    if not names["study_uids"]:
        return []
    cursor.execute(SQL["incomplete"], names)
    confirmed = [row["study_uid"] for row in cursor.execute(SQL["complete"], names).fetchall()]
    if confirmed:
        cursor.execute(SQL["wake_planner"])
    return confirmed


def _note(cursor: Cursor, source: Source, action: str, attributes: Row, uid: str, **detail: str) -> None:
    named = {
        "patient_id": worklist.text(attributes, PATIENT_ID),
        "study_uid": _studies(attributes)[0],
        "sop_instance_uid": uid,
    }
    audit.record(cursor.connection, [audit.row(source, action, **named, detail=dict(detail))])


def settle(node: "Node") -> None:
    """Notice that what a completed step named has come."""
    for study_uid in node.steps.settle():
        log.info("study_complete", study_uid=study_uid, signal="mpps")


DUTIES = (Duty("step-gaps", 1.0, settle),)
