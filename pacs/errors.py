"""The one exception tree. No protocol codes here: `pacs/dimse/status.py` and `dicomweb/problems.py` translate it.

Every message is one sentence that says what happened and, where somebody can do something, what to do next.
It never holds patient data: UIDs are allowed; names, patient IDs, dates of birth, accession numbers and query values
are not.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why an object was not accepted (storage.md D7). The value is the machine word that users see."""

    UNREADABLE = "unreadable"  # truncated, nested, inflated, lying, not DICOM at all
    CLASS_MISMATCH = "class-mismatch"  # SOP class of data set, command or context differ
    INSTANCE_MISMATCH = "instance-mismatch"  # SOP instance UID of data set and command differ
    STUDY_MISMATCH = "study-mismatch"  # STOW to /studies/{uid} of another study
    BAD_UID = "bad-uid"  # not [0-9.], longer than 64, or absent
    SYNTAX = "transfer-syntax"  # a transfer syntax we cannot keep
    CLASS_NOT_SUPPORTED = "class-not-supported"
    DUPLICATE = "duplicate"  # same SOP Instance UID, other content
    TOO_LARGE = "too-large"
    OUT_OF_SPACE = "out-of-space"  # disk below its reserve, or the store is degraded
    UNAVAILABLE = "unavailable"  # database away, draining, maintenance
    NOT_ALLOWED = "not-allowed"
    INTERNAL = "internal"


class FilmroomError(Exception):
    """Base of all our errors: `code` is a machine word, `message` one sentence without patient data."""

    code = "internal"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class SettingsError(FilmroomError):
    """A setting is missing, unknown, misspelt or of the wrong kind."""

    code = "settings"


class Refused(FilmroomError):
    """An object was not accepted. `refusal_id` finds it again under `/api/v1/refusals/{id}`."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        refusal_id: str = "",
        sop_class_uid: str = "",
        sop_instance_uid: str = "",
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.code = reason.value
        self.refusal_id = refusal_id
        self.sop_class_uid = sop_class_uid
        self.sop_instance_uid = sop_instance_uid


class BadRequest(FilmroomError):
    """The request is malformed: a value, a UID, a range, a body."""

    code = "bad-request"


class NotFound(FilmroomError):
    """Nothing is stored under this well-formed name (or the caller may not see it)."""

    code = "not-found"


class NotAcceptable(FilmroomError):
    """None of the wanted representations can be made; `offered` lists those that can."""

    code = "not-acceptable"

    def __init__(self, message: str, offered: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.offered = offered


class UnsupportedMedia(FilmroomError):
    """The body is of a type that this resource does not read."""

    code = "unsupported-media-type"


class TooLarge(FilmroomError):
    """The request is larger than its limit."""

    code = "too-large"


class Conflict(FilmroomError):
    """The state of things forbids it: a legal hold, an open conflict, a job in another state."""

    code = "conflict"


class Forbidden(FilmroomError):
    """The caller is known and may not do this."""

    code = "forbidden"


class Unauthorized(FilmroomError):
    """Who asks is not known: no credential, or one that is wrong, spent or revoked. `shown` says one was given."""

    code = "unauthorized"

    def __init__(self, message: str, *, shown: bool = False) -> None:
        super().__init__(message)
        self.shown = shown


class TooManyAttempts(FilmroomError):
    """Too many wrong passwords of late; the right one is not heard either for `retry_after` seconds."""

    code = "too-many-attempts"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(FilmroomError):
    """A part of the node is away for now (database, Redis, disk, draining); try again later."""

    code = "unavailable"

    def __init__(self, message: str, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Damaged(FilmroomError):
    """The index names an object whose file is missing or not whole; `doctor` says what to do."""

    code = "damaged"
