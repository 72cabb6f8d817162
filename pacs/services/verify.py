"""What an admitted object must hold to be stored, and which claims of its sender it must meet (storage.md 2.3)."""

from collections.abc import Iterator

from pacs.domain import admission
from pacs.domain.admission import TRANSFER_SYNTAX, Admitted
from pacs.domain.events import Expected
from pacs.domain.header import Header
from pacs.domain.syntaxes import is_keepable
from pacs.domain.uids import is_uid, name_of, storage_classes
from pacs.errors import Reason

Fault = tuple[Reason, str]


def faults(admitted: Admitted, found: Header, expected: Expected) -> Iterator[Fault]:
    """Why the object cannot be stored, the first reason first; nothing when it can."""
    names = (
        ("SOP Class UID", found.sop_class_uid),
        ("SOP Instance UID", found.sop_instance_uid),
        ("Study Instance UID", found.study_uid),
        ("Series Instance UID", found.series_uid),
    )
    for name, uid in names:
        if not is_uid(uid):
            yield Reason.BAD_UID, f"The object's {name} is {'malformed' if uid else 'missing'}."
    claims = (
        (Reason.CLASS_MISMATCH, "SOP class", expected.sop_class_uid, found.sop_class_uid),
        (Reason.INSTANCE_MISMATCH, "SOP Instance UID", expected.sop_instance_uid, found.sop_instance_uid),
        (Reason.STUDY_MISMATCH, "Study Instance UID", expected.study_uid, found.study_uid),
    )
    for reason, name, claimed, said in claims:
        if claimed and claimed != said:
            yield reason, f"The {name} of the data set is not the one that was announced."
    if is_known(found.sop_class_uid) and found.sop_class_uid not in storage_classes():
        yield Reason.CLASS_NOT_SUPPORTED, "The object's SOP class is not one whose instances are stored."
    if not is_keepable(admitted.transfer_syntax_uid):
        yield Reason.SYNTAX, "The object's transfer syntax is not one that this node keeps."


def is_known(uid: str) -> bool:
    """Whether the dictionary has this UID; private classes are stored like any other."""
    return name_of(uid) != uid


def needs_head(admitted: Admitted) -> bool:
    """Whether the file would not be readable as it came: no preamble, no file meta information, or a wrong syntax."""
    return (
        admission.NO_PREAMBLE in admitted.warnings or admitted.meta.get(TRANSFER_SYNTAX) != admitted.transfer_syntax_uid
    )
