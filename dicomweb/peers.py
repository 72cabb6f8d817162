"""Known AE titles in the admin API (operations.md 5): who they are, and whether one can be reached."""

import dataclasses
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from dicomweb.admin import answer
from dicomweb.resources import run

if TYPE_CHECKING:
    from pacs.node import Node


async def listed(node: "Node", _request: Request) -> Response:
    """Every peer of the peers file, and what it may do."""
    return answer({"items": await run(node.peers.list), "next": None})


async def test(node: "Node", request: Request) -> Response:
    """C-ECHO to a peer: `ok`, and in one sentence what came of it. 404 for a name that is not in the file."""
    name = str(request.path_params["name"])
    return answer(dataclasses.asdict(await run(lambda: node.peers.test(name))))
