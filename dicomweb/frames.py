"""WADO-RS frames: cut out as stored, or decoded to plain little-endian samples (PS3.18 10.4.1.1.6, 8.7.3)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from dicomweb import urls
from dicomweb.multipart import Writer, frame
from dicomweb.negotiate import Offer, Want
from dicomweb.resources import accepted, path_of, run, scope_of
from dicomweb.stream import Streamed, begun, etag, not_modified, unchanged, unsatisfiable, wanted_range
from pacs.domain.syntaxes import EXPLICIT_BE, EXPLICIT_LE, OCTET_STREAM, SYNTAXES, TransferSyntax
from pacs.errors import BadRequest, NotAcceptable, NotFound

if TYPE_CHECKING:
    from pacs.node import Node
    from pacs.services.retrieve import StoredInstance

MOST_FRAMES = 10_000  # in one list


@dataclass(frozen=True, slots=True)
class Representation:
    """How frames go out: the media type of each, its transfer syntax, and whether they are decoded for it."""

    offer: Offer
    media_type: str
    transfer_syntax_uid: str
    decoded: bool

    @property
    def content_type(self) -> str:
        return f"{self.media_type}; transfer-syntax={self.transfer_syntax_uid}"


async def retrieve(node: "Node", request: Request) -> Response:
    """The frames of the list in its order, repeats included; one frame also by itself."""
    numbers = parse_numbers(str(request.path_params["frames"]))
    scope = scope_of(request)
    instance = (await run(lambda: node.retrieve.locate(scope)))[0]
    require(instance, numbers)
    shown = choose(request, instance, single=len(numbers) == 1)
    listed = ",".join(map(str, numbers))
    tag = etag(instance.sha256[:32], "decoded" if shown.decoded else "stored", listed[:64], weak=shown.offer.multipart)
    if unchanged(request.headers, tag):
        return not_modified(tag)
    contents = await run(lambda: begun(_contents(node, instance, numbers, shown)))
    if not shown.offer.multipart:
        return _single(request, next(contents), shown, tag)
    root = f"{urls.root(request, node.settings)}{path_of(scope)}/frames"
    writer = Writer(shown.media_type)
    parts = (
        (shown.content_type, f"{root}/{number}", iter((content,)))
        for number, content in zip(numbers, contents, strict=True)
    )
    headers = {"etag": tag, "cache-control": "private"}
    return Streamed(frame(writer, parts), media_type=writer.content_type, headers=headers)


def parse_numbers(text: str) -> tuple[int, ...]:
    """A comma-separated list of frame numbers from 1. Raises BadRequest."""
    pieces = [piece.strip() for piece in text.split(",")]
    if len(pieces) > MOST_FRAMES:
        raise BadRequest(f"At most {MOST_FRAMES} frames may be asked for at once.")
    if not all(piece.isascii() and piece.isdecimal() and len(piece) < 10 and int(piece) > 0 for piece in pieces):
        raise BadRequest("Frames are a comma-separated list of whole numbers from 1.")
    return tuple(map(int, pieces))


def require(instance: "StoredInstance", numbers: Sequence[int]) -> None:
    """Raises NotFound for frames that are not there."""
    if instance.number_of_frames == 0:
        raise NotFound("This instance has no pixel data, and so no frames.")
    if max(numbers) > instance.number_of_frames:
        raise NotFound(f"This instance has {instance.number_of_frames} frames.")


def choose(request: Request, instance: "StoredInstance", *, single: bool) -> Representation:
    """The representation that the client wants most of those that can be made. Raises NotAcceptable."""
    stored = SYNTAXES[instance.transfer_syntax_uid]
    kinds = dict.fromkeys((OCTET_STREAM, stored.media_type))
    offers = [Offer(kind, multipart) for multipart in (True, False) for kind in kinds if multipart or single]
    for want in accepted(request, *offers):
        shown = _represent(want, stored)
        if shown is not None:
            return shown
    raise NotAcceptable(
        "These frames cannot be given in a transfer syntax that was asked for; transfer-syntax=* gives them as stored.",
        tuple(f'multipart/related; type="{kind}"' for kind in kinds),
    )


def _represent(want: Want, stored: TransferSyntax) -> Representation | None:
    """A compressed frame keeps its own media type, whatever type was named with `transfer-syntax=*`: OHIF asks for
    octet-stream and reads the part's type (dicomweb.md 2.4)."""
    asked = want.transfer_syntax
    if stored.encapsulated and (asked in {"*", stored.uid} or (not asked and want.offer.media_type != OCTET_STREAM)):
        return Representation(want.offer, stored.media_type, stored.uid, decoded=False)
    if want.offer.media_type != OCTET_STREAM or not stored.decodable:
        return None
    # native frames are cut out in little endian, whatever the data set around them is
    if asked in {"", "*", EXPLICIT_LE} or (asked == stored.uid and asked != EXPLICIT_BE):
        return Representation(want.offer, OCTET_STREAM, EXPLICIT_LE, decoded=stored.encapsulated)
    return None


def _contents(
    node: "Node", instance: "StoredInstance", numbers: Sequence[int], shown: Representation
) -> Iterator[bytes]:
    """One byte string a frame."""
    if shown.decoded:
        yield from node.retrieve.decoded(instance, numbers)
    else:
        yield from node.retrieve.frames(instance, numbers).parts


def _single(request: Request, content: bytes, shown: Representation, tag: str) -> Response:
    headers = {"etag": tag, "cache-control": "private", "accept-ranges": "bytes"}
    part = wanted_range(request.headers, len(content), tag)
    status = 200
    if part is not None:
        if not part:
            return unsatisfiable(len(content))
        headers["content-range"] = f"bytes {part.start}-{part.stop - 1}/{len(content)}"
        content, status = content[part.start : part.stop], 206
    return Response(content, status, headers, shown.content_type)
