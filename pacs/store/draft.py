"""One file of the local store while it is written. Small ones stay in memory until they are published."""

import contextlib
import errno
import hashlib
import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pacs.store.base import Bytes, StoreFailed, StoreFull
from pacs.store.holding import create_held

if TYPE_CHECKING:
    from pacs.store.local import LocalStore

IN_MEMORY = 1 << 20  # bytes of an object that are held before they go to disk
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
PREAMBLE_BYTES = 132
META_LENGTH = bytes.fromhex("02000000554c0400")  # (0002,0000) UL, 4 bytes long


class LocalDraft:
    """See `pacs.store.base.Draft`. One thread at a time."""

    def __init__(self, store: "LocalStore") -> None:
        self.size = 0
        self._store = store
        self._memory = bytearray()
        self._file = -1
        self._path: Path | None = None
        self._name = ""
        self._whole = hashlib.sha256()
        self._data = hashlib.sha256()
        self._data_offset = 0  # as the file's head says; only known once the file is on disk

    @property
    def in_memory(self) -> bool:
        """Whether all bytes are held, so that they can be read while the file goes to disk."""
        return bool(self._memory)

    def write(self, chunk: Bytes) -> None:
        self.size += len(chunk)
        if self._file >= 0:
            self._append(chunk)
            return
        self._memory += chunk
        if len(self._memory) > IN_MEMORY:
            self._spill()

    def _spill(self) -> None:
        """From now on the bytes go to disk as they come, and are hashed on their way."""
        head, self._memory = self._memory, bytearray()
        self._data_offset = sniffed_data_offset(head)
        self._create()
        self._whole.update(head)
        self._data.update(memoryview(head)[self._data_offset :])
        self._put(head)

    def _append(self, chunk: Bytes) -> None:
        self._whole.update(chunk)
        self._data.update(chunk)
        self._put(chunk)

    def _create(self) -> None:
        try:
            self._path = self._store.staging_path()
            self._file = create_held(self._path)
        except OSError as error:
            raise self._store.failed(error) from error

    def _put(self, chunk: Bytes) -> None:
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            raise self._store.failed(error) from error

    def view(self) -> memoryview:
        if self._memory or self._file < 0:
            return memoryview(self._memory).toreadonly()
        return memoryview(mmap.mmap(self._file, self.size, prot=mmap.PROT_READ))

    def digests(self, data_offset: int) -> tuple[bytes, bytes]:
        if self._memory or self._file < 0:
            memory = memoryview(self._memory)
            return hashlib.sha256(memory).digest(), hashlib.sha256(memory[data_offset:]).digest()
        if data_offset != self._data_offset:  # the head lied about its length, or has none
            with self.view() as view:
                return self._whole.digest(), hashlib.sha256(view[data_offset:]).digest()
        return self._whole.digest(), self._data.digest()

    def publish(self) -> str:
        self._name = self._name or (self._rename() if self._file >= 0 else self._fill())
        return self._name

    def _fill(self) -> str:
        """A small object goes into a blank."""
        try:
            self._store.prepare()
            blank = self._store.blanks.take()
        except OSError as error:
            raise self._store.failed(error) from error
        self._file, self._path = blank.file, blank.path
        self._put(self._memory)
        return blank.name

    def _rename(self) -> str:
        try:
            name = self._store.blanks.name()
            target = self._store.path(name)
            os.rename(self._path or "", target)
        except OSError as error:
            raise self._store.failed(error) from error
        self._path = target
        return name

    def settle(self) -> None:
        assert self._path is not None
        try:
            os.fsync(self._file)
            # a blank's folder is clean by now and its fsync nearly free; a renamed file's is not
            self._store.sync_folder(self._path.parent)
            if os.fstat(self._file).st_nlink == 0:
                raise OSError(errno.ENOENT, "the file was removed while it was written")
        except OSError as error:  # final: a second fsync may report success for pages that were dropped
            self.discard()
            raise self._store.failed(error) from error

    def discard(self) -> None:
        self.close()
        path, self._path = self._path, None
        if path is not None:
            with contextlib.suppress(OSError):
                path.unlink()

    def close(self) -> None:
        self._memory = bytearray()
        file, self._file = self._file, -1
        if file >= 0:
            with contextlib.suppress(OSError):
                os.close(file)


def translated(error: OSError) -> StoreFull | StoreFailed:
    """The store's exception for one of the file system."""
    kind = StoreFull if error.errno in NO_SPACE else StoreFailed
    return kind(errno.errorcode.get(error.errno or 0, type(error).__name__))


def sniffed_data_offset(head: Bytes) -> int:
    """Where the data set of a Part 10 file begins, from its group length (PS3.10 7.1); 0 where there is none."""
    length = bytes(head[PREAMBLE_BYTES : PREAMBLE_BYTES + 12])
    if not length.startswith(META_LENGTH):
        return 0
    offset = PREAMBLE_BYTES + 12 + int.from_bytes(length[8:], "little")
    return offset if offset <= len(head) else 0
