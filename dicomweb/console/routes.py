"""The console's list of routes: pages rendered on the server, and their static files."""

from collections.abc import Callable
from pathlib import Path

import jinja2
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from dicomweb import viewerpackage
from dicomweb.console import present
from dicomweb.console.accounts import AccountPages
from dicomweb.console.login import Login
from dicomweb.console.pages import Pages
from dicomweb.console.shown import shown
from dicomweb.problems import status_of
from pacs.errors import FilmroomError
from pacs.node import Node

HERE = Path(__file__).parent


def routes(node: Node) -> list[BaseRoute]:
    """Studies at `/console/`, one study at `/console/studies/{uid}`, static files below `/console/static`."""
    templates = _templates(node)
    pages, login, accounts = Pages(node, templates), Login(node, templates), AccountPages(node, templates)
    return [
        Route("/console/", pages.studies, name="console-studies"),
        Route("/console/studies/{study}", pages.study, name="console-study"),
        Route("/console/login", login.login, methods=["GET", "POST"], name="console-login"),
        Route("/console/logout", login.logout, methods=["GET", "POST"], name="console-logout"),
        Route("/console/accounts", accounts.page, methods=["GET", "POST"], name="console-accounts"),
        Route("/console/password", login.password, methods=["GET", "POST"], name="console-password"),
        Mount("/console/static", StaticFiles(directory=HERE / "static"), name="console-static"),
    ]


def problems(node: Node) -> Callable[[Request, FilmroomError], Response]:
    """What people are shown of an error that ends a page."""
    templates = _templates(node)
    return lambda request, error: shown(
        node, templates, request, "problem.html", status_of(error), message=error.message
    )


def _templates(node: Node) -> jinja2.Environment:
    # patient names are hostile text: everything is escaped, whatever the file is called
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(present.FILTERS)
    environment.globals["notice"] = lambda: node.gate.state().sentence  # known to this process: no question a page
    environment.globals["has_viewer"] = viewerpackage.folder(node.settings) is not None
    return environment
