"""The console's list of routes: pages rendered on the server, and their static files."""

from pathlib import Path

import jinja2
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from dicomweb import viewerpackage
from dicomweb.console import present
from dicomweb.console.login import Login
from dicomweb.console.pages import Pages
from pacs.node import Node

HERE = Path(__file__).parent


def routes(node: Node) -> list[BaseRoute]:
    """Studies at `/console/`, one study at `/console/studies/{uid}`, static files below `/console/static`."""
    templates = _templates()
    templates.globals["notice"] = lambda: node.gate.state().sentence  # known to this process: no question a page
    templates.globals["has_viewer"] = viewerpackage.folder(node.settings) is not None
    pages, login = Pages(node, templates), Login(node, templates)
    return [
        Route("/console/", pages.studies, name="console-studies"),
        Route("/console/studies/{study}", pages.study, name="console-study"),
        Route("/console/login", login.login, methods=["GET", "POST"], name="console-login"),
        Route("/console/logout", login.logout, methods=["GET", "POST"], name="console-logout"),
        Route("/console/password", login.password, methods=["GET", "POST"], name="console-password"),
        Mount("/console/static", StaticFiles(directory=HERE / "static"), name="console-static"),
    ]


def _templates() -> jinja2.Environment:
    # patient names are hostile text: everything is escaped, whatever the file is called
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(present.FILTERS)
    return environment
