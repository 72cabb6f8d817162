"""Retrieve Capabilities (PS3.18 8.9, Annex H): OPTIONS tells what a resource knows, from THE list of routes."""

from collections.abc import Iterable
from typing import Protocol
from xml.sax.saxutils import quoteattr

import orjson
from starlette.requests import Request
from starlette.responses import Response

from dicomweb.negotiate import Offer
from dicomweb.resources import accepted
from dicomweb.urls import DICOMWEB, base
from pacs.settings import Settings

JSON, WADL = Offer("application/json"), Offer("application/vnd.sun.wadl+xml")


class Row(Protocol):
    """A row of the list of routes, as far as it is told."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...


def describe(request: Request, settings: Settings, rows: Iterable[Row], allow: str) -> Response:
    """The methods of these rows by path, as JSON or WADL; `allow` is the Allow header of the resource itself."""
    offer = accepted(request, JSON, WADL)[0].offer
    resources: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: (row.path, row.method)):
        resources.setdefault(row.path, []).append(row.method)
    root = base(request, settings)
    body = _json(root, resources) if offer == JSON else _wadl(root, resources)
    return Response(body, headers={"allow": allow}, media_type=offer.media_type)


def _json(root: str, resources: dict[str, list[str]]) -> bytes:
    listed = [{"path": path, "methods": methods} for path, methods in resources.items()]
    return orjson.dumps({"base": root, "root": DICOMWEB, "resources": listed})


def _wadl(root: str, resources: dict[str, list[str]]) -> str:
    listed = "".join(
        f"<resource path={quoteattr(path)}>{''.join(f'<method name={quoteattr(m)}/>' for m in methods)}</resource>"
        for path, methods in resources.items()
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><application xmlns="http://wadl.dev.java.net/2009/02">'
        f"<resources base={quoteattr(root)}>{listed}</resources></application>"
    )
