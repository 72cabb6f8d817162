"""Deleting: out of the index at once, out of the store after a grace time (storage.md 5)."""

import time
from typing import TYPE_CHECKING, Any

import psycopg
import structlog
from psycopg.errors import DeadlockDetected, ForeignKeyViolation, SerializationFailure
from psycopg_pool import ConnectionPool

from pacs.domain.events import Source
from pacs.domain.levels import Scope
from pacs.errors import NotFound, Unavailable
from pacs.index.named import queries
from pacs.services import audit
from pacs.services.duties import Duty
from pacs.store.base import Store

if TYPE_CHECKING:
    from pacs.node import Node

SQL = queries("lifecycle")
GRACE_SECONDS = 600.0  # in which a reader that has just looked a file up may still open it
AT_ONCE = 500
ATTEMPTS = 5
PASSING = (DeadlockDetected, SerializationFailure, ForeignKeyViolation)
log = structlog.get_logger()


class Lifecycle:
    """Ends what was stored."""

    def __init__(self, pool: ConnectionPool[Any], store: Store) -> None:
        self._pool, self._store = pool, store

    def delete(self, scope: Scope, source: Source) -> int:
        """Delete a study, series or instance; how many instances. Nobody finds them any more when this returns.

        Raises NotFound, or Unavailable when the database is away.
        """
        for attempt in range(ATTEMPTS):
            try:
                return self._delete(scope, source)
            except PASSING:
                time.sleep(0.01 * attempt)
            except psycopg.Error as error:
                raise Unavailable("The database does not answer; nothing is known to be deleted.") from error
        raise Unavailable("Others are storing into what should be deleted; try again.")

    def _delete(self, scope: Scope, source: Source) -> int:
        names = {
            "study_uid": scope.study_uid,
            "series_uid": scope.series_uid,
            "sop_instance_uid": scope.sop_instance_uid,
        }
        with self._pool.connection() as connection:
            pks = [row[0] for row in connection.execute(SQL[scope.level.name.lower()], names)]
            gone = connection.execute(SQL["remove"], {"pks": pks, "cause": "deleted"}).fetchall() if pks else []
            if not gone:
                raise NotFound(f"No such {scope.level.name.lower()} is stored here.")
            audit.record(connection, [_audited(source, *row) for row in gone])
        log.info("deleted", level=scope.level.name.lower(), study_uid=scope.study_uid, instances=len(gone))
        return len(gone)

    def bury(self, grace_seconds: float = GRACE_SECONDS) -> int:
        """Unlink the files of tombstones whose grace time is over; how many. Safe to repeat after any crash.

        Raises psycopg.Error or StoreFailed.
        """
        buried = 0
        while True:
            with self._pool.connection() as connection:
                parameters = {"seconds": grace_seconds, "limit": AT_ONCE}
                graves = connection.execute(SQL["graves"], parameters).fetchall()
            if not graves:
                return buried
            self._store.remove([name for _pk, name in graves])
            with self._pool.connection() as connection:
                connection.execute(SQL["close_graves"], {"pks": [pk for pk, _name in graves]})
            buried += len(graves)


def _audited(source: Source, patient_id: str, study_uid: str, series_uid: str, sop_instance_uid: str) -> audit.Row:
    return audit.row(
        source,
        "delete",
        patient_id=patient_id,
        study_uid=study_uid,
        series_uid=series_uid,
        sop_instance_uid=sop_instance_uid,
    )


def bury(node: "Node") -> None:
    """Unlink what was deleted a while ago."""
    node.lifecycle.bury()


DUTIES = (Duty("bury", 60.0, bury),)
