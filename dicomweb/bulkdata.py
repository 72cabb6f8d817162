"""WADO-RS bulk data: what metadata names by BulkDataURI, and the pixel data of many instances (PS3.18 10.4.1.1.5).

Compressed pixel data of several frames comes frame by frame: joined, nobody could tell where one ends.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from dicomweb import urls
from dicomweb.metadata import BASE
from dicomweb.multipart import Writer, frame
from dicomweb.negotiate import Offer
from dicomweb.resources import accepted, path_of, run, scope_of
from dicomweb.stream import Streamed, begun, etag, not_modified, unchanged, unsatisfiable, wanted_range
from pacs.domain.levels import Scope
from pacs.domain.syntaxes import OCTET_STREAM, SYNTAXES
from pacs.errors import BadRequest, NotFound

if TYPE_CHECKING:
    from pacs.node import Node
    from pacs.services.retrieve import Bulk, StoredInstance

Part = tuple[str, str, Iterator[bytes]]  # content type, location, chunks

PIXELS = "7FE00010"
PIXEL_DATA = ("7FE00008", "7FE00009", "7FE00010")  # float, double float, and the usual kind
ANY = Offer(OCTET_STREAM, multipart=True)


async def retrieve(node: "Node", request: Request) -> Response:
    """One element of one instance: by itself or as the one part of a multipart. Its type is that of its content."""
    path = str(request.path_params["path"])
    if not all(piece.isascii() and piece.isalnum() and len(piece) <= 8 for piece in path.split("/")):
        raise BadRequest("A bulk data path is tag, item, tag ... with slashes between.")
    scope = scope_of(request)
    instance = (await run(lambda: node.retrieve.locate(scope)))[0]
    if path == PIXELS and by_frames(instance):
        return await _frames(node, request, instance)
    bulk = await run(lambda: node.retrieve.bulk(instance, path))
    alone, parts = Offer(bulk.media_type), Offer(bulk.media_type, multipart=True)
    plain = () if bulk.media_type == OCTET_STREAM else (Offer(OCTET_STREAM), ANY)
    offer = accepted(request, alone, parts, *plain)[0].offer
    tag = etag(instance.sha256[:32], path.replace("/", "."), weak=offer.multipart)
    if unchanged(request.headers, tag):
        return not_modified(tag)
    if offer.multipart:
        here = f"{urls.root(request, node.settings)}{path_of(scope)}/bulkdata/{path}"
        return _multipart(iter([(offer.media_type, here, iter(bulk.parts))]), offer.media_type)
    return _single(request, bulk, tag, offer.media_type)


def by_frames(instance: "StoredInstance") -> bool:
    """Whether the pixel data is a number of code streams, which are told apart by frames."""
    syntax = SYNTAXES.get(instance.transfer_syntax_uid)
    return instance.number_of_frames > 1 and syntax is not None and syntax.encapsulated and not syntax.video


async def _frames(node: "Node", request: Request, instance: "StoredInstance") -> Response:
    """Compressed frames, a part each; by itself, as octets, all of their bytes in order."""
    kind = SYNTAXES[instance.transfer_syntax_uid].media_type
    offer = accepted(request, *dict.fromkeys((Offer(kind, multipart=True), ANY, Offer(OCTET_STREAM))))[0].offer
    tag = etag(instance.sha256[:32], PIXELS, weak=offer.multipart)
    if unchanged(request.headers, tag):
        return not_modified(tag)
    if not offer.multipart:
        return _single(request, await run(lambda: node.retrieve.bulk(instance, PIXELS)), tag, offer.media_type)
    writer = Writer(kind)
    parts = await run(lambda: begun(_frame_parts(node, instance, urls.root(request, node.settings))))
    headers = {"etag": tag, "cache-control": "private"}
    return Streamed(frame(writer, parts), media_type=writer.content_type, headers=headers)


def _frame_parts(node: "Node", instance: "StoredInstance", root: str) -> "Iterator[Part]":
    place = path_of(Scope(instance.study_uid, instance.series_uid, instance.sop_instance_uid))
    uid = instance.transfer_syntax_uid
    kind = f"{SYNTAXES[uid].media_type}; transfer-syntax={uid}"
    found = node.retrieve.frames(instance, range(1, instance.number_of_frames + 1))
    for number, content in enumerate(found.parts, 1):
        yield kind, f"{root}{place}/frames/{number}", iter((content,))


async def retrieve_all(node: "Node", request: Request) -> Response:
    """Every element that metadata gives by BulkDataURI, in one multipart."""
    accepted(request, ANY)
    root = urls.root(request, node.settings)
    scope = scope_of(request)
    instances = {item.sop_instance_uid: item for item in await run(lambda: node.retrieve.locate(scope))}
    found = await run(lambda: node.retrieve.metadata(scope))
    elements = await run(lambda: [uri for part in found.parts for uri in bulk_uris(orjson.loads(part))])
    if not elements:
        raise NotFound("None of these instances has bulk data; metadata holds all of their values.")
    parts = _of_uris(node, instances, elements, root)
    return _multipart(await run(lambda: begun(parts)), OCTET_STREAM)


async def retrieve_pixels(node: "Node", request: Request) -> Response:
    """The pixel data of each instance that has some, as stored, in one multipart; a film also by itself. 404 where
    there is none."""
    root = urls.root(request, node.settings)
    scope = scope_of(request)
    instances = await run(lambda: node.retrieve.locate(scope))
    if len(instances) == 1 and is_film(instances[0]):
        return await film(node, request, instances[0], ANY)
    accepted(request, ANY)
    pictures = [instance for instance in instances if instance.number_of_frames]
    if not pictures:
        raise NotFound("None of these instances has pixel data.")
    return _multipart(await run(lambda: begun(_of_pixels(node, pictures, root))), OCTET_STREAM)


def is_film(instance: "StoredInstance") -> bool:
    """Whether the pixel data is one stream that moves by itself."""
    syntax = SYNTAXES.get(instance.transfer_syntax_uid)
    return instance.number_of_frames > 0 and syntax is not None and syntax.video


async def film(node: "Node", request: Request, instance: "StoredInstance", *others: Offer) -> Response:
    """The stream of a film as players take it: by itself, with ranges; in a multipart where one of `others` is wanted.

    Raises NotAcceptable.
    """
    kind = SYNTAXES[instance.transfer_syntax_uid].media_type
    offer = accepted(request, Offer(kind), Offer(kind, multipart=True), *others)[0].offer
    tag = etag(instance.sha256[:32], PIXELS, weak=offer.multipart)
    if unchanged(request.headers, tag):
        return not_modified(tag)
    if offer.multipart:
        parts = _of_pixels(node, [instance], urls.root(request, node.settings))
        return _multipart(await run(lambda: begun(parts)), offer.media_type)
    return _single(request, await run(lambda: node.retrieve.bulk(instance, PIXELS)), tag, offer.media_type)


def bulk_uris(row: dict[str, Any]) -> Iterator[str]:
    """The BulkDataURIs of a DICOM JSON object, those inside sequences too."""
    for element in row.values():
        if "BulkDataURI" in element:
            yield element["BulkDataURI"]
        elif element.get("vr") == "SQ":
            for item in element.get("Value", ()):
                yield from bulk_uris(item)


def _of_uris(node: "Node", instances: "dict[str, StoredInstance]", uris: list[str], root: str) -> "Iterator[Part]":
    for uri in uris:
        place, _, path = uri.partition("/bulkdata/")
        instance = instances[place.rpartition("/")[2]]
        if path == PIXELS and by_frames(instance):
            yield from _frame_parts(node, instance, root)
            continue
        bulk = node.retrieve.bulk(instance, path)
        yield bulk.media_type, uri.replace(BASE.decode(), root), iter(bulk.parts)


def _of_pixels(node: "Node", instances: "list[StoredInstance]", root: str) -> "Iterator[Part]":
    for instance in instances:
        if by_frames(instance):
            yield from _frame_parts(node, instance, root)
            continue
        place = path_of(Scope(instance.study_uid, instance.series_uid, instance.sop_instance_uid))
        for tag in PIXEL_DATA:
            try:
                bulk = node.retrieve.bulk(instance, tag)
            except NotFound:
                continue
            yield bulk.media_type, f"{root}{place}/bulkdata/{tag}", iter(bulk.parts)


def _multipart(parts: "Iterator[Part]", media_type: str) -> Response:
    writer = Writer(media_type)
    return Streamed(frame(writer, parts), media_type=writer.content_type, headers={"cache-control": "private"})


def _single(request: Request, bulk: "Bulk", tag: str, media_type: str) -> Response:
    headers = {
        "etag": tag,
        "cache-control": "private",
        "accept-ranges": "bytes",
        "content-disposition": "attachment",
    }
    part = wanted_range(request.headers, bulk.size, tag)
    if part is None:
        return Streamed(iter(bulk.parts), media_type=media_type, length=bulk.size, headers=headers)
    if not part:
        return unsatisfiable(bulk.size)
    headers["content-range"] = f"bytes {part.start}-{part.stop - 1}/{bulk.size}"
    chunks = cut(iter(bulk.parts), part)
    return Streamed(chunks, media_type=media_type, status=206, length=len(part), headers=headers)


def cut(chunks: Iterator[bytes], part: range) -> Iterator[bytes]:
    """The bytes of a range out of chunks that begin at 0."""
    place = 0
    for chunk in chunks:
        piece = chunk[max(part.start - place, 0) : max(part.stop - place, 0)]
        place += len(chunk)
        if piece:
            yield piece
        if place >= part.stop:
            return
