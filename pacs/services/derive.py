"""What every read needs is computed once: DICOM JSON without bulk data, and the frame table (storage.md 3).

The clerk does it soon after the answer; a read that comes earlier does it for itself and keeps the result.
"""

import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import structlog
from psycopg_pool import ConnectionPool

from pacs.domain import frames, jsonmodel
from pacs.domain.admission import Inadmissible, admit
from pacs.errors import Damaged, NotFound, Unavailable
from pacs.index.named import queries
from pacs.index.pool import transaction
from pacs.services.duties import Duty
from pacs.services.instances import Files, StoredInstance

if TYPE_CHECKING:
    from pacs.node import Node

SQL = queries("derive")
LEVEL = 1  # of zlib: three times as fast as 6, a tenth larger
AT_ONCE = 50
BUDGET_SECONDS = 0.5  # of each period of the duty: storing goes first
GIVES_WAY_SECONDS = 20.0
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Derived:
    """`metadata` is the JSON object of one instance, with %BASE% where the DICOMweb root belongs."""

    pk: int
    metadata: bytes
    frames: frames.FrameTable


class Derive:
    """Computes and keeps. Thread-safe."""

    def __init__(self, pool: ConnectionPool[Any], files: Files) -> None:
        self._pool, self._files = pool, files
        self._after = 0  # up to here nothing is left to derive
        self._gave_way = 0.0  # since when senders are let go first; 0: they are quiet
        self._lock = threading.Lock()

    def ensure(self, instances: Iterable[StoredInstance]) -> Iterator[Derived]:
        """Derive these and keep the results, a few at a time. Raises Damaged, NotFound."""
        batch: list[tuple[StoredInstance, Derived]] = []
        for instance in instances:
            batch.append((instance, self.make(instance)))
            yield batch[-1][1]
            if len(batch) >= AT_ONCE:
                self._keep(batch)
                batch = []
        self._keep(batch)

    def make(self, instance: StoredInstance) -> Derived:
        """Derive one, without keeping it. Raises Damaged, NotFound."""
        with self._files.view(instance) as view:
            try:
                admitted = admit(view, nested=True)
            except Inadmissible as error:
                raise Damaged(f"The file of this object cannot be read: {error.message}.") from error
            row = jsonmodel.to_json(view, admitted=admitted)
            return Derived(instance.pk, orjson.dumps(row), frames.table(admitted, view))

    def _keep(self, batch: Sequence[tuple[StoredInstance, Derived]]) -> None:
        rows = [
            {
                "pk": instance.pk,
                "object_name": instance.object_name,
                "metadata": zlib.compress(derived.metadata, LEVEL),
                "frames": zlib.compress(derived.frames.encode(), LEVEL),
            }
            for instance, derived in batch
        ]
        if not rows:
            return
        try:
            with transaction(self._pool) as connection, connection.cursor() as cursor:
                cursor.execute(SQL["may_be_lost"])
                cursor.executemany(SQL["keep"], rows)
        except Unavailable as error:
            log.warning("derived_not_kept", count=len(rows), exc_info=error)

    def gives_way(self) -> bool:
        """Whether senders are at work: they go first, but not for ever. Raises Unavailable."""
        with transaction(self._pool) as connection:
            row = connection.execute(SQL["senders_at_work"]).fetchone()
        now = time.monotonic()
        self._gave_way = (self._gave_way or now) if row and row[0] else 0.0
        return self._gave_way > 0 and now - self._gave_way < GIVES_WAY_SECONDS

    def catch_up(self, seconds: float = BUDGET_SECONDS) -> int:
        """Derive what was stored lately, for about so long; how many. Raises Unavailable."""
        until, done = time.monotonic() + seconds, 0
        with self._lock:
            place = self._after
            while time.monotonic() < until:
                waiting, settled = self._waiting(place)
                done += self._derive(waiting, until)
                if time.monotonic() > until:
                    return done
                place = waiting[-1].pk if waiting else place
                if len(waiting) < AT_ONCE:
                    self._after = settled
                    break
        return done

    def _waiting(self, after: int) -> tuple[list[StoredInstance], int]:
        with transaction(self._pool) as connection:
            row = connection.execute(SQL["settled_before"]).fetchone()
            found = connection.execute(SQL["underived"], {"after": after, "limit": AT_ONCE}).fetchall()
        return [StoredInstance(*columns) for columns in found], row[0] if row else 0

    def _derive(self, waiting: Sequence[StoredInstance], until: float) -> int:
        """Derive these while there is time and keep them in one transaction; how many."""
        batch: list[tuple[StoredInstance, Derived]] = []
        for instance in waiting:
            try:
                batch.append((instance, self.make(instance)))
            except (Damaged, NotFound) as error:
                log.warning("not_derived", sop_instance_uid=instance.sop_instance_uid, exc_info=error)
            except Exception as error:  # one odd object must not keep the others from their turn
                log.error("derive_failed", sop_instance_uid=instance.sop_instance_uid, exc_info=error)
            if time.monotonic() > until:
                break
        self._keep(batch)
        return len(batch)


def derive(node: "Node") -> None:
    """Derive what was stored lately, when its senders are done or have been at it for long."""
    if not node.derive.gives_way():
        node.derive.catch_up()


DUTIES = (Duty("derive", 1.0, derive),)
