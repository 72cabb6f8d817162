"""HTTP/1.1 on httptools with limits that uvicorn leaves to a proxy: how long and how slow a request's head may be."""

import asyncio
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

HEAD_BYTES = 32 * 1024  # request line and headers
HEAD_SECONDS = 20.0
LINGER_SECONDS = 2.0
PROBLEMS = {
    400: ("bad-request", "This is not HTTP/1.1."),
    408: ("too-slow", "The request's head came too slowly."),
    431: ("too-large", f"The request's head is larger than {HEAD_BYTES} bytes."),
}


class TooLong(Exception):
    """Raised inside the parser's callbacks; it makes the parser stop."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection. A silent or dripping client is closed after `HEAD_SECONDS`."""

    _head = 0  # bytes of the head that the parser has told
    _unparsed = 0  # bytes that came for this head so far, told or not
    _in_head = True
    _refusal = 400
    _refused = False
    _spoken = False  # the client has begun a request
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_here()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self._in_head and self._deadline is not None and not self.transport.is_closing():
            # a header that never ends is never told: what came counts by itself
            self._unparsed += len(data)
            if self._unparsed > HEAD_BYTES:
                self._refuse(431)

    def on_message_begin(self) -> None:
        self._spoken = True
        super().on_message_begin()
        self._expect_head()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count(len(name) + len(value) + 4)

    def on_headers_complete(self) -> None:
        self._head_is_here()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's words are not for clients
        self._refuse(self._refusal)

    def _count(self, size: int) -> None:
        self._head += size
        if self._head > HEAD_BYTES:
            self._refusal = 431
            raise TooLong

    def _expect_head(self) -> None:
        self._in_head, self._head, self._unparsed = True, 0, 0
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._refuse, 408)

    def _head_is_here(self) -> None:
        self._in_head = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self, status: int) -> None:
        """Say why, and close. A client that has said nothing yet is closed without a word.

        One that is still talking is listened to for a moment: closing at once would reset the connection under it.
        """
        self._head_is_here()
        if self.transport.is_closing() or self._refused:
            return
        self._refused = True
        if self._spoken:
            word, message = PROBLEMS[status]
            body = orjson.dumps({"error": word, "message": message, "request_id": ""})
            head: list[Any] = [
                STATUS_LINE[status],
                b"content-type: application/json\r\nconnection: close\r\n",
                b"content-length: %d\r\n\r\n" % len(body),
            ]
            self.transport.write(b"".join([*head, body]))
            self.transport.write_eof()
            self.loop.call_later(LINGER_SECONDS, self.transport.close)
        else:
            self.transport.close()
