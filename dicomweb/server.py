"""The HTTP process: both ports in one loop, drained when it is told to stop."""

import contextlib
import errno
import socket
import threading
from collections.abc import Iterator

import structlog
import uvicorn
from anyio import to_thread

from dicomweb.app import build
from dicomweb.protocol import LimitedProtocol
from pacs.errors import SettingsError
from pacs.settings import Settings

log = structlog.get_logger("web")

THREADS = 16  # calls that wait for disk or database at a time
DRAIN_SECONDS = 15  # the supervisor waits 20
KEEP_ALIVE_SECONDS = 65  # longer than a proxy's, so that the proxy closes first
CONNECTIONS = 2000


def serve(settings: Settings, stop: threading.Event) -> int:
    """Serve until `stop` is set, then finish what runs; 0. Raises SettingsError when a port is in use."""
    from pacs.node import build as build_node

    node = build_node(settings, component="web")
    try:
        sockets = listen(settings)
        server = Server(configure(build(node)), stop)
        for name, listening in zip(("http", "web"), sockets, strict=True):
            host, port = listening.getsockname()[:2]
            log.info("listening", protocol=name, host=host, port=port)
        server.run(sockets)
        return 0
    finally:
        node.close()


def configure(app: object) -> uvicorn.Config:
    """How uvicorn runs our application: no access log of its own, no header that names it, no trust in proxies."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=LimitedProtocol,
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


def listen(settings: Settings) -> list[socket.socket]:
    """The sockets of HTTP_PORT and WEB_PORT. Raises SettingsError naming the setting of a port that cannot be had."""
    with contextlib.ExitStack() as opened:
        sockets = [
            opened.enter_context(contextlib.closing(_listen(settings.http_host, port, name)))
            for name, port in (("HTTP_PORT", settings.http_port), ("WEB_PORT", settings.web_port))
        ]
        opened.pop_all()
        return sockets


def _listen(host: str, port: int, name: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"{name}: port {port} of {host} is in use; stop what uses it, or set {name}."
            ) from error
        raise SettingsError(f"{name}: cannot listen on port {port} of {host} ({error.strerror}).") from error
    listening.setblocking(False)
    return listening


class Server(uvicorn.Server):
    """Stops when the event is set, and leaves the process's signals to whoever started it."""

    def __init__(self, config: uvicorn.Config, stop: threading.Event) -> None:
        super().__init__(config)
        self.stop = stop

    async def startup(self, sockets: "list[socket.socket] | None" = None) -> None:
        to_thread.current_default_thread_limiter().total_tokens = THREADS
        await super().startup(sockets)

    async def on_tick(self, counter: int) -> bool:
        return self.stop.is_set() or await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
