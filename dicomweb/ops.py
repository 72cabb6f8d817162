"""Health for machines: is the process alive, can it work, what has it measured (operations.md 5)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import orjson
from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import Response

from dicomweb import openapi, urls

if TYPE_CHECKING:
    from pacs.node import Node


T = TypeVar("T")


async def health(node: "Node", _request: Request) -> Response:
    """200 while the process lives, whatever else is down."""
    return _json(node.health.live())


async def ready(node: "Node", _request: Request) -> Response:
    """200 when everything that is needed works, else 503 naming each check that fails."""
    report = await _aside(node.health.ready)
    return _json(report.as_json(), 200 if report.ready else 503)


async def metrics(node: "Node", _request: Request) -> Response:
    """Prometheus text."""
    text = await _aside(node.metrics.render)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def _aside(call: Callable[[], T]) -> T:
    """In a thread that is not one of those that wait for a slow database: these answers are for such times."""
    return await to_thread.run_sync(call, limiter=CapacityLimiter(1))


async def described(_node: "Node", request: Request) -> Response:
    """This list, as an OpenAPI document."""
    return _json(openapi.document(request.app.state.routes))


async def root(node: "Node", request: Request) -> Response:
    """Where the services are, for people who open the DICOMweb root."""
    here = urls.root(request, node.settings)
    return _json({name: f"{here}/{name}" for name in ("studies", "series", "instances")})


def _json(body: object, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, {"cache-control": "no-store"}, "application/json")
