"""Modality worklist (PS3.4 K): filled by whoever plans examinations, asked by modalities, moved on by what they do."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from pacs.domain import jsonmodel, worklist
from pacs.domain.attributes import Rule
from pacs.domain.events import Source
from pacs.domain.matching import normal_values
from pacs.domain.uids import new_uid
from pacs.domain.worklist import Row, WorklistQuery
from pacs.errors import BadRequest, Conflict, NotFound
from pacs.index.named import queries
from pacs.services import audit
from pacs.services.books import Books, Cursor
from pacs.services.books import Row as Record
from pacs.services.duties import Duty

if TYPE_CHECKING:
    from pacs.node import Node

SQL = queries("worklist")
CANDIDATES = 500  # items looked at in one statement
STATES = {"SCHEDULED": "scheduled", "ARRIVED": "scheduled", "READY": "scheduled", "STARTED": "started",
          "DEPARTED": "completed"}  # fmt: skip
# what a performed step makes of the planned one: our state, and Scheduled Procedure Step Status
FOLLOWS = {
    "IN PROGRESS": ("started", "STARTED"),
    "COMPLETED": ("completed", "DEPARTED"),
    "DISCONTINUED": ("scheduled", "SCHEDULED"),  # it may have been the wrong entry; whoever plans removes it
}


class Worklist:
    """Thread-safe. All methods raise Unavailable when the database is away."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def add(self, given: Sequence[object], source: Source) -> list[Record]:
        """New items, all or none. Raises BadRequest, and Conflict when a step of a study is there already."""
        rows = [_row(one) for one in given]
        with self._books.transaction() as cursor:
            added = []
            for row in rows:
                record = cursor.execute(SQL["add"], row).fetchone()
                if record is None:
                    raise Conflict(f"This scheduled step of study {row['study_uid']} is in the worklist already.")
                added.append(record)
                _note(cursor, source, "worklist-add", record)
        return [shown(record) for record in added]

    def replace(self, number: int, given: object, source: Source) -> Record:
        """Another content of an item. Raises NotFound, BadRequest, Conflict."""
        row = _row(given)
        with self._books.transaction() as cursor:
            taken = cursor.execute(SQL["taken"], {**row, "id": number}).fetchone()
            if taken is not None:
                raise Conflict(f"Another item plans this step of study {row['study_uid']}.")
            record = cursor.execute(SQL["replace"], {**row, "id": number}).fetchone()
            if record is None:
                raise NotFound("There is no such worklist item.")
            _note(cursor, source, "worklist-change", record)
        return shown(record)

    def remove(self, number: int, source: Source) -> None:
        """Raises NotFound."""
        with self._books.transaction() as cursor:
            record = cursor.execute(SQL["remove"], {"id": number}).fetchone()
            if record is None:
                raise NotFound("There is no such worklist item.")
            _note(cursor, source, "worklist-remove", record)

    def get(self, number: int) -> Record:
        """Raises NotFound."""
        with self._books.transaction() as cursor:
            record = cursor.execute(SQL["get"], {"id": number}).fetchone()
        if record is None:
            raise NotFound("There is no such worklist item.")
        return shown(record)

    def list(self, state: str | None, limit: int, after: int) -> list[Record]:
        """Items in the order of their ids, of one state where it is given."""
        if state is not None and state not in set(STATES.values()):
            raise BadRequest(f"state is one of {', '.join(sorted(set(STATES.values())))}.")
        with self._books.transaction() as cursor:
            values = {"state": state, "limit": limit, "after": after}
            return [shown(record) for record in cursor.execute(SQL["list"], values).fetchall()]

    def find(self, query: WorklistQuery) -> Iterator[Sequence[Row]]:
        """What a modality asks for, by its start, in pages; some may be empty. Completed items are not shown.

        Each page is a statement of its own, so no connection is held for a peer that reads slowly.
        """
        place: Record = {"date": "", "time": "", "id": 0}
        while True:
            values = {**place, "low": query.low, "high": query.high, "limit": CANDIDATES}
            with self._books.transaction() as cursor:
                records = cursor.execute(SQL["planned"], values).fetchall()
            yield [record["attributes"] for record in records if query.finds(record["attributes"])]
            if len(records) < CANDIDATES:
                return
            last = records[-1]
            place = {"date": last["start_date"], "time": last["start_time"], "id": last["id"]}

    def prune(self) -> None:
        """Forget what was completed a month ago."""
        with self._books.transaction() as cursor:
            cursor.execute(SQL["prune"])


