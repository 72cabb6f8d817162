"""Coming in by the browser, going out, and the own password.

A form proves that it is ours by a value that only we can make: of the session it was shown in, or, before there is one,
of a number that the browser carries beside it. A page of others can make the browser send a form, but not read ours.
"""

import secrets
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import jinja2
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dicomweb import auth, problems
from dicomweb.auth import line
from dicomweb.console.shown import shown
from dicomweb.door import COOKIE, LOGIN, SECURE_COOKIE, may_come_from
from dicomweb.guard import exchange
from dicomweb.resources import identity_of, run, source
from pacs.errors import BadRequest, FilmroomError, Forbidden, Unauthorized

if TYPE_CHECKING:
    from pacs.node import Node

HOME = "/console/"
FORM_COOKIE, FORM_SECONDS = "filmroom_form", 3600
STALE = "This form was open for too long, or comes from elsewhere; fill it in again."


class Login:
    """One method a page."""

    def __init__(self, node: "Node", templates: jinja2.Environment) -> None:
        self.node, self.templates = node, templates

    async def login(self, request: Request) -> Response:
        """The way in; `next` is where one wanted to go."""
        if request.method != "POST":
            return await self._form(request, request.query_params.get("next", HOME))
        fields: dict[str, str] = {}
        try:
            fields = await auth.form(request)
            self._require_own(request, fields)
            name, password = auth.required(fields, "username"), auth.required(fields, "password")
            asker = source(request, self.node.settings, "console")
            carried = await line(request).wait(lambda: self.node.sign_in.for_browser(name, password, asker))
        except FilmroomError as error:
            return await self._form(request, str(fields.get("next", HOME)), error)
        response = RedirectResponse(local(str(fields.get("next", HOME))), 303)
        self._set(request, response, carried)
        return response

    async def logout(self, request: Request) -> Response:
        """Ends the session, and forgets it in the browser."""
        if request.method != "POST":
            return RedirectResponse(HOME, 303)
        require_proof(self.node, request, await auth.form(request))
        await auth.logout(self.node, request)
        response = RedirectResponse(LOGIN, 303)
        for name in (COOKIE, SECURE_COOKIE):
            response.delete_cookie(name, secure=name == SECURE_COOKIE, httponly=True, samesite="lax")
        return response

    async def password(self, request: Request) -> Response:
        """One's own password: the old one, the new one twice."""
        if request.method != "POST":
            return self._password(request)
        try:
            fields = await auth.form(request)
            require_proof(self.node, request, fields)
            if fields.get("new_password") != fields.get("repeated"):
                raise BadRequest("The two new passwords differ; type the same one twice.")
            await auth.change_password(self.node, request, fields)
        except FilmroomError as error:
            return self._password(request, error)
        return self._password(request, done="The password is changed. All your other sessions have ended.")

    async def _form(self, request: Request, target: str, error: FilmroomError | None = None) -> Response:
        number = request.cookies.get(FORM_COOKIE) or secrets.token_urlsafe(16)
        anybody = await run(self.node.accounts.any) if error is None else True
        context = {"next": local(target), "login_proof": self.node.sessions.form_proof(number), "anybody": anybody}
        response = self._shown(request, "login.html", error, **context)
        response.set_cookie(
            FORM_COOKIE,
            number,
            max_age=FORM_SECONDS,
            path=LOGIN,
            secure=exchange(request.scope).secure,
            httponly=True,
            samesite="strict",
        )
        return response

    def _password(self, request: Request, error: FilmroomError | None = None, done: str = "") -> Response:
        return self._shown(request, "password.html", error, done=done)

    def _shown(self, request: Request, template: str, error: FilmroomError | None, **context: object) -> Response:
        status = problems.status_of(error) if error else 200
        said = error.message if error else ""
        response = shown(self.node, self.templates, request, template, status, error=said, **context)
        if error is not None and (wait := getattr(error, "retry_after", None)):
            response.headers["retry-after"] = str(wait)
        if isinstance(error, Unauthorized):
            response.headers["www-authenticate"] = problems.challenge(error)
        return response

    def _require_own(self, request: Request, fields: dict[str, str]) -> None:
        """Raise Forbidden for a form that this browser was not shown by us."""
        number = request.cookies.get(FORM_COOKIE, "")
        origin = request.headers.get("origin")
        ours = origin is None or may_come_from(origin, request, self.node.settings)
        if not number or not ours or not self.node.sessions.proves_form(number, str(fields.get("proof", ""))):
            raise Forbidden(STALE)

    def _set(self, request: Request, response: Response, carried: str) -> None:
        secure = exchange(request.scope).secure
        name = SECURE_COOKIE if secure else COOKIE
        response.set_cookie(name, carried, path="/", secure=secure, httponly=True, samesite="lax")
        response.delete_cookie(FORM_COOKIE, path=LOGIN)


def require_proof(node: "Node", request: Request, fields: dict[str, str]) -> None:
    """Raise Forbidden for a form that was not shown in this session."""
    who = identity_of(request)
    if who and who.session and not node.sessions.proves_form(who.session, str(fields.get("proof", ""))):
        raise Forbidden(STALE)


def local(target: str) -> str:
    """A path of this node to go on to; whatever leads elsewhere leads to the first page."""
    plain = target if target.isascii() and target.isprintable() and "\\" not in target else ""
    try:
        parts = urlsplit(plain)
    except ValueError:
        return HOME
    elsewhere = parts.scheme or parts.netloc or not plain.startswith("/") or plain.startswith("//")
    return HOME if elsewhere or parts.path.startswith((LOGIN, "/console/logout")) else plain
