"""Deleting a study, a series or an instance (not of the standard; dicomweb.md 2.7)."""

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from dicomweb.resources import run, scope_of, source

if TYPE_CHECKING:
    from pacs.node import Node


async def delete(node: "Node", request: Request) -> Response:
    """204 once nobody can see it any more; a second time 404; under legal hold 409."""
    scope, asker = scope_of(request), source(request, node.settings, "dicomweb")
    await run(lambda: node.lifecycle.delete(scope, asker))
    return Response(status_code=204)
