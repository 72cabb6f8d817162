"""Deleting: out of the index at once, out of the store after a grace time (storage.md 5)."""

from typing import TYPE_CHECKING, Any

import structlog
from psycopg_pool import ConnectionPool

from pacs.domain.events import Source
from pacs.domain.levels import Scope
from pacs.errors import Conflict, NotFound
from pacs.index.named import queries
from pacs.index.pool import Connection, repeated, transaction
from pacs.services import audit
from pacs.services.duties import Duty
from pacs.store.base import Store

if TYPE_CHECKING:
    from pacs.node import Node

SQL = queries("lifecycle")
GRACE_SECONDS = 600.0  # in which a reader that has just looked a file up may still open it
AT_ONCE = 500
log = structlog.get_logger()


class Lifecycle:
    """Ends what was stored."""

    def __init__(self, pool: ConnectionPool[Any], store: Store) -> None:
        self._pool, self._store = pool, store

    def delete(self, scope: Scope, source: Source) -> int:
        """Delete a study, series or instance; how many instances. Nobody finds them any more when this returns.

        Raises NotFound, Conflict (legal hold), or Unavailable when the database is away.
        """
        names = {
            "study_uid": scope.study_uid,
            "series_uid": scope.series_uid,
            "sop_instance_uid": scope.sop_instance_uid,
        }
        level = scope.level.name.lower()

        def remove(connection: Connection) -> int:
            connection.execute(SQL["lock_patient"], names)
            if connection.execute(SQL["held"], names).fetchone() == (True,):
                raise Conflict("The study is under a legal hold; nothing of it can be deleted until that is lifted.")
            pks = [row[0] for row in connection.execute(SQL[level], names)]
            gone = connection.execute(SQL["remove"], {"pks": pks, "cause": "deleted"}).fetchall() if pks else []
            if not gone:
                raise NotFound(f"No such {level} is stored here.")
            audit.record(connection, [_audited(source, *row) for row in gone])
            return len(gone)

        count = repeated(self._pool, remove)
        log.info("deleted", level=level, study_uid=scope.study_uid, instances=count)
        return count

    def hold(self, study_uid: str, held: bool, source: Source) -> None:
        """Put a study under legal hold, or lift it: while it is held nothing of it can be deleted or replaced.

        Raises NotFound, Unavailable.
        """
        with transaction(self._pool) as connection:
            names = {"study_uid": study_uid, "legal_hold": held}
            connection.execute(SQL["lock_patient"], names)
            row = connection.execute(SQL["hold"], names).fetchone()
            if row is None:
                raise NotFound("No such study is stored here.")
            action = "hold" if held else "lift-hold"
            audit.record(connection, [audit.row(source, action, patient_id=row[0], study_uid=study_uid)])

    def bury(self, grace_seconds: float = GRACE_SECONDS) -> int:
        """Unlink the files of tombstones whose grace time is over; how many. Safe to repeat after any crash.

        Raises Unavailable or StoreFailed.
        """
        buried = 0
        while True:
            with transaction(self._pool) as connection:
                parameters = {"seconds": grace_seconds, "limit": AT_ONCE}
                graves = connection.execute(SQL["graves"], parameters).fetchall()
            if not graves:
                return buried
            self._store.remove([name for _pk, name in graves])
            with transaction(self._pool) as connection:
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
