"""THE translation of our errors to HTTP: status codes (PS3.18 8.5) and failure reasons of a store (Table I.2-2).

The body of an error is one JSON object: `error` (machine word), `message` (one sentence), `request_id`; never a trace.
"""

from dataclasses import dataclass

import orjson
from starlette.responses import Response

from pacs.errors import (
    BadRequest,
    Conflict,
    Damaged,
    FilmroomError,
    Forbidden,
    NotAcceptable,
    NotFound,
    Reason,
    Refused,
    TooLarge,
    TooManyAttempts,
    Unauthorized,
    Unavailable,
    UnsupportedMedia,
)

REALM = 'Bearer realm="filmroom"'
RETRY_SECONDS = 30  # when nothing better is known


class TooSlow(FilmroomError):
    """The request's body did not arrive in time."""

    code = "too-slow"


@dataclass(frozen=True, slots=True)
class Failure:
    """What a refused object means: Failure Reason (0008,1197), and the status where nothing at all was stored."""

    code: int
    status: int


STATUS: dict[type[FilmroomError], int] = {
    BadRequest: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    NotAcceptable: 406,
    TooSlow: 408,
    Conflict: 409,
    TooLarge: 413,
    UnsupportedMedia: 415,
    TooManyAttempts: 429,
    Unavailable: 503,
    Damaged: 500,
}

FAILURES: dict[Reason, Failure] = {
    Reason.UNREADABLE: Failure(0xC000, 409),  # cannot understand
    Reason.BAD_UID: Failure(0xC000, 409),
    Reason.CLASS_MISMATCH: Failure(0xA900, 409),  # data set does not match SOP class
    Reason.INSTANCE_MISMATCH: Failure(0xA900, 409),
    Reason.STUDY_MISMATCH: Failure(0xA900, 409),
    Reason.SYNTAX: Failure(0xC122, 409),  # transfer syntax not supported
    Reason.CLASS_NOT_SUPPORTED: Failure(0x0122, 409),
    Reason.DUPLICATE: Failure(0x0111, 409),  # PS3.7 C.5.4
    Reason.TOO_LARGE: Failure(0xA700, 413),  # out of resources
    Reason.OUT_OF_SPACE: Failure(0xA700, 507),
    Reason.UNAVAILABLE: Failure(0xA700, 503),
    Reason.NOT_ALLOWED: Failure(0x0124, 403),  # PS3.7 C.5.19
    Reason.INTERNAL: Failure(0x0110, 500),  # processing failure
}
RETRIED = frozenset({429, 503, 507})  # these say Retry-After


def status_of(error: FilmroomError) -> int:
    """The HTTP status of an error that ends a request."""
    if isinstance(error, Refused):
        return FAILURES[error.reason].status
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def problem(status: int, word: str, message: str, request_id: str, **more: object) -> Response:
    """An error response of the one form that all doors of HTTP share."""
    body = orjson.dumps({"error": word, "message": message, "request_id": request_id, **more})
    return Response(body, status, media_type="application/json")


def of(error: FilmroomError, request_id: str) -> Response:
    """The response that an error of ours ends a request with."""
    status = status_of(error)
    more: dict[str, object] = {}
    if isinstance(error, NotAcceptable) and error.offered:
        more["offered"] = error.offered
    if isinstance(error, Refused) and error.refusal_id:
        more["refusal_id"] = error.refusal_id
    response = problem(status, error.code, error.message, request_id, **more)
    if isinstance(error, Unauthorized):
        response.headers["www-authenticate"] = challenge(error)
    if status in RETRIED:
        response.headers["retry-after"] = str(getattr(error, "retry_after", RETRY_SECONDS))
    return response


def challenge(error: Unauthorized) -> str:
    """How one makes oneself known (RFC 6750 3)."""
    return f'{REALM}, error="invalid_token", error_description="{error.message}"' if error.shown else REALM
