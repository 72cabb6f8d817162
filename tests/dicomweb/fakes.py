"""An ingest that keeps objects in memory and refuses when told to: for the paths that a healthy node never takes."""

import io
from concurrent.futures import Future
from dataclasses import dataclass, field

import pydicom

from pacs.domain.events import Expected, Source, Stored
from pacs.errors import Reason, Refused


@dataclass
class FakeIncoming:
    """Bytes of one object; `abort` and `write` are counted."""

    ingest: "FakeIngest"
    expected: Expected
    chunks: list[bytes] = field(default_factory=list)
    aborted: bool = False

    @property
    def size(self) -> int:
        return sum(map(len, self.chunks))

    def write(self, chunk: bytes) -> None:
        if self.size + len(chunk) > self.ingest.most:
            raise Refused(Reason.TOO_LARGE, "Too large.")
        self.chunks.append(bytes(chunk))

    def abort(self) -> None:
        self.aborted = True


@dataclass
class FakeIngest:
    """`refuse_next` holds a reason per submit to come; `begin_reason` refuses at once."""

    stored: dict[str, bytes] = field(default_factory=dict)
    begun: list[FakeIncoming] = field(default_factory=list)
    begin_reason: Reason | None = None
    warnings: tuple[str, ...] = ()
    most: int = 1 << 40
    broken: bool = False
    sources: list[Source] = field(default_factory=list)

    def begin(self, source: Source, expected: Expected | None = None, *, raw: bool = False) -> FakeIncoming:
        assert not raw
        self.sources.append(source)
        if self.begin_reason:
            raise Refused(self.begin_reason, "Refused at once.")
        self.begun.append(FakeIncoming(self, expected or Expected()))
        return self.begun[-1]

    def submit(self, incoming: FakeIncoming, *, at_once: bool = False) -> "Future[Stored]":
        answer: Future[Stored] = Future()
        try:
            answer.set_result(self._admit(incoming))
        except Exception as error:
            answer.set_exception(error)
        return answer

    def refuse(self, source: Source, expected: Expected, reason: Reason, message: str) -> Refused:
        return Refused(reason, message, refusal_id="door")

    def _admit(self, incoming: FakeIncoming) -> Stored:
        if self.broken:
            raise RuntimeError("Doe^John")
        content = b"".join(incoming.chunks)
        try:
            found = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
        except Exception as error:
            raise Refused(Reason.UNREADABLE, "Not DICOM.", refusal_id="r1") from error
        wanted = incoming.expected.study_uid
        if wanted and wanted != found.StudyInstanceUID:
            named = {"sop_class_uid": str(found.SOPClassUID), "sop_instance_uid": str(found.SOPInstanceUID)}
            raise Refused(Reason.STUDY_MISMATCH, "Another study.", refusal_id="r2", **named)
        self.stored[found.SOPInstanceUID] = content
        uids = (found.StudyInstanceUID, found.SeriesInstanceUID, found.SOPClassUID, found.SOPInstanceUID)
        return Stored("stored", *map(str, uids), self.warnings)
