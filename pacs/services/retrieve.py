"""Giving out what is stored: which instances a scope holds, their files, metadata, frames and bulk data."""

import hashlib
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import psycopg
from psycopg_pool import ConnectionPool

from pacs.domain import bulk
from pacs.domain.admission import Inadmissible, admit
from pacs.domain.frames import Description, FrameTable, NoSuchFrame
from pacs.domain.levels import Level, Scope
from pacs.errors import Damaged, NotFound, Unavailable
from pacs.index.named import queries
from pacs.services.derive import Derive
from pacs.services.instances import Files, StoredInstance, reader

__all__ = ["Bulk", "Frames", "Metadata", "Retrieve", "StoredInstance"]

SQL = queries("retrieve")
LOCATE = {Level.STUDY: "locate_study", Level.SERIES: "locate_series", Level.INSTANCE: "locate_instance"}
METADATA_AT_ONCE = 500
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

    @contextmanager
    def _database(self) -> "Iterator[psycopg.Connection[Any]]":
        try:
            with self._pool.connection() as connection:
                yield connection
        except psycopg.Error as error:
            raise Unavailable("The database does not answer; see /ready.") from error

    def locate(self, scope: Scope) -> list[StoredInstance]:
        """The instances of a scope, by series, instance number and UID. A study's superseded results are left out.

        Raises NotFound.
        """
        names = {
            "study_uid": scope.study_uid,
            "series_uid": scope.series_uid,
            "sop_instance_uid": scope.sop_instance_uid,
        }
        with self._database() as connection:
            rows = connection.execute(SQL[LOCATE[scope.level]], names).fetchall()
        if not rows:
            raise NotFound(f"No such {scope.level.name.lower()} is stored here.")
        return sorted((StoredInstance(*row) for row in rows), key=_order)

    def open(self, instance: StoredInstance) -> BinaryIO:
        """The stored file. Raises Damaged when it is missing or cut, NotFound when it was deleted meanwhile."""
        return self._files.open(instance)

    def metadata(self, scope: Scope) -> Metadata:
        """The DICOM JSON of a scope's instances, in the order of `locate`. Raises NotFound; parts may raise Damaged."""
        instances = self.locate(scope)
        digest = hashlib.sha256()
        for instance in instances:
            digest.update(f"{instance.pk} {instance.sha256}\n".encode())
        return Metadata(digest.hexdigest()[:32], self._metadata(instances))

    def _metadata(self, instances: Sequence[StoredInstance]) -> Iterator[bytes]:
        for start in range(0, len(instances), METADATA_AT_ONCE):
            some = instances[start : start + METADATA_AT_ONCE]
            with self._database() as connection:
                kept = dict(connection.execute(SQL["metadata"], {"pks": [i.pk for i in some]}).fetchall())
            # a list: by the time a lazy one is asked, `kept` has been emptied below
            fresh = self._derive.ensure([instance for instance in some if instance.pk not in kept])
            for instance in some:
                packed = kept.pop(instance.pk, None)
                yield next(fresh).metadata if packed is None else zlib.decompress(packed)
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
        with self._database() as connection:
            row = connection.execute(SQL["frames"], {"pk": instance.pk}).fetchone()
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


def _order(instance: StoredInstance) -> tuple[float, str, float, str]:
    return (
        _number(instance.series_number),
        instance.series_uid,
        _number(instance.instance_number),
        instance.sop_instance_uid,
    )


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
