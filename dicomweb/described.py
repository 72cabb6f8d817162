"""What operations take and give, for the OpenAPI document: one table, by method and path as the list of routes says.

A route that no row names is described by its path and its method alone.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
DECISION: Schema = {"enum": ["keep", "replace"]}
FLAG: Schema = {"type": "boolean"}
UID: Schema = {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)*$", "maxLength": 64}
WORDS: Schema = {"type": "array", "items": TEXT}
OBJECT: Schema = {"type": "object"}
BYTES: Schema = {"type": "string", "format": "binary"}
ROWS: Schema = {"type": "array", "items": OBJECT}
LIST: Schema = {"type": "object", "required": ["items", "next"], "properties": {"items": ROWS, "next": {}}}
MOMENT: Schema = {"type": "string", "format": "date-time"}

# parameters in paths, whatever the route
IN_PATH: Mapping[str, Schema] = {
    "study": UID,
    "series": UID,
    "instance": UID,
    "sop": UID,
    "frames": {"type": "string", "pattern": "^[1-9][0-9]*(,[1-9][0-9]*)*$"},
}
JSON, DICOM_JSON, DICOM_XML = "application/json", "application/dicom+json", "application/dicom+xml"
DICOM, PARTS, OCTETS, FORM = (
    "application/dicom",
    "multipart/related",
    "application/octet-stream",
    "application/x-www-form-urlencoded",
)
PICTURES = ("image/jpeg", "image/png", "image/gif", "image/webp")


def _object(*required: str, **properties: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": properties}


@dataclass(frozen=True, slots=True)
class Operation:
    """Query parameters, media types of the body with their schemas, status where all is well, media types given."""

    query: Mapping[str, Schema] = field(default_factory=dict)
    body: Mapping[str, Schema] = field(default_factory=dict)
    status: int = 200
    gives: Mapping[str, Schema] = field(default_factory=lambda: {JSON: OBJECT})


def _given(media_types: Sequence[str], schema: Schema = BYTES) -> Mapping[str, Schema]:
    return dict.fromkeys(media_types, schema)


ACCEPT = {"accept": TEXT}
SEARCH = Operation(
    {
        "limit": COUNT,
        "offset": COUNT,
        "includefield": {"type": "array", "items": TEXT},
        "fuzzymatching": FLAG,
        "emptyvaluematching": FLAG,
        "multiplevaluematching": FLAG,
        "orderby": {"type": "string", "description": "Keywords or tags; a minus before one turns its order around."},
        "count": FLAG,
        "PatientID": TEXT,
        "PatientName": TEXT,
        "StudyDate": {"type": "string", "pattern": "^([0-9]{8})?(-([0-9]{8})?)?$"},
        "ModalitiesInStudy": TEXT,
        "StudyInstanceUID": TEXT,
    }
    | ACCEPT,
    gives={**_given((DICOM_JSON, JSON), ROWS), PARTS: BYTES},
)
RENDERED = Operation(
    {"viewport": TEXT, "window": TEXT, "quality": {"type": "integer", "minimum": 1, "maximum": 100}}
    | {"annotation": TEXT, "iccprofile": TEXT}
    | ACCEPT,
    gives=_given((*PICTURES, PARTS, "text/html", "text/plain", "application/pdf")),
)
PAGE = {"after": COUNT, "limit": COUNT}
JOB_LIST = Operation(PAGE | {"state": TEXT}, gives={JSON: LIST})
STORED = Operation(
    body={
        f'{PARTS}; type="{DICOM}"': BYTES,
        f'{PARTS}; type="{DICOM_JSON}"': BYTES,
        DICOM: BYTES,
        DICOM_JSON: ROWS,
    },
    gives=_given((DICOM_JSON, JSON, DICOM_XML), OBJECT),
)
CREDENTIALS = _object("username", "password", username=TEXT, password=TEXT)
USER = _object(username=TEXT, email=TEXT, password=TEXT, roles=WORDS, disabled=FLAG)

_TABLE: Sequence[tuple[str, Operation]] = (
    (r"GET .*/dicom-web(/studies/{study}(/series/{series})?)?/(patients|studies|series|instances)", SEARCH),
    (r"POST /dicom-web/studies(/{study})?", STORED),
    (r"GET .*/metadata", Operation(ACCEPT, gives={**_given((DICOM_JSON, JSON), ROWS), PARTS: BYTES})),
    (r"GET .*/(rendered|thumbnail)", RENDERED),
    (r"GET .*/frames/{frames}", Operation(ACCEPT, gives=_given((PARTS, OCTETS, "image/*")))),
    (r"GET .*/(bulkdata|pixeldata)(/{path})?", Operation(ACCEPT, gives=_given((PARTS, OCTETS, "application/pdf")))),
    (
        r"GET /dicom-web/studies/{study}(/series/{series}(/instances/{instance})?)?",
        Operation(ACCEPT, gives=_given((PARTS, DICOM, "application/zip"))),
    ),
    (
        r"GET /wado",
        Operation(
            {"requestType": {"const": "WADO"}, "studyUID": UID, "seriesUID": UID, "objectUID": UID}
            | dict.fromkeys(("contentType", "transferSyntax", "region", "charset", "annotation"), TEXT)
            | dict.fromkeys(("rows", "columns", "frameNumber", "imageQuality"), COUNT)
            | dict.fromkeys(("windowCenter", "windowWidth"), NUMBER),
            gives=_given((DICOM, *PICTURES, "text/html")),
        ),
    ),
    (r"DELETE .*", Operation(status=204, gives={})),
    (r"GET /metrics", Operation(gives={"text/plain": TEXT})),
    (r"POST .*/auth/token", Operation(body=_given((FORM, JSON), CREDENTIALS))),
    (r"POST .*/auth/refresh", Operation(body=_given((FORM, JSON), _object("refresh_token", refresh_token=TEXT)))),
    (r"POST .*/auth/logout", Operation(status=204, gives={})),
    (
        r"POST .*/auth/password",
        Operation(body=_given((FORM, JSON), _object(current_password=TEXT, new_password=TEXT)), status=204, gives={}),
    ),
    (r"POST .*/users", Operation(body={JSON: {**USER, "required": ["username"]}}, status=201)),
    (r"PATCH .*/users/{username}", Operation(body={JSON: USER})),
    (r"POST .*/tokens", Operation(body={JSON: _object("name", name=TEXT, roles=WORDS, expires_at=MOMENT)}, status=201)),
    (r"PUT .*/labels", Operation(body={JSON: _object("labels", labels=WORDS)})),
    (r"GET .*/changes", Operation({"since": COUNT, "limit": COUNT}, gives={JSON: LIST})),
    (
        r"POST .*/conflicts/{id}/resolve",
        Operation(body={JSON: _object("decision", decision=DECISION)}),
    ),
    (r"GET .*/audit", Operation(PAGE | {"patient": TEXT, "study": TEXT, "user": TEXT, "from": TEXT, "to": TEXT})),
    (r"PUT .*/maintenance", Operation(body={JSON: _object("state", state={"enum": ["on", "off"]}, message=TEXT)})),
    (r"GET .*/ai/jobs", JOB_LIST),
    (
        r"POST .*/ai/studies/{study}/run",
        Operation(body={JSON: _object(model=TEXT, priority={"enum": ["urgent", "normal", "low"]})}, status=202),
    ),
    (r"GET .*/(conflicts|users|tokens|peers|ai/models|worklist|rules)", Operation(gives={JSON: LIST})),
    (r"(POST|PUT|PATCH) .*/(run|review|retry|cancel|drop|test|replay)", Operation(body={JSON: OBJECT})),
    (r"(POST|PUT|PATCH) /api/.*", Operation(body={JSON: OBJECT})),
)
_COMPILED = tuple((re.compile(pattern), operation) for pattern, operation in _TABLE)
PLAIN = Operation()


def operation(method: str, path: str) -> Operation:
    """What is known of this operation."""
    return next((found for pattern, found in _COMPILED if pattern.fullmatch(f"{method} {path}")), PLAIN)
