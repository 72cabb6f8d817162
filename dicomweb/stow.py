"""STOW-RS: parts go to the one way in while they arrive; the answer says of each what came of it (PS3.18 10.5).

A part that fails never takes another with it, and success is answered only for what is durable and indexed. Memory is
bounded by `HELD` bytes a request, whatever the size of its parts.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog
from anyio import CancelScope
from starlette.requests import Request
from starlette.responses import Response

from dicomweb import stowjson, urls
from dicomweb.guard import exchange
from dicomweb.multipart import PartBegin, PartData, PartEnd, Reader
from dicomweb.negotiate import MediaType, parse_media_type
from dicomweb.resources import accepted, run, source, uid
from dicomweb.storereport import ELEMENTS_DISCARDED, OFFERS, Outcome, Remarked, report
from pacs.domain.events import Expected, Source, Stored
from pacs.errors import BadRequest, FilmroomError, Reason, Refused, Unavailable, UnsupportedMedia

if TYPE_CHECKING:
    from pacs.node import Node
    from pacs.services.ingest import Incoming

log = structlog.get_logger("web")

DICOM = "application/dicom"
READ = frozenset({DICOM, stowjson.MEDIA_TYPE})
HELD = 1 << 20  # bytes of a part in memory before they go to the disk
WAITING = 32  # parts on their way into the index at a time
MOST_PARTS = 100_000
END_OF_SERVICE = frozenset({Reason.OUT_OF_SPACE, Reason.UNAVAILABLE})  # no later part can do better


async def store(node: "Node", request: Request) -> Response:
    """POST to the studies, or to one study, which the objects must then belong to."""
    offer = accepted(request, *OFFERS)[0].offer
    content_type = _content_type(request)
    study_uid = uid(request, "study") if "study" in request.path_params else ""
    exchange(request.scope).limit = node.settings.max_upload_bytes
    intake = Intake(node, source(request, node.settings, "stow"), Expected(study_uid=study_uid))
    outcomes = await _take(intake, content_type, request.stream())
    return report(outcomes, urls.root(request, node.settings), offer)


def _content_type(request: Request) -> MediaType:
    """What the body is. Raises UnsupportedMedia for what we do not read (PS3.18 10.5.2)."""
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMedia("Send the body without Content-Encoding.")
    found = parse_media_type(request.headers.get("content-type", ""))
    inner = found.parameter("type").partition(";")[0].strip().lower() if found else ""
    if found and (found.name in READ or (found.name == "multipart/related" and inner in {"", *READ})):
        return found
    raise UnsupportedMedia(
        'Send multipart/related; type="application/dicom", one object as application/dicom, or application/dicom+json, '
        "alone or with bulk data in a multipart/related. XML is not read."
    )


def _is_json(content_type: MediaType) -> bool:
    inner = content_type.parameter("type").partition(";")[0].strip().lower()
    return stowjson.MEDIA_TYPE in {content_type.name, inner}


async def _take(intake: "Intake", content_type: MediaType, body: AsyncIterator[bytes]) -> list[Outcome]:
    """All parts of the body into the node. What breaks the framing fails the rest, never what is already in."""
    try:
        if _is_json(content_type):
            await _metadata(intake, content_type, body)
        elif content_type.name == DICOM:
            await _single(intake, body)
        else:
            await _parts(intake, Reader(content_type.parameter("boundary")), body)
    except Refused as error:
        if error.reason not in END_OF_SERVICE:
            raise
        intake.outcomes.append(error)
    except FilmroomError as error:
        await intake.abort()
        if not intake.any:
            raise
        intake.outcomes.append(Refused(_REASONS.get(error.code, Reason.UNREADABLE), error.message))
    finally:
        await intake.abort()
    return await intake.settle()


_REASONS = {"too-large": Reason.TOO_LARGE}  # of errors that end a body early


async def _single(intake: "Intake", body: AsyncIterator[bytes]) -> None:
    await intake.begin({"content-type": DICOM})
    empty = True
    async for chunk in body:
        if chunk:
            empty = False
            await intake.data(chunk)
    if empty:
        raise BadRequest("The body is empty.")
    await intake.end()


async def _metadata(intake: "Intake", content_type: MediaType, body: AsyncIterator[bytes]) -> None:
    """DICOM JSON with its bulk data: all of it must be here before the first object can be put together."""
    gathered = stowjson.Gathered(intake.node.settings.home)
    try:
        await stowjson.gather(gathered, content_type, body)
        for row in gathered.rows():
            await intake.made(row, gathered.bulk)
    finally:
        gathered.close()


async def _parts(intake: "Intake", reader: Reader, body: AsyncIterator[bytes]) -> None:
    async for chunk in body:
        for event in reader.feed(chunk):
            match event:
                case PartBegin(headers):
                    await intake.begin(headers)
                case PartData(data):
                    await intake.data(data)
                case PartEnd():
                    await intake.end()
    reader.close()
    if not intake.any:
        raise BadRequest("The multipart body holds no parts.")


@dataclass(slots=True)
class Intake:
    """Takes the parts of one request, one after another, and gathers what comes of them."""

    node: "Node"
    source: Source
    expected: Expected
    outcomes: list[Outcome] = field(default_factory=list)
    waiting: list[Future[Stored]] = field(default_factory=list)
    discarded: set[Future[Stored]] = field(default_factory=set)  # of objects that lost elements on their way
    parts: int = 0
    incoming: "Incoming | None" = None
    open: bool = False  # the part's bytes are wanted
    held: list[bytes] = field(default_factory=list)
    held_bytes: int = 0

    @property
    def any(self) -> bool:
        """Whether some part was whole, stored or not."""
        return bool(self.outcomes or self.waiting)

    async def begin(self, headers: dict[str, str]) -> None:
        """A part begins. One that is no DICOM object is refused and its bytes are dropped."""
        self.parts += 1
        if self.parts > MOST_PARTS:
            raise BadRequest(f"The body holds more than {MOST_PARTS} parts; send them in several requests.")
        kind = parse_media_type(headers.get("content-type", DICOM))
        self.open = kind is not None and kind.name == DICOM
        if not self.open:
            message = "A part of the body is not of type application/dicom."
            refused = await run(lambda: self.node.ingest.refuse(self.source, self.expected, Reason.UNREADABLE, message))
            self.outcomes.append(refused)

    async def made(self, row: stowjson.Row, bulk: Mapping[str, stowjson.Bulk]) -> None:
        """One object out of DICOM JSON."""
        self.parts += 1
        await self._guarded(lambda: self._make(row, bulk))
        if len(self.waiting) >= WAITING:
            await self._settle_some(len(self.waiting) - WAITING // 2)

    def _make(self, row: stowjson.Row, bulk: Mapping[str, stowjson.Bulk]) -> None:
        expected = stowjson.expected(row, bulk, self.expected.study_uid)
        try:
            stowjson.check(row, bulk)
            self.incoming = self.node.ingest.begin(self.source, expected, raw=True)
            for chunk in stowjson.encoded(row, bulk):
                self.incoming.write(chunk)
        except Refused as refused:
            if refused.refusal_id:
                raise
            raise self.node.ingest.refuse(self.source, expected, refused.reason, refused.message) from refused
        incoming, self.incoming = self.incoming, None
        self.waiting.append(self.node.ingest.submit(incoming))
        if stowjson.discards(row):
            self.discarded.add(self.waiting[-1])

    async def data(self, chunk: bytes | memoryview) -> None:
        """More bytes of the part; they go to the disk in pieces of `HELD`, in a thread."""
        if self.open:
            self.held.append(bytes(chunk))
            self.held_bytes += len(chunk)
            if self.held_bytes >= HELD:
                await self._guarded(self._write)

    async def end(self) -> None:
        """The part is whole: on its way into the index, with the others."""
        if self.open:
            await self._guarded(self._submit)
        self.open = False
        if len(self.waiting) >= WAITING:
            await self._settle_some(len(self.waiting) - WAITING // 2)

    async def abort(self) -> None:
        """The part that has begun will not end. Nothing of it stays."""
        self.open = False
        self._take_held()
        if self.incoming is not None:
            incoming, self.incoming = self.incoming, None
            with CancelScope(shield=True):  # also when the server gives the request up
                await run(incoming.abort)

    async def settle(self) -> list[Outcome]:
        """What came of all parts, once it is known."""
        await self._settle_some(len(self.waiting))
        return self.outcomes

    async def _guarded(self, step: Callable[[], None]) -> None:
        """A refusal ends this part; where nothing can be stored at all, it ends the request."""
        try:
            await run(step)
        except Refused as refused:
            await self.abort()
            if refused.reason in END_OF_SERVICE:
                raise
            self.outcomes.append(refused)

    def _write(self) -> None:
        if self.incoming is None:
            self.incoming = self.node.ingest.begin(self.source, self.expected)
        for chunk in self._take_held():
            self.incoming.write(chunk)

    def _submit(self) -> None:
        self._write()
        incoming, self.incoming = self.incoming, None
        assert incoming is not None
        self.waiting.append(self.node.ingest.submit(incoming))

    def _take_held(self) -> list[bytes]:
        held, self.held, self.held_bytes = self.held, [], 0
        return held

    async def _settle_some(self, count: int) -> None:
        for future in self.waiting[:count]:
            self.outcomes.append(await self._outcome(future))
        del self.waiting[:count]

    async def _outcome(self, future: Future[Stored]) -> Outcome:
        try:
            stored = await asyncio.wrap_future(future)
            return Remarked(stored, ELEMENTS_DISCARDED) if future in self.discarded else stored
        except Refused as refused:
            return refused
        except Unavailable as away:
            return Refused(Reason.UNAVAILABLE, away.message)
        except Exception as error:
            log.error("stow_part_failed", exc_info=error)
            return Refused(Reason.INTERNAL, "Something went wrong here while this object was stored.")
