"""Users, tokens and labels, as administrators see and change them (operations.md 5)."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from dicomweb.admin import answer, json_object
from dicomweb.auth import line
from dicomweb.resources import identity_of, run, source, uid
from pacs.errors import BadRequest

if TYPE_CHECKING:
    from pacs.node import Node

NEW_USER = frozenset({"username", "email", "password", "roles", "scope"})
NEW_TOKEN = frozenset({"name", "roles", "expires_at", "scope"})


async def users(node: "Node", _request: Request) -> Response:
    """All users, without what they are let in by."""
    return answer({"items": await run(node.accounts.list), "next": None})


async def user(node: "Node", request: Request) -> Response:
    """One user."""
    name = str(request.path_params["username"])
    return answer(await run(lambda: node.accounts.get(name)))


async def add_user(node: "Node", request: Request) -> Response:
    """Makes a user: `username`, `email`, `password`, `roles`, `scope`. 201; 409 where there is one of that name."""
    body, asker = await known(request, NEW_USER), source(request, node.settings, "api")
    more = {name: body[name] for name in ("email", "scope") if name in body}
    call = lambda: node.accounts.create(body.get("username"), body.get("password"), body.get("roles"), asker, **more)  # noqa: E731
    return answer(await line(request).wait(call), 201)


async def change_user(node: "Node", request: Request) -> Response:
    """Changes a user: `email`, `password`, `roles`, `scope`, `disabled`."""
    name, body = str(request.path_params["username"]), await json_object(request)
    asker = source(request, node.settings, "api")
    changed = await line(request).wait(lambda: node.accounts.change(name, body, asker))
    node.credentials.forget()
    return answer(changed)


async def remove_user(node: "Node", request: Request) -> Response:
    """Removes a user with sessions and tokens; audit rows keep the name. 204."""
    name, asker = str(request.path_params["username"]), source(request, node.settings, "api")
    await run(lambda: node.accounts.remove(name, asker))
    node.credentials.forget()
    return Response(status_code=204)


async def tokens(node: "Node", _request: Request) -> Response:
    """All tokens of programs, newest first, without what they are."""
    return answer({"items": await run(node.tokens.list), "next": None})


async def add_token(node: "Node", request: Request) -> Response:
    """Makes a token: `name`, `roles`, `expires_at`, `scope`. 201; its `token` is shown this once."""
    body, asker, who = await known(request, NEW_TOKEN), source(request, node.settings, "api"), identity_of(request)
    end = _moment(body.get("expires_at"))
    owner = who.actor if who and who.session else ""
    name, roles, scope = body.get("name"), body.get("roles"), body.get("scope")
    made = await run(lambda: node.tokens.create(name, roles, asker, expires_at=end, scope=scope, owner=owner))
    return answer(made, 201)


async def revoke_token(node: "Node", request: Request) -> Response:
    """Ends a token, by its id or its name. 204."""
    named = request.path_params.get("token") or request.query_params.get("name")
    token = str(named or (await json_object(request)).get("name") or "")
    asker = source(request, node.settings, "api")
    await run(lambda: node.tokens.revoke(token, asker))
    node.credentials.forget()
    return Response(status_code=204)


async def labels(node: "Node", request: Request) -> Response:
    """The labels of a study."""
    study = uid(request, "study")
    return answer({"labels": await run(lambda: node.labels.of_study(study))})


async def put_labels(node: "Node", request: Request) -> Response:
    """Gives a study these `labels`, and no other."""
    study, body, asker = uid(request, "study"), await json_object(request), source(request, node.settings, "api")
    return answer({"labels": await run(lambda: node.labels.put(study, body.get("labels"), asker))})


async def known(request: Request, names: frozenset[str]) -> dict[str, Any]:
    """The body as a JSON object of these fields. Raises BadRequest for others: a misspelt one must not go unheard."""
    body = await json_object(request)
    if set(body) - names:
        raise BadRequest(f"The body has an unknown field; known are: {', '.join(sorted(names))}.")
    return body


def _moment(text: object) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError as error:
        raise BadRequest("expires_at is a time such as 2030-01-31T00:00:00Z.") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)
