"""Why objects were not accepted, each under the id that its sender was told (storage.md D7)."""

import os
import threading
import time
from collections import deque
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
DAYS_KEPT = 90
MOST_WAITING = 10_000  # refusals remembered while the database is away; all of them are in the log as well
RETRY_SECONDS = 2.0
PATIENCE_SECONDS = 1.0
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
    """Records refusals and finds them again. A thread of its own writes them: callers may be event loops."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._waiting: deque[Refusal] = deque(maxlen=MOST_WAITING)
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def record(self, source: Source, named: Expected, reason: Reason, message: str, *, wait: bool = False) -> Refused:
        """Remember a refusal and return the exception to raise.

        `wait`: return when it can be looked up, or after a second while the database is away; it is then written later.
        """
        refusal = Refusal(
            id=new_id(),
            reason=reason.value,
            message=message,
            sop_class_uid=printable(named.sop_class_uid),
            sop_instance_uid=printable(named.sop_instance_uid),
            study_uid=printable(named.study_uid),
            door=source.door,
            peer=printable(source.peer),
            address=printable(source.address),
            made_at=datetime.now(UTC),
        )
        fields = {key: value for key, value in asdict(refusal).items() if key not in ("made_at", "message")}
        log.warning("object_refused", said=message, **fields)
        self._enqueue(refusal, wait)
        return Refused(
            reason,
            message,
            refusal_id=refusal.id,
            sop_class_uid=refusal.sop_class_uid,
            sop_instance_uid=refusal.sop_instance_uid,
        )

    def _enqueue(self, refusal: Refusal, wait: bool) -> None:
        with self._news:
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, name="refusals", daemon=True)
                self._thread.start()
            self._waiting.append(refusal)
            self._news.notify_all()
            if wait:
                self._news.wait_for(lambda: refusal not in self._waiting, PATIENCE_SECONDS)

    def _write(self) -> None:
        """Until closed and empty: write what waits, in one transaction; try again when the database is back."""
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting or self._closed)
                batch = list(self._waiting)
            if not batch:
                return
            try:
                with self._pool.connection() as connection, connection.cursor() as cursor:
                    cursor.executemany(SQL["add"], [asdict(refusal) for refusal in batch])
            except psycopg.Error as error:
                log.error("refusals_not_recorded", count=len(batch), exc_info=error)
                if self._closed:
                    return
                time.sleep(RETRY_SECONDS)
                continue
            with self._news:
                written = set(batch)
                self._waiting = deque((r for r in self._waiting if r not in written), maxlen=MOST_WAITING)
                self._news.notify_all()

    def get(self, id: str) -> Refusal:
        """The refusal of this id. Raises NotFound, or Unavailable when the database is away."""
        waiting = next((refusal for refusal in tuple(self._waiting) if refusal.id == id), None)
        if waiting is not None:
            return waiting
        try:
            with self._pool.connection() as connection, connection.cursor(row_factory=class_row(Refusal)) as cursor:
                found = cursor.execute(SQL["get"], {"id": printable(id)}).fetchone()
        except psycopg.Error as error:
            raise Unavailable("The database does not answer; see /ready.") from error
        if found is None:
            raise NotFound(f"No refusal has this id; they are kept for {DAYS_KEPT} days.")
        return found

    def forget(self) -> None:
        """Delete refusals that are older than DAYS_KEPT days."""
        with self._pool.connection() as connection:
            connection.execute(SQL["forget"], {"days": DAYS_KEPT})

    def close(self) -> None:
        """Write what waits, if the database lets us."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        if self._thread is not None:
            self._thread.join(RETRY_SECONDS * 2)


def new_id() -> str:
    """12 hexadecimal digits that sort by time: milliseconds of about two years, then chance."""
    return f"{time.time_ns() // 1_000_000 & 0xFFFFFFFFF:09x}{os.urandom(2).hex()[:3]}"


def printable(text: str) -> str:
    """What a peer said, fit for a text column and a log line."""
    return "".join(c if c.isprintable() else "?" for c in text[:128])
