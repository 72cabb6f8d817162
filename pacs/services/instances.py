"""A stored instance: the row that names its object, and its file opened for reading."""

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from psycopg_pool import ConnectionPool

from pacs.domain.admission import Admitted, admit
from pacs.errors import Damaged, NotFound
from pacs.index.named import queries
from pacs.index.pool import transaction
from pacs.services.findings import MISSING_FILE, Findings
from pacs.store.base import Store

SQL = queries("retrieve")
Pread = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """One instance and the object that holds it. `number_of_frames` is 0 without pixel data; digests in hex."""

    pk: int
    study_uid: str
    series_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    number_of_frames: int
    object_name: str
    size: int
    data_offset: int
    sha256: str
    data_sha256: str
    series_number: str = ""
    instance_number: str = ""


class Files:
    """Opens the files of instances. Where one is missing or cut the finding is recorded, and the reader is told."""

    def __init__(self, pool: ConnectionPool[Any], store: Store, findings: Findings) -> None:
        self._pool, self._store, self._findings = pool, store, findings

    def open(self, instance: StoredInstance) -> BinaryIO:
        """The object's file, unbuffered. Raises Damaged, Unavailable; NotFound when it was deleted meanwhile."""
        try:
            file = self._store.open(instance.object_name)
        except FileNotFoundError:
            file = self._other(instance)
        found = os.fstat(file.fileno()).st_size
        if found != instance.size:
            file.close()
            raise self._damaged(instance, f"The file of this object has {found} bytes instead of {instance.size}.")
        return file

    def _other(self, instance: StoredInstance) -> BinaryIO:
        """The instance may have gone, or have moved to another object, since its row was read."""
        with transaction(self._pool) as connection:
            names = {"sop_instance_uid": instance.sop_instance_uid}
            row = connection.execute(SQL["current_object"], names).fetchone()
        if row is None:
            raise NotFound("The instance has been deleted.")
        if row[0] != instance.object_name:
            raise NotFound("The instance has been replaced while it was read; ask again.")
        raise self._damaged(instance, "The file of this object is missing.")

    def _damaged(self, instance: StoredInstance, message: str) -> Damaged:
        self._findings.add(MISSING_FILE, instance.object_name, message, instance.sop_instance_uid)
        return Damaged(f"{message} Restore it from a backup, or store the object again.")

    def view(self, instance: StoredInstance) -> memoryview:
        """The whole file, mapped. Raises as `open` does."""
        with self.open(instance) as file:
            return memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))


def reader(file: BinaryIO, *, inflated: bool) -> Pread:
    """Reads places of a file, or of the data set inflated from it. Short reads raise Damaged."""
    if inflated:
        data = inflate(file)
        return lambda offset, length: data[offset : offset + length]
    number = file.fileno()

    def pread(offset: int, length: int) -> bytes:
        parts = []
        while length > 0:
            part = os.pread(number, length, offset)
            if not part:
                raise Damaged("The file of this object ends too early; restore it from a backup.")
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    return pread


def inflate(file: BinaryIO) -> bytes:
    """The data set of a deflated object."""
    with memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)) as view:
        admitted: Admitted = admit(view)
    return admitted.data or b""
