"""The one door in: every object, whoever brings it, passes here (storage.md 2).

The order for one object: gate, bytes to the staging file, admission and header, rename into the store; then fsync of
file and folder side by side with the commit of its row, shared with whoever else waits; then the answer.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from weakref import WeakSet

import structlog

from pacs.domain.events import Expected, Outcome, Source, Stored
from pacs.errors import Reason, Refused
from pacs.index.write import Away, Rejected, Unknown, Verdict, Writer
from pacs.services.committer import Committer
from pacs.services.incoming import Incoming
from pacs.services.pending import Pending, settled
from pacs.services.preparation import Deflated, Preparation, Prepared, Unfit, unfit
from pacs.services.refusals import Refusals
from pacs.settings import Settings
from pacs.store.base import Store, StoreFailed, StoreFull
from pacs.telemetry import Metrics

__all__ = ["Expected", "Incoming", "Ingest", "Source", "Stored"]

THREADS = 16  # how many objects may wait for their fsync at a time
EARLY_BYTES = 64 << 10  # from this size on the fsync begins before the object is looked at
AT_ONCE_BYTES = 32 << 10  # up to here looking at an object takes no longer than handing it to another thread
SETTLED_SECONDS = 600.0  # an object of another process that is older than this is durable or gone
NOTHING = Expected()
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
        self._preparation = Preparation(store)
        self._writer = Writer(settings.database_url, component)
        self._disk = ThreadPoolExecutor(THREADS, thread_name_prefix="fsync")
        self._committer = Committer(self._writer, self._disk)
        self._aside = Writer(settings.database_url, component)  # for the rare statements, under its lock
        self._aside_lock = threading.Lock()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="ingest")
        self._inflating = ThreadPoolExecutor(1, thread_name_prefix="inflate")  # one by one: each may take much memory
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

    def submit(self, incoming: Incoming, *, at_once: bool = False) -> "Future[Stored]":
        """The answer, after fsync and commit. Its exception is Refused, recorded under its `refusal_id`.

        `at_once`: a small object is looked at on the caller's thread, which waits for no disk and no database.
        """
        answer: Future[Stored] = Future()
        answer.set_running_or_notify_cancel()  # a door that stops waiting does not stop the store
        self._under_way.add(answer)
        answer.add_done_callback(self._under_way.discard)
        self.ended(incoming)
        if at_once and incoming.draft.in_memory and incoming.size <= AT_ONCE_BYTES and self._store.ready():
            self._take_at_once(incoming, answer)
        else:
            self._on_thread(self._threads, self._take, incoming, answer)
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

    def _on_thread(
        self,
        threads: ThreadPoolExecutor,
        work: Callable[..., None],
        incoming: Incoming,
        answer: "Future[Stored]",
        *more: object,
    ) -> None:
        try:
            threads.submit(work, incoming, answer, *more)
        except RuntimeError:
            incoming.abort()
            message = "The node is stopping; send the object again."
            answer.set_exception(self.refusal(incoming.source, incoming.expected, Reason.UNAVAILABLE, message))

    def _take_at_once(self, incoming: Incoming, answer: "Future[Stored]") -> None:
        """A small object on the thread that brings it; what makes it wait is left to the threads of the pool."""
        try:
            prepared = self._preparation.prepare(incoming, inflate=False)
        except Deflated:
            self._on_thread(self._inflating, self._take, incoming, answer, True)
        except Exception as error:
            self._on_thread(self._threads, self._turn_away, incoming, answer, error)
        else:
            self._wait(incoming, answer, prepared, to_settle=True)

    # on a thread of the pool

    def _take(self, incoming: Incoming, answer: "Future[Stored]", inflate: bool = False) -> None:
        try:
            if not inflate:
                self._settle_early(incoming)
            prepared = self._preparation.prepare(incoming, inflate=inflate)
        except Deflated:
            self._on_thread(self._inflating, self._take, incoming, answer, True)
            return
        except Exception as error:
            self._turn_away(incoming, answer, error)
            return
        pending = self._wait(incoming, answer, prepared)
        if incoming.settling is None:
            pending.settle()
        else:
            incoming.settling.add_done_callback(lambda settling: pending.on_disk(settling.result()))

    def _wait(self, incoming: Incoming, answer: "Future[Stored]", fit: Prepared, *, to_settle: bool = False) -> Pending:
        """The object goes to the committer; its file is to be settled meanwhile, by the caller or by the committer."""
        pending = Pending(
            incoming, fit.header, fit.file, fit.item, fit.draft, fit.warnings, self.conclude, answer, to_settle
        )
        self._unsettled.add(fit.item.object_name)
        self._committer.put(pending)
        return pending

    def _settle_early(self, incoming: Incoming) -> None:
        """The disk works on a large object while we look at it; few are refused then. Raises Refused."""
        incoming.begin_file()
        if incoming.draft.in_memory and incoming.size >= EARLY_BYTES:
            incoming.publish()
            incoming.settling = self._disk.submit(settled, incoming.draft)

    def _turn_away(self, incoming: Incoming, answer: "Future[Stored]", error: Exception) -> None:
        incoming.abort()
        if isinstance(error, Refused):
            answer.set_exception(error)
        elif isinstance(error, Unfit):
            answer.set_exception(self._refusal_of(incoming, error))
        else:
            self._fault(incoming, answer, error)

    def _fault(self, incoming: Incoming, answer: "Future[Stored]", error: Exception) -> None:
        """Something of ours broke: refused, and never a sender that waits for ever."""
        log.error("ingest_failed", exc_info=error)
        message = "The node failed while it took the object in; its log says where."
        answer.set_exception(self.refusal(incoming.source, incoming.expected, Reason.INTERNAL, message, wait=True))

    def _refusal_of(self, incoming: Incoming, why: Unfit) -> Refused:
        here = why.reason is not Reason.UNAVAILABLE  # there is no use in waiting for a database that is away
        return self.refusal(incoming.source, why.named, why.reason, why.message, wait=here, patient_id=why.patient_id)

    def _reject(self, pending: Pending, reason: Reason, message: str) -> Refused:
        """A refusal that names the object by what it says itself."""
        return self._refusal_of(pending.incoming, unfit(pending.incoming, pending.header, reason, message))

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
            raise self._reject(pending, Reason.UNREADABLE, message)
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
        raise self._reject(pending, Reason.OUT_OF_SPACE, message)

    def _unavailable(self, pending: Pending, certain: bool) -> Refused:
        """The database is away. Where the commit may have happened the file stays, for the sweep to judge."""
        if certain:
            pending.draft.discard()
        pending.draft.close()
        message = "The database is away; send the object again."
        return self._reject(pending, Reason.UNAVAILABLE, message)

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
        refused = self._reject(pending, Reason.DUPLICATE, message)
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
        self._inflating.shutdown()
        self._committer.close()
        self._disk.shutdown()
        self._aside.close()
