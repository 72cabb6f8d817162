"""WADO-RS rendered resources and thumbnails: pictures for those who read no DICOM (PS3.18 10.4.1.1.3, 10.4.1.1.4).

By itself a study or series is seen by the image in its middle, an instance by its first frame; in a multipart every
frame of it comes that can be shown.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from dicomweb import bulkdata, documents, looks, params, urls
from dicomweb.frames import parse_numbers, require
from dicomweb.multipart import Writer, frame
from dicomweb.negotiate import Offer
from dicomweb.once import Once
from dicomweb.resources import accepted, path_of, run, scope_of
from dicomweb.stream import Streamed, Workshop, begun, etag, not_modified, unchanged
from pacs.domain.document import is_report
from pacs.domain.levels import Level, Scope
from pacs.domain.render import GIF, JPEG, PNG, WEBP, Look
from pacs.domain.softcopy import STATES
from pacs.errors import NotAcceptable, NotFound

if TYPE_CHECKING:
    from pacs.node import Node
    from pacs.services.render import Choice
    from pacs.services.retrieve import StoredInstance

KINDS = (JPEG, PNG, GIF, WEBP)
ALONE = tuple(Offer(kind) for kind in KINDS)
PARTS = tuple(Offer(kind, multipart=True) for kind in KINDS)
FRAME_RATES: dict[str, Callable[[float], float]] = {  # what says how fast, and what it says
    "00082144": lambda rate: 1 / rate,  # Recommended Display Frame Rate
    "00180040": lambda rate: 1 / rate,  # Cine Rate
    "00181063": lambda milliseconds: milliseconds / 1000,  # Frame Time
}
RENDERING = "1"  # raised when the same request makes another picture than before


async def retrieve(node: "Node", request: Request) -> Response:
    """The picture of a frame, an instance, a series or a study; or those of all its frames, in a multipart."""
    found = params.pairs(request.scope["query_string"])
    look, headers = looks.rendered(found), _warning(node, request)
    instances, numbers = await _named(node, request)
    if not any(instance.number_of_frames for instance in instances):
        return await _document(node, request, instances, look)
    if len(instances) == 1 and not numbers and bulkdata.is_film(instances[0]):
        return await bulkdata.film(node, request, instances[0])
    offers = (*PARTS, *ALONE) if len(numbers) > 1 else (*ALONE, *PARTS)
    offer = accepted(request, *offers)[0].offer
    look = replace(look, media_type=offer.media_type)
    if offer.multipart:
        return await _all(node, request, _every(instances, numbers), look, headers)
    if offer.media_type == GIF and not numbers and len(instances) == 1 and instances[0].number_of_frames > 1:
        return await _moving(node, request, instances[0], look, headers)
    if len(numbers) > 1:
        raise NotAcceptable("Several frames come in a multipart.", tuple(map(str, PARTS)))
    return await single(node, request, _standing_for(node, request, instances, numbers), look, headers)


async def thumbnail(node: "Node", request: Request) -> Response:
    """A small picture of what the path names; `viewport` says how small."""
    found = params.pairs(request.scope["query_string"])
    look, headers = looks.thumbnail(found), _warning(node, request)
    offer = accepted(request, *ALONE)[0].offer
    instances, numbers = await _named(node, request)
    choices = [(instances[0], numbers[0])] if numbers else node.render.representatives(instances)
    if not choices:
        raise NotFound("Nothing here has a picture: there is no pixel data.")
    return await single(node, request, choices, replace(look, media_type=offer.media_type), headers)


async def _named(node: "Node", request: Request) -> "tuple[list[StoredInstance], tuple[int, ...]]":
    """The instances of the path, and its frame numbers where it has some. Raises NotFound, BadRequest."""
    numbers = parse_numbers(str(request.path_params["frames"])) if "frames" in request.path_params else ()
    scope = scope_of(request)
    instances = await run(lambda: node.retrieve.locate(scope))
    if numbers:
        require(instances[0], numbers)
    return instances, numbers


def _standing_for(
    node: "Node", request: Request, instances: "list[StoredInstance]", numbers: Sequence[int]
) -> "Sequence[Choice]":
    if scope_of(request).level == Level.INSTANCE:
        return [(instances[0], numbers[0] if numbers else 1)]
    return node.render.representatives(instances)


def _every(instances: "list[StoredInstance]", numbers: Sequence[int]) -> "Iterator[Choice]":
    for instance in instances:
        for number in numbers or range(1, instance.number_of_frames + 1):
            yield instance, number


async def single(
    node: "Node", request: Request, choices: "Sequence[Choice]", look: Look, headers: dict[str, str]
) -> Response:
    """The picture of the first of these frames that can be shown, by itself, with a validator."""
    tag = next((tag for choice in choices if unchanged(request.headers, tag := _tag(choice, look))), None)
    if tag is not None:
        return not_modified(tag)
    known: Once = request.app.state.decoded
    choice, content = await request.app.state.shop.run(lambda: _first_possible(node, known, choices, look))
    headers = {**headers, "etag": _tag(choice, look), "cache-control": "private", "vary": "Accept"}
    return Response(content, headers=headers, media_type=look.media_type)


def _first_possible(node: "Node", known: Once, choices: "Sequence[Choice]", look: Look) -> "tuple[Choice, bytes]":
    """The first of these frames that can be shown, with its picture; the last one's error where none can."""

    def make(choice: "Choice") -> bytes:
        return known.call(_tag(choice, look), lambda: node.render.picture(*choice, look))

    for choice in choices[:-1]:
        with suppress(NotAcceptable):
            return choice, make(choice)
    return choices[-1], make(choices[-1])


