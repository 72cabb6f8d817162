"""THE list of routes of this node's HTTP side, and the application made of it.

A row is method, path, handler and permission; a handler is `async (node, request) -> Response`. HEAD follows from GET,
Allow and 405 from the rows of a path, and each path is accepted with a slash at its end, too.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from dicomweb import (
    accounts,
    admin,
    auth,
    bulkdata,
    capabilities,
    delete,
    frames,
    metadata,
    ops,
    peers,
    problems,
    qido,
    rendered,
    stow,
    trail,
    viewer,
    wado,
    wadouri,
    worklist,
)
from dicomweb.auth import Line
from dicomweb.door import Door, Files, Page, require_known, wants_page
from dicomweb.guard import Guard, exchange
from dicomweb.once import Once
from dicomweb.stream import Workshop, bare
from pacs.domain.levels import Level
from pacs.domain.roles import PUBLIC, SIGNED_IN, Identity
from pacs.errors import FilmroomError

if TYPE_CHECKING:
    from pacs.node import Node

Handler = Callable[["Node", Request], Awaitable[Response]]

COSTLY_CALLS = 8  # that decode, convert or draw at a time
DECODED_BYTES = 48 << 20  # of decoded frames that are kept for those who ask again
ROOT = "/dicom-web"
API = "/api/v1"
STUDY = f"{ROOT}/studies/{{study}}"
SERIES = f"{STUDY}/series/{{series}}"
INSTANCE = f"{SERIES}/instances/{{instance}}"


@dataclass(frozen=True, slots=True)
class Row:
    """One verb of one path. `permission` is what a role has to hold (pacs/domain/roles.py); `public` is for everybody,
    `signed-in` for whoever is known."""

    method: str
    path: str
    handler: Handler
    permission: str


ROUTES: tuple[Row, ...] = (
    Row("GET", "/health", ops.health, "public"),
    Row("GET", "/ready", ops.ready, "public"),
    Row("GET", "/metrics", ops.metrics, "metrics"),
    Row("GET", "/openapi.json", ops.described, "signed-in"),
    Row("GET", ROOT, ops.root, "signed-in"),
    # QIDO-RS (PS3.18 10.6)
    Row("GET", f"{ROOT}/studies", qido.search(Level.STUDY), "search"),
    Row("GET", f"{ROOT}/series", qido.search(Level.SERIES), "search"),
    Row("GET", f"{ROOT}/instances", qido.search(Level.INSTANCE), "search"),
    Row("GET", f"{ROOT}/patients", qido.search(Level.PATIENT), "search"),
    Row("GET", f"{STUDY}/series", qido.search(Level.SERIES), "search"),
    Row("GET", f"{STUDY}/instances", qido.search(Level.INSTANCE), "search"),
    Row("GET", f"{SERIES}/instances", qido.search(Level.INSTANCE), "search"),
    # STOW-RS (10.5)
    Row("POST", f"{ROOT}/studies", stow.store, "store"),
    Row("POST", STUDY, stow.store, "store"),
    # WADO-RS (10.4)
    Row("GET", STUDY, wado.retrieve, "retrieve"),
    Row("GET", SERIES, wado.retrieve, "retrieve"),
    Row("GET", INSTANCE, wado.retrieve, "retrieve"),
    Row("GET", f"{STUDY}/metadata", metadata.retrieve, "retrieve"),
    Row("GET", f"{SERIES}/metadata", metadata.retrieve, "retrieve"),
    Row("GET", f"{INSTANCE}/metadata", metadata.retrieve, "retrieve"),
    Row("GET", f"{INSTANCE}/frames/{{frames}}", frames.retrieve, "retrieve"),
    Row("GET", f"{STUDY}/bulkdata", bulkdata.retrieve_all, "retrieve"),
    Row("GET", f"{SERIES}/bulkdata", bulkdata.retrieve_all, "retrieve"),
    Row("GET", f"{INSTANCE}/bulkdata", bulkdata.retrieve_all, "retrieve"),
    Row("GET", f"{INSTANCE}/bulkdata/{{path:path}}", bulkdata.retrieve, "retrieve"),
    Row("GET", f"{STUDY}/pixeldata", bulkdata.retrieve_pixels, "retrieve"),
    Row("GET", f"{SERIES}/pixeldata", bulkdata.retrieve_pixels, "retrieve"),
    Row("GET", f"{INSTANCE}/pixeldata", bulkdata.retrieve_pixels, "retrieve"),
    *(
        Row("GET", f"{place}/{kind}", handler, "retrieve")
        for place in (STUDY, SERIES, INSTANCE, f"{INSTANCE}/frames/{{frames}}")
        for kind, handler in (("rendered", rendered.retrieve), ("thumbnail", rendered.thumbnail))
    ),
    Row("GET", "/wado", wadouri.retrieve, "retrieve"),
    # not of the standard
    Row("DELETE", STUDY, delete.delete, "delete"),
    Row("DELETE", SERIES, delete.delete, "delete"),
    Row("DELETE", INSTANCE, delete.delete, "delete"),
    # coming in, and who may
    Row("POST", f"{API}/auth/token", auth.token, "public"),
    Row("POST", f"{API}/auth/refresh", auth.refresh, "public"),  # 401 without a refresh token
    Row("POST", f"{API}/auth/logout", auth.logout, "signed-in"),
    Row("GET", f"{API}/auth/me", auth.me, "signed-in"),
    Row("POST", f"{API}/auth/password", auth.password, "signed-in"),
    Row("GET", f"{API}/users", accounts.users, "accounts"),
    Row("POST", f"{API}/users", accounts.add_user, "accounts"),
    Row("GET", f"{API}/users/{{username}}", accounts.user, "accounts"),
    Row("PATCH", f"{API}/users/{{username}}", accounts.change_user, "accounts"),
    Row("DELETE", f"{API}/users/{{username}}", accounts.remove_user, "accounts"),
    Row("GET", f"{API}/tokens", accounts.tokens, "accounts"),
    Row("POST", f"{API}/tokens", accounts.add_token, "accounts"),
    Row("DELETE", f"{API}/tokens", accounts.revoke_token, "accounts"),
    Row("DELETE", f"{API}/tokens/{{token}}", accounts.revoke_token, "accounts"),
    Row("GET", f"{API}/studies/{{study}}/labels", accounts.labels, "control"),
    Row("PUT", f"{API}/studies/{{study}}/labels", accounts.put_labels, "control"),
    # admin API
    Row("GET", f"{API}/status", admin.status, "status"),
    Row("GET", f"{API}/refusals/{{id}}", admin.refusal, "status"),
    Row("GET", f"{API}/changes", admin.changes, "changes"),
    Row("GET", f"{API}/conflicts", admin.conflicts, "status"),
    Row("POST", f"{API}/conflicts/{{id}}/resolve", admin.resolve_conflict, "control"),
    Row("GET", f"{API}/audit", admin.audit, "audit"),
    Row("GET", f"{API}/worklist", worklist.listed, "worklist"),
    Row("POST", f"{API}/worklist", worklist.add, "worklist"),
    Row("GET", f"{API}/worklist/{{id}}", worklist.one, "worklist"),
    Row("PUT", f"{API}/worklist/{{id}}", worklist.replace, "worklist"),
    Row("DELETE", f"{API}/worklist/{{id}}", worklist.remove, "worklist"),
    Row("GET", f"{API}/peers", peers.listed, "status"),
    Row("POST", f"{API}/peers/{{name}}/test", peers.test, "control"),
    Row("GET", f"{API}/maintenance", admin.maintenance, "status"),
    Row("PUT", f"{API}/maintenance", admin.set_maintenance, "control"),
    Row("GET", f"{API}/ai/models", admin.models, "ai"),
    Row("GET", f"{API}/ai/jobs", admin.jobs, "ai"),
    Row("GET", f"{API}/ai/jobs/{{id}}", admin.job, "ai"),
    Row("POST", f"{API}/ai/jobs/{{id}}/retry", admin.change_job("retry"), "ai-control"),
    Row("POST", f"{API}/ai/jobs/{{id}}/cancel", admin.change_job("cancel"), "ai-control"),
    Row("POST", f"{API}/ai/jobs/{{id}}/drop", admin.change_job("drop"), "ai-control"),
    Row("GET", f"{API}/ai/studies/{{study}}", admin.timeline, "ai"),
    Row("POST", f"{API}/ai/studies/{{study}}/run", admin.run, "ai-control"),
)


# what people look at: path -> permission
PAGES: dict[str, str] = {
    "/": SIGNED_IN,
    "/console": SIGNED_IN,
    "/console/": "search",
    "/console/studies/{study}": "retrieve",
    "/console/accounts": "accounts",
    "/console/login": PUBLIC,
    "/console/logout": SIGNED_IN,
    "/console/password": SIGNED_IN,
    "/console/static": PUBLIC,
    viewer.PAGE: SIGNED_IN,
}


def build(node: "Node") -> Starlette:
    """The application on this node's services: DICOMweb, admin API, health, and the console's pages.

    Raises ValueError for a route without a permission: nobody would know who may go there.
    """
    door = Door(node)
    pages = [_behind(door, route) for route in viewer.routes(node.settings)]
    console = [_behind(door, route) for route in _console(node)]
    nowhere = Route("/{path:path}", Page(Nowhere(), door, SIGNED_IN))
    app = Starlette(
        routes=[*_routes(node, door, ROUTES), *pages[:-1], *console, *pages[-1:], nowhere],
        middleware=[Middleware(Guard, settings=node.settings, metrics=node.metrics), Middleware(WithoutSlash)],
        exception_handlers={FilmroomError: _problem, HTTPException: _http_problem},
    )
    app.router.redirect_slashes = False
    app.state.routes = ROUTES
    app.state.shop = Workshop(COSTLY_CALLS)
    app.state.decoded = Once(DECODED_BYTES, node.metrics.cache("frames"))
    app.state.line = Line()
    app.state.page_of = _page_of(node)
    return app


def _behind(door: Door, route: BaseRoute) -> BaseRoute:
    """A page, or a folder of files, behind the door: what is inside asks nobody."""
    assert isinstance(route, Route | Mount)
    if isinstance(route, viewer.OfPort):
        route.app = Files(route.app, door)
        return route
    permission = PAGES.get(route.path, "")
    require_known(permission, route.path)
    if permission != PUBLIC:
        route.app = Page(route.app, door, permission)
    return route


def _routes(node: "Node", door: Door, rows: Sequence[Row]) -> list[BaseRoute]:
    """One route a path, which knows all of its methods."""
    verbs: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        require_known(row.permission, f"{row.method} {row.path}")
        verbs[row.path][row.method] = row
    return [Route(path, Verbs(node, door, known)) for path, known in verbs.items()]


class Verbs:
    """What may be done at one path."""

    def __init__(self, node: "Node", door: Door, rows: dict[str, Row]) -> None:
        self.node, self.door, self.rows = node, door, rows
        methods = {*rows, "OPTIONS", *(["HEAD"] if "GET" in rows else [])}
        self.allow = ", ".join(sorted(methods))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        response = await self.answer(request)
        await response(scope, receive, send)

    async def answer(self, request: Request) -> Response:
        """HEAD mirrors GET; OPTIONS tells what there is (PS3.18 8.9)."""
        row = self.rows.get("GET" if request.method == "HEAD" else request.method)
        who = await self._who(request, row)
        if request.method == "OPTIONS":
            rows = ROUTES if request.url.path == ROOT else self.rows.values()
            return capabilities.describe(request, self.node.settings, rows, self.allow)
        if row is None:
            message = f"{request.method} is not for this resource; it knows {self.allow}."
            raise HTTPException(405, message, headers={"Allow": self.allow})
        try:
            response = await row.handler(await self._admitted(who, request, row), request)
        except Exception as error:
            trail.failed(self.node, request, row.path, row.permission, error)
            raise
        trail.answered(self.node, request, row.path, row.permission, response)
        return bare(response) if request.method == "HEAD" else response

    async def _who(self, request: Request, row: Row | None) -> Identity | None:
        """Who asks; nobody is asked on a route for everybody. Raises Unauthorized, Unavailable."""
        if row is not None and row.permission == PUBLIC:
            return None
        try:
            return await self.door.who(request)
        except FilmroomError as error:
            if row is not None:
                trail.failed(self.node, request, row.path, row.permission, error)
            raise

    async def _admitted(self, who: Identity | None, request: Request, row: Row) -> "Node":
        """The node as whoever asks sees it. Raises Forbidden, NotFound."""
        if who is None:
            return self.node
        self.door.permit(who, request, row.permission)
        return await self.door.seen_by(who, request)


class WithoutSlash:
    """Drops the slash at a path's end, except where it names a page (the console's)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and path.startswith(
            (f"{ROOT}/", "/api/", "/wado", "/health", "/ready", "/metrics", "/openapi")
        ):
            scope["path"] = path.rstrip("/")
        await self.app(scope, receive, send)


