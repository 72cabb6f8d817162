"""The node's ports as the door sees them, in memory and on a folder, to test the door alone."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

from pacs.domain.events import Expected, Source, Stored
from pacs.domain.query import Page, Query
from pacs.errors import Reason, Refused
from pacs.telemetry import Metrics


class FakeIncoming:
    def __init__(self, ingest: "FakeIngest", source: Source, expected: Expected) -> None:
        self.ingest, self.source, self.expected = ingest, source, expected
        self.size = 0
        self.path = ingest.folder / f"{uuid4().hex}.part"
        self.file = self.path.open("xb")

    def write(self, chunk: bytes | memoryview) -> None:
        self.size += len(chunk)
        if self.size > self.ingest.limit:
            raise Refused(Reason.TOO_LARGE, "The object is larger than DICOM_MAX_UPLOAD_SIZE_GB.", refusal_id="big")
        self.file.write(chunk)

    def abort(self) -> None:
        self.file.close()
        self.path.unlink(missing_ok=True)


class FakeIngest:
    """Keeps data sets by SOP Instance UID. `gate` holds answers back until it is set; `fails` refuses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.limit = 1 << 40
        self.refused: list[Reason] = []
        self.begins: Callable[[], None] = lambda: None
        self.judge: Callable[[bytes], None] = lambda data: None
        self.stored: dict[str, bytes] = {}
        self.sources: list[Source] = []
        self.gate = threading.Event()
        self.gate.set()
        self.pool = ThreadPoolExecutor(4)

    def begin(self, source: Source, expected: Expected, *, raw: bool = False) -> FakeIncoming:
        assert raw
        self.begins()
        self.sources.append(source)
        return FakeIncoming(self, source, expected)

    def submit(self, incoming: FakeIncoming, *, at_once: bool = False) -> "Future[Stored]":
        return self.pool.submit(self._store, incoming)

    def _store(self, incoming: FakeIncoming) -> Stored:
        self.gate.wait()
        incoming.file.close()
        data = incoming.path.read_bytes()
        incoming.path.unlink()
        self.judge(data)
        claimed = incoming.expected
        self.stored[claimed.sop_instance_uid] = data
        return Stored("stored", "1.2", "1.3", claimed.sop_class_uid, claimed.sop_instance_uid)

    def refuse(self, source: Source, expected: Expected, reason: Reason, message: str) -> Refused:
        self.refused.append(reason)
        return Refused(reason, message, refusal_id=f"refusal-{len(self.refused)}")


class FakeSearch:
    """Answers from a list of rows; remembers the queries."""

    def __init__(self) -> None:
        self.rows: list[dict[str, dict[str, object]]] = []
        self.queries: list[Query] = []
        self.fails: Exception | None = None

    def find(self, query: Query) -> Page:
        self.queries.append(query)
        if self.fails:
            raise self.fails
        end = None if query.limit is None else query.offset + query.limit
        return Page(tuple(self.rows[query.offset : end]))


class FakeAudit:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.noted: list[tuple[Source, str, dict[str, Any]]] = []

    def searched(self, query: Query, rows: list[Any]) -> dict[str, Any]:
        return {"listed": rows, "detail": {"level": query.level.name}}

    def note(self, source: Source, action: str, **fields: Any) -> None:
        self.noted.append((source, action, fields))


class FakeNode:
    def __init__(self, folder: Path) -> None:
        self.audit = FakeAudit()
        self.ingest = FakeIngest(folder)
        self.search = FakeSearch()
        self.metrics = Metrics("test")
