"""The list of routes as an OpenAPI document: what there is, what each does, which permission it will ask for."""

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable
from importlib.metadata import version
from typing import Any, Protocol

_PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")
_ERROR = {
    "type": "object",
    "required": ["error", "message", "request_id"],
    "properties": {name: {"type": "string"} for name in ("error", "message", "request_id")},
}


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
        paths.setdefault(_PARAMETER.sub(r"{\1}", row.path), {})[row.method.lower()] = _operation(row)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Filmroom", "version": version("filmroom")},
        "paths": paths,
        "components": {"schemas": {"Error": _ERROR}},
    }


def _operation(row: Row) -> dict[str, Any]:
    names = _PARAMETER.findall(row.path)
    return {
        "summary": (inspect.getdoc(row.handler) or "").partition("\n")[0],
        "x-permission": row.permission,
        "parameters": [{"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in names],
        "responses": {
            "2XX": {"description": "As the summary says."},
            "default": {
                "description": "An error, told in one sentence.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
    }
