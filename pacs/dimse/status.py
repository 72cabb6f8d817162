"""THE table of DIMSE statuses (PS3.7 C, PS3.4 B.2.3 and C.4.1.1.4): from our errors to numbers and comments."""

from enum import IntEnum

from pacs.errors import BadRequest, FilmroomError, Forbidden, NotFound, Reason, Refused, TooLarge, Unavailable


class Status(IntEnum):
    """Status (0000,0900) values that we answer."""

    SUCCESS = 0x0000
    INVALID_VALUE = 0x0106
    ATTRIBUTE_LIST = 0x0107  # a warning: some attributes were not taken over
    PROCESSING_FAILURE = 0x0110
    DUPLICATE_INSTANCE = 0x0111
    NO_SUCH_INSTANCE = 0x0112
    INVALID_ARGUMENT = 0x0115
    INVALID_INSTANCE = 0x0117
    NO_SUCH_CLASS = 0x0118
    CLASS_INSTANCE_CONFLICT = 0x0119
    MISSING_ATTRIBUTE = 0x0120
    MISSING_VALUE = 0x0121
    CLASS_NOT_SUPPORTED = 0x0122
    NO_SUCH_ACTION = 0x0123
    NOT_AUTHORIZED = 0x0124
    DUPLICATE_INVOCATION = 0x0210
    UNRECOGNIZED_OPERATION = 0x0211
    OUT_OF_RESOURCES = 0xA700
    CLASS_MISMATCH = 0xA900  # C-FIND: the identifier does not match the SOP class
    CANNOT_UNDERSTAND = 0xC000  # C-FIND: unable to process
    MATCHES_UNKNOWN = 0xA701  # C-MOVE, C-GET: the number of matches cannot be calculated
    SUBOPERATIONS_FAILED = 0xA702  # all of them
    MOVE_DESTINATION_UNKNOWN = 0xA801
    SUBOPERATIONS_WARNED = 0xB000  # some failed, or were stored with a warning
    CANCEL = 0xFE00
    PENDING = 0xFF00
    PENDING_UNSUPPORTED_KEYS = 0xFF01


BY_REASON: dict[Reason, Status] = {
    Reason.UNREADABLE: Status.CANNOT_UNDERSTAND,
    Reason.CLASS_MISMATCH: Status.CLASS_MISMATCH,
    Reason.INSTANCE_MISMATCH: Status.INVALID_INSTANCE,
    Reason.STUDY_MISMATCH: Status.CANNOT_UNDERSTAND,
    Reason.BAD_UID: Status.INVALID_INSTANCE,
    Reason.SYNTAX: Status.CANNOT_UNDERSTAND,
    Reason.CLASS_NOT_SUPPORTED: Status.CLASS_NOT_SUPPORTED,
    Reason.DUPLICATE: Status.DUPLICATE_INSTANCE,
    Reason.TOO_LARGE: Status.OUT_OF_RESOURCES,
    Reason.OUT_OF_SPACE: Status.OUT_OF_RESOURCES,
    Reason.UNAVAILABLE: Status.OUT_OF_RESOURCES,
    Reason.NOT_ALLOWED: Status.NOT_AUTHORIZED,
    Reason.INTERNAL: Status.PROCESSING_FAILURE,
}
BY_ERROR: dict[type[FilmroomError], Status] = {
    BadRequest: Status.CLASS_MISMATCH,
    TooLarge: Status.OUT_OF_RESOURCES,
    NotFound: Status.CLASS_MISMATCH,
    Forbidden: Status.NOT_AUTHORIZED,
    Unavailable: Status.OUT_OF_RESOURCES,
}
MAX_COMMENT = 64  # LO


def of(error: BaseException) -> Status:
    """The status of an error; anything that is not ours is a processing failure."""
    if isinstance(error, Refused):
        return BY_REASON[error.reason]
    return next((BY_ERROR[kind] for kind in type(error).__mro__ if kind in BY_ERROR), Status.PROCESSING_FAILURE)


def comment(error: BaseException) -> str:
    """Error Comment (0000,0902): the refusal's id and reason, or the error's sentence; 64 ASCII characters at most."""
    if isinstance(error, Refused) and error.refusal_id:
        return f"{error.refusal_id} {error.reason.value}"[:MAX_COMMENT]
    text = error.message if isinstance(error, FilmroomError) else "Unexpected failure; see the log of this node."
    return text.encode("ascii", "replace").decode("ascii").replace("\\", "/")[:MAX_COMMENT].strip()
