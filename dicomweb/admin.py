"""The admin API: JSON for programs and for the console's moving parts (operations.md 5)."""

import dataclasses
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import orjson
from starlette.requests import Request
from starlette.responses import Response

from dicomweb import trail
from dicomweb.resources import run as in_thread
from dicomweb.resources import source, uid
from pacs.domain.moments import moment
from pacs.errors import BadRequest

if TYPE_CHECKING:
    from pacs.node import Node

Handler = Callable[["Node", Request], Awaitable[Response]]

DECISIONS: dict[str, Literal["kept", "replaced"]] = {"keep": "kept", "replace": "replaced"}
LONGEST_LIST = 1000
DEFAULT_LIST = 100


async def status(node: "Node", _request: Request) -> Response:
    """What is stored, queued and running, and what is wrong: what `filmroom status` shows."""
    return answer((await in_thread(node.status.now)).as_json())


async def conflicts(node: "Node", _request: Request) -> Response:
    """Objects that came with other content under a known UID, and wait for somebody to decide."""
    return listing(await in_thread(node.conflicts.list))


async def resolve_conflict(node: "Node", request: Request) -> Response:
    """Decides on a conflict: `decision` keep (what is stored stays) or replace (the newcomer is the new version)."""
    id_, decision = number_of(request, "id"), (await json_object(request)).get("decision")
    state = DECISIONS.get(decision) if isinstance(decision, str) else None
    if state is None:
        raise BadRequest('The body is {"decision": "keep"} or {"decision": "replace"}.')
    asker = source(request, node.settings, "api")
    await in_thread(lambda: node.conflicts.resolve(id_, state, asker))
    return answer({"id": id_, "state": state})


async def refusal(node: "Node", request: Request) -> Response:
    """Why an object was refused, by the id that its sender was given."""
    id_ = str(request.path_params["id"])
    return answer(await in_thread(lambda: node.refusals.get(id_)))


async def changes(node: "Node", request: Request) -> Response:
    """The gap-free change feed after `since`; `next` continues it, and stays the same at its end."""
    since, limit = number(request, "since", 0), number(request, "limit", DEFAULT_LIST, LONGEST_LIST)
    found = await in_thread(lambda: node.changes.since(since, limit))
    items = [plain(change) for change in found]
    response = answer({"items": items, "next": items[-1]["seq"] if items else since})
    return trail.about(response, **trail.of_items(items))


async def audit(node: "Node", request: Request) -> Response:
    """Who did what, newest first: of a `patient`, with a `study`, by a `user`, `from` and `to` a time. `next` is the
    `after` of the rows before."""
    after, limit = number(request, "after", 0), number(request, "limit", DEFAULT_LIST, LONGEST_LIST)
    wanted = {name: request.query_params.get(name) for name in ("patient", "study", "user")}
    since, until = time_of(request, "from"), time_of(request, "to", end=True)
    call = partial(node.audit.find, **wanted, since=since, until=until, before=after or None, limit=limit)
    found = await in_thread(call)
    names = ("patient", "study", "user", "from", "to")
    asked = {name: value for name in names if (value := request.query_params.get(name))}
    # whoever reads the trail has not seen the patient: in the detail it is not found by patient
    return trail.about(listing(found, more=len(found) == limit), listed=(), detail={"asked": asked})


async def models(node: "Node", _request: Request) -> Response:
    """The model packages that are there, with their states and why."""
    return listing(await in_thread(node.models.list))


async def jobs(node: "Node", request: Request) -> Response:
    """AI jobs, newest first, of one `state` where it is given; `after` continues a list."""
    state, after = request.query_params.get("state"), number(request, "after", 0)
    limit = number(request, "limit", DEFAULT_LIST, LONGEST_LIST)
    found = await in_thread(lambda: node.jobs.list(state, limit, after or None))
    return listing(found, more=len(found) == limit)


async def job(node: "Node", request: Request) -> Response:
    """One AI job."""
    id_ = number_of(request, "id")
    return answer(await in_thread(lambda: node.jobs.get(id_)))


