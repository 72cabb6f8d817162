"""WADO-URI: one object by parameters, as a DICOM file (PS3.18 chapter 9). Its rendered types are not built yet."""

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from dicomweb import params, wado
from dicomweb.negotiate import Want, choose
from dicomweb.params import Pair
from dicomweb.resources import run
from pacs.domain.attributes import BY_KEYWORD
from pacs.domain.levels import Level, Scope
from pacs.domain.query import Condition, Query
from pacs.domain.uids import is_uid
from pacs.errors import BadRequest, NotAcceptable, NotFound

if TYPE_CHECKING:
    from pacs.node import Node

STUDY, SERIES, OBJECT = "studyUID", "seriesUID", "objectUID"
KEYWORDS = {STUDY: "StudyInstanceUID", SERIES: "SeriesInstanceUID", OBJECT: "SOPInstanceUID"}


async def retrieve(node: "Node", request: Request) -> Response:
    """One object as application/dicom, in Explicit VR Little Endian unless `transferSyntax` names another."""
    found = params.pairs(request.scope["query_string"])
    if params.first(found, "requestType") != "WADO":
        raise BadRequest("requestType must be WADO.")
    named = {name: uid for name in KEYWORDS if (uid := _uid(found, name))}
    if OBJECT not in named:
        raise BadRequest("objectUID must name an object.")
    if params.first(found, "anonymize"):
        raise NotAcceptable("Objects are not anonymised here; ask without the parameter, or not at all.")
    choose(params.first(found, "contentType") or "image/jpeg", [wado.SINGLE])
    scope = await run(lambda: _scope(node, named))
    instances = await run(lambda: node.retrieve.locate(scope))
    want = Want(wado.SINGLE, params.first(found, "transferSyntax") or "")
    _, [sending] = wado.plan(instances, [want])
    return await wado.single(node, request, sending)


def _uid(found: list[Pair], name: str) -> str:
    text = params.first(found, name) or ""
    if text and not is_uid(text):
        raise BadRequest(f"{name} is not a UID: digits and dots, 64 at most.")
    return text


def _scope(node: "Node", named: dict[str, str]) -> Scope:
    """The object's place; study and series may be left out. Raises NotFound."""
    if len(named) < len(KEYWORDS):
        conditions = tuple(Condition((BY_KEYWORD[KEYWORDS[name]].tag,), (uid,)) for name, uid in named.items())
        query = Query(Level.INSTANCE, conditions, limit=1, parents=False, show_hidden=True)
        rows = node.search.find(query).rows
        if not rows:
            raise NotFound("No such object is stored here.")
        named = {name: _first(rows[0], BY_KEYWORD[keyword].hex) for name, keyword in KEYWORDS.items()}
    return Scope(named[STUDY], named[SERIES], named[OBJECT])


def _first(row: dict[str, dict[str, object]], tag: str) -> str:
    values = row[tag]["Value"]
    assert isinstance(values, list)
    return str(values[0])
