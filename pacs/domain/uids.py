"""Unique identifiers (PS3.5 chapter 9): their form, the storage classes of the dictionary, and our own."""

import re
import uuid
from functools import cache

from pydicom._uid_dict import UID_dictionary

IMPLEMENTATION_CLASS_UID = "2.25.234111362603051702130203731570274506311"
IMPLEMENTATION_VERSION_NAME = "FILMROOM_0_1"
# Device UID (0018,1002) of what our models write, so that it is never taken for an original
AI_DEVICE_UID = "2.25.23180775790270439159489013838609508356"

VERIFICATION = "1.2.840.10008.1.1"

_FORM = re.compile(r"[0-9]+(?:\.[0-9]+)*", re.ASCII)
_LEADING_ZERO = re.compile(r"(?:^|\.)0[0-9]", re.ASCII)

# in the standard since 2024, not yet in pydicom's dictionary
_NEWER: dict[str, str] = {
    "1.2.840.10008.5.1.4.1.1.9.100.1": "Waveform Presentation State Storage",
    "1.2.840.10008.5.1.4.1.1.9.100.2": "Waveform Acquisition Presentation State Storage",
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.66.8": "Height Map Segmentation Storage",
}

# storage in name only: these answer requests or describe a medium, nobody stores instances of them
_NOT_STORED = frozenset(
    {
        "1.2.840.10008.1.3.10",  # Media Storage Directory
        "1.2.840.10008.1.20.1",  # Storage Commitment Push Model
        "1.2.840.10008.1.20.2",  # Storage Commitment Pull Model
    }
)


def is_uid(text: str) -> bool:
    """Whether `text` has the form of a UID: digits and dots, no empty component, at most 64 characters.

    Leading zeros of a component are against PS3.5 9.1 but are seen and harmless: see `has_leading_zero`.
    """
    return len(text) <= 64 and _FORM.fullmatch(text) is not None


def has_leading_zero(text: str) -> bool:
    """Whether a component of this UID begins with a zero that PS3.5 9.1 forbids; worth a warning, no refusal."""
    return _LEADING_ZERO.search(text) is not None


@cache
def storage_classes() -> frozenset[str]:
    """The UIDs of all storage SOP classes of the standard's dictionary, retired and trial ones included."""
    return frozenset(_NEWER) | frozenset(
        uid
        for uid, (name, kind, _info, _retired, _keyword) in UID_dictionary.items()
        if kind == "SOP Class" and " Storage" in name and uid not in _NOT_STORED
    )


def name_of(uid: str) -> str:
    """The dictionary's name of a UID, or the UID itself."""
    entry = UID_dictionary.get(uid)
    return entry[0] if entry else _NEWER.get(uid, uid)


def new_uid() -> str:
    """A fresh UID from a random UUID (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid4().int}"
