"""What stands before every handler: who may speak to us, how much, how slowly, and what is told of it.

An ASGI middleware. It gives each request an id, refuses foreign Hosts and Origins while nobody logs in, limits bodies
in size and in slowness, answers CORS, sets the headers of every answer, and turns what a handler lets slip into one
honest 500. Logs and metrics name routes, never paths' queries.
"""

import asyncio
import secrets
import time
from dataclasses import dataclass, field

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicomweb import problems, urls
from dicomweb.problems import TooSlow
from dicomweb.urls import split_host
from pacs.errors import BadRequest, FilmroomError, Forbidden, TooLarge
from pacs.settings import Settings, is_loopback
from pacs.telemetry import Metrics

log = structlog.get_logger("web")

SMALL_BODY = 1 << 20  # bytes; a handler that streams asks for more
BODY_GRACE_SECONDS = 30.0
BODY_LEAST_RATE = 4096  # bytes a second, over the whole body
LINGER_SECONDS, LINGER_BYTES = 5.0, 64 << 20
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
CORS_METHODS = ", ".join(METHODS)
CORS_REQUEST_HEADERS = "Accept, Authorization, Content-Type, If-None-Match, Range, X-CSRF-Token"
CORS_EXPOSED = "Content-Location, Content-Range, ETag, Location, Warning, X-Request-Id, X-Total-Count"
HSTS = "max-age=31536000"  # for those who came over TLS: they shall never come otherwise again
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'self'; form-action 'self'; base-uri 'none'"
    ),
    "cross-origin-resource-policy": "same-site",
    "referrer-policy": "same-origin",
}


@dataclass(slots=True)
class Exchange:
    """One request and its answer as the guard sees them."""

    request_id: str
    begun: float
    declared: int | None  # Content-Length, None where chunked or absent
    whole: bool  # nothing of the body is still to come
    secure: bool = False  # the client came over TLS, as far as we or a proxy that we trust can tell
    limit: int = SMALL_BODY
    received: int = 0
    waited: float = 0.0
    status: int = 0
    sent: int = 0
    headers: dict[str, str] = field(default_factory=dict)


def exchange(scope: Scope) -> Exchange:
    """The guard's view of this request."""
    found: Exchange = scope["state"]["exchange"]
    return found


