"""What one process measures for all: database, Redis, queues, disks, certificates (operations.md 6.7).

A duty of the clerk, so that `/metrics` asks nobody and answers while the database is away.
"""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import redis
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from pacs.errors import Unavailable
from pacs.index.named import queries
from pacs.services import tls
from pacs.services.duties import Duty
from pacs.settings import Settings
from pacs.telemetry import Metrics

if TYPE_CHECKING:
    from pacs.node import Node

SQL = queries("gauges")
PATIENCE_SECONDS = 2.0
DAY = 86_400.0
# statement, metric, what it is, labels, column
TABLE: tuple[tuple[str, str, str, tuple[str, ...], str], ...] = (
    ("connections", "filmroom_db_connections", "Connections to the database by state", ("state",), "connections"),
    ("connections_most", "filmroom_db_connections_most", "How many the database takes", (), "connections"),
    ("database_size", "filmroom_db_size_bytes", "Size of the database", (), "bytes"),
    ("queues", "filmroom_queue_rows", "What waits, counted up to 10000", ("queue",), "rows"),
    ("queues", "filmroom_queue_age_seconds", "Age of the oldest that waits", ("queue",), "seconds"),
    ("findings", "filmroom_findings_open", "Damage that is not cured", ("kind",), "findings"),
    ("maintenance", "filmroom_maintenance", "1 while maintenance is on", (), "windows"),
)


class Gauges:
    """Measures, and sets the gauges of this process."""

    def __init__(self, pool: ConnectionPool[Any], settings: Settings, metrics: Metrics) -> None:
        self._pool, self._settings, self._metrics = pool, settings, metrics
        self._up = metrics.gauge("filmroom_up", "1 where a server answers", ("server",))

    def measure(self) -> None:
        """Everything that can be; then raises Unavailable where the database or Redis did not answer."""
        self._disks()
        self._certificates()
        servers = (("database", self._database), ("redis", self._redis))
        missing = [name for name, ask in servers if not self._asked(name, ask)]
        if missing:
            raise Unavailable(f"No answer from: {', '.join(missing)}; see /ready.")

    def _asked(self, name: str, ask: Callable[[], None]) -> bool:
        try:
            ask()
        except (psycopg.Error, redis.RedisError, ValueError):
            self._up.labels(name).set(0)
            return False
        self._up.labels(name).set(1)
        return True

    def _database(self) -> None:
        with (
            self._pool.connection(PATIENCE_SECONDS) as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            found = {name: cursor.execute(SQL[name]).fetchall() for name in SQL}
        for statement, name, text, labels, column in TABLE:
            gauge = self._metrics.gauge(name, text, labels)
            if labels:
                gauge.clear()  # what is no more has no sample
            for row in found[statement]:
                (gauge.labels(*(row[label] for label in labels)) if labels else gauge).set(float(row[column]))

    def _redis(self) -> None:
        options = {"socket_timeout": PATIENCE_SECONDS, "socket_connect_timeout": PATIENCE_SECONDS}
        with redis.Redis.from_url(self._settings.redis_url, **options) as client:
            said: dict[str, Any] = client.info("memory")
        self._metrics.gauge("filmroom_redis_memory_bytes", "Memory that Redis uses").set(said["used_memory"])
        most = said.get("maxmemory") or said.get("total_system_memory", 0)
        self._metrics.gauge("filmroom_redis_memory_most_bytes", "Its limit, or the machine's memory").set(most)

    def _disks(self) -> None:
        free = self._metrics.gauge("filmroom_disk_free_bytes", "Free disk by folder", ("folder",))
        size = self._metrics.gauge("filmroom_disk_size_bytes", "Size of that disk", ("folder",))
        for name, folder in (("storage", self._settings.storage_dir), ("home", self._settings.home)):
            usage = shutil.disk_usage(_existing(folder))
            free.labels(name).set(usage.free)
            size.labels(name).set(usage.total)
        reserve = self._metrics.gauge("filmroom_disk_reserve_bytes", "Below this new objects are refused")
        reserve.set(self._settings.disk_reserve_bytes)

    def _certificates(self) -> None:
        """Days until each certificate ends; one that cannot be read has ended."""
        days = self._metrics.gauge("filmroom_certificate_days", "Days until a certificate ends", ("certificate",))
        settings = self._settings
        for name, file in (("dimse", settings.dicom_tls_cert), ("audit", settings.audit_syslog_cert)):
            if file is not None:
                days.labels(name).set(_days(file))


def _days(file: Path) -> float:
    try:
        return (tls.expires_at(file) - datetime.now(UTC)).total_seconds() / DAY
    except (OSError, ValueError):
        return 0.0


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def measure(node: "Node") -> None:
    """Set the gauges."""
    node.gauges.measure()


DUTIES = (Duty("measure", 10.0, measure),)
