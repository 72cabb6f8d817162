"""HTTP without a network for handlers, and a real server on a real node for what only a wire shows."""

import asyncio
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import httpx
import pytest
from starlette.applications import Starlette

from dicomweb.app import build
from dicomweb.server import Server, configure, listen
from pacs.settings import Settings
from pacs.telemetry import Metrics

Call = Callable[..., httpx.Response]


def call(
    app: Starlette, method: str, path: str, *, base: str = "http://127.0.0.1:8000", **more: object
) -> httpx.Response:
    """One request to an application, in a loop of its own."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=base) as client:
            return await client.request(method, path, **more)

    return asyncio.run(send())


@pytest.fixture
def bare_node() -> SimpleNamespace:
    """A node with settings and metrics only: for what answers without services."""
    return SimpleNamespace(settings=Settings(), metrics=Metrics("test"))


@pytest.fixture
def bare(bare_node: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Requests to the application on `bare_node`, without the console; `settings` changes some of its settings."""
    monkeypatch.setattr("dicomweb.app._console", lambda _node: [])

    def request(method: str, path: str, *, settings: dict[str, object] | None = None, **more: object) -> httpx.Response:
        bare_node.settings = dataclasses.replace(bare_node.settings, **(settings or {}))
        return call(build(bare_node), method, path, **more)

    return request


@contextmanager
def serving(app: Starlette, settings: Settings) -> Iterator[tuple[int, int]]:
    """The application on real sockets; gives its two ports and drains it at the end."""
    stop = threading.Event()
    sockets = listen(dataclasses.replace(settings, http_port=0, web_port=0))
    server = Server(configure(app), stop)
    thread = threading.Thread(target=server.run, args=(sockets,))
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield sockets[0].getsockname()[1], sockets[1].getsockname()[1]
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def wire(bare_node: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a real server on `bare_node`."""
    monkeypatch.setattr("dicomweb.app._console", lambda _node: [])
    bare_node.health = SimpleNamespace(live=lambda: {"status": "healthy"})
    with serving(build(bare_node), bare_node.settings) as (port, _):
        yield port
