"""Bulk data of an admitted object by the path of its BulkDataURI (PS3.18 10.4): where it lies and what it is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pacs.domain import values
from pacs.domain.admission import Admitted, Bytes
from pacs.domain.charsets import DEFAULT
from pacs.domain.jsonmodel import BITS_ALLOCATED, Reader
from pacs.domain.structure import PIXEL_DATA, Element, Item
from pacs.domain.syntaxes import OCTET_STREAM, SYNTAXES
from pacs.domain.values import Context

ENCAPSULATED_DOCUMENT, MIME_TYPE, DOCUMENT_LENGTH = 0x00420011, 0x00420012, 0x00420015
CHUNK = 1 << 20

# a peer's word decides the type of an answer only among these: nothing that a browser would run
_DOCUMENT_TYPES = frozenset({"application/pdf", "model/stl", "model/obj", "model/mtl", "application/sla"})

Pread = Callable[[int, int], bytes]


class NoSuchElement(LookupError):
    """The path names no element of the object, or one that has no value of its own."""


@dataclass(frozen=True, slots=True)
class BulkElement:
    """One element's value: `ranges` (offset, length) in the file, or in the inflated data set where `inflated`.

    `word` is the bytes of one number where the object is big endian, else 1.
    """

    vr: str
    media_type: str
    ranges: tuple[tuple[int, int], ...]
    word: int = 1
    inflated: bool = False

    @property
    def size(self) -> int:
        """Bytes of the whole value."""
        return sum(length for _offset, length in self.ranges)

    def parts(self, pread: Pread, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The value (or its bytes [start:stop]) little endian in chunks; `pread(offset, length)` reads the object."""
        stop = self.size if stop is None else min(stop, self.size)
        before = 0
        for offset, length in self.ranges:
            begin, end = max(start - before, 0), min(stop - before, length)
            aligned = begin // self.word * self.word
            for at in range(aligned, end, CHUNK):
                until = min(at + CHUNK, length)
                chunk = pread(offset + at, until - at)
                if self.word > 1:
                    chunk = values.turned(chunk, values.VR_OF_WORD[self.word], little=False)
                yield chunk[max(begin - at, 0) : end - at]
            before += length


def element_at(admitted: Admitted, buffer: Bytes, path: str) -> BulkElement:
    """The element at "tag" or "sequence tag/item number/tag", as `jsonmodel` names it in BulkDataURI.

    `admitted` with `nested=True`. Raises NoSuchElement, also for a malformed path.
    """
    with memoryview(buffer if admitted.data is None else admitted.data) as view, view.cast("B") as data:
        reader = Reader(data, admitted.encoding)
        item = Item(admitted.elements, admitted.encoding.little)
        context = reader.context(item, Context())
        steps = path.strip("/").split("/")
        for tag, number in zip(steps[:-1:2], steps[1::2], strict=False):
            item = _item(reader, item, tag, number)
            context = reader.context(item, context)
        element = item.elements.get(_tag(steps[-1]))
        if element is None or len(steps) % 2 == 0:
            raise NoSuchElement("the object has no element at this path")
        vr = reader.vr(element, item, context)
        if vr == "SQ" and reader.items(element) is not None:
            raise NoSuchElement("the element at this path is a sequence: its items have paths of their own")
        return _bulk(admitted, reader, item, element, vr)


def _item(reader: Reader, item: Item, tag: str, number: str) -> Item:
    element = item.elements.get(_tag(tag))
    items = None if element is None else reader.items(element)
    if items is None or not number.isdecimal() or not 1 <= int(number[:9]) <= len(items):
        raise NoSuchElement("the object has no item at this path")
    return items[int(number) - 1]


def _tag(text: str) -> int:
    try:
        return int(text, 16) if len(text) == 8 else -1
    except ValueError:
        return -1


def _bulk(admitted: Admitted, reader: Reader, item: Item, element: Element, vr: str) -> BulkElement:
    inflated = admitted.data is not None
    if element.fragments is not None:
        places = element.fragments[2:]
        ranges = tuple(zip(places[::2], places[1::2], strict=True))
        return BulkElement(vr, _media_type(admitted, reader, item, element), ranges, 1, inflated)
    length = element.length
    if element.tag == ENCAPSULATED_DOCUMENT and (declared := item.elements.get(DOCUMENT_LENGTH)) is not None:
        found = values.numbers(reader.raw(declared, 4), "UL", item.little)
        if found and 0 <= length - int(found[0]) <= 1:  # the value is padded to an even length
            length = int(found[0])
    word = 1 if reader.little(element, item) else values.WIDTHS.get(vr, 1)
    if element.tag == PIXEL_DATA and word > 1:
        word = max(word, reader.number(item.elements.get(BITS_ALLOCATED), item.little, 8) // 8)
    media_type = _media_type(admitted, reader, item, element)
    return BulkElement(vr, media_type, ((element.value_offset, length),), word, inflated)


def _media_type(admitted: Admitted, reader: Reader, item: Item, element: Element) -> str:
    if element.tag == ENCAPSULATED_DOCUMENT and (declared := item.elements.get(MIME_TYPE)) is not None:
        media_type = DEFAULT(reader.raw(declared, 128)).strip(" ").lower()
        return media_type if media_type in _DOCUMENT_TYPES else OCTET_STREAM
    syntax = SYNTAXES.get(admitted.transfer_syntax_uid)
    if element.tag == PIXEL_DATA and element.fragments is not None and syntax is not None:
        return syntax.media_type
    return OCTET_STREAM
