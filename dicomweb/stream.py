"""Answers that are read while they are sent: blocks from a thread, validators, ranges, and nothing for HEAD."""

import itertools
import re
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from typing import BinaryIO, TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread
from starlette.responses import Response, StreamingResponse

T = TypeVar("T")

BLOCK = 512 * 1024  # bytes joined before they cross from the thread to the loop
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


class Workshop:
    """Threads for what decodes, converts and draws: such calls wait for each other, never those who only read."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._limiter: CapacityLimiter | None = None

    @property
    def limiter(self) -> CapacityLimiter:
        """That of the loop that runs."""
        if self._limiter is None:
            self._limiter = CapacityLimiter(self._at_once)
        return self._limiter

    async def run(self, call: Callable[[], T]) -> T:
        """A call that costs, in one of these threads."""
        return await to_thread.run_sync(call, limiter=self.limiter)


class Streamed(StreamingResponse):
    """A body of blocks made in a thread. When the client goes, the iterator is closed and reads no further.

    `shop`: where the blocks are made, if they cost more than reading.
    """

    def __init__(
        self,
        chunks: Iterator[bytes],
        *,
        media_type: str,
        status: int = 200,
        length: int | None = None,
        headers: Mapping[str, str] | None = None,
        shop: Workshop | None = None,
    ) -> None:
        known = {} if length is None else {"content-length": str(length)}
        self.chunks = blocks(chunks)
        super().__init__(in_thread(self.chunks, shop), status, {**(headers or {}), **known}, media_type)
        self.headers["content-type"] = media_type  # as it is: no charset is added


def bare(answer: Response) -> Response:
    """The head of another answer, for HEAD: same status, same headers, nothing read."""
    head = Response(status_code=answer.status_code)
    head.raw_headers = answer.raw_headers
    if isinstance(answer, Streamed):
        answer.chunks.close()
    return head


def blocks(chunks: Iterable[bytes], size: int = BLOCK) -> Generator[bytes, None, None]:
    """The same bytes in pieces of at least `size`, but for the last."""
    held: list[bytes] = []
    length = 0
    try:
        for chunk in chunks:
            held.append(chunk)
            length += len(chunk)
            if length >= size:
                yield b"".join(held) if len(held) > 1 else chunk
                held, length = [], 0
        if held:
            yield b"".join(held)
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()


async def in_thread(chunks: Generator[bytes, None, None], shop: Workshop | None = None) -> AsyncIterator[bytes]:
    """Each block fetched in a worker thread; closing this closes `chunks`."""
    limiter = None if shop is None else shop.limiter
    try:
        while (block := await to_thread.run_sync(next, chunks, None, limiter=limiter)) is not None:
            yield block
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(chunks.close)


def read(file: BinaryIO, start: int = 0, length: int | None = None, size: int = BLOCK) -> Iterator[bytes]:
    """The bytes of a file from `start`, all or `length` of them; the file is closed at the end, or earlier."""
    with closing(file):
        file.seek(start)
        left = length
        while left is None or left > 0:
            chunk = file.read(size if left is None else min(size, left))
            if not chunk:
                if left:
                    raise OSError("a stored file is shorter than the index says")
                return
            left = None if left is None else left - len(chunk)
            yield chunk


def begun(items: Iterator[T]) -> Iterator[T]:
    """The same items, the first of them made already: what cannot be opened or converted fails before the answer."""
    return itertools.chain(list(itertools.islice(items, 1)), items)


def etag(*parts: str, weak: bool = False) -> str:
    """A validator of these texts."""
    return f'{"W/" if weak else ""}"{"-".join(parts)}"'


def unchanged(headers: Mapping[str, str], tag: str) -> bool:
    """Whether If-None-Match names this validator (RFC 9110 13.1.2, weak comparison)."""
    given = headers.get("if-none-match", "").strip()
    return given == "*" or tag.removeprefix("W/") in {item.strip().removeprefix("W/") for item in given.split(",")}


def not_modified(tag: str, **headers: str) -> Response:
    """304 with the validator."""
    return Response(status_code=304, headers={"etag": tag, "cache-control": "private", **headers})


def wanted_range(headers: Mapping[str, str], size: int, tag: str) -> range | None:
    """The one byte range that is asked for: None for all, an empty range where it cannot be satisfied (RFC 9110 14).

    Several ranges, other units and an If-Range of another validator ask for all.
    """
    match = _RANGE.fullmatch(headers.get("range", "").replace(" ", ""))
    if match is None or headers.get("if-range", tag) != tag or not (match[1] or match[2]):
        return None
    if not match[1]:
        return range(max(size - int(match[2]), 0), size)
    start, end = int(match[1]), min(int(match[2]) + 1 if match[2] else size, size)
    if match[2] and int(match[2]) < start:
        return None
    return range(start, end) if start < size else range(0)


def unsatisfiable(size: int) -> Response:
    """416, saying how long the whole is."""
    return Response(status_code=416, headers={"content-range": f"bytes */{size}"})
