"""A page as this request gets it: with who looks at it, and what its forms have to prove."""

from typing import TYPE_CHECKING

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from dicomweb.resources import identity_of

if TYPE_CHECKING:
    from pacs.node import Node


def shown(
    node: "Node", templates: jinja2.Environment, request: Request, template: str, status: int = 200, **context: object
) -> Response:
    """The page of this template. Nobody keeps it: it may show patients, and somebody else may sit down here next."""
    who = identity_of(request)
    proof = node.sessions.form_proof(who.session) if who and who.session else ""
    given = {"settings": node.settings, "who": who, "proof": proof, **context}
    return HTMLResponse(templates.get_template(template).render(given), status, {"cache-control": "no-store"})


def seen(request: Request, node: "Node") -> "Node":
    """The node as whoever looks at this page sees it."""
    found: Node = request.scope.get("state", {}).get("node", node)
    return found
