"""Who asks, and may they? Every route passes here before its handler (security.md 1).

A bearer token or the cookie of a signed-in browser says who asks; on a node that asks for no login it is the local
user, administrator of it. Whoever shows a bad token is refused, there too. What changes something and comes without a
token has to come from a page of ours: browsers send cookies, and themselves, along with any page's requests.
"""

from typing import TYPE_CHECKING, cast
from urllib.parse import quote, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from dicomweb import urls
from dicomweb.guard import exchange
from dicomweb.resources import run
from pacs.domain.roles import ADMIN, PERMISSIONS, PUBLIC, SIGNED_IN, Credential, Identity, identity
from pacs.domain.uids import is_uid
from pacs.errors import Forbidden, Unauthorized
from pacs.settings import Settings, is_loopback

if TYPE_CHECKING:
    from pacs.node import Node
    from pacs.services.scoped import NodeInPart

READS = frozenset({"GET", "HEAD", "OPTIONS"})
LOGIN = "/console/login"
COOKIE, SECURE_COOKIE = "filmroom", "__Host-filmroom"  # the second one is of this host alone, over TLS
PROOF_HEADER = "x-csrf-token"
# what somebody who sees a part of the archive may ask without naming a study: its answers are narrowed
NARROWED = frozenset({"search", "retrieve", "store", SIGNED_IN})
WHO = "Say who you are: POST /api/v1/auth/token gives a token, /console/login lets a browser in."
FOREIGN = "This came from a page of another origin, which may not change anything here; name it in CORS_ORIGINS."


def require_known(permission: str, what: str) -> None:
    """Raise ValueError for a permission that the table of roles does not know: such a route is not served."""
    if permission not in {PUBLIC, SIGNED_IN, *PERMISSIONS}:
        raise ValueError(f"{what} has no permission of pacs/domain/roles.py, but {permission!r}")


class Door:
    """Finds out who asks, and refuses what they may not do."""

    def __init__(self, node: "Node") -> None:
        self.node, self.settings = node, node.settings
        if node.settings.login_required:
            _ = node.credentials  # what it stands on is loaded now, not while the first one waits
        self.everybody = identity("local" if node.settings.loopback_only else "anonymous", [ADMIN])

    async def who(self, request: Request) -> Identity:
        """Who asks; `identity_of` then gives it again. Raises Unauthorized, Unavailable."""
        found = await self._who(request)
        request.scope.setdefault("state", {})["identity"] = found
        return found

    async def _who(self, request: Request) -> Identity:
        credential = bearer(request, strict=self.settings.login_required)
        if credential is not None:
            return await self._shown(credential)
        cookie = session_cookie(request)
        if cookie is not None:
            try:
                return await self._shown(Credential("cookie", cookie))
            except Unauthorized:
                pass  # a browser carries it for longer than its session lasts
        if self.settings.login_required:
            raise Unauthorized(WHO)
        return self.everybody

    async def _shown(self, credential: Credential) -> Identity:
        found = self.node.credentials.known(credential)
        return found if found is not None else await run(lambda: self.node.credentials.who(credential))

    def permit(self, who: Identity, request: Request, permission: str) -> None:
        """Raise Forbidden where they may not do that, or where it is not they who want it but a page of others."""
        if not who.may(permission):
            raise Forbidden(f"This needs the permission {permission!r}, which none of your roles gives.")
        if who.visible is not None and permission not in NARROWED and not _names_study(request):
            raise Forbidden("This shows the whole archive, of which your account sees a part only.")
        if request.method not in READS and who.kind in {"local", "cookie"} and not self._of_our_page(who, request):
            raise Forbidden(FOREIGN)

    async def seen_by(self, who: Identity, request: Request) -> "Node":
        """The node as they see it. Raises NotFound where the path names what they do not see."""
        if who.visible is None:
            return self.node
        part = self.node.within(who.visible)
        study, sop = (str(request.path_params.get(name, "")) for name in ("study", "sop"))
        if is_uid(study) or is_uid(sop):  # else the handler says what is wrong with it
            search = cast("NodeInPart", part).search
            await run(lambda: search.require(study_uid=study, sop_instance_uid=sop))
        return part

    def _of_our_page(self, who: Identity, request: Request) -> bool:
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
        if origin is not None:
            return may_come_from(origin, request, self.settings)
        if site is not None:
            return site in {"same-origin", "none"}
        if who.kind == "local":
            return True  # no browser of today
        return self.node.sessions.proves_form(who.session, request.headers.get(PROOF_HEADER, ""))


def may_come_from(origin: str, request: Request, settings: Settings) -> bool:
    """Whether a page of this origin is ours, or one that CORS_ORIGINS names."""
    host = _host(origin)
    if settings.loopback_only and not settings.login_required and is_loopback(host[0]):
        return True  # the guard lets no other in
    ours = {_host(urls.base(request, settings)), _host("//" + request.headers.get("host", ""))}
    return origin in settings.cors_origins or (host[0] != "" and host in ours)


def bearer(request: Request, *, strict: bool) -> Credential | None:
    """The bearer token of a request (RFC 6750 2.1). Raises Unauthorized for two, and where `strict` for other kinds."""
    shown = request.headers.getlist("authorization")
    if not shown:
        return None
    kind, _, text = shown[0].partition(" ")
    if len(shown) > 1 or kind.lower() != "bearer":
        if strict or kind.lower() == "bearer":
            raise Unauthorized("Send one Authorization header: Bearer, a space, the token.", shown=True)
        return None
    return Credential("bearer", text.strip(" "))


def session_cookie(request: Request) -> str | None:
    """What a signed-in browser carries; behind TLS only what plain HTTP cannot have set."""
    if "cookie" not in request.headers:
        return None
    return request.cookies.get(SECURE_COOKIE if exchange(request.scope).secure else COOKIE) or None


class Page:
    """A route for people: whoever is not known is shown the way in, and comes back. Programs are told 401."""

    def __init__(self, app: ASGIApp, door: Door, permission: str) -> None:
        self.app, self.door, self.permission = app, door, permission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        try:
            who = await self.door.who(request)
        except Unauthorized:
            if not wants_page(request):
                raise
            back = asked_for(request) if request.method == "GET" else "/console/"
            await RedirectResponse(f"{LOGIN}?next={quote(back, safe='/')}", 303)(scope, receive, send)
            return
        self.door.permit(who, request, self.permission)
        scope["state"]["node"] = await self.door.seen_by(who, request)
        await self.app(scope, receive, send)


class Files:
    """Static files for everybody; but the page that they belong to is for those who are known."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self.app, self.page = app, Page(app, door, SIGNED_IN)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        inner = self.page if wants_page(Request(scope)) else self.app
        await inner(scope, receive, send)


def wants_page(request: Request) -> bool:
    """Whether somebody looks at a page, rather than a program at data."""
    reads = request.method in {"GET", "HEAD"} or request.url.path.startswith("/console/")
    return reads and "text/html" in request.headers.get("accept", "")


def asked_for(request: Request) -> str:
    """Path and query of this request."""
    query = request.url.query
    return f"{request.url.path}?{query}" if query else request.url.path


def _names_study(request: Request) -> bool:
    return "study" in request.path_params or "sop" in request.path_params


def _host(url: str) -> tuple[str, int | None]:
    """Host and port of an origin, without a port that goes without saying; no host where it is none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "", None
    return parts.hostname or "", None if port in {80, 443} else port
