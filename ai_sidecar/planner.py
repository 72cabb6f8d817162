"""Turns complete studies into jobs: reads what a study holds, lets the packages select, hands the decisions in."""

import contextlib
import threading
from collections.abc import Callable, Sequence

import structlog

from pacs.domain.jobs import Decision, Work
from pacs.errors import FilmroomError, NotFound, Unavailable
from pacs.node import Node

log = structlog.get_logger()

LISTEN_SECONDS = 1.0  # how soon a stop is noticed
LOOK_SECONDS = 5.0  # the table is looked at so often, whatever was heard
Decide = Callable[[Work], Sequence[Decision]]


class Planner:
    """One thread. Any number of planners may run: a study has one at a time, and plans made twice are one."""

    def __init__(self, node: Node, decide: Decide, ready: Callable[[], bool]) -> None:
        self.node, self.decide, self.ready = node, decide, ready
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="planner", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Stop after the study at hand."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        listener = self.node.listen("ai_study")
        silent = LOOK_SECONDS
        while not self._stopping.is_set():
            silent = LOOK_SECONDS if listener.wait(LISTEN_SECONDS) else silent + LISTEN_SECONDS
            if silent >= LOOK_SECONDS and self.ready():
                silent = 0.0
                self.plan_all()
        listener.close()

    def plan_all(self) -> int:
        """Plan every study that waits; returns how many."""
        planned = 0
        try:
            while not self._stopping.is_set() and (work := self.node.jobs.planning.next_work()):
                self._plan(work)
                planned += 1
        except Unavailable:
            log.warning("ai_planner_waits", cause="database")
        except Exception as error:
            log.error("ai_planner_stumbled", exc_info=error)
        return planned

    def _plan(self, work: Work) -> None:
        try:
            decisions = self.decide(work)
        except NotFound:
            decisions = ()  # deleted meanwhile: the books will see
        except Exception as error:
            log.error("ai_plan_failed", study_uid=work.study_uid, exc_info=error)
            ours = isinstance(error, FilmroomError)
            said = str(error) if ours else f"The plan ended with {type(error).__name__}; the sidecar's log says where."
            self.node.jobs.planning.failed(work, said)
            return
        planned = self.node.jobs.planning.plan(work, decisions)
        if planned.queued:
            with contextlib.suppress(Unavailable):  # the clerk's relay will do it
                self.node.relay.publish()
        counts = {"queued": len(planned.queued), "known": len(planned.known), "skipped": planned.skipped}
        log.info("ai_study_planned", study_uid=work.study_uid, stale=planned.stale, waiting=planned.waiting, **counts)
