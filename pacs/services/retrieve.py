"""Giving out what is stored: which instances a scope holds, their files, metadata, frames and bulk data."""

import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from psycopg_pool import ConnectionPool

from pacs.domain import bulk
from pacs.domain.admission import Inadmissible, admit
from pacs.domain.frames import Description, FrameTable, NoSuchFrame
from pacs.domain.levels import Scope
from pacs.errors import Damaged, NotFound
from pacs.index.named import queries
from pacs.index.pool import transaction
from pacs.services.derive import Derive
from pacs.services.instances import Files, StoredInstance, reader

__all__ = ["Bulk", "Frames", "Metadata", "Retrieve", "StoredInstance"]

SQL = queries("retrieve")
METADATA_AT_ONCE = 1000
TABLES_KEPT = 128


@dataclass(frozen=True, slots=True)
class Metadata:
    """`etag` changes whenever an instance comes, goes or is replaced. Each part is the JSON object of one instance."""

    etag: str
    parts: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class Frames:
    """Frames as stored. `attributes` is the Image Pixel module; each part is one frame."""

    transfer_syntax_uid: str
    attributes: Description
    parts: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class Bulk:
    """One element's value, little endian; `size` is the length of all parts together."""

    media_type: str
    size: int
    parts: Iterator[bytes]


class Retrieve:
    """Reads. Thread-safe. All methods raise Unavailable when the database is away."""

    def __init__(self, pool: ConnectionPool[Any], files: Files, derive: Derive) -> None:
        self._pool, self._files, self._derive = pool, files, derive
        self._tables: OrderedDict[tuple[int, str], FrameTable] = OrderedDict()
        self._lock = threading.Lock()

    def locate(self, scope: Scope) -> list[StoredInstance]:
        """The instances of a scope, by series, instance number and UID. A study's superseded results are left out.

        Raises NotFound.
        """
        with transaction(self._pool) as connection:
            rows = connection.execute(SQL[f"locate_{_level(scope)}"], _names(scope)).fetchall()
        if not rows:
            raise _absent(scope)
        return sorted((StoredInstance(*row) for row in rows), key=_order)

    def open(self, instance: StoredInstance) -> BinaryIO:
        """The stored file. Raises Damaged when it is missing or cut, NotFound when it was deleted meanwhile."""
        return self._files.open(instance)

    def metadata(self, scope: Scope) -> Metadata:
        """The DICOM JSON of a scope's instances, in the order of `locate`. Raises NotFound; parts may raise Damaged."""
        with transaction(self._pool) as connection:
            row = connection.execute(SQL[f"digest_{_level(scope)}"], _names(scope)).fetchone()
        if row is None or row[0] is None:
            raise _absent(scope)
        return Metadata(row[0][:32], self._metadata(scope))

    def _metadata(self, scope: Scope) -> Iterator[bytes]:
        """Two queries for up to METADATA_AT_ONCE instances, and no file where all is derived."""
        with transaction(self._pool) as connection:
            rows = connection.execute(SQL[f"order_{_level(scope)}"], _names(scope)).fetchall()
        pks = [row[0] for row in sorted(rows, key=lambda row: _place(*row[1:]))]
        for start in range(0, len(pks), METADATA_AT_ONCE):
            yield from self._some_metadata(pks[start : start + METADATA_AT_ONCE])

    def _some_metadata(self, pks: Sequence[int]) -> Iterator[bytes]:
        with transaction(self._pool) as connection:
            kept = dict(connection.execute(SQL["metadata"], {"pks": pks}, binary=True).fetchall())
            lacking = [pk for pk in pks if pk not in kept]
            rows = connection.execute(SQL["by_pk"], {"pks": lacking}).fetchall() if lacking else []
        found = {row[0]: StoredInstance(*row) for row in rows}
        fresh = self._derive.ensure(found[pk] for pk in lacking if pk in found)
        for pk in pks:
            if pk in kept:
                yield zlib.decompress(kept.pop(pk))
            elif pk in found:  # else it was deleted meanwhile
                yield next(fresh).metadata
        for _ in fresh:  # nothing is left, but what was derived is kept now
            pass

    def frames(self, instance: StoredInstance, numbers: Sequence[int]) -> Frames:
        """Frames by their numbers from 1, in the order asked for. Raises NotFound, Damaged."""
        table = self._table(instance)
        try:
            for number in numbers:
                table.ranges(number)
        except NoSuchFrame as error:
            raise NotFound(f"Frames cannot be given: {error}.") from error
        file = self.open(instance)
        return Frames(table.transfer_syntax_uid, table.description, _read(file, table, numbers))

    def table(self, instance: StoredInstance) -> FrameTable:
        """The frame table of an instance. Raises NotFound, Damaged."""
        return self._table(instance)

    def _table(self, instance: StoredInstance) -> FrameTable:
        key = (instance.pk, instance.object_name)
        with self._lock:
            if key in self._tables:
                self._tables.move_to_end(key)
                return self._tables[key]
        with transaction(self._pool) as connection:
            row = connection.execute(SQL["frames"], {"pk": instance.pk}, binary=True).fetchone()
        if row is None:
            [derived] = self._derive.ensure([instance])
            table = derived.frames
        else:
            table = FrameTable.decode(zlib.decompress(row[0]))
        with self._lock:
            self._tables[key] = table
            while len(self._tables) > TABLES_KEPT:
                self._tables.popitem(last=False)
        return table

    def bulk(self, instance: StoredInstance, path: str) -> Bulk:
        """The element at "tag" or "sequence tag/item number/tag" of a BulkDataURI. Raises NotFound, Damaged."""
        file = self.open(instance)
        try:
            with self._files.view(instance) as view:
                element = bulk.element_at(admit(view, nested=True), view, path)
        except bulk.NoSuchElement as error:
            file.close()
            raise NotFound(f"There is no bulk data here: {error}.") from error
        except Inadmissible as error:
            file.close()
            raise Damaged(f"The file of this object cannot be read: {error.message}.") from error
        return Bulk(element.media_type, element.size, _parts(file, element))


def _level(scope: Scope) -> str:
    return scope.level.name.lower()


def _names(scope: Scope) -> dict[str, str | None]:
    return {
        "study_uid": scope.study_uid,
        "series_uid": scope.series_uid,
        "sop_instance_uid": scope.sop_instance_uid,
    }


def _absent(scope: Scope) -> NotFound:
    return NotFound(f"No such {_level(scope)} is stored here.")


def _order(instance: StoredInstance) -> tuple[float, str, float, str]:
    return _place(instance.series_number, instance.series_uid, instance.instance_number, instance.sop_instance_uid)


def _place(series_number: str, series_uid: str, instance_number: str, uid: str) -> tuple[float, str, float, str]:
    return _number(series_number), series_uid, _number(instance_number), uid


def _number(text: str) -> float:
    """A number to sort by; what is none comes last."""
    try:
        return float(text)
    except ValueError:
        return float("inf")


def _read(file: BinaryIO, table: FrameTable, numbers: Sequence[int]) -> Iterator[bytes]:
    with file:
        pread = reader(file, inflated=table.inflated)
        for number in numbers:
            yield table.read(number, pread)


def _parts(file: BinaryIO, element: bulk.BulkElement) -> Iterator[bytes]:
    with file:
        yield from element.parts(reader(file, inflated=element.inflated))
