"""Rendered objects that are no images: structured reports as HTML or plain text, encapsulated PDF as it is (8.7.4).

Whatever a report says is text: nothing of it is taken for markup, and the page may run and load nothing.
"""

from html import escape
from typing import TYPE_CHECKING, Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from dicomweb.negotiate import Offer, choose
from dicomweb.resources import run
from dicomweb.stream import Streamed, etag, not_modified, unchanged
from pacs.domain import document
from pacs.domain.levels import Scope
from pacs.errors import NotAcceptable, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pacs.node import Node
    from pacs.services.retrieve import StoredInstance

HTML, PLAIN, PDF = Offer("text/html"), Offer("text/plain"), Offer("application/pdf")
DOCUMENT = "00420011"
POLICY = "default-src 'none'; frame-ancestors 'self'; sandbox"
VERSION = "1"  # raised when a report is shown otherwise than before
HEAD = (  # what stands above a report
    ("Patient", "00100010"),
    ("Patient ID", "00100020"),
    ("Born", "00100030"),
    ("Study date", "00080020"),
    ("Accession number", "00080050"),
    ("Completion", "0040A491"),
    ("Verification", "0040A493"),
)


async def retrieve(
    node: "Node", request: Request, instance: "StoredInstance", accept: str | None, parameter: str | None = None
) -> Response:
    """One object by itself in the best form that the client takes. Raises NotAcceptable."""
    if document.is_report(instance.sop_class_uid):
        return await _report(node, request, instance, choose(accept, (HTML, PLAIN), parameter=parameter)[0].offer)
    try:
        bulk = await run(lambda: node.retrieve.bulk(instance, DOCUMENT))
    except NotFound:
        bulk = None
    if bulk is None or bulk.media_type != PDF.media_type:
        raise NotAcceptable("Nothing here is an image that can be rendered; retrieve instances or metadata.")
    choose(accept, (PDF,), parameter=parameter)
    tag = etag(instance.sha256[:32], DOCUMENT)
    if unchanged(request.headers, tag):
        return not_modified(tag)
    headers = {"etag": tag, "cache-control": "private", "content-disposition": "attachment"}
    return Streamed(iter(bulk.parts), media_type=bulk.media_type, length=bulk.size, headers=headers)


async def _report(node: "Node", request: Request, instance: "StoredInstance", offer: Offer) -> Response:
    tag = etag(instance.sha256[:32], offer.media_type.replace("/", "."), VERSION)
    if unchanged(request.headers, tag):
        return not_modified(tag)
    body = await run(lambda: _written(node, instance, offer))
    headers = {"etag": tag, "cache-control": "private", "vary": "Accept", "content-security-policy": POLICY}
    return Response(body, headers={**headers, "content-type": f"{offer.media_type}; charset=utf-8"})


def _written(node: "Node", instance: "StoredInstance", offer: Offer) -> str:
    scope = Scope(instance.study_uid, instance.series_uid, instance.sop_instance_uid)
    row: dict[str, dict[str, Any]] = next((orjson.loads(part) for part in node.retrieve.metadata(scope).parts), {})
    head = [(name, document.text(row, tag)) for name, tag in HEAD]
    shown = [(name, value) for name, value in head if value]
    return (_page if offer == HTML else _text)(shown, document.lines(row))


def _page(head: "Iterable[tuple[str, str]]", lines: "Iterable[document.Line]") -> str:
    found = [f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in head]
    body, title = [], ""
    for line in lines:
        title = title or line.name
        level = min(line.depth + 1, 6)
        value = escape(line.value).replace("\r\n", "\n").replace("\n", "<br>")
        if line.value:
            body.append(f"<p>{line.number} <strong>{escape(line.name)}</strong> {value}</p>")
        else:
            body.append(f"<h{level}>{line.number} {escape(line.name)}</h{level}>")
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(title)}</title></head>\n'
        f"<body>\n<table>\n{chr(10).join(found)}\n</table>\n{chr(10).join(body)}\n</body>\n</html>\n"
    )


def _text(head: "Iterable[tuple[str, str]]", lines: "Iterable[document.Line]") -> str:
    shown = [f"{name}: {value}" for name, value in head]
    for line in lines:
        named = f"{line.number} {line.name}".strip()
        shown.append("  " * max(line.depth - 1, 0) + (f"{named}: {line.value}" if line.value else named))
    return "\n".join(shown) + "\n"
