"""HTTP without a network for handlers, and a real server on a real node for what only a wire shows."""

import asyncio
import dataclasses
import threading
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import TypeVar

import httpx
import pytest
from starlette.applications import Starlette

from dicomweb.app import build
from pacs.settings import Settings
from pacs.telemetry import Metrics

T = TypeVar("T")
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
