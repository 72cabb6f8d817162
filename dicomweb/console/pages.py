"""The console's pages. A page is parse, one call to the node, render."""

from collections.abc import Callable
from functools import partial

import jinja2
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from dicomweb import problems, trail
from dicomweb.console.lookup import Lookup, StudyList, StudyPage
from dicomweb.console.shown import seen, shown
from pacs.domain.uids import is_uid
from pacs.errors import NotFound, Unavailable
from pacs.node import Node

Shown = StudyList | StudyPage
MISSING = "There is no such study here."


class Pages:
    """One method a page."""

    def __init__(self, node: Node, templates: jinja2.Environment) -> None:
        self.node, self.templates = node, templates

    async def studies(self, request: Request) -> Response:
        """The study list, newest first; `q` searches name, ID, accession number and description."""
        wanted, modality = request.query_params.get("q", "").strip(), request.query_params.get("modality", "").strip()
        fetch = partial(self._lookup(request).studies, wanted, modality)
        return await self._page(request, "search", "studies.html", fetch, q=wanted, modality=modality)

    async def study(self, request: Request) -> Response:
        """One study: its series, what the AI did with it and why, and the measurements."""
        study_uid = request.path_params["study"]
        if not is_uid(study_uid):
            return self._render(request, "problem.html", 404, message="That is not a UID.")
        fetch = partial(self._lookup(request).study, study_uid)
        return await self._page(request, "read", "study.html", fetch, study_uid=study_uid)

    async def _page(
        self, request: Request, action: str, template: str, fetch: Callable[[], Shown], **context: str
    ) -> Response:
        """The page, and a row of the audit trail for what it shows, or does not."""
        asker, study_uid = trail.asker(self.node, request), context.get("study_uid", "")
        about = {"study_uid": study_uid, "detail": {"page": template, "asked": {**context}}}
        try:
            found = await run_in_threadpool(fetch)
        except (NotFound, Unavailable) as error:
            self.node.audit.note(asker, action, outcome="failed", **about)
            status, missing = problems.status_of(error), isinstance(error, NotFound)
            return self._render(request, "problem.html", status, message=MISSING if missing else error.message)
        self.node.audit.note(asker, action, **about, listed=found.study_uids)
        return self._render(request, template, 200, found=found, **context)

    def _lookup(self, request: Request) -> Lookup:
        return Lookup(seen(request, self.node))

    def _render(self, request: Request, template: str, status: int, **context: object) -> Response:
        return shown(self.node, self.templates, request, template, status, **context)
