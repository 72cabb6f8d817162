"""QIDO-RS: six resources, one search (PS3.18 10.6); and, not of the standard, patients."""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import orjson
from starlette.requests import Request
from starlette.responses import Response

from dicomweb import nativexml, params, trail, urls
from dicomweb.multipart import Writer
from dicomweb.negotiate import Offer
from dicomweb.resources import accepted, path_of, run, scope_of
from pacs.domain.attributes import BY_KEYWORD
from pacs.domain.levels import Level, Scope
from pacs.domain.query import Condition, Page, Query

if TYPE_CHECKING:
    from pacs.node import Node

Row = dict[str, dict[str, object]]

JSON, PLAIN_JSON = Offer("application/dicom+json"), Offer("application/json")
RETRIEVE_URL = "00081190"
STUDY_UID, SERIES_UID = BY_KEYWORD["StudyInstanceUID"], BY_KEYWORD["SeriesInstanceUID"]
# what names a row of each level, from the top
NAMES = (STUDY_UID.hex, SERIES_UID.hex, BY_KEYWORD["SOPInstanceUID"].hex)
TRUNCATED = "There are more results than this server gives at once; ask for the next ones with offset."


@dataclass(frozen=True, slots=True)
class Asked:
    """A search, who turns its pages, and whether the number of all matches is wanted."""

    query: Query
    reader: str
    count: bool


def search(level: Level) -> Callable[["Node", Request], Awaitable[Response]]:
    """The handler that searches at this level below what its path fixes. No match is 200 with an empty list."""

    async def handler(node: "Node", request: Request) -> Response:
        """Searches at this level; no match is an empty list."""
        offer = accepted(request, JSON, PLAIN_JSON, nativexml.AS_PARTS)[0].offer
        asked = Asked(_query(request, level), _reader(request), params.wants_count(request.scope["query_string"]))
        root = urls.root(request, node.settings)
        return await run(lambda: node.search.rendered(lambda: _noted(node, asked, root, offer)))

    return handler


def _reader(request: Request) -> str:
    """Whose pages follow one another: the same client with the same credentials."""
    told = (request.headers.get(name, "") for name in ("authorization", "cookie", "user-agent"))
    address = request.client.host if request.client else ""
    return hashlib.sha256("\0".join((address, *told)).encode()).hexdigest()


def _noted(node: "Node", asked: Asked, root: str, offer: Offer) -> Response:
    """The answer, and for the audit trail whom it is about."""
    query = asked.query
    page = node.search.find(query, asked.reader)
    if asked.count:
        page = replace(page, total=node.search.count(query))
    return trail.about(_answer(page, query, root, offer), **node.audit.searched(query, page.rows))


def _answer(page: Page, query: Query, root: str, offer: Offer) -> Response:
    """The rows in the form asked for; called in a thread, for some clients ask for everything at once."""
    rows = [_with_url(row, query.level, root) for row in page.rows]
    headers = _headers(page, query, root)
    if offer == nativexml.AS_PARTS:
        writer = Writer(offer.media_type)
        body = b"".join(nativexml.parts(rows, writer))
        return Response(body, headers={**headers, "content-type": writer.content_type})
    return Response(orjson.dumps(rows), headers=headers, media_type=offer.media_type)


def _query(request: Request, level: Level) -> Query:
    """What the path fixes comes first. Hierarchical searches leave the attributes above out (Table 10.6.3-4, -5)."""
    fixed = [Condition((STUDY_UID.tag,), (scope.study_uid,))] if (scope := _fixed(request)) else []
    if scope and scope.series_uid:
        fixed.append(Condition((SERIES_UID.tag,), (scope.series_uid,)))
    relational = len(fixed) < level - Level.STUDY
    return params.query(request.scope["query_string"], level, fixed, parents=relational)


def _fixed(request: Request) -> Scope | None:
    return scope_of(request) if "study" in request.path_params else None


def _with_url(row: Row, level: Level, root: str) -> Row:
    """The row with RetrieveURL (0008,1190) of the thing itself, still in ascending order."""
    if level is Level.PATIENT:  # PS3.18 has no resource of a patient
        return row
    names = [_value(row, name) for name in NAMES[:level]]
    url = root + path_of(Scope(*names))
    named: Row = {**row, RETRIEVE_URL: {"vr": "UR", "Value": [url]}}
    return dict(sorted(named.items()))


def _value(row: Row, tag: str) -> str:
    values = row[tag]["Value"]
    assert isinstance(values, list)
    return str(values[0])


def _headers(page: Page, query: Query, root: str) -> dict[str, str]:
    sentences = [*page.warnings, *([TRUNCATED] if page.truncated else [])]
    headers = {"cache-control": "no-store"}
    if sentences:
        headers["warning"] = ", ".join(f'299 {root}: "{sentence}"' for sentence in sentences)
    at_the_end = not page.truncated and (query.limit is None or len(page.rows) < query.limit)
    if page.total is not None:
        headers["x-total-count"] = str(page.total)
    elif at_the_end and (page.rows or query.offset == 0):
        headers["x-total-count"] = str(query.offset + len(page.rows))
    return headers
