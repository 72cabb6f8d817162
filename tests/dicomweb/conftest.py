"""HTTP without a network for handlers, and a real server for what only a wire shows."""

import dataclasses
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import httpx
import pytest

from dicomweb.app import build
from pacs.settings import Settings
from pacs.telemetry import Metrics
from tests.dicomweb.wire import call, serving

Call = Callable[..., httpx.Response]


@pytest.fixture
def bare_node() -> SimpleNamespace:
    """A node with settings and metrics only: for what answers without services."""
    audit = SimpleNamespace(note=lambda *_, **__: None)
    return SimpleNamespace(settings=Settings(), metrics=Metrics("test"), audit=audit)


@pytest.fixture
def bare(bare_node: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Requests to the application on `bare_node`, without the console; `settings` changes some of its settings."""
    monkeypatch.setattr("dicomweb.app._console", lambda _node: [])

    def request(method: str, path: str, *, settings: dict[str, object] | None = None, **more: object) -> httpx.Response:
        bare_node.settings = dataclasses.replace(bare_node.settings, **(settings or {}))
        return call(build(bare_node), method, path, **more)

    return request


@pytest.fixture
def wire(bare_node: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a real server on `bare_node`."""
    monkeypatch.setattr("dicomweb.app._console", lambda _node: [])
    bare_node.health = SimpleNamespace(live=lambda: {"status": "healthy"})
    with serving(build(bare_node), bare_node.settings) as (port, _):
        yield port
