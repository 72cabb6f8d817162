"""The levels of the query/retrieve information models, and the scope that names one thing at a level."""

from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """PS3.4 C.6: a level includes those above it, so levels compare."""

    PATIENT = 0
    STUDY = 1
    SERIES = 2
    INSTANCE = 3


@dataclass(frozen=True, slots=True)
class Scope:
    """One study, one series or one instance, by UIDs that have the form of a UID."""

    study_uid: str
    series_uid: str | None = None
    sop_instance_uid: str | None = None

    @property
    def level(self) -> Level:
        """The level of the thing named."""
        if self.sop_instance_uid is not None:
            return Level.INSTANCE
        return Level.STUDY if self.series_uid is None else Level.SERIES