def _tag(choice: "Choice", look: Look) -> str:
    instance, number = choice
    asked = hashlib.sha256(repr((RENDERING, number, look)).encode()).hexdigest()[:16]
    return etag(instance.sha256[:32], asked)


async def _moving(
    node: "Node", request: Request, instance: "StoredInstance", look: Look, headers: dict[str, str]
) -> Response:
    """A multi-frame instance as one picture that moves, as fast as the object says."""
    tag = _tag((instance, 0), look)
    if unchanged(request.headers, tag):
        return not_modified(tag)
    scope = Scope(instance.study_uid, instance.series_uid, instance.sop_instance_uid)
    found = await run(lambda: node.retrieve.metadata(scope))
    seconds = await run(lambda: frame_seconds(orjson.loads(next(found.parts))))
    shop: Workshop = request.app.state.shop
    chunks = await shop.run(lambda: begun(node.render.animation(instance, look, seconds)))
    headers = {**headers, "etag": tag, "cache-control": "private", "vary": "Accept"}
    return Streamed(chunks, media_type=GIF, headers=headers, shop=shop)


def frame_seconds(row: dict[str, dict[str, Any]]) -> float:
    """How long a frame is to be seen (PS3.3 C.7.6.5, C.7.6.16); a tenth of a second where the object does not say."""
    for tag, of in FRAME_RATES.items():
        number = next(iter(row.get(tag, {}).get("Value", ())), None)
        if isinstance(number, int | float) and number > 0:
            return of(float(number))
    return 0.1


async def _all(
    node: "Node", request: Request, choices: "Iterator[Choice]", look: Look, headers: dict[str, str]
) -> Response:
    """Every frame that can be shown, each named by its Content-Location; 406 where none can."""
    root = urls.root(request, node.settings)
    writer = Writer(look.media_type)
    shop: Workshop = request.app.state.shop
    parts = await shop.run(lambda: begun(_pictures(node, choices, look)))
    named = ((look.media_type, f"{root}{_path(choice)}", iter((content,))) for choice, content in parts)
    body = await shop.run(lambda: begun(frame(writer, named)))
    headers = {**headers, "cache-control": "private"}
    return Streamed(body, media_type=writer.content_type, headers=headers, shop=shop)


def _pictures(node: "Node", choices: "Iterator[Choice]", look: Look) -> "Iterator[tuple[Choice, bytes]]":
    last: NotAcceptable | None = None
    shown = False
    for choice in choices:
        try:
            yield choice, node.render.picture(*choice, look)
        except NotAcceptable as error:
            last = error
            continue
        shown = True
    if not shown and last is not None:
        raise last


def _path(choice: "Choice") -> str:
    instance, number = choice
    place = path_of(Scope(instance.study_uid, instance.series_uid, instance.sop_instance_uid))
    return f"{place}/frames/{number}/rendered"


async def presented(
    node: "Node", request: Request, state: "StoredInstance", look: Look, onto: "Choice | None" = None
) -> Response:
    """The image that a presentation state is about, or the one named, as the state shows it (PS3.18 10.4.1.1.3)."""
    look = replace(look, media_type=accepted(request, *ALONE)[0].offer.media_type) if onto is None else look
    image, number = onto or (None, 0)
    about = state.sha256[:16] + (image.sha256[:16] if image is not None else "")
    tag = etag(about, hashlib.sha256(repr((RENDERING, number, look)).encode()).hexdigest()[:16])
    if unchanged(request.headers, tag):
        return not_modified(tag)
    content: bytes = await request.app.state.shop.run(lambda: node.render.presented(state, look, image, number))
    headers = {"etag": tag, "cache-control": "private", "vary": "Accept"}
    return Response(content, headers=headers, media_type=look.media_type)


async def _document(node: "Node", request: Request, instances: "list[StoredInstance]", look: Look) -> Response:
    """What has no frames may be a document that is read as it is: the first report, or a single other object."""
    if len(instances) == 1 and instances[0].sop_class_uid in STATES:
        return await presented(node, request, instances[0], look)
    reports = [instance for instance in instances if is_report(instance.sop_class_uid)]
    if not reports and len(instances) > 1:
        raise NotAcceptable("Nothing here is an image that can be rendered; retrieve instances or metadata.")
    parameter = params.first(params.pairs(request.scope["query_string"]), "accept")
    accept = ",".join(request.headers.getlist("accept"))
    return await documents.retrieve(node, request, (reports or instances)[0], accept, parameter)


def _warning(node: "Node", request: Request) -> dict[str, str]:
    sentence = looks.unsupported(params.pairs(request.scope["query_string"]))
    return {"warning": f'299 {urls.root(request, node.settings)}: "{sentence}"'} if sentence else {}