def change_job(move: str) -> Handler:
    """The handler of `retry`, `cancel` or `drop`: 409 where the job's state does not allow it."""

    async def handler(node: "Node", request: Request) -> Response:
        """Moves an AI job; 409 where its state does not allow it."""
        id_ = number_of(request, "id")
        return answer(await in_thread(lambda: getattr(node.jobs, move)(id_)))

    return handler


async def timeline(node: "Node", request: Request) -> Response:
    """What the AI did with a study: completeness, jobs, what was skipped and why, results."""
    study = uid(request, "study")
    return answer(await in_thread(lambda: node.jobs.timeline(study)))


async def run(node: "Node", request: Request) -> Response:
    """Asks for an AI run of a study: `model` (all that fit, where absent) and `priority`. 202."""
    study = uid(request, "study")
    body = await json_object(request)
    model, priority = body.get("model"), body.get("priority", "normal")
    if not (model is None or isinstance(model, str)) or not isinstance(priority, str):
        raise BadRequest('The body is {"model": "name", "priority": "urgent" or "normal" or "low"}, both optional.')
    return answer(await in_thread(lambda: node.jobs.run(study, model, priority)), 202)


async def maintenance(node: "Node", _request: Request) -> Response:
    """Whether maintenance is on, what still runs, and what has happened since it began."""
    return answer(await in_thread(node.maintenance.as_json))


async def set_maintenance(node: "Node", request: Request) -> Response:
    """Turns maintenance on or off: `state`, and for on `message` and `refuse_stores`."""
    body = await json_object(request)
    state, message, refuse = body.get("state"), body.get("message", ""), body.get("refuse_stores", False)
    if state not in {"on", "off"} or not isinstance(message, str) or not isinstance(refuse, bool):
        raise BadRequest('The body is {"state": "on" or "off", "message": "text", "refuse_stores": true or false}.')
    who = source(request, node.settings, "api")
    if state == "on":
        await in_thread(lambda: node.maintenance.on(who, message=message, refuse_stores=refuse))
        return await maintenance(node, request)
    window, happened = await in_thread(lambda: node.maintenance.off(who))
    return answer({**(await in_thread(node.maintenance.as_json)), "since": window.since, "happened": happened})


async def json_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object; an empty body is an empty object. Raises BadRequest."""
    raw = await request.body()
    if not raw.strip():
        return {}
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequest("The body is not JSON.") from error
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    return body


def number_of(request: Request, name: str) -> int:
    """A whole number in the path. Raises BadRequest."""
    return _whole(str(request.path_params[name]), name)


def number(request: Request, name: str, default: int, most: int = 2**63 - 1) -> int:
    """A whole number among the query parameters, held at `most`. Raises BadRequest."""
    text = request.query_params.get(name)
    return default if text is None else min(_whole(text, name), most)


def time_of(request: Request, name: str, *, end: bool = False) -> datetime | None:
    """A time among the query parameters; a day is its beginning, or its end. Raises BadRequest."""
    text = request.query_params.get(name)
    return moment(text, name, end=end) if text else None


def _whole(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise BadRequest(f"{name} must be a whole number, zero or more.")
    return int(text)


def listing(items: list[Any], *, more: bool = False, status: int = 200) -> Response:
    """A list as all lists of this API come; `next` is the id to go on after, or null."""
    plain_items = [plain(item) for item in items]
    response = answer({"items": plain_items, "next": plain_items[-1]["id"] if more and plain_items else None}, status)
    return trail.about(response, **trail.of_items(plain_items))


def answer(body: Any, status: int = 200) -> Response:
    """A JSON answer that nobody keeps."""
    whole = plain(body)
    response = Response(orjson.dumps(whole, default=str), status, {"cache-control": "no-store"}, "application/json")
    return trail.about(response, **trail.of_thing(whole))


def plain(value: Any) -> Any:
    """Dataclasses as dicts, times as ISO 8601; the rest as it is."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value
