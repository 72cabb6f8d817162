"""The words of AI jobs: their states and moves, a planner's decisions, a worker's lease and results (ai.md 4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """Where a job is. The value is what users and the database see."""

    PLANNED = "PLANNED"  # wanted, but something is missing that may still come
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    STORING = "STORING"
    RETRY_WAIT = "RETRY_WAIT"
    SUCCEEDED = "SUCCEEDED"
    SUPERSEDED = "SUPERSEDED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"
    DEAD = "DEAD"


MOVES: Mapping[State, frozenset[State]] = {
    State.PLANNED: frozenset({State.QUEUED, State.SKIPPED, State.CANCELLED}),
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED}),
    State.RUNNING: frozenset(
        {State.STORING, State.RETRY_WAIT, State.DEAD, State.SKIPPED, State.QUEUED, State.CANCELLED}
    ),
    # RUNNING: another worker took it over
    State.STORING: frozenset({State.SUCCEEDED, State.RETRY_WAIT, State.DEAD, State.QUEUED, State.RUNNING}),
    State.RETRY_WAIT: frozenset({State.QUEUED, State.CANCELLED}),
    State.SUCCEEDED: frozenset({State.SUPERSEDED, State.QUEUED}),  # again, when its results were deleted
    State.SUPERSEDED: frozenset(),
    State.SKIPPED: frozenset({State.QUEUED, State.CANCELLED}),
    State.CANCELLED: frozenset({State.QUEUED}),
    State.DEAD: frozenset({State.QUEUED, State.CANCELLED}),
}

LEASED = frozenset({State.RUNNING, State.STORING})
OPEN = frozenset({State.PLANNED, State.QUEUED, State.RETRY_WAIT}) | LEASED
PRIORITIES = ("urgent", "normal", "low")
RETRY_SECONDS = (5.0, 30.0, 120.0, 600.0)
RETRY_JITTER = 0.2  # of the delay, added


def sources(target: State) -> list[str]:
    """The states from which a job may move to `target`."""
    return [state.value for state, targets in MOVES.items() if target in targets]


def retry_delay(attempts: int, chance: float) -> float:
    """Seconds to wait after that many attempts; `chance` in [0, 1) spreads jobs that failed together."""
    step = RETRY_SECONDS[min(max(attempts, 1), len(RETRY_SECONDS)) - 1]
    return step * (1 + RETRY_JITTER * chance)


@dataclass(frozen=True, slots=True)
class Decision:
    """What the planner decided about one model and some series of a study.

    Without `reason` the job is to run, and `job_key` is its key. With one it is not: `reason` is the machine word,
    `message` the sentence, and `may_come` says that what is missing may still arrive.
    """

    model: str
    version: str
    digest: str
    series_uids: tuple[str, ...] = ()
    job_key: str = ""
    inputs: Sequence[Mapping[str, Any]] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    priority: str = "normal"
    max_attempts: int = 5
    timeout_s: float = 900.0
    reason: str = ""
    message: str = ""
    may_come: bool = False


@dataclass(frozen=True, slots=True)
class Lease:
    """A job in a worker's hands until the lease ends; `fence` guards every move the worker makes."""

    job_id: int
    fence: int
    owner: str
    job_key: str
    model: str
    version: str
    digest: str
    study_uid: str
    series_uids: tuple[str, ...]
    priority: str
    inputs: tuple[Mapping[str, Any], ...]
    parameters: Mapping[str, Any]
    evidence: Mapping[str, Any]
    frozen_at: datetime
    predecessor: tuple[Mapping[str, str], ...]
    attempts: int
    max_attempts: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Result:
    """One object that a job made and the node stored."""

    role: str  # "seg" or "sr"
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str


@dataclass(frozen=True, slots=True)
class Work:
    """A study that waits for a plan. `final`: what is missing will not come; `request` is an explicit run's number."""

    study_uid: str
    change_seq: int
    final: bool
    model: str = ""
    priority: str = ""
    request: int | None = None