def follow(cursor: Cursor, performed: Row, state: str) -> None:
    """Planned steps that a performed one names move with it, in its transaction (PS3.3 C.4.13, 0040,0270)."""
    named = [(worklist.text(item, worklist.STUDY_UID), worklist.text(item, worklist.STEP_ID))
             for item in worklist.items_of(performed, "00400270")]  # fmt: skip
    ours, status = FOLLOWS[state]
    values = {
        "state": ours,
        "status": Jsonb({"vr": "CS", "Value": [status]}),
        "study_uids": [study for study, _ in named],
        "step_ids": [step for _, step in named],
    }
    cursor.execute(SQL["move"], values)


def shown(record: Mapping[str, Any]) -> Record:
    """An item as the admin API shows it; `item` is DICOM JSON."""
    kept = ("id", "state", "study_uid", "created_at", "changed_at")
    return {**{name: record[name] for name in kept}, "item": record["attributes"]}


def _row(given: object) -> Record:
    """The columns of an item that somebody wrote. Raises BadRequest saying what it lacks."""
    item = _canonical(worklist.require_dicom_json(given))
    step = dict(worklist.step_of(item))
    item.setdefault(worklist.STUDY_UID, {"vr": "UI", "Value": [new_uid()]})
    if not worklist.text(step, worklist.STEP_ID):
        step[worklist.STEP_ID] = {"vr": "SH", "Value": [new_uid()[-16:]]}
    status = worklist.text(step, worklist.STATUS) or "SCHEDULED"
    if status not in STATES:
        raise BadRequest(f"ScheduledProcedureStepStatus (00400020) is one of {', '.join(STATES)}.")
    step[worklist.STATUS] = {"vr": "CS", "Value": [status]}
    item[worklist.STEPS] = {"vr": "SQ", "Value": [dict(sorted(step.items()))]}
    worklist.require_whole(item)
    return {
        "study_uid": worklist.text(item, worklist.STUDY_UID),
        "step_id": worklist.text(step, worklist.STEP_ID),
        "patient_id": worklist.text(item, worklist.PATIENT_ID),
        "state": STATES[status],
        "start_date": normal_values(Rule.DATE, [worklist.text(step, worklist.START_DATE)])[0],
        "start_time": normal_values(Rule.TIME, [worklist.text(step, worklist.START_TIME)])[0],
        "attributes": Jsonb(dict(sorted(item.items()))),
    }


def _canonical(item: dict[str, Any]) -> dict[str, Any]:
    """The item as any data set would come back: values that no data set can hold are told now, not to a modality."""
    try:
        return dict(jsonmodel.to_json(jsonmodel.to_dataset(item)))
    except Exception as error:  # whatever a library makes of values that are none
        raise BadRequest("The item holds a value that does not fit its vr.") from error


def _note(cursor: Cursor, source: Source, action: str, record: Record) -> None:
    named = {"patient_id": record["patient_id"], "study_uid": record["study_uid"]}
    audit.record(cursor.connection, [audit.row(source, action, **named, detail={"item": record["id"]})])


def prune(node: "Node") -> None:
    """Forget old items and steps."""
    node.worklist.prune()
    node.steps.prune()


DUTIES = (Duty("worklist-prune", 3600.0, prune),)
