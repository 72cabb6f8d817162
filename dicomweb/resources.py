"""What a path names (PS3.18 10.1), and what every handler asks of a request."""

from collections.abc import Callable
from typing import TypeVar

from anyio import to_thread
from starlette.requests import Request

from dicomweb import params, urls
from dicomweb.negotiate import Offer, Want, choose
from pacs.domain.events import Source
from pacs.domain.levels import Scope
from pacs.domain.roles import Identity
from pacs.domain.uids import is_uid
from pacs.errors import BadRequest
from pacs.settings import Settings

T = TypeVar("T")
NOBODY = "nobody"  # in audit rows, where who asks is not known


def scope_of(request: Request) -> Scope:
    """The study, series or instance of the path. Raises BadRequest for what has not the form of a UID."""
    return Scope(uid(request, "study"), _optional(request, "series"), _optional(request, "instance"))


def uid(request: Request, name: str) -> str:
    """The UID under this name in the path. Raises BadRequest for what has not the form of one (PS3.5 9.1)."""
    text = str(request.path_params[name])
    if not is_uid(text):
        raise BadRequest(f"The {name} in the path is not a UID: digits and dots, 64 at most.")
    return text


def _optional(request: Request, name: str) -> str | None:
    return uid(request, name) if name in request.path_params else None


def path_of(scope: Scope) -> str:
    """The path of what is named, below the DICOMweb root (PS3.18 10.1.1)."""
    path = f"/studies/{scope.study_uid}"
    if scope.series_uid is not None:
        path += f"/series/{scope.series_uid}"
    return path if scope.sop_instance_uid is None else f"{path}/instances/{scope.sop_instance_uid}"


def accepted(request: Request, *offers: Offer) -> tuple[Want, ...]:
    """What the client takes of these offers, best first; the `accept` parameter outranks the header."""
    parameter = params.first(params.pairs(request.scope["query_string"]), "accept")
    header = ",".join(request.headers.getlist("accept"))
    return choose(header, offers, parameter=parameter)


def source(request: Request, settings: Settings, door: str) -> Source:
    """Who asks, at which address, as audit rows name them."""
    found = identity_of(request)
    return Source(door, found.actor if found else NOBODY, urls.client(request, settings))


def identity_of(request: Request) -> Identity | None:
    """Who asks, once the door has found out; None on routes that are for everybody."""
    found: Identity | None = request.scope.get("state", {}).get("identity")
    return found


async def run(call: Callable[[], T]) -> T:
    """A call that waits for disk or database, in a worker thread."""
    return await to_thread.run_sync(call)
