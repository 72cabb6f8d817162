"""The clerk's duties that keep AI work moving: originals to the ledger, studies to the planner, jobs to Redis."""

from typing import TYPE_CHECKING

import structlog

from pacs.services.duties import Duty

if TYPE_CHECKING:
    from pacs.node import Node

log = structlog.get_logger()


def note(node: "Node") -> None:
    """Tell the ledger of originals; once a second is soon enough, and a storm of them costs little."""
    node.relay.note()


def relay(node: "Node") -> None:
    """Tell Redis of jobs."""
    node.relay.publish()


def judge(node: "Node") -> None:
    """Find the studies that are complete by now."""
    for study_uid in node.ledger.judge():
        log.info("study_complete", study_uid=study_uid)


def recover(node: "Node") -> None:
    """Take over from workers that are gone, and let retries start when they are due."""
    for job_id in node.reconciler.recover():
        log.info("ai_job_queued_again", job=job_id)


def check_epoch(node: "Node") -> None:
    """Notice a flushed Redis."""
    if node.reconciler.check_epoch():
        log.info("ai_jobs_published_again", cause="redis_epoch")  # after a flush, a restart, or at the first start


def compare(node: "Node") -> None:
    """Compare what is queued with what Redis holds."""
    for job_id in node.reconciler.compare():
        log.warning("ai_job_unheard", job=job_id)


def measure(node: "Node") -> None:
    """Set the gauges."""
    node.reconciler.measure()


DUTIES = (
    Duty("note", 1.0, note),
    Duty("relay", 1.0, relay, woken_by="outbox"),
    Duty("stability", 1.0, judge),
    Duty("recover", 2.0, recover),
    Duty("epoch", 2.0, check_epoch),
    Duty("reconcile", 30.0, compare),
    Duty("measure-ai", 15.0, measure),
)
