"""Why objects were not accepted, each under the id that its sender was told (storage.md D7)."""

import os
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import psycopg
import structlog
from psycopg.rows import class_row
from psycopg_pool import ConnectionPool

from pacs.domain.events import Expected, Source
from pacs.errors import NotFound, Reason, Refused, Unavailable
from pacs.index.named import queries

SQL = queries("refusals")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refusal. `message` is a sentence without patient data; UIDs are what the sender claimed or the object said."""

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

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    def record(self, source: Source, named: Expected, reason: Reason, message: str) -> Refused:
        """Remember a refusal and return the exception to raise. Without the database it is logged only."""
        refusal = Refusal(
            id=new_id(),
            reason=reason.value,
            message=message,
            sop_class_uid=printable(named.sop_class_uid),
            sop_instance_uid=printable(named.sop_instance_uid),
            study_uid=printable(named.study_uid),
            door=source.door,
            peer=printable(source.peer),
            address=source.address,
            made_at=datetime.now(UTC),
        )
        fields = {key: value for key, value in asdict(refusal).items() if key not in ("made_at", "message")}
        log.warning("object_refused", said=message, **fields)
        self._keep(refusal)
        return Refused(
            reason,
            message,
            refusal_id=refusal.id,
            sop_class_uid=refusal.sop_class_uid,
            sop_instance_uid=refusal.sop_instance_uid,
        )

    def _keep(self, refusal: Refusal) -> None:
        try:
            with self._pool.connection() as connection:
                connection.execute(SQL["add"], asdict(refusal))
        except psycopg.Error as error:
            log.error("refusal_not_recorded", id=refusal.id, exc_info=error)

    def get(self, id: str) -> Refusal:  # noqa: A002 - the contract's word
        """The refusal of this id. Raises NotFound, or Unavailable when the database is away."""
        try:
            with self._pool.connection() as connection, connection.cursor(row_factory=class_row(Refusal)) as cursor:
                found = cursor.execute(SQL["get"], {"id": printable(id)}).fetchone()
        except psycopg.Error as error:
            raise Unavailable("The database does not answer; see /ready.") from error
        if found is None:
            raise NotFound("No refusal has this id; they are kept for 90 days.")
        return found


def new_id() -> str:
    """12 hexadecimal digits that sort by time: milliseconds of about a year, then chance."""
    return f"{time.time_ns() // 1_000_000 & 0xFFFFFFFFF:09x}{os.urandom(2).hex()[:3]}"


def printable(text: str) -> str:
    """What a peer said, fit for a text column and a log line."""
    return "".join(c if c.isprintable() else "?" for c in text[:128])
