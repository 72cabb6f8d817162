"""What HTTP tells the audit trail (security.md 3): one row for each request that could show or change something.

Stores and deletes that were done write their own rows, object by object, in their transactions; of those only what
failed as a whole is noted here. Nothing here waits: the trail writes later and looks patients up by itself.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dicomweb import params, problems
from dicomweb.resources import source
from pacs.domain.attributes import BY_KEYWORD
from pacs.domain.events import Source
from pacs.errors import BadRequest, FilmroomError

if TYPE_CHECKING:
    from pacs.node import Node

R = TypeVar("R", bound=Response)

# permission -> action, where the word is another; None is noted nowhere
ACTIONS: Mapping[str, str | None] = {"retrieve": "read", "public": None, "metrics": None, "signed-in": None}
# what was done writes its rows in its transaction: with these permissions, and where something was changed with those
ELSEWHERE = frozenset({"store", "delete", "accounts"})
CHANGES_ELSEWHERE = frozenset({"control", "worklist"})
PATIENT_ID = BY_KEYWORD["PatientID"].hex
# what a row names, where the path has it, and the parameter of WADO-URI (PS3.18 9.1.2.1)
NAMED = (
    ("study_uid", "study", "studyUID"),
    ("series_uid", "series", "seriesUID"),
    ("sop_instance_uid", "instance", "objectUID"),
)
URI = "/wado"
NOT_CHANGED = frozenset({"/api/v1/peers/{name}/test"})  # though it is a POST
ASKED = {"study_uid": ("StudyInstanceUID", "0020000D"), "patient_id": ("PatientID", "00100020")}  # keys of a search
REFUSED = frozenset({401, 403, 429})
GOOD = 400  # below it
PATTERN = frozenset("*?\\,")


def about(response: R, **fields: Any) -> R:
    """The response, with what the trail should know of it beyond its path: fields of `node.audit.note`."""
    response.__dict__["about"] = told(response) | fields
    return response


def told(response: Response) -> dict[str, Any]:
    """What `about` was given."""
    found: dict[str, Any] = response.__dict__.get("about", {})
    return found


def of_items(items: Iterable[Any]) -> dict[str, Any]:
    """What a list of things with studies shows."""
    things = [item for item in items if isinstance(item, dict)]
    listed = sorted({str(uid) for item in things if (uid := item.get("study_uid"))})
    patients = sorted({id_ for item in things if (id_ := _patient_of(item))})
    if len(patients) > 1:
        return {"listed": listed, "detail": {"patients": patients}}
    return {"listed": listed, "patient_id": patients[0] if patients else ""}


def of_thing(thing: Any) -> dict[str, Any]:
    """What one thing shows, if it has a study or a patient."""
    if not isinstance(thing, dict):
        return {}
    named = {"study_uid": thing.get("study_uid"), "patient_id": _patient_of(thing)}
    return {name: value for name, value in named.items() if isinstance(value, str) and value}


def _patient_of(thing: dict[str, Any]) -> str:
    """The Patient ID of a thing that holds DICOM JSON, as items of the worklist do."""
    held = thing.get("item")
    values = held.get(PATIENT_ID, {}).get("Value") if isinstance(held, dict) else None
    return str(values[0]) if values else ""


def answered(node: "Node", request: Request, route: str, permission: str, response: Response) -> None:
    """Note a request that was answered."""
    changed = permission in CHANGES_ELSEWHERE and request.method not in {"GET", "HEAD"}
    if permission not in ELSEWHERE and (not changed or route in NOT_CHANGED):
        _note(node, request, route, permission, status=response.status_code, more=told(response))


def failed(node: "Node", request: Request, route: str, permission: str, error: Exception) -> None:
    """Note a request whose handler raised."""
    _note(node, request, route, permission, status=status_of(error), more={})


def status_of(error: Exception) -> int:
    """The status that an error is answered with."""
    if isinstance(error, FilmroomError):
        return problems.status_of(error)
    return error.status_code if isinstance(error, HTTPException) else 500


def outcome(status: int) -> str:
    """ok, refused or failed."""
    return "ok" if status < GOOD else "refused" if status in REFUSED else "failed"


def asker(node: "Node", request: Request) -> Source:
    """Who asks, and through which part of this door."""
    path = request.scope.get("path", "")
    door = "api" if path.startswith("/api/") else "console" if path.startswith("/console") else "dicomweb"
    return source(request, node.settings, door)


def _note(node: "Node", request: Request, route: str, permission: str, *, status: int, more: dict[str, Any]) -> None:
    action = ACTIONS.get(permission, permission)
    if action is None:
        return
    fields = {**_named(request, route, permission), **more}
    fields["detail"] = {"route": route, "method": request.method, "status": status, **fields.get("detail", {})}
    node.audit.note(asker(node, request), action, outcome=outcome(status), **fields)


def _named(request: Request, route: str, permission: str) -> dict[str, str]:
    """What the request names, as far as it can be read: it may be the reason why it failed."""
    named = {field: str(request.path_params.get(name, "")) for field, name, _ in NAMED}
    if route == URI:
        named = {field: _parameter(request, (parameter,)) for field, _, parameter in NAMED}
    elif permission == "search":
        named |= {field: value for field, names in ASKED.items() if (value := _parameter(request, names))}
    return named


def _parameter(request: Request, names: tuple[str, ...]) -> str:
    """The value of the first of these parameters that is there; empty where it is unreadable, or a pattern."""
    pairs = params.pairs(request.scope["query_string"])
    with suppress(BadRequest):
        value = next((pair.value() for pair in pairs if pair.name in names), "")
        return "" if PATTERN & set(value) else value
    return ""
