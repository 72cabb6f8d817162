"""What the doors and the one way in say to each other of an object: who sent it, what was claimed, what came of it."""

from dataclasses import dataclass
from typing import Literal

Door = Literal["dimse", "stow", "import", "ai", "demo", "smoke"]
Outcome = Literal["stored", "known", "replaced"]


@dataclass(frozen=True, slots=True)
class Source:
    """Through which door an object came, from which peer (AE title, user or program) at which address."""

    door: str
    peer: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the door's envelope claims about the object that follows; an empty field claims nothing."""

    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_uid: str = ""
    transfer_syntax_uid: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """An accepted object: durable and indexed. `known` means that the same data set bytes were here already."""

    outcome: Outcome
    study_uid: str
    series_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    warnings: tuple[str, ...] = ()
