"""WADO-RS: studies, series and instances as DICOM files (PS3.18 10.4.1.1.1, 8.7.3).

Files go out as they were stored, byte for byte, where the client takes them so. Implicit VR and big endian are never
sent unless they are named outright, which makes a bit-for-bit check possible.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO

from starlette.requests import Request
from starlette.responses import Response

from dicomweb import looks, params, zipped
from dicomweb.multipart import Writer, frame
from dicomweb.negotiate import Offer, Want
from dicomweb.resources import accepted, run, scope_of
from dicomweb.stream import Streamed, Workshop, begun, etag, not_modified, read, unchanged, unsatisfiable, wanted_range
from pacs.domain.encoders import ENCODERS, QUALITY
from pacs.domain.levels import Level
from pacs.domain.syntaxes import DEFLATED_LE, EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, SYNTAXES
from pacs.errors import NotAcceptable

if TYPE_CHECKING:
    from pacs.node import Node
    from pacs.services.retrieve import StoredInstance

DICOM = "application/dicom"
PARTS, SINGLE, ZIP = Offer(DICOM, multipart=True), Offer(DICOM), Offer(zipped.MEDIA_TYPE)
NEVER_UNASKED = frozenset({IMPLICIT_LE, EXPLICIT_BE})
AS_STORED = "*"
TARGETS = frozenset({EXPLICIT_LE, DEFLATED_LE, *ENCODERS})  # what objects can be converted to


@dataclass(frozen=True, slots=True)
class Sending:
    """One instance and the transfer syntax it goes out in."""

    instance: "StoredInstance"
    transfer_syntax_uid: str
    quality: int = QUALITY

    @property
    def as_stored(self) -> bool:
        """Whether the file's own bytes go out."""
        return self.transfer_syntax_uid == self.instance.transfer_syntax_uid

    @property
    def content_type(self) -> str:
        """Of the part, or of the whole answer."""
        return f"{DICOM}; transfer-syntax={self.transfer_syntax_uid}"


async def retrieve(node: "Node", request: Request) -> Response:
    """The files of a study, a series or an instance: in one multipart, or a single instance by itself."""
    scope = scope_of(request)
    offers = (PARTS, SINGLE, ZIP) if scope.level == Level.INSTANCE else (PARTS, ZIP)
    wants = accepted(request, *offers)
    quality = looks.quality(params.pairs(request.scope["query_string"]))
    instances = await run(lambda: node.retrieve.locate(scope))
    return await send(node, request, plans(instances, wants, quality))


async def send(node: "Node", request: Request, found: "Iterator[tuple[Offer, list[Sending]]]") -> Response:
    """The first of these plans that can be carried out; one object at least may have no form in what is preferred."""
    refused: NotAcceptable | None = None
    for offer, sendings in found:
        try:
            return await _ANSWERS[offer](node, request, sendings)
        except NotAcceptable as error:
            refused = refused or error
    raise refused or NotAcceptable(
        "Some objects cannot be given in a transfer syntax that was asked for; transfer-syntax=* gives them as stored.",
        tuple(sorted({f"{DICOM}; transfer-syntax={uid}" for uid in (AS_STORED, EXPLICIT_LE)})),
    )


def plans(
    instances: "Sequence[StoredInstance]", wants: Sequence[Want], quality: int = QUALITY
) -> Iterator[tuple[Offer, list[Sending]]]:
    """How each instance goes out: for each offer that does for all of them, best first. One instance by itself may go
    out in each transfer syntax that was named; several have to agree on the list."""
    for offer in dict.fromkeys(want.offer for want in wants):
        named = [want.transfer_syntax for want in wants if want.offer == offer]
        for syntaxes in [[uid] for uid in named] if len(instances) == 1 else [named]:
            chosen = [(instance, target(instance, syntaxes)) for instance in instances]
            if all(syntax for _, syntax in chosen):
                yield offer, [Sending(instance, syntax, quality) for instance, syntax in chosen]


def target(instance: "StoredInstance", wanted: Sequence[str]) -> str:
    """The transfer syntax that one instance goes out in, or "" where it can be given in none of the wanted ones."""
    stored = instance.transfer_syntax_uid
    return next((uid for want in wanted if (uid := _target(stored, want, instance.number_of_frames))), "")


def _target(stored: str, want: str, number_of_frames: int) -> str:
    syntax = SYNTAXES.get(stored)
    convertible = syntax is not None and (syntax.decodable or number_of_frames == 0)
    if want == stored:
        return stored
    if want == AS_STORED:
        return EXPLICIT_LE if stored in NEVER_UNASKED else stored
    if want == "" and (syntax is None or (syntax.lossy and number_of_frames > 0)):
        return stored  # only a lossy copy exists (8.7.3): it may go as it is
    want = want or EXPLICIT_LE
    if want in ENCODERS and number_of_frames == 0:
        want = EXPLICIT_LE  # there is nothing to compress
    return want if want in TARGETS and convertible else ""


