"""What the sweep, the scrub and readers found wrong: kept until somebody cures it, shown by `filmroom status`."""

from typing import Any

import structlog
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from pacs.errors import Unavailable
from pacs.index.named import queries
from pacs.index.pool import transaction
from pacs.telemetry import Metrics

SQL = queries("findings")
MISSING_FILE, WRONG_DIGEST, STRAY_FILE, COUNTERS = "missing_file", "wrong_digest", "stray_file", "counters"
log = structlog.get_logger()


class Findings:
    """The list of findings. Each is logged and counted when it is first seen."""

    def __init__(self, pool: ConnectionPool[Any], metrics: Metrics) -> None:
        self._pool = pool
        self._found = metrics.counter("filmroom_findings", "Damage found", ("kind",))

    def add(self, kind: str, object_name: str, message: str, sop_instance_uid: str = "") -> bool:
        """Remember one; False when it is known. Where the database is away it is logged only."""
        row = {"kind": kind, "object_name": object_name, "sop_instance_uid": sop_instance_uid, "message": message}
        try:
            with transaction(self._pool) as connection:
                new = connection.execute(SQL["add"], row).fetchone() is not None
        except Unavailable as error:
            log.error("finding_not_recorded", exc_info=error)
            new = True
        if new:
            self._found.labels(kind).inc()
            log.error(
                "damage_found", kind=kind, object_name=object_name, said=message, sop_instance_uid=sop_instance_uid
            )
        return new

    def cure(self, object_names: list[str], *kinds: str) -> int:
        """These are right again; how many had been wrong."""
        with transaction(self._pool) as connection:
            return len(connection.execute(SQL["cure"], {"kinds": list(kinds), "object_names": object_names}).fetchall())

    def open(self, limit: int = 100) -> list[dict[str, Any]]:
        """What is wrong now, oldest first."""
        with transaction(self._pool) as connection, connection.cursor(row_factory=dict_row) as cursor:
            rows: list[dict[str, Any]] = cursor.execute(SQL["open"], {"limit": limit}).fetchall()
            return rows
