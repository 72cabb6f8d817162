"""WADO-RS metadata: the DICOM JSON that was made at store time, sent as it is kept (PS3.18 10.4.1.1.2, Annex F)."""

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import orjson
from starlette.requests import Request
from starlette.responses import Response

from dicomweb import nativexml, urls
from dicomweb.multipart import Writer
from dicomweb.qido import JSON, PLAIN_JSON
from dicomweb.resources import accepted, run, scope_of
from dicomweb.stream import Streamed, begun, blocks, etag, not_modified, unchanged

if TYPE_CHECKING:
    from pacs.node import Node

BASE = b"%BASE%"  # stands in kept metadata where the DICOMweb root belongs
VARY = "Accept, Accept-Encoding"
GZIP_WINDOW = 16 + zlib.MAX_WBITS


async def retrieve(node: "Node", request: Request) -> Response:
    """A JSON array with one object an instance. 404 for what is not there, 304 for what has not changed."""
    scope = scope_of(request)
    offer = accepted(request, JSON, PLAIN_JSON, nativexml.AS_PARTS)[0].offer
    found = await run(lambda: node.retrieve.metadata(scope))
    root = urls.root(request, node.settings).encode("ascii")
    zipped = not offer.multipart and wants_gzip(request.headers.get("accept-encoding", ""))
    # the same instances under another URL or coding are another representation
    place = hashlib.sha256(root + offer.media_type.encode()).hexdigest()[:8]
    tag = etag(found.etag, place, "gzip" if zipped else "plain", weak=offer.multipart)
    if unchanged(request.headers, tag):
        return not_modified(tag, vary=VARY)
    headers = {"etag": tag, "cache-control": "private", "vary": VARY}
    parts = await run(lambda: begun(found.parts))
    objects = (part.replace(BASE, root) for part in parts)
    if offer.multipart:
        writer = Writer(offer.media_type)
        documents = nativexml.parts(map(orjson.loads, objects), writer)
        return Streamed(documents, media_type=writer.content_type, headers=headers)
    body = array(objects)
    if zipped:
        body, headers["content-encoding"] = gzip(body), "gzip"
    return Streamed(body, media_type=offer.media_type, headers=headers)


def array(items: Iterable[bytes]) -> Iterator[bytes]:
    """JSON texts as one JSON array."""
    before = b"["
    for item in items:
        yield before
        yield item
        before = b","
    yield b"]" if before == b"," else b"[]"


def wants_gzip(accept_encoding: str) -> bool:
    """Whether gzip is asked for by its name (RFC 9110 12.5.3); silence and a star are no wish."""
    for piece in accept_encoding.lower().split(","):
        coding, _, weight = piece.partition(";")
        if coding.strip() == "gzip":
            return weight.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False


def gzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """A gzip stream of these bytes, at the level that costs least."""
    squeeze = zlib.compressobj(1, zlib.DEFLATED, GZIP_WINDOW)
    for block in blocks(chunks):
        yield squeeze.compress(block)
    yield squeeze.flush()
