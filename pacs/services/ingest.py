"""The one door in: every object, whoever brings it, passes here (storage.md 2).

The order for one object: gate, bytes to the staging file, admission and header, rename into the store; then fsync of
file and folder side by side with the commit of its row, shared with whoever else waits; then the answer.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from weakref import WeakSet

import structlog

from pacs.domain import admission, header
from pacs.domain.admission import Admitted
from pacs.domain.attributes import BY_KEYWORD
from pacs.domain.events import Expected, Outcome, Source, Stored
from pacs.domain.header import Header
from pacs.domain.levels import Level
from pacs.errors import Reason, Refused
from pacs.index import write
from pacs.index.write import Away, Rejected, Unknown, Verdict, Writer
from pacs.services import verify
from pacs.services.committer import Committer
from pacs.services.incoming import Incoming
from pacs.services.part10 import head
from pacs.services.pending import Pending
from pacs.services.refusals import Refusals
from pacs.settings import Settings
from pacs.store.base import Draft, Store, StoreFailed, StoreFull
from pacs.telemetry import Metrics

__all__ = ["Expected", "Incoming", "Ingest", "Source", "Stored"]

THREADS = 16  # how many objects may wait for their fsync at a time
EARLY_BYTES = 64 << 10  # from this size on the fsync begins before the object is looked at
SETTLED_SECONDS = 600.0  # an object of another process that is older than this is durable or gone
COPY_BYTES = 1 << 20
NOTHING = Expected()
PATIENT_ID = BY_KEYWORD["PatientID"].column or ""
REPLACED = "the object replaces an earlier one with the same SOP Instance UID"
log = structlog.get_logger()


class Ingest:
    """Takes objects in. Thread-safe; all threads of a process share its commits."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        refusals: Refusals,
        metrics: Metrics,
        component: str = "ingest",
        *,
        closed_to: Callable[[str], str] = lambda _door: "",
    ) -> None:
        """`closed_to`: why nothing may come through a door now, "" when it may; must not wait for anything."""
        self.largest = settings.max_upload_bytes
        self.replaces = settings.dicom_duplicates == "replace"
        self._reserve = settings.disk_reserve_bytes
        self._store, self._refusals = store, refusals
        self._writer = Writer(settings.database_url, component)
        self._committer = Committer(self._writer)
        self._aside = Writer(settings.database_url, component)  # for the rare statements, under its lock
        self._aside_lock = threading.Lock()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="ingest")
        self._disk = ThreadPoolExecutor(THREADS, thread_name_prefix="fsync")
        self._inflating = threading.Lock()  # deflated objects are looked at one by one: each may inflate to much
        self._unsettled: set[str] = set()
        self._under_way: set[Future[Stored]] = set()
        self._begun: WeakSet[Incoming] = WeakSet()
        self._closed_to = closed_to
        self._closed = False
        self._stored = metrics.counter("filmroom_stored", "Objects accepted", ("door", "outcome"))
        self._refused = metrics.counter("filmroom_refused", "Objects refused", ("door", "reason"))

    def begin(self, source: Source, expected: Expected = NOTHING, *, raw: bool = False) -> Incoming:
        """Begin an object. Raises Refused (OUT_OF_SPACE, UNAVAILABLE) when there is no use in sending it.

        `raw`: a bare data set follows, as C-STORE brings it; `expected` names its class, instance and transfer syntax.
        """
        if self._closed:
            raise self.refusal(source, expected, Reason.UNAVAILABLE, "The node is stopping; send the object again.")
        if self._writer.away():
            raise self.refusal(source, expected, Reason.UNAVAILABLE, "The database is away; send the object again.")
        if not self._store.healthy():
            message = "The file store failed its last write and is being probed; look at the disk."
            raise self.refusal(source, expected, Reason.OUT_OF_SPACE, message)
        try:
            has_space, message = self.has_space(), "The disk is at its reserve; free space or lower DISK_RESERVE_GB."
        except OSError as error:
            log.error("file_store_unusable", exc_info=error)
            has_space, message = False, "The file store cannot be used; look at DICOM_STORAGE_DIR and its owner."
        if not has_space:
            raise self.refusal(source, expected, Reason.OUT_OF_SPACE, message)
        incoming = Incoming(self, self._store.draft(), source, expected, raw)
        self._begun.add(incoming)  # before the look at the gate: whoever closes it and then counts sees this one
        if closed := self._closed_to(source.door):
            incoming.abort()
            raise self.refusal(source, expected, Reason.UNAVAILABLE, closed)
        return incoming

    def under_way(self) -> int:
        """How many objects have begun and are not answered for."""
        return len(self._begun) + len(self._under_way)

    def ended(self, incoming: Incoming) -> None:
        """An object that had begun is on its way into the index, or will not come."""
        self._begun.discard(incoming)

    def has_space(self) -> bool:
        """Whether more than the reserve is free. Raises OSError."""
        return self._store.free_bytes() > self._reserve

    def submit(self, incoming: Incoming) -> "Future[Stored]":
        """The answer, after fsync and commit. Its exception is Refused, recorded under its `refusal_id`."""
        answer: Future[Stored] = Future()
        answer.set_running_or_notify_cancel()  # a door that stops waiting does not stop the store
        self._under_way.add(answer)
        answer.add_done_callback(self._under_way.discard)
        self.ended(incoming)
        try:
            self._threads.submit(self._take, incoming, answer)
        except RuntimeError:
            incoming.abort()
            message = "The node is stopping; send the object again."
            answer.set_exception(self.refusal(incoming.source, incoming.expected, Reason.UNAVAILABLE, message))
        return answer

    def store(self, incoming: Incoming) -> Stored:
        """`submit` and wait. Raises Refused."""
        return self.submit(incoming).result()

    def refuse(self, source: Source, expected: Expected, reason: Reason, message: str) -> Refused:
        """Record a refusal that the door itself decided, and return it for raising. Waits for the database."""
        return self.refusal(source, expected, reason, message, wait=True)

    def refusal(
        self,
        source: Source,
        expected: Expected,
        reason: Reason,
        message: str,
        *,
        wait: bool = False,
        patient_id: str = "",
    ) -> Refused:
        """The exception of a refusal, counted, and recorded now (`wait`) or in the background."""
        self._refused.labels(source.door, reason.value).inc()
        return self._refusals.record(source, expected, reason, message, wait=wait, patient_id=patient_id)

    # on a thread of the pool

    def _take(self, incoming: Incoming, answer: "Future[Stored]") -> None:
        try:
            self._settle_early(incoming)
            pending = self._prepare(incoming, answer)
        except Refused as refused:
            incoming.abort()
            answer.set_exception(refused)
            return
        except Exception as error:
            incoming.abort()
            self._fault(incoming, answer, error)
            return
        self._unsettled.add(pending.item.object_name)
        self._committer.put(pending)
        if incoming.settling is None:
            pending.on_disk(_settled(pending.draft))
        else:
            incoming.settling.add_done_callback(lambda settling: pending.on_disk(settling.result()))

    def _settle_early(self, incoming: Incoming) -> None:
        """The disk works on a large object while we look at it; few are refused then. Raises Refused."""
        incoming.begin_file()
        if incoming.draft.in_memory and incoming.size >= EARLY_BYTES:
            incoming.publish()
            incoming.settling = self._disk.submit(_settled, incoming.draft)

    def _fault(self, incoming: Incoming, answer: "Future[Stored]", error: Exception) -> None:
        """Something of ours broke: refused, and never a sender that waits for ever."""
        log.error("ingest_failed", exc_info=error)
        message = "The node failed while it took the object in; its log says where."
        answer.set_exception(self.refusal(incoming.source, incoming.expected, Reason.INTERNAL, message, wait=True))

    def _prepare(self, incoming: Incoming, answer: "Future[Stored]") -> Pending:
        """Admit the object and give its file a name. Raises Refused."""
        admitted, found = self._read(incoming)
        for reason, message in verify.faults(admitted, found, incoming.expected):
            raise self._reject(incoming, found, reason, message)
        try:
            draft, data_offset = self._filed(incoming, admitted, found)
            sha256, data_sha256 = draft.digests(data_offset)
            name = draft.publish()
        except StoreFull:
            message = "The file store has no space left; free space on its disk."
            raise self._reject(incoming, found, Reason.OUT_OF_SPACE, message) from None
        except StoreFailed:
            message = "The file store cannot write; look at the log and the disk."
            raise self._reject(incoming, found, Reason.OUT_OF_SPACE, message) from None
        file = write.File(name, draft.size, data_offset, sha256, data_sha256, admitted.transfer_syntax_uid)
        source = incoming.source
        item = write.item(found, file, source.door, source.peer, source.address)
        warnings = tuple(dict.fromkeys((*incoming.warnings, *admitted.warnings, *found.warnings)))
        return Pending(incoming, found, file, item, draft, warnings, self.conclude, answer)

    def _read(self, incoming: Incoming) -> tuple[Admitted, Header]:
        with incoming.draft.view() as view, ExitStack() as held:
            try:
                admitted = admission.admit(view, before_inflating=lambda: held.enter_context(self._inflating))
            except admission.Inadmissible as error:
                message = f"The object cannot be read: {error.message}."
                raise self.refusal(incoming.source, incoming.expected, Reason.UNREADABLE, message, wait=True) from None
            found = header.extract(admitted, view, door=incoming.source.door)
            if admitted.data is not None:
                admitted.data = b""  # all that is needed of it is in the header now, and it may be large
            return admitted, found

    def _filed(self, incoming: Incoming, admitted: Admitted, found: Header) -> tuple[Draft, int]:
        """The file to keep, and where its data set begins: as received, unless its head is missing or wrong."""
        if not verify.needs_head(admitted):
            return incoming.draft, admitted.data_offset
        start = head(found.sop_class_uid, found.sop_instance_uid, admitted.transfer_syntax_uid, incoming.source.peer)
        draft = self._store.draft()
        try:
            draft.write(start)
            with incoming.draft.view() as view:
                for place in range(admitted.data_offset, len(view), COPY_BYTES):
                    draft.write(view[place : place + COPY_BYTES])
        except (StoreFull, StoreFailed):
            draft.discard()
            raise
        incoming.abort()
        incoming.draft, incoming.settling = draft, None
        return draft, len(start)

    def _reject(self, incoming: Incoming, found: Header, reason: Reason, message: str) -> Refused:
        """A refusal that names the object by what it says itself."""
        named = Expected(
            found.sop_class_uid or incoming.expected.sop_class_uid,
            found.sop_instance_uid or incoming.expected.sop_instance_uid,
            found.study_uid or incoming.expected.study_uid,
        )
        here = reason is not Reason.UNAVAILABLE  # there is no use in waiting for a database that is away
        patient = found.columns[Level.PATIENT].get(PATIENT_ID, "")
        return self.refusal(incoming.source, named, reason, message, wait=here, patient_id=patient)

    # when file and row are both down, or not

    def conclude(self, pending: Pending) -> None:
        """Answer, now that the disk and the database have both spoken. Only the plain case is done on this thread."""
        verdict = pending.verdict
        if pending.settled and isinstance(verdict, Verdict) and verdict.outcome == "stored":
            self._accept(pending, "stored")
            return
        try:
            self._threads.submit(self._conclude_otherwise, pending)
        except RuntimeError:  # closing: the pool takes nothing more
            self._conclude_otherwise(pending)

    def _accept(self, pending: Pending, outcome: Outcome) -> None:
        self._unsettled.discard(pending.item.object_name)
        pending.draft.close()
        found, door = pending.header, pending.incoming.source.door
        self._stored.labels(door, outcome).inc()
        pending.answer.set_result(
            Stored(
                outcome,
                found.study_uid,
                found.series_uid,
                found.sop_class_uid,
                found.sop_instance_uid,
                pending.warnings,
            )
        )

    def _conclude_otherwise(self, pending: Pending) -> None:
        try:
            self._settle_otherwise(pending)
        except Refused as refused:
            self._unsettled.discard(pending.item.object_name)
            pending.answer.set_exception(refused)
        except Exception as error:
            self._unsettled.discard(pending.item.object_name)
            pending.draft.close()
            self._fault(pending.incoming, pending.answer, error)

    def _settle_otherwise(self, pending: Pending) -> None:
        """Everything but a new object whose file and row are durable. Raises Refused."""
        verdict = pending.verdict
        if not pending.settled:
            self._undo(pending)
        if isinstance(verdict, Verdict):
            self._taken(pending, verdict)
        elif isinstance(verdict, Rejected):
            pending.draft.discard()
            message = (
                f"The index does not take the object's values (SQLSTATE {verdict.sqlstate}); its header is damaged."
            )
            raise self._reject(pending.incoming, pending.header, Reason.UNREADABLE, message)
        else:
            raise self._unavailable(pending, isinstance(verdict, Away))

    def _undo(self, pending: Pending) -> None:
        """The file did not become durable and is gone: its row goes too, before the refusal is answered."""
        verdict = pending.verdict
        if isinstance(verdict, Unknown) or (isinstance(verdict, Verdict) and verdict.outcome == "stored"):
            try:
                with self._aside_lock:
                    self._aside.drop(pending.item.object_name)
            except (Away, Unknown, Rejected) as error:
                log.error("row_without_file_left", object_name=pending.item.object_name, exc_info=error)
        message = "The file store could not make the object durable; look at the log and the disk."
        raise self._reject(pending.incoming, pending.header, Reason.OUT_OF_SPACE, message)

    def _unavailable(self, pending: Pending, certain: bool) -> Refused:
        """The database is away. Where the commit may have happened the file stays, for the sweep to judge."""
        if certain:
            pending.draft.discard()
        pending.draft.close()
        message = "The database is away; send the object again."
        return self._reject(pending.incoming, pending.header, Reason.UNAVAILABLE, message)

    # the UID is taken

    def _taken(self, pending: Pending, verdict: Verdict) -> None:
        """Somebody has the UID. The same data set is success, once it is sure that what is kept is durable."""
        if verdict.outcome == "known" and self._trusted(verdict):
            pending.draft.discard()
            self._accept(pending, "known")
            return
        if verdict.outcome == "differs" and not pending.incoming.replaces:
            raise self._set_aside(pending)
        self._replace(pending)

    def _trusted(self, verdict: Verdict) -> bool:
        """Whether the object kept is whole and was answered for; else ours, which is durable, takes its place."""
        name = verdict.known_object
        settled = (
            name not in self._unsettled if self._store.made_here(name) else verdict.known_seconds > SETTLED_SECONDS
        )
        return settled and self._store.size(name) == verdict.known_size

    def _replace(self, pending: Pending) -> None:
        try:
            with self._aside_lock:
                outcome = self._aside.replace(pending.item, wanted=pending.incoming.replaces)
        except (Away, Unknown) as error:
            raise self._unavailable(pending, isinstance(error, Away)) from None
        except Rejected as error:
            pending.verdict = error
            return self._settle_otherwise(pending)
        if outcome == "gone":  # deleted meanwhile: it is a new object after all
            pending.verdict = None
            self._committer.put(pending)
            return None
        if outcome == "differs":
            raise self._set_aside(pending)
        if outcome == "replaced":
            pending.warnings = (*pending.warnings, REPLACED)
        self._accept(pending, "replaced" if outcome == "replaced" else "known")
        return None

    def _set_aside(self, pending: Pending) -> Refused:
        """Other content under a known UID: the newcomer is kept out of sight until somebody decides."""
        message = "Another object with this SOP Instance UID is stored; the newcomer was set aside as a conflict."
        refused = self._reject(pending.incoming, pending.header, Reason.DUPLICATE, message)
        pending.draft.close()
        name, source = pending.item.object_name, pending.incoming.source
        row: dict[str, object] = {
            "study_uid": pending.header.study_uid,
            "series_uid": pending.header.series_uid,
            "sop_class_uid": pending.header.sop_class_uid,
            "sop_instance_uid": pending.header.sop_instance_uid,
            "object_name": name,
            "size": pending.file.size,
            "data_sha256": pending.file.data_sha256,
            "door": source.door,
            "peer": source.peer,
            "refusal_id": refused.refusal_id,
        }
        try:
            self._store.move(name, "objects", "conflicts")
            with self._aside_lock:
                new = self._aside.set_aside(row)
            if not new:
                self._store.remove([name], "conflicts")
        except (OSError, StoreFailed, StoreFull, Away, Unknown, Rejected) as error:
            log.error("conflict_not_set_aside", object_name=name, refusal_id=refused.refusal_id, exc_info=error)
        return refused

    def close(self) -> None:
        """Refuse what comes from now on, finish what is under way."""
        self._closed = True
        for answer in tuple(self._under_way):
            answer.exception()
        self._threads.shutdown()
        self._disk.shutdown()
        self._committer.close()
        self._aside.close()


def _settled(draft: Draft) -> bool:
    """Wait for the disk; whether the file and its name are durable. If not, it is gone."""
    try:
        draft.settle()
    except (StoreFailed, StoreFull):
        return False
    return True
