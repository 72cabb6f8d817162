"""multipart/related without any I/O (PS3.18 8.6.1.2; RFC 2046 5.1, RFC 2387): bytes in, events out; and part framing.

The reader stands on python-multipart's low-level scanner. Around it: text before the first boundary is skipped, header
bytes of a part are limited as a whole, and a body that stops before its closing boundary is an error.
"""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from pacs.errors import BadRequest

MAX_BOUNDARY = 70  # RFC 2046 5.1.1
MAX_PART_HEADERS = 16 * 1024  # bytes, all headers of one part
MAX_PREAMBLE = 64 * 1024


@dataclass(frozen=True, slots=True)
class PartBegin:
    """A part's headers are complete; names in lower case, the first of a name wins."""

    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class PartData:
    """Bytes of the part begun last; valid until the reader is fed again."""

    data: memoryview


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The part begun last is whole."""


Event = PartBegin | PartData | PartEnd


class Reader:
    """Feed it a body's chunks in order; it gives the events of their parts. Memory is bounded by one chunk.

    Raises BadRequest for a boundary, a header or a body that breaks the framing, after all events before the break
    have been given: parts that were whole stay whole.
    """

    def __init__(self, boundary: str) -> None:
        if not boundary or len(boundary) > MAX_BOUNDARY or not boundary.isascii() or not boundary.isprintable():
            raise BadRequest("The multipart boundary must have 1 to 70 printable ASCII characters.")
        self._opening = b"--" + boundary.encode("ascii")
        self._preamble: bytes | None = b""
        self._broken: BadRequest | None = None
        self._scan = _Scan()
        self._parser = MultipartParser(
            boundary.encode("ascii"),
            cast("dict[str, Callable[..., None]]", self._scan.callbacks()),  # type: ignore[arg-type]
            max_header_size=MAX_PART_HEADERS,
        )

    @property
    def complete(self) -> bool:
        """The closing boundary was seen."""
        return self._scan.ended

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that this chunk completes."""
        if self._broken is not None:
            raise self._broken
        chunk = self._after_preamble(chunk)
        try:
            self._parser.write(chunk)
        except FormParserError:
            self._broken = BadRequest("The multipart body breaks the framing of RFC 2046.")
        events = self._scan.take()
        if self._broken is not None and not events:
            raise self._broken
        return events

    def close(self) -> None:
        """The body is at its end. Raises BadRequest where the closing boundary is missing."""
        if self._broken is not None:
            raise self._broken
        if not self.complete:
            raise BadRequest("The multipart body ends without its closing boundary; its last part was not stored.")

    def _after_preamble(self, chunk: bytes) -> bytes:
        """What RFC 2046 lets stand before the first boundary (a line break, a note for people) is not for us."""
        if self._preamble is None:
            return chunk
        held = self._preamble + chunk
        place = _line_start(held, self._opening)
        if place >= 0:
            self._preamble = None
            return held[place:]
        if len(held) > MAX_PREAMBLE:
            raise BadRequest("The multipart body does not begin with the boundary that Content-Type names.")
        self._preamble = held
        return b""


def _line_start(held: bytes, opening: bytes) -> int:
    """Where `opening` stands at the beginning of a line, or -1."""
    if held.startswith(opening):
        return 0
    place = held.find(b"\n" + opening)
    return place + 1 if place >= 0 else -1


@dataclass(slots=True)
class _Scan:
    """Gathers what the scanner calls back into events."""

    events: list[Event] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    name: bytes = b""
    value: bytes = b""
    header_bytes: int = 0
    ended: bool = False

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self.part_begin,
            "on_header_field": self.header_field,
            "on_header_value": self.header_value,
            "on_header_end": self.header_end,
            "on_headers_finished": self.headers_finished,
            "on_part_data": self.part_data,
            "on_part_end": self.part_end,
            "on_end": self.end,
        }

    def take(self) -> list[Event]:
        taken, self.events = self.events, []
        return taken

    def part_begin(self) -> None:
        self.headers, self.name, self.value, self.header_bytes = {}, b"", b"", 0

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self.name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self.value += data[start:end]

    def header_end(self) -> None:
        name = self.name.decode("ascii", "replace").lower()
        self.headers.setdefault(name, self.value.decode("latin-1").strip())
        self.name, self.value = b"", b""

    def headers_finished(self) -> None:
        self.events.append(PartBegin(self.headers))

    def part_data(self, data: bytes, start: int, end: int) -> None:
        if end > start:
            self.events.append(PartData(memoryview(data)[start:end]))

    def part_end(self) -> None:
        self.events.append(PartEnd())

    def end(self) -> None:
        self.ended = True

    def _count(self, size: int) -> None:
        self.header_bytes += size
        if self.header_bytes > MAX_PART_HEADERS:
            raise FormParserError("part headers too long")


@dataclass(frozen=True, slots=True)
class Writer:
    """Frames parts for one response. The boundary is random: pixel bytes cannot hold it but by a miracle."""

    media_type: str
    boundary: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def content_type(self) -> str:
        """The response's Content-Type: `type` is the bare media type, the boundary a plain token."""
        return f'multipart/related; type="{self.media_type}"; boundary={self.boundary}'

    def opening(self, content_type: str, *, location: str = "") -> bytes:
        """What stands before a part's bytes: Content-Type comes first, some readers look at nothing else."""
        lines = [f"--{self.boundary}", f"Content-Type: {content_type}"]
        if location:
            lines.append(f"Content-Location: {location}")
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    @property
    def ending(self) -> bytes:
        """What stands after a part's bytes."""
        return b"\r\n"

    @property
    def closing(self) -> bytes:
        """What stands after the last part."""
        return f"--{self.boundary}--\r\n".encode("ascii")


def frame(writer: Writer, parts: Iterator[tuple[str, str, Iterator[bytes]]]) -> Iterator[bytes]:
    """A whole body of `(content type, location or empty, chunks)` parts, chunk by chunk."""
    for content_type, location, chunks in parts:
        yield writer.opening(content_type, location=location)
        yield from chunks
        yield writer.ending
    yield writer.closing
