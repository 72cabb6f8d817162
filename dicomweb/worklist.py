"""The modality worklist as a resource: whoever plans examinations fills it here, in DICOM JSON (PS3.18 F)."""

from typing import TYPE_CHECKING

import orjson
from starlette.requests import Request
from starlette.responses import Response

from dicomweb.admin import DEFAULT_LIST, LONGEST_LIST, answer, listing, number, number_of
from dicomweb.resources import run, source
from pacs.errors import BadRequest

if TYPE_CHECKING:
    from pacs.node import Node

MOST_ITEMS = 1_000  # in one request


async def listed(node: "Node", request: Request) -> Response:
    """What is planned, in the order of ids: of one `state` (scheduled, started, completed), on from `after`."""
    state, after = request.query_params.get("state"), number(request, "after", 0)
    limit = number(request, "limit", DEFAULT_LIST, LONGEST_LIST)
    found = await run(lambda: node.worklist.list(state, limit, after))
    return listing(found, more=len(found) == limit)


async def one(node: "Node", request: Request) -> Response:
    """One planned step."""
    id_ = number_of(request, "id")
    return answer(await run(lambda: node.worklist.get(id_)))


async def add(node: "Node", request: Request) -> Response:
    """Plans steps: a DICOM JSON object, or a list of them, all or none. 201; 409 for a step that is planned already."""
    body = await _json(request)
    given = body if isinstance(body, list) else [body]
    if not 0 < len(given) <= MOST_ITEMS:
        raise BadRequest(f"The body is a DICOM JSON object, or a list of 1 to {MOST_ITEMS} of them.")
    who = source(request, node.settings, "api")
    added = await run(lambda: node.worklist.add(given, who))
    if isinstance(body, list):
        return listing(added, status=201)
    return answer(added[0], 201)


async def replace(node: "Node", request: Request) -> Response:
    """Plans a step anew, under its id."""
    id_, body, who = number_of(request, "id"), await _json(request), source(request, node.settings, "api")
    return answer(await run(lambda: node.worklist.replace(id_, body, who)))


async def remove(node: "Node", request: Request) -> Response:
    """Takes a step off the list. 204."""
    id_, who = number_of(request, "id"), source(request, node.settings, "api")
    await run(lambda: node.worklist.remove(id_, who))
    return Response(status_code=204)


async def _json(request: Request) -> object:
    try:
        body: object = orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise BadRequest("The body is not JSON.") from error
    return body
