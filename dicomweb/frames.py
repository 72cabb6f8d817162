"""WADO-RS frames: as stored, decoded to plain little-endian samples, or coded anew (PS3.18 10.4.1.1.6, 8.7.3)."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from dicomweb import looks, params, urls
from dicomweb.multipart import Writer, frame
from dicomweb.negotiate import Offer, Want
from dicomweb.once import Once
from dicomweb.resources import accepted, path_of, run, scope_of
from dicomweb.stream import Streamed, Workshop, begun, etag, not_modified, unchanged, unsatisfiable, wanted_range
from pacs.domain import pixels
from pacs.domain.encoders import ENCODERS, Unencodable
from pacs.domain.frames import Description
from pacs.domain.syntaxes import DEFAULT_SYNTAX, EXPLICIT_BE, EXPLICIT_LE, OCTET_STREAM, SYNTAXES, TransferSyntax
from pacs.errors import BadRequest, NotAcceptable, NotFound

if TYPE_CHECKING:
    from pacs.node import Node
    from pacs.services.retrieve import StoredInstance

Decode = Callable[[bytes, Description, str], pixels.Decoded]

MOST_FRAMES = 10_000  # in one list
CODED = ("image/jls", "image/jpeg", "image/jp2", "image/jphc", "image/dicom-rle")  # what frames are coded as, at need
FORMER_NAMES = {"image/x-dicom-rle": "image/dicom-rle", "image/x-jls": "image/jls", "image/dicom+jp2": "image/jp2"}


@dataclass(frozen=True, slots=True)
class Representation:
    """How frames go out: the media type of each, its transfer syntax, and whether they are made for it: decoded where
    that is Explicit VR Little Endian, else coded anew, with `quality` where something is lost."""

    offer: Offer
    media_type: str
    transfer_syntax_uid: str
    made: bool
    quality: int = 0

    @property
    def content_type(self) -> str:
        return f"{self.media_type}; transfer-syntax={self.transfer_syntax_uid}"


async def retrieve(node: "Node", request: Request) -> Response:
    """The frames of the list in its order, repeats included; one frame also by itself."""
    numbers = parse_numbers(str(request.path_params["frames"]))
    scope = scope_of(request)
    instance = (await run(lambda: node.retrieve.locate(scope)))[0]
    require(instance, numbers)
    candidates = representations(request, instance, single=len(numbers) == 1)
    for known in candidates:
        if unchanged(request.headers, _tag(instance, numbers, known)):
            return not_modified(_tag(instance, numbers, known))
    cutter = Cutter(node, instance, numbers, request.app.state.decoded)
    shop: Workshop | None = request.app.state.shop if any(known.made for known in candidates) else None
    shown, contents = await (run if shop is None else shop.run)(lambda: cutter.first_possible(candidates))
    tag = _tag(instance, numbers, shown)
    if not shown.offer.multipart:
        return _single(request, next(contents), shown, tag)
    root = f"{urls.root(request, node.settings)}{path_of(scope)}/frames"
    writer = Writer(shown.media_type)
    parts = (
        (shown.content_type, f"{root}/{number}", iter((content,)))
        for number, content in zip(numbers, contents, strict=True)
    )
    headers = {"etag": tag, "cache-control": "private"}
    if len(numbers) == 1:  # it is in memory by now: to stream it would only cost turns of threads
        return Response(b"".join(frame(writer, parts)), headers={**headers, "content-type": writer.content_type})
    return Streamed(frame(writer, parts), media_type=writer.content_type, headers=headers, shop=shop)


def _tag(instance: "StoredInstance", numbers: Sequence[int], shown: Representation) -> str:
    listed = hashlib.sha256(",".join(map(str, numbers)).encode()).hexdigest()[:16]
    quality = str(shown.quality)
    return etag(instance.sha256[:32], shown.transfer_syntax_uid, quality, listed, weak=shown.offer.multipart)


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


def representations(request: Request, instance: "StoredInstance", *, single: bool) -> list[Representation]:
    """The representations that the client takes and the transfer syntax allows, best first. Raises NotAcceptable."""
    stored = SYNTAXES[instance.transfer_syntax_uid]
    quality = looks.quality(params.pairs(request.scope["query_string"]))
    kinds = tuple(dict.fromkeys((OCTET_STREAM, stored.media_type, *CODED, *FORMER_NAMES)))
    offers = [Offer(kind, multipart) for multipart in (True, False) for kind in kinds if multipart or single]
    found = [shown for want in accepted(request, *offers) if (shown := _represent(want, stored, quality))]
    if found:
        return found
    raise NotAcceptable(
        "These frames cannot be given in a transfer syntax that was asked for; transfer-syntax=* gives them as stored.",
        tuple(f'multipart/related; type="{kind}"' for kind in kinds),
    )


def _represent(want: Want, stored: TransferSyntax, quality: int) -> Representation | None:
    """A compressed frame keeps its own media type, whatever type was named with `transfer-syntax=*`: OHIF asks for
    octet-stream and reads the part's type (dicomweb.md 2.4)."""
    asked, named = want.transfer_syntax, want.offer.media_type
    kind = FORMER_NAMES.get(named, named)
    unnamed_own = not asked and kind != OCTET_STREAM and kind == stored.media_type
    if stored.encapsulated and (asked in {"*", stored.uid} or unnamed_own):
        shown = named if kind == stored.media_type else stored.media_type
        return Representation(want.offer, shown, stored.uid, made=False)
    if not stored.decodable:
        return None
    if kind != OCTET_STREAM:
        uid = asked or DEFAULT_SYNTAX[kind]
        if uid not in ENCODERS or SYNTAXES[uid].media_type != kind:
            return None
        return Representation(want.offer, named, uid, made=True, quality=quality if ENCODERS[uid].lossy else 0)
    # native frames are cut out in little endian, whatever the data set around them is
    if asked in {"", "*", EXPLICIT_LE} or (asked == stored.uid and asked != EXPLICIT_BE):
        return Representation(want.offer, OCTET_STREAM, EXPLICIT_LE, made=stored.encapsulated)
    return None


