"""The list of routes as an OpenAPI document: what there is, what each takes and gives, which permission it asks for."""

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable
from importlib.metadata import version
from typing import Any, Protocol

from dicomweb import described

_PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")
_ERROR = {
    "type": "object",
    "required": ["error", "message", "request_id"],
    "properties": {name: {"type": "string"} for name in ("error", "message", "request_id")},
}
_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "session": {"type": "apiKey", "in": "cookie", "name": "filmroom"},
}
PUBLIC = "public"
NO_BODY = frozenset({204, 304})


class Row(Protocol):
    """A row of the list of routes, as far as it is told."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def handler(self) -> Callable[..., Awaitable[object]]: ...
    @property
    def permission(self) -> str: ...


def document(rows: Iterable[Row]) -> dict[str, Any]:
    """An OpenAPI 3.1 document of these rows. Summaries are the first sentences of the handlers' own words."""
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        path = _PARAMETER.sub(r"{\1}", row.path)
        operations = paths.setdefault(path, {})
        operations[row.method.lower()] = _operation(row, path)
        if row.method == "GET":
            operations["head"] = {**_operation(row, path), "summary": "The headers that GET would give."}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Filmroom", "version": version("filmroom")},
        "paths": paths,
        "components": {"schemas": {"Error": _ERROR}, "securitySchemes": _SECURITY},
    }


def _operation(row: Row, path: str) -> dict[str, Any]:
    known = described.operation(row.method, path)
    found: dict[str, Any] = {
        "summary": (inspect.getdoc(row.handler) or "").partition("\n")[0],
        "x-permission": row.permission,
        "security": [] if row.permission == PUBLIC else [{"bearer": []}, {"session": []}, {}],
        "parameters": [*_in_path(path), *_in_query(known)],
        "responses": _responses(known),
    }
    if known.body:
        found["requestBody"] = {"content": {kind: {"schema": schema} for kind, schema in known.body.items()}}
    return found


def _in_path(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": described.IN_PATH.get(name, described.TEXT)}
        for name in _PARAMETER.findall(path)
    ]


def _in_query(known: described.Operation) -> list[dict[str, Any]]:
    return [{"name": name, "in": "query", "schema": schema} for name, schema in known.query.items()]


def _responses(known: described.Operation) -> dict[str, Any]:
    """Where all is well, and every error in one form."""
    well: dict[str, Any] = {"description": "As the summary says."}
    if known.gives and known.status not in NO_BODY:
        well["content"] = {kind: {"schema": schema} for kind, schema in known.gives.items()}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        str(known.status): well,
        "default": {"description": "Something else, most often an error, told in one sentence.", "content": error},
    }
