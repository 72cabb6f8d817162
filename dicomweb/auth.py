"""Coming in and going out, for programs: tokens for name and password, their renewal, one's own account.

Signing in costs memory and time by intention. It waits in a line of its own, so that those who are in go on meanwhile.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dicomweb.admin import answer, json_object
from dicomweb.guard import exchange
from dicomweb.resources import identity_of, run, source
from pacs.errors import BadRequest, Forbidden, Unauthorized, Unavailable, UnsupportedMedia

if TYPE_CHECKING:
    from pacs.node import Node

T = TypeVar("T")

AT_ONCE, MOST_WAITING = 4, 64
FORM_BYTES, MOST_FIELDS = 16 << 10, 32
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
NO_STORE = {"cache-control": "no-store", "pragma": "no-cache"}  # RFC 6749 5.1


class Line:
    """Those who sign in, a few at a time."""

    def __init__(self) -> None:
        self._limiter: CapacityLimiter | None = None

    async def wait(self, call: Callable[[], T]) -> T:
        """The call in a thread, in its turn. Raises Unavailable where too many wait."""
        if self._limiter is None:
            self._limiter = CapacityLimiter(AT_ONCE)  # of the loop that runs
        if self._limiter.statistics().tasks_waiting >= MOST_WAITING:
            raise Unavailable("Too many people sign in at this moment; try again.", retry_after=5)
        return await to_thread.run_sync(call, limiter=self._limiter)


async def token(node: "Node", request: Request) -> Response:
    """An access token and a refresh token for `username` and `password`, as a form or as JSON; 429 after too many
    wrong ones."""
    fields = await form(request)
    username, password = required(fields, "username"), required(fields, "password")
    asker = source(request, node.settings, "api")
    grant = await line(request).wait(lambda: node.sign_in.for_program(username, password, asker))
    return granted(grant)


async def refresh(node: "Node", request: Request) -> Response:
    """The next pair for a `refresh_token`, which is good once; a spent one ends the whole session."""
    with suppress(BadRequest, UnsupportedMedia):
        shown = required(await form(request), "refresh_token")
        asker = source(request, node.settings, "api")
        grant = await run(lambda: node.sessions.refresh(shown, asker))
        node.credentials.forget()
        return granted(grant)
    raise Unauthorized("Show a refresh token, as the field refresh_token of a form or of a JSON object.")


async def logout(node: "Node", request: Request) -> Response:
    """Ends the session that asks; its tokens and its cookie are worth nothing from now on. 204."""
    who = identity_of(request)
    if who is not None and who.session:
        asker, session = source(request, node.settings, "api"), who.session
        await run(lambda: node.sessions.end(session, asker))
        node.credentials.forget()
    return Response(status_code=204, headers=NO_STORE)


async def me(node: "Node", request: Request) -> Response:
    """Who asks, with roles and permissions; for a browser also what a request without an Origin must show."""
    who = identity_of(request)
    assert who is not None  # the route is for those who are known
    body: dict[str, Any] = {
        "username": who.actor,
        "roles": list(who.roles),
        "permissions": sorted(who.permissions),
        "scope": who.visible.as_json() if who.visible else None,
        "kind": who.kind,
        "login_required": node.settings.login_required,
    }
    if who.session:
        body["email"] = (await run(lambda: node.accounts.get(who.actor)))["email"]
    if who.kind == "cookie":
        body["csrf_token"] = node.sessions.form_proof(who.session)
    return answer(body)


async def password(node: "Node", request: Request) -> Response:
    """Changes one's own password: `current_password`, `new_password`. All other sessions of the account end. 204."""
    fields = await form(request)
    await change_password(node, request, fields)
    return Response(status_code=204, headers=NO_STORE)


async def change_password(node: "Node", request: Request, fields: dict[str, Any]) -> None:
    """See `password`. Raises Forbidden for those who have none here, Unauthorized for a wrong one, BadRequest."""
    who = identity_of(request)
    if who is None or not who.session:
        raise Forbidden("Only somebody who signed in with a password can change it.")
    old = required(fields, "current_password", "old_password")
    new = required(fields, "new_password")
    asker, name, session = source(request, node.settings, "api"), who.actor, who.session
    await line(request).wait(lambda: node.sign_in.change_password(name, old, new, asker, session))
    node.credentials.forget()


def line(request: Request) -> Line:
    """The line of this application."""
    found: Line = request.app.state.line
    return found


def granted(grant: Any) -> Response:
    """Tokens, which nobody on the way may keep."""
    response = answer(grant)
    response.headers.update(NO_STORE)
    return response


async def form(request: Request) -> dict[str, Any]:
    """The fields of a form or of a JSON object. Raises BadRequest, UnsupportedMedia, TooLarge."""
    exchange(request.scope).limit = FORM_BYTES
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return await json_object(request)
    if kind not in FORMS:
        if await request.body():
            raise UnsupportedMedia(f"Send a form ({FORMS[0]}) or application/json.")
        return {}
    try:
        found = await request.form(max_files=0, max_fields=MOST_FIELDS, max_part_size=FORM_BYTES)
    except (HTTPException, ValueError) as error:
        raise BadRequest("The form cannot be read.") from error
    return {name: value for name, value in found.items() if isinstance(value, str)}


def required(fields: dict[str, Any], *names: str) -> str:
    """The text of the first of these fields that is there. Raises BadRequest."""
    found = next((fields[name] for name in names if name in fields), None)
    if not isinstance(found, str) or not found:
        raise BadRequest(f"{names[0]} is needed, and must be a text.")
    return found
