"""Requests without a network, and the application on real sockets."""

import asyncio
import dataclasses
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import httpx
from starlette.applications import Starlette

from dicomweb.server import Server, configure, listen
from pacs.settings import Settings


def call(
    app: Starlette, method: str, path: str, *, base: str = "http://127.0.0.1:8000", **more: object
) -> httpx.Response:
    """One request to an application, in a loop of its own."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=base) as client:
            return await client.request(method, path, **more)

    return asyncio.run(send())


def calls(app: Starlette, lines: Iterable[tuple[str, str]], headers: dict[str, str]) -> list[int]:
    """The statuses of many requests, method and path, in one loop."""

    async def send() -> list[int]:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", headers=headers) as client:
            return [(await client.request(method, path)).status_code for method, path in lines]

    return asyncio.run(send())


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