class Guard:
    """Wraps the application. Nodes that ask for no login and are bound to loopback hear this machine only: loopback
    Hosts and Origins, and behind a proxy that we trust nobody from elsewhere."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self.app, self.settings = app, settings
        self.seconds = metrics.histogram(
            "filmroom_http_request_seconds", "Time to the end of the answer.", ("method", "route", "status")
        )
        self.local_only = settings.loopback_only and not settings.login_required

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        ours = _begin(scope, headers)
        origin = headers.get("origin", "")
        if origin in self.settings.cors_origins:
            ours.headers |= {
                "access-control-allow-origin": origin,
                "access-control-allow-credentials": "true",
                "access-control-expose-headers": CORS_EXPOSED,
                "vary": "Origin",
            }
        ours.secure = urls.base(HTTPConnection(scope), self.settings).startswith("https://")
        if ours.secure:
            ours.headers["strict-transport-security"] = HSTS
        try:
            await self._pass(scope, headers, _Receiving(receive, ours), _Sending(receive, send, ours))
        except ClientDisconnect:
            ours.status = ours.status or 499
        finally:
            self._told(scope, ours)

    async def _pass(self, scope: Scope, headers: Headers, receive: "_Receiving", send: "_Sending") -> None:
        """Through the gates to the application; whatever escapes it becomes a 500, or a broken connection."""
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await problems.of(refusal, send.ours.request_id)(scope, receive, send)
        elif scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await self._preflight(send)
        else:
            try:
                await self.app(scope, receive, send)
            except ClientDisconnect:
                raise
            except Exception as error:
                await self._slip(error, scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> FilmroomError | None:
        host, origin = headers.get("host", ""), headers.get("origin", "")
        named = split_host(host) if host else ("localhost", None)
        if named is None:
            return BadRequest("The Host header is malformed.")
        if not self.local_only:
            return None
        if not is_loopback(named[0].strip("[]")) or self._proxied(scope):
            return Forbidden(
                "This node serves its own machine only and was called from elsewhere, or by another name; use "
                "http://127.0.0.1, or set AUTH_MODE=required to open it."
            )
        if origin and origin not in self.settings.cors_origins and not _loopback_origin(origin):
            return Forbidden("A page of another origin may not call this node; name it in CORS_ORIGINS if it should.")
        return None

    def _proxied(self, scope: Scope) -> bool:
        """Whether a proxy that we trust tells of a client on another machine."""
        if not self.settings.trusted_proxies or scope.get("client") is None:
            return False
        return not is_loopback(urls.client(HTTPConnection(scope), self.settings))

    async def _preflight(self, send: "_Sending") -> None:
        allowed = {
            "access-control-allow-methods": CORS_METHODS,
            "access-control-allow-headers": CORS_REQUEST_HEADERS,
            "access-control-max-age": "600",
        }
        known = allowed if "access-control-allow-origin" in send.ours.headers else {}
        raw = [(name.encode(), value.encode()) for name, value in {"allow": CORS_METHODS, **known}.items()]
        await send({"type": "http.response.start", "status": 204, "headers": raw})
        await send({"type": "http.response.body"})

    async def _slip(self, error: Exception, scope: Scope, receive: Receive, send: "_Sending") -> None:
        ours = send.ours
        log.error("http_failed", request_id=ours.request_id, exc_info=error)
        if not ours.status:
            message = "Something went wrong here; the log has it under this request id."
            await problems.problem(500, "internal", message, ours.request_id)(scope, receive, send)
        # else: the answer has begun. It stays without its end, the connection closes, and the client knows.

    def _told(self, scope: Scope, ours: Exchange) -> None:
        route = getattr(scope.get("route"), "path", "none")
        seconds = time.perf_counter() - ours.begun
        method = scope["method"] if scope["method"] in METHODS else "other"
        self.seconds.labels(method, route, str(ours.status)).observe(seconds)
        log.info(
            "http_request",
            request_id=ours.request_id,
            method=method,
            route=route,
            status=ours.status,
            ms=round(seconds * 1000, 1),
            received=ours.received,
            sent=ours.sent,
        )


def _begin(scope: Scope, headers: Headers) -> Exchange:
    length = headers.get("content-length", "")
    declared = int(length) if length.isascii() and length.isdecimal() else None
    whole = declared in {None, 0} and "transfer-encoding" not in headers
    ours = Exchange(secrets.token_hex(8), time.perf_counter(), declared, whole)
    state = scope.setdefault("state", {})
    state["exchange"], state["request_id"] = ours, ours.request_id
    return ours


class _Receiving:
    """Receives with a limit of bytes and a least rate; only waiting for the client counts, not our own work."""

    def __init__(self, receive: Receive, ours: Exchange) -> None:
        self.receive, self.ours = receive, ours

    async def __call__(self) -> Message:
        ours = self.ours
        if ours.whole:
            return await self.receive()  # what comes now is the end of the connection
        self._within_limit(ours.declared or 0)
        message = await self._in_time()
        if message["type"] == "http.request":
            ours.received += len(message.get("body", b""))
            ours.whole = not message.get("more_body", False)
            self._within_limit(ours.received)
        return message

    async def _in_time(self) -> Message:
        ours, begun = self.ours, time.perf_counter()
        allowed = BODY_GRACE_SECONDS + ours.received / BODY_LEAST_RATE - ours.waited
        try:
            async with asyncio.timeout(max(allowed, 0)):
                return await self.receive()
        except TimeoutError as error:
            raise TooSlow("The request's body came too slowly; send it again over a better line.") from error
        finally:
            ours.waited += time.perf_counter() - begun

    def _within_limit(self, size: int) -> None:
        if size > self.ours.limit:
            raise TooLarge(f"The request is larger than {self.ours.limit} bytes, the limit here.")


class _Sending:
    """Sends with our headers. An answer that comes before the body has ended reads on for a while (lingering close):
    closing at once would reset the connection, and the client would never see why."""

    def __init__(self, receive: Receive, send: Send, ours: Exchange) -> None:
        self.receive, self.send, self.ours = receive, send, ours
        self.linger = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start(message)
        elif message["type"] == "http.response.body":
            self.ours.sent += len(message.get("body", b""))
            if self.linger and not message.get("more_body", False):
                await self.send({**message, "more_body": True})
                await self._read_on()
                message = {"type": "http.response.body"}
        await self.send(message)

    def _start(self, message: Message) -> None:
        ours = self.ours
        ours.status = message["status"]
        self.linger = not ours.whole and (ours.declared is None or ours.declared > SMALL_BODY)
        headers = MutableHeaders(raw=message.setdefault("headers", []))
        for name, value in (SECURITY_HEADERS | {"x-request-id": ours.request_id, **ours.headers}).items():
            if name == "vary":
                headers.add_vary_header(value)
            else:
                headers.setdefault(name, value)
        if self.linger:
            headers["connection"] = "close"

    async def _read_on(self) -> None:
        left = LINGER_BYTES
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while left > 0 and not self.ours.whole:
                    message = await self.receive()
                    left -= len(message.get("body", b""))
                    if message["type"] != "http.request" or not message.get("more_body", False):
                        return
        except TimeoutError:
            return


def _loopback_origin(origin: str) -> bool:
    scheme, _, host = origin.partition("://")
    named = split_host(host)
    return scheme in {"http", "https"} and named is not None and is_loopback(named[0].strip("[]"))