def _console(node: "Node") -> list[BaseRoute]:
    """The console's pages, and the way to them from the root, where the console is installed."""
    if find_spec("dicomweb.console.routes") is None:
        return []
    from dicomweb.console.routes import routes

    async def to_console(_request: Request) -> Response:
        return RedirectResponse("/console/", 307)

    return [Route("/", to_console), Route("/console", to_console), *routes(node)]


def _page_of(node: "Node") -> Callable[[Request, FilmroomError], Response] | None:
    """How the console shows an error, where it is installed."""
    if find_spec("dicomweb.console.routes") is None:
        return None
    from dicomweb.console.routes import problems as problem_pages

    return problem_pages(node)


class Nowhere:
    """Every path that nothing else answers."""

    async def __call__(self, _scope: Scope, _receive: Receive, _send: Send) -> None:
        raise HTTPException(404, "There is no such resource here; docs/conformance.md lists those that are.")


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, FilmroomError)  # the table in `build` says so
    if request.app.state.page_of is not None and request.url.path.startswith("/console") and wants_page(request):
        page: Response = request.app.state.page_of(request, error)
        return page
    return problems.of(error, exchange(request.scope).request_id)


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    word = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "http")
    response = problems.problem(error.status_code, word, error.detail, exchange(request.scope).request_id)
    response.headers.update(error.headers or {})
    return response
