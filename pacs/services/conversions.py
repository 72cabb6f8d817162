"""Stored objects in other transfer syntaxes, for WADO: made once for all who ask at the same time, and kept for a day.

What is small enough is made whole before the answer begins: its length is known, ranges of it can be given, and what
cannot be converted is told by a status instead of a broken connection.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from pacs.domain.encoders import ENCODERS
from pacs.domain.syntaxes import SYNTAXES
from pacs.services.cache import Cache
from pacs.services.decoders import Decoders
from pacs.services.instances import Files, StoredInstance
from pacs.services.recode import TARGETS, recoded

if TYPE_CHECKING:
    from pacs.services.retrieve import Retrieve

WHOLE_BYTES = 256 << 20  # of decoded frames; larger objects stream as they are converted
VERSION = "1"  # raised when the same object is converted otherwise than before


@dataclass(frozen=True, slots=True)
class Converted:
    """A converted object: a whole file of `size` bytes to be closed, or chunks that are made while they are taken."""

    file: BinaryIO | None
    chunks: Iterator[bytes]
    size: int = 0


class Conversions:
    """Thread-safe."""

    def __init__(self, retrieve: "Retrieve", files: Files, decoders: Decoders, cache: Cache) -> None:
        self._retrieve, self._files, self._decoders, self._cache = retrieve, files, decoders, cache

    def open(self, instance: StoredInstance, target: str, quality: int) -> Converted:
        """The object as a file of the transfer syntax `target`, one of `recode.TARGETS`.

        Raises NotAcceptable where it has no form in it, Damaged, NotFound, Unavailable; for what streams, the chunks
        raise Damaged at a frame that turns out damaged.
        """
        if not self._is_kept(instance, target):
            return Converted(None, self._chunks(instance, target, quality))
        lossy = target in ENCODERS and ENCODERS[target].lossy
        name = f"{instance.sha256}-{target}-{quality if lossy else 0}-{VERSION}"
        try:
            file = self._cache.get(name, lambda: self._chunks(instance, target, quality))
        except OSError:  # of the disk behind the cache; nobody needs it for an answer
            return Converted(None, self._chunks(instance, target, quality))
        return Converted(file, iter(()), os.fstat(file.fileno()).st_size)

    def _is_kept(self, instance: StoredInstance, target: str) -> bool:
        """Whether frames are decoded or coded for it: all else is faster than a look into the cache."""
        syntax = SYNTAXES.get(instance.transfer_syntax_uid)
        costs = target in ENCODERS or (syntax is not None and syntax.encapsulated)
        if not costs or instance.number_of_frames == 0:
            return False
        about = self._retrieve.table(instance).description
        frame = about.rows * about.columns * about.samples_per_pixel * max(about.bits_allocated, 8) // 8
        size = frame * instance.number_of_frames
        return size <= WHOLE_BYTES and self._cache.takes(size)

    def _chunks(self, instance: StoredInstance, target: str, quality: int) -> Iterator[bytes]:
        with self._files.open(instance) as file:
            yield from recoded(
                file,
                instance,
                target,
                decode=self._decoders.decode,
                recode=self._decoders.recode,
                quality=quality,
            )


__all__ = ["TARGETS", "Conversions", "Converted"]
