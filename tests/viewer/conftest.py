"""A node that runs, with the viewer, and a browser to look at it with."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dicomweb import viewerpackage
from tests.dicomweb.objects import multipart
from tests.running import RunningNode
from tests.viewer.browser import Visit, browser, shots


@pytest.fixture(scope="session")
def viewing(running_node: RunningNode) -> RunningNode:
    """The node of the session; skips where no viewer was fetched."""
    if viewerpackage.folder(running_node.settings) is None:
        pytest.skip("no viewer has been fetched; make viewer fetches it")
    return running_node


@pytest.fixture(scope="session")
def origin(viewing: RunningNode) -> str:
    return f"http://127.0.0.1:{viewing.settings.web_port}"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as running:
        yield running


@pytest.fixture
def visit(chromium: Any, origin: str) -> Iterator[Visit]:
    """A visitor who was never here before."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    yield Visit(context.new_page(), origin, shots()).watch()
    context.close()


@pytest.fixture(scope="session")
def store(origin: str) -> Callable[..., None]:
    """Stores files, given as bytes or by their paths; all must be taken."""

    def send(*files: bytes | Path) -> None:
        headers, body = multipart(*(file if isinstance(file, bytes) else file.read_bytes() for file in files))
        answer = httpx.post(f"{origin}/dicom-web/studies", headers=headers, content=body, timeout=60)
        assert answer.status_code == 200, answer.text

    return send