@dataclass(frozen=True, slots=True)
class Cutter:
    """Makes the frames of one request; what is decoded is shared with those who ask for the same."""

    node: "Node"
    instance: "StoredInstance"
    numbers: Sequence[int]
    decoded: Once

    def first_possible(self, candidates: Sequence[Representation]) -> tuple[Representation, Iterator[bytes]]:
        """The first representation whose first frame can be made, with its frames. Raises NotAcceptable."""
        for shown in candidates[:-1]:
            with suppress(NotAcceptable):
                return shown, begun(self.contents(shown))
        return candidates[-1], begun(self.contents(candidates[-1]))

    def contents(self, shown: Representation) -> Iterator[bytes]:
        """One byte string a frame. Raises NotFound, Damaged, NotAcceptable."""
        if not shown.made:
            yield from self.node.retrieve.frames(self.instance, self.numbers).parts
            return
        for number in self.numbers:
            key = (self.instance.sha256, number, shown.transfer_syntax_uid, shown.quality)
            yield self.decoded.call(key, partial(self._made, number, shown))

    def _made(self, number: int, shown: Representation) -> bytes:
        found = self.node.retrieve.frames(self.instance, [number])
        [stream] = found.parts
        table = self.node.retrieve.table(self.instance)
        source = table.transfer_syntax_uid if table.encapsulated else ""
        try:
            if shown.transfer_syntax_uid == EXPLICIT_LE:
                return plain(stream, table.description, source, self.node.decoders.decode)
            return self.node.decoders.recode(
                stream, table.description, source, shown.transfer_syntax_uid, shown.quality
            ).stream
        except (pixels.Undecodable, Unencodable) as error:
            raise NotAcceptable(
                f"A frame cannot be given so: {error.message}; transfer-syntax=* gives it as stored."
            ) from error


def plain(content: bytes, about: Description, transfer_syntax_uid: str, decode: Decode) -> bytes:
    """A compressed frame as plain little-endian samples, planes apart where the object says so. Raises Undecodable."""
    if not transfer_syntax_uid:
        return content
    samples = decode(content, pixels.untrimmed(about, transfer_syntax_uid), transfer_syntax_uid).samples
    if about.bits_allocated == 1:
        samples = np.packbits(samples, bitorder="little")
    if samples.ndim == 3 and about.planar_configuration == 1:
        samples = samples.transpose(2, 0, 1)
    return bytes(np.ascontiguousarray(samples).data)


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
