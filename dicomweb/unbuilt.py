"""Resources of the standard that this node does not have yet say so; none of them answers with something made up."""

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from dicomweb.resources import scope_of
from pacs.errors import NotAcceptable

if TYPE_CHECKING:
    from pacs.node import Node


async def rendering(_node: "Node", request: Request) -> Response:
    """406: no rendered media type is offered (PS3.18 10.4.1.1.3). Clients that read pixels can ask for frames."""
    scope_of(request)
    raise NotAcceptable("Rendered images are not built yet; retrieve frames or instances.")
