"""Why objects were not accepted, each under the id that its sender was told (storage.md D7)."""

import os
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
import structlog
from psycopg.rows import class_row
from psycopg_pool import ConnectionPool

from pacs.domain.events import Expected, Source
from pacs.errors import NotFound, Reason, Refused
from pacs.index.named import queries
from pacs.index.pool import transaction
from pacs.services.backlog import Backlog
from pacs.services.duties import Duty

if TYPE_CHECKING:
    from pacs.node import Node

SQL = queries("refusals")
DAYS_KEPT = 90
LIKE_UID = re.compile(r"[0-9.]{1,64}")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refusal. `message` is a sentence without patient data; the UIDs are those claimed or found."""

    id: str
    reason: str
    message: str
    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    door: str
    peer: str
    address: str
    made_at: datetime


class Refusals:
    """Records refusals and finds them again."""

    def __init__(self, pool: ConnectionPool[Any], note: Callable[..., None] = lambda *_, **__: None) -> None:
        """`note` is told of each for the audit trail."""
        self._pool, self._note = pool, note
        self._backlog = Backlog(pool, _add, "refusals")

    def record(
        self,
        source: Source,
        named: Expected,
        reason: Reason,
        message: str,
        *,
        wait: bool = False,
        patient_id: str = "",
    ) -> Refused:
        """Remember a refusal and return the exception to raise. `patient_id` is for the audit trail only.

        `wait`: return when it can be looked up, or after a second while the database is away; it is then written later.
        """
        refusal = Refusal(
            id=new_id(),
            reason=reason.value,
            message=message,
            sop_class_uid=only_uid(named.sop_class_uid),
            sop_instance_uid=only_uid(named.sop_instance_uid),
            study_uid=only_uid(named.study_uid),
            door=source.door,
            peer=printable(source.peer),
            address=printable(source.address),
            made_at=datetime.now(UTC),
        )
        row = asdict(refusal)
        log.warning("object_refused", said=message, **{k: v for k, v in row.items() if k not in ("made_at", "message")})
        self._backlog.add(row, wait=wait)
        self._note(
            source,
            "store",
            outcome="refused",
            patient_id=patient_id,
            study_uid=refusal.study_uid,
            sop_instance_uid=refusal.sop_instance_uid,
            detail={"reason": refusal.reason, "refusal_id": refusal.id},
        )
        return Refused(
            reason,
            message,
            refusal_id=refusal.id,
            sop_class_uid=refusal.sop_class_uid,
            sop_instance_uid=refusal.sop_instance_uid,
        )

    def get(self, id: str) -> Refusal:
        """The refusal of this id. Raises NotFound, or Unavailable when the database is away."""
        for row in self._backlog.waiting():
            if row["id"] == id:
                return Refusal(**row)
        with transaction(self._pool) as connection, connection.cursor(row_factory=class_row(Refusal)) as cursor:
            found: Refusal | None = cursor.execute(SQL["get"], {"id": printable(id)}).fetchone()
        if found is None:
            raise NotFound(f"No refusal has this id; they are kept for {DAYS_KEPT} days.")
        return found

    def forget(self) -> None:
        """Delete refusals that are older than DAYS_KEPT days. Raises Unavailable."""
        with transaction(self._pool) as connection:
            connection.execute(SQL["forget"], {"days": DAYS_KEPT})

    def close(self) -> None:
        """Write what waits, if the database lets us."""
        self._backlog.close()


def _add(connection: psycopg.Connection[Any], rows: list[dict[str, Any]]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(SQL["add"], rows)


def new_id() -> str:
    """12 hexadecimal digits that sort by time: milliseconds of about two years, then chance."""
    return f"{time.time_ns() // 1_000_000 & 0xFFFFFFFFF:09x}{os.urandom(2).hex()[:3]}"


def only_uid(text: str) -> str:
    """The text if it could be a UID, else nothing: what stands in the place of one may be a name."""
    return text if LIKE_UID.fullmatch(text) else ""


def printable(text: str) -> str:
    """What a peer said, fit for a text column and a log line."""
    return "".join(c if c.isprintable() else "?" for c in text[:128])


def forget(node: "Node") -> None:
    """Drop old refusals."""
    node.refusals.forget()


DUTIES = (Duty("forget-refusals", 3600.0, forget),)
