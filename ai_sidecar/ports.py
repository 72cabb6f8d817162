"""What the pipeline takes and gives: the one page that worker, local and remote adapters are written against.

The pipeline is pure: it reads source instances through `SourceInstance.read`, runs a model, and returns complete
Part 10 files. It knows no database, no queue and no route. Two runs of one job give equal bytes.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from pacs.domain.uids import AI_DEVICE_UID
from pacs.errors import FilmroomError


class Unsuitable(FilmroomError):
    """The inputs are not what the model takes: the job is SKIPPED. `code` is the machine reason.

    `may_come`: what is missing may still arrive (a slice).
    """

    def __init__(self, reason: str, message: str, *, may_come: bool = False) -> None:
        super().__init__(message)
        self.code, self.may_come = reason, may_come


class RunFailed(FilmroomError):
    """A run failed. `permanent`: another attempt would fail alike. `code` is the machine reason."""

    def __init__(self, reason: str, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.code, self.permanent = reason, permanent


class Interrupted(FilmroomError):
    """A run ended because its stop signal was set."""

    code = "stopped"


class StopSignal(Protocol):
    """Tells a run to stop; `ai_sidecar.heartbeat.Stop` is one, `ai_sidecar.runtime.Deadline` another."""

    def is_set(self) -> bool: ...

    def call(self, callback: Callable[[], None]) -> None:
        """Have something called when it is time to stop; at once if that time has come."""


class SourceInstance(Protocol):
    """One stored instance. `data_sha256` covers the data set without its file meta (hex, lower case)."""

    @property
    def sop_class_uid(self) -> str: ...
    @property
    def sop_instance_uid(self) -> str: ...
    @property
    def transfer_syntax_uid(self) -> str: ...
    @property
    def data_sha256(self) -> str: ...

    def read(self) -> bytes:
        """The whole Part 10 file as stored. Raises Damaged, NotFound or Unavailable."""


@dataclass(frozen=True, slots=True)
class SourceSeries:
    """The images of one series, in any order."""

    series_uid: str
    instances: Sequence[SourceInstance]


@dataclass(frozen=True, slots=True)
class JobContext:
    """Everything about a job that ends up in its results, all of it frozen in the job row."""

    job_key: str
    study_uid: str
    frozen_at: datetime  # aware; every date and time of the results
    parameters: Mapping[str, Any] = field(default_factory=dict)
    predecessor: Sequence[Mapping[str, str]] = ()  # results this job replaces: role, sop_class_uid, ..., series_uid
    evidence: Sequence[str] = ()  # sentences of the planner, repeated in the SR
    utc_offset: str = "+0000"  # of dates and times, where the images state none
    institution: str = ""  # where the images name none
    manufacturer: str = "Filmroom"
    software_version: str = "0"
    device_uid: str = AI_DEVICE_UID  # marks results, so that they are never taken for originals


@dataclass(frozen=True, slots=True)
class ResultFile:
    """One object of an outcome, ready to be stored. `content` is a complete Part 10 file."""

    role: str  # "seg" or "sr"
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run made. `seg` is absent when nothing was found; `timings` are seconds by stage."""

    seg: ResultFile | None
    sr: ResultFile | None
    timings: Mapping[str, float]
    evidence: Sequence[str]
    provider: str

    @property
    def files(self) -> tuple[ResultFile, ...]:
        """What to store, in the order to store it: the SR refers to the SEG."""
        return tuple(file for file in (self.seg, self.sr) if file is not None)


# what planning takes


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """One instance as the index knows it. `attributes`: keyword -> values, numbers or text as DICOM JSON has them."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_sha256: str
    attributes: Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """One series of a study, all its instances, in any order."""

    series_uid: str
    instances: Sequence[InstanceFacts]


def job_key(
    model_sha256: str, manifest_sha256: str, inputs: Iterable[tuple[str, str]], parameters: Mapping[str, Any]
) -> str:
    """The name of one piece of work: the same model on the same bytes has the same key (ai.md 1.2).

    `inputs` are (SOP Instance UID, data digest) in any order. 64 hexadecimal digits.
    """
    told = {
        "model": model_sha256,
        "manifest": manifest_sha256,
        "inputs": sorted(map(list, inputs)),
        "parameters": dict(parameters),
    }
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def derived_uid(key: str, role: str) -> str:
    """The UID of one thing that a job makes: `2.25.` and 128 bits of sha256 (PS3.5 B.2)."""
    digest = hashlib.sha256(f"{key}/{role}".encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"
