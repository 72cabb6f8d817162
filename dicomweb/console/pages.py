"""The console's pages. A page is parse, one call to the node, render."""

import jinja2
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from dicomweb.console.lookup import Lookup
from pacs.domain.uids import is_uid
from pacs.errors import NotFound, Unavailable
from pacs.node import Node


class Pages:
    """One method a page."""

    def __init__(self, node: Node, templates: jinja2.Environment) -> None:
        self.node, self.templates = node, templates
        self.lookup = Lookup(node)

    async def studies(self, request: Request) -> Response:
        """The study list, newest first; `q` searches name, ID, accession number and description."""
        wanted, modality = request.query_params.get("q", "").strip(), request.query_params.get("modality", "").strip()
        return await self._page(
            "studies.html", lambda: self.lookup.studies(wanted, modality), q=wanted, modality=modality
        )

    async def study(self, request: Request) -> Response:
        """One study: its series, what the AI did with it and why, and the measurements."""
        study_uid = request.path_params["study"]
        if not is_uid(study_uid):
            return self._render("problem.html", 404, message="That is not a UID.")
        return await self._page("study.html", lambda: self.lookup.study(study_uid), study_uid=study_uid)

    async def _page(self, template: str, fetch, **context: object) -> Response:  # type: ignore[no-untyped-def]
        try:
            found = await run_in_threadpool(fetch)
        except NotFound:
            return self._render("problem.html", 404, message="There is no such study here.")
        except Unavailable as away:
            return self._render("problem.html", 503, message=away.message)
        return self._render(template, 200, found=found, **context)

    def _render(self, template: str, status: int, **context: object) -> Response:
        page = self.templates.get_template(template).render(settings=self.node.settings, **context)
        return HTMLResponse(page, status)
