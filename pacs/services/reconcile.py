"""What was lost is found: jobs whose worker is gone, jobs that Redis forgot, retries that are due (storage.md D6)."""

from collections.abc import Sequence

from pacs.bus.stream import Stream
from pacs.index.named import queries
from pacs.services.books import Books, Cursor
from pacs.services.models import SQL as MODELS
from pacs.services.relay import SQL as RELAY
from pacs.telemetry import Metrics

SQL = queries("jobs")
UNHEARD_SECONDS = 10  # queued for so long and neither in Redis nor on its way there: ring again
ENTRY_SECONDS = 7 * 86400  # entries of jobs that nobody took for a week; the database still knows them
PUBLISH_BATCH = 1000


class Reconciler:
    """Compares the books with Redis and with the clock. Every method may run at any time, anywhere, twice."""

    def __init__(self, books: Books, stream: Stream, metrics: Metrics) -> None:
        self.books, self.stream, self.metrics = books, stream, metrics

    def recover(self) -> list[int]:
        """Queue jobs whose lease has ended and retries that are due; bury jobs that took every worker with them."""
        with self.books.transaction() as cursor:
            cursor.execute(SQL["bury"])
            cursor.execute(SQL["cancel_orphans"])
            queued = [row["id"] for name in ("expire", "release") for row in cursor.execute(SQL[name]).fetchall()]
            _enqueue(cursor, queued)
            return queued

    def check_epoch(self) -> bool:
        """After a flush or a restart of Redis, ring for every queued job at once; returns whether that was needed."""
        with self.books.transaction() as cursor:
            row = cursor.execute(RELAY["epoch"]).fetchone()
        epoch = str(row["epoch"]) if row else ""
        if self.stream.epoch() == epoch:
            return False
        with self.books.transaction() as cursor:
            waiting = [(row["id"], row["priority"]) for row in cursor.execute(SQL["all_queued"]).fetchall()]
        for start in range(0, len(waiting), PUBLISH_BATCH):
            self.stream.publish(waiting[start : start + PUBLISH_BATCH])
        self.stream.set_epoch(epoch)  # last: a crash before this rings again
        return True

    def compare(self) -> list[int]:
        """Ring again for jobs that are queued while no entry names them; forget what is long gone."""
        self.stream.tidy(ENTRY_SECONDS)
        present = sorted(self.stream.present())
        with self.books.transaction() as cursor:
            values = {"seconds": UNHEARD_SECONDS, "present": present}
            unheard = [row["id"] for row in cursor.execute(SQL["unpublished"], values).fetchall()]
            _enqueue(cursor, unheard)
            cursor.execute(RELAY["prune"])
            return unheard

    def measure(self) -> None:
        """Set the gauges of ai.md 8. Those of the stream keep their last values while Redis is away."""
        with self.books.transaction() as cursor:
            jobs = cursor.execute(SQL["figures"]).fetchall()
            skips = cursor.execute(SQL["skip_figures"]).fetchall()
            ages = cursor.execute(SQL["queue_age"]).fetchall()
            lag = cursor.execute(RELAY["lag"]).fetchone() or {}
            models = cursor.execute(MODELS["states"]).fetchall()
        _set(self.metrics, "filmroom_ai_jobs", "AI jobs by state and model", ("state", "model"), jobs, "jobs")
        _set(self.metrics, "filmroom_ai_models", "Model packages by state", ("state",), models, "models")
        _set(self.metrics, "filmroom_ai_skipped", "Skipped AI jobs by reason", ("reason",), skips, "jobs")
        _set(
            self.metrics,
            "filmroom_ai_queue_age_seconds",
            "Age of the oldest queued job",
            ("priority",),
            ages,
            "seconds",
        )
        self.metrics.gauge("filmroom_outbox_rows", "Outbox rows that wait for the relay").set(lag.get("rows", 0))
        self.metrics.gauge("filmroom_outbox_lag_seconds", "Age of the oldest of them").set(lag.get("seconds", 0))
        figures = self.stream.figures().items()
        entries = [
            {"priority": priority, "length": length, "pending": pending} for priority, (length, pending) in figures
        ]
        for word, text in (("length", "Entries in the job streams"), ("pending", "Entries in workers' hands")):
            _set(self.metrics, f"filmroom_ai_stream_{word}", text, ("priority",), entries, word)


def _enqueue(cursor: Cursor, jobs: Sequence[int]) -> None:
    if jobs:
        cursor.execute(SQL["enqueue"], {"ids": [*jobs]})
        cursor.execute(SQL["wake_relay"])


def _set(  # noqa: PLR0917 - a row of a table
    metrics: Metrics, name: str, text: str, labels: tuple[str, ...], rows: Sequence[dict[str, object]], value: str
) -> None:
    gauge = metrics.gauge(name, text, labels)
    gauge.clear()  # a state that nobody is in any more has no row
    for row in rows:
        gauge.labels(*(str(row[label]) for label in labels)).set(float(str(row[value])))
