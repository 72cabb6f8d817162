"""Newcomers under a SOP Instance UID that is taken: set aside until somebody decides (storage.md 2)."""

from collections.abc import Callable
from typing import Any, Literal

from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from pacs.domain.events import Source
from pacs.errors import Damaged, NotFound
from pacs.index.named import queries
from pacs.index.pool import transaction
from pacs.services import audit
from pacs.services.ingest import Ingest
from pacs.store.base import Store

SQL = queries("conflicts")
CHUNK = 1 << 20
Decision = Literal["kept", "replaced"]


class Conflicts:
    """The list of conflicts, and what becomes of them."""

    def __init__(self, pool: ConnectionPool[Any], store: Store, ingest: Callable[[], Ingest]) -> None:
        self._pool, self._store, self._ingest = pool, store, ingest

    def resolve(self, id: int, decision: Decision, source: Source) -> None:
        """`kept`: the stored object stays and the newcomer goes. `replaced`: the newcomer becomes the new version.

        Raises NotFound for what is not an open conflict, Refused, Damaged, Unavailable.
        """
        with transaction(self._pool) as connection, connection.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute(SQL["take"], {"id": id}).fetchone()
            if row is None:
                raise NotFound("No open conflict has this number.")
            if decision == "replaced":
                self._replace(row["object_name"], source)
            cursor.execute(SQL["resolve"], {"id": id, "state": decision})
            named = {name: row[name] for name in ("study_uid", "series_uid", "sop_instance_uid")}
            detail = {"conflict": id, "decision": decision}
            audit.record(connection, [audit.row(source, "resolve-conflict", **named, detail=detail)])
        self._store.remove([row["object_name"]], "conflicts")

    def _replace(self, object_name: str, source: Source) -> None:
        """Through the one door in, like any other object."""
        try:
            file = self._store.open(object_name, "conflicts")
        except FileNotFoundError as error:
            raise Damaged("The file that was set aside is missing; ask its sender for it.") from error
        with file:
            incoming = self._ingest().begin(source)
            incoming.replaces = True
            while chunk := file.read(CHUNK):
                incoming.write(chunk)
        self._ingest().store(incoming)

    def list(self, limit: int = 1000) -> list[dict[str, Any]]:
        """The open conflicts, oldest first. Raises Unavailable."""
        with transaction(self._pool) as connection, connection.cursor(row_factory=dict_row) as cursor:
            rows: list[dict[str, Any]] = cursor.execute(SQL["open"], {"limit": limit}).fetchall()
            return rows