async def single(node: "Node", request: Request, sending: Sending) -> Response:
    """One file by itself, with validator, and with ranges where its length is known."""
    instance = sending.instance
    tag = etag(instance.sha256[:32], "stored" if sending.as_stored else _converted(sending))
    if unchanged(request.headers, tag):
        return not_modified(tag)
    headers = {"etag": tag, "cache-control": "private", **_attachment(instance.sop_instance_uid)}
    shop = _shop(request, [sending])
    file, size, chunks = await (run if shop is None else shop.run)(lambda: _opened(node, sending))
    if file is None:
        body = await (run if shop is None else shop.run)(lambda: begun(chunks))
        return Streamed(body, media_type=sending.content_type, headers=headers, shop=shop)
    headers["accept-ranges"] = "bytes"
    part = wanted_range(request.headers, size, tag)
    if part is not None and not part:
        file.close()
        return unsatisfiable(size)
    whole = part if part is not None else range(size)
    if part is not None:
        headers["content-range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    return Streamed(
        read(file, whole.start, len(whole)),
        media_type=sending.content_type,
        status=206 if part is not None else 200,
        length=len(whole),
        headers=headers,
    )


def _shop(request: Request, sendings: Sequence[Sending]) -> Workshop | None:
    """Where the answer is made, if anything is converted for it."""
    shop: Workshop = request.app.state.shop
    return None if all(sending.as_stored for sending in sendings) else shop


def _converted(sending: Sending) -> str:
    """What tells conversions of one object apart."""
    encoder = ENCODERS.get(sending.transfer_syntax_uid)
    quality = f"-{sending.quality}" if encoder is not None and encoder.lossy else ""
    return f"{sending.transfer_syntax_uid}{quality}"


def _opened(node: "Node", sending: Sending) -> tuple[BinaryIO | None, int, Iterator[bytes]]:
    """The file that goes out, with its size; or chunks, where it is made while it goes out."""
    if sending.as_stored:
        return node.retrieve.open(sending.instance), sending.instance.size, iter(())
    made = node.conversions.open(sending.instance, sending.transfer_syntax_uid, sending.quality)
    return made.file, made.size, made.chunks


async def _zip(node: "Node", request: Request, sendings: list[Sending]) -> Response:
    tag = _tag_of_all(sendings, "zip")
    if unchanged(request.headers, tag):
        return not_modified(tag)
    contents = zip(sendings, _parts(node, sendings), strict=True)
    files = ((_file_name(sending.instance), chunks) for sending, (_, _, chunks) in contents)
    shop = _shop(request, sendings)
    chunks = await (run if shop is None else shop.run)(lambda: begun(zipped.archive(files)))
    attachment = f'attachment; filename="{sendings[0].instance.study_uid}.zip"'
    headers = {"etag": tag, "cache-control": "private", "content-disposition": attachment}
    return Streamed(chunks, media_type=ZIP.media_type, headers=headers, shop=shop)


def _file_name(instance: "StoredInstance") -> str:
    return f"{instance.study_uid}/{instance.series_uid}/{instance.sop_instance_uid}.dcm"


def _tag_of_all(sendings: list[Sending], container: str) -> str:
    """Weak: boundaries differ each time."""
    digest = hashlib.sha256("".join(s.instance.sha256 + _converted(s) for s in sendings).encode())
    return etag(digest.hexdigest()[:32], container, weak=True)


async def _multipart(node: "Node", request: Request, sendings: list[Sending]) -> Response:
    tag = _tag_of_all(sendings, "parts")
    if unchanged(request.headers, tag):
        return not_modified(tag)
    writer = Writer(DICOM)
    shop = _shop(request, sendings)
    chunks = await (run if shop is None else shop.run)(lambda: begun(frame(writer, _parts(node, sendings))))
    return Streamed(
        chunks,
        media_type=writer.content_type,
        length=_length(writer, sendings),
        headers={"etag": tag, "cache-control": "private"},
        shop=shop,
    )


def _parts(node: "Node", sendings: list[Sending]) -> Iterator[tuple[str, str, Iterator[bytes]]]:
    for sending in sendings:
        try:
            yield sending.content_type, "", begun(_chunks(node, sending))
        except NotAcceptable:
            if len(sendings) == 1:
                raise
            # one object that cannot be decoded does not keep the others from the client: it goes as it is (8.7.3)
            stored = replace(sending, transfer_syntax_uid=sending.instance.transfer_syntax_uid)
            yield stored.content_type, "", begun(_chunks(node, stored))


def _chunks(node: "Node", sending: Sending) -> Iterator[bytes]:
    file, size, chunks = _opened(node, sending)
    yield from chunks if file is None else read(file, 0, size)


def _length(writer: Writer, sendings: list[Sending]) -> int | None:
    """The length of the whole body, where nothing is converted."""
    if not all(sending.as_stored for sending in sendings):
        return None
    frames = sum(len(writer.opening(s.content_type)) + s.instance.size + len(writer.ending) for s in sendings)
    return frames + len(writer.closing)


def _attachment(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}.dcm"'}


async def _alone(node: "Node", request: Request, sendings: list[Sending]) -> Response:
    return await single(node, request, sendings[0])


_ANSWERS = {SINGLE: _alone, ZIP: _zip, PARTS: _multipart}
