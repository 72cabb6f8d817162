"""The relay: what was written into the outbox with a commit is passed on: originals to the ledger, jobs to Redis."""

from collections.abc import Callable

from pacs.bus.stream import Stream
from pacs.index.named import queries
from pacs.services.books import Books
from pacs.services.ledger import SQL as LEDGER

SQL = queries("relay")
BATCH = 500


class Relay:
    """Any number may run: rows are taken with SKIP LOCKED. A row told twice does no harm."""

    def __init__(self, books: Books, stream: Stream) -> None:
        self.books, self.stream = books, stream

    def pump(self) -> int:
        """Pass on all that waits; returns how many rows. Raises Unavailable when the database or Redis is away."""
        return self.note() + self.publish()

    def note(self) -> int:
        """Originals into the ledger. Raises Unavailable when the database is away."""
        return _drain(self._note)

    def publish(self) -> int:
        """Jobs to Redis. Raises Unavailable when the database or Redis is away."""
        return _drain(self._publish)

    def _note(self) -> int:
        """Originals into the ledger, in the transaction that takes their rows."""
        with self.books.transaction() as cursor:
            rows = cursor.execute(SQL["take_stored"], {"limit": BATCH}).fetchall()
            if rows:
                cursor.execute(LEDGER["note"], {"study_uids": sorted({row["study_uid"] for row in rows})})
            return len(rows)

    def _publish(self) -> int:
        """Jobs to Redis first, then marked: a crash between the two rings again."""
        with self.books.transaction() as cursor:
            rows = cursor.execute(SQL["take_jobs"], {"limit": BATCH}).fetchall()
            if rows:
                self.stream.publish((row["job"], row["priority"]) for row in rows)
                cursor.execute(SQL["sent"], {"ids": [row["id"] for row in rows]})
                cursor.execute(SQL["published"], {"jobs": [row["job"] for row in rows]})
            return len(rows)

    def prune(self) -> None:
        """Forget rows that were passed on an hour ago."""
        with self.books.transaction() as cursor:
            cursor.execute(SQL["prune"])

    def lag(self) -> tuple[int, float]:
        """Rows that wait, and the age of the oldest in seconds."""
        with self.books.transaction() as cursor:
            row = cursor.execute(SQL["lag"]).fetchone()
            return (row["rows"], row["seconds"]) if row else (0, 0.0)


def _drain(step: Callable[[], int]) -> int:
    """Take full batches until one is not full."""
    total = count = step()
    while count == BATCH:
        total += (count := step())
    return total
