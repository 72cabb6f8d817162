"""Stored objects in a compressed transfer syntax: every frame coded anew, the labels of the top level with it.

Attributes go as `pacs.services.transcode` writes them; pixel data becomes one fragment a frame behind an empty Basic
Offset Table, so that nothing but one frame is held (PS3.5 A.4).
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from pacs.domain import encoders, frames, pixels
from pacs.domain.admission import Admitted, Bytes
from pacs.domain.encoders import Encoded
from pacs.domain.frames import Description, FrameTable
from pacs.domain.header import declared_frames
from pacs.domain.structure import PIXEL_DATA
from pacs.domain.syntaxes import DEFLATED_LE, EXPLICIT_LE, RLE
from pacs.errors import Damaged, NotAcceptable
from pacs.services import part10, transcode
from pacs.services.transcode import Decode, Instance, Replacement, Rewriting

Recode = Callable[[bytes, Description, str, str, int], Encoded]

RATIO, METHOD = 0x00282112, 0x00282114
JPEG_METHOD = "ISO_10918_1"
TARGETS = frozenset({EXPLICIT_LE, DEFLATED_LE, *encoders.ENCODERS})  # what objects can be rewritten in


def recoded(
    file: BinaryIO, instance: Instance, target: str, *, decode: Decode, recode: Recode, quality: int
) -> Iterator[bytes]:
    """The whole object as a file of one of TARGETS, in chunks; an object without pixel data only changes its syntax.

    Raises as `transcode.explicit_le` does, and NotAcceptable where a frame has no form in the transfer syntax.
    """
    if target == EXPLICIT_LE:
        return transcode.explicit_le(file, instance, decode=decode)
    source, admitted = transcode.walked(file, instance)
    head = part10.head(
        instance.sop_class_uid, instance.sop_instance_uid, target, admitted.meta.get(transcode.SOURCE_AE, "")
    )
    if target == DEFLATED_LE:
        plain = transcode.native_data_set(file, instance, explicit=True, decode=decode)
        return transcode.gathered([head], _deflated(plain))
    whole = source if admitted.data is None else admitted.data
    return transcode.gathered([head], _Encapsulating(whole, admitted, decode, recode, target, quality).run())


def _deflated(chunks: Iterable[bytes]) -> Iterator[bytes]:
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    size = 0
    for chunk in chunks:
        made = squeeze.compress(chunk)
        size += len(made)
        yield made
    last = squeeze.flush()
    yield last + b"\0" * ((size + len(last)) % 2)


class _Encapsulating(Rewriting):
    """One object being rewritten with compressed pixel data."""

    def __init__(  # noqa: PLR0917 - what an object needs to be rewritten, in the order of Rewriting
        self, source: Bytes, admitted: Admitted, decode: Decode, recode: Recode, target: str, quality: int
    ) -> None:
        self.recode, self.target, self.quality = recode, target, quality
        super().__init__(source, admitted, decode)

    def replaced_pixels(self) -> dict[int, Replacement]:
        """Pixel data and the elements that describe it; none where the object has no pixel data."""
        table = frames.table(self.admitted, self.source)
        if self.admitted.pixel_data is None:
            return {}
        if self.syntax is not None and not self.syntax.decodable:
            raise NotAcceptable(f"Objects of transfer syntax {self.syntax.name} are served only as they are stored.")
        if table.number_of_frames == 0 or table.number_of_frames != declared_frames(self.reader, self.top):
            raise NotAcceptable("The object does not hold the frames that it says it has; transfer-syntax=* gives it.")
        first = self._frame(table, 1)
        made = {
            PIXEL_DATA: Replacement("OB", transcode.UNDEFINED, self._items(table, first)),
            transcode.PHOTOMETRIC: transcode.text_of("CS", first.photometric_interpretation),
        }
        if table.description.samples_per_pixel > 1:
            made[transcode.PLANAR] = Replacement("US", 2, [b"\1\0" if self.target == RLE else b"\0\0"])
        if encoders.ENCODERS[self.target].lossy:
            made |= self._loss(table, first)
        elif transcode.is_surely_lossy(self.syntax) and transcode.LOSSY not in self.top.elements:
            made[transcode.LOSSY] = transcode.text_of("CS", "01")
        return made

    def _frame(self, table: FrameTable, number: int) -> Encoded:
        try:
            stream = table.read(number, lambda offset, length: bytes(self.view[offset : offset + length]))
            source = table.transfer_syntax_uid if table.encapsulated else ""
            return self.recode(stream, table.description, source, self.target, self.quality)
        except (pixels.Undecodable, encoders.Unencodable, frames.NoSuchFrame) as reason:
            raise NotAcceptable(f"A frame has no form in the transfer syntax that was asked for: {reason}.") from None

    def _items(self, table: FrameTable, first: Encoded) -> Iterator[bytes]:
        """An empty offset table, one item a frame, and the end of the sequence."""
        yield transcode.item_head(0)
        for number in range(1, table.number_of_frames + 1):
            try:
                made = first if number == 1 else self._frame(table, number)
            except NotAcceptable as error:
                raise Damaged(f"Frame {number}: {error.message}") from error
            if made.photometric_interpretation != first.photometric_interpretation:
                raise Damaged(f"Frame {number} is in another colour space than the first.")
            odd = len(made.stream) % 2
            yield transcode.item_head(len(made.stream) + odd)
            yield made.stream + b"\0" * odd
        yield transcode.SEQUENCE_ENDS

    def _loss(self, table: FrameTable, first: Encoded) -> dict[int, Replacement]:
        """That something was lost, how much smaller it became and how, beside earlier losses (C.7.6.1.1.5)."""
        about = table.description
        size = about.rows * about.columns * about.samples_per_pixel * about.bits_allocated // 8
        return {
            transcode.LOSSY: transcode.text_of("CS", "01"),
            RATIO: self._appended(RATIO, "DS", f"{size / len(first.stream):.4g}"),
            METHOD: self._appended(METHOD, "CS", JPEG_METHOD),
        }

    def _appended(self, tag: int, vr: str, value: str) -> Replacement:
        known = self.top.elements.get(tag)
        before = "" if known is None else self.reader.raw(known, 1024).decode("ascii", "replace").strip(" \0")
        return transcode.text_of(vr, f"{before}\\{value}" if before else value)
