"""WADO-URI: one object by parameters, as a DICOM file or as a picture (PS3.18 chapter 9)."""

from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from dicomweb import documents, looks, params, rendered, wado
from dicomweb.frames import require
from dicomweb.negotiate import Offer, Want, choose
from dicomweb.params import Pair
from dicomweb.resources import run
from pacs.domain.attributes import BY_KEYWORD
from pacs.domain.document import is_report
from pacs.domain.levels import Level, Scope
from pacs.domain.query import Condition, Query
from pacs.domain.uids import is_uid
from pacs.errors import BadRequest, NotAcceptable, NotFound

if TYPE_CHECKING:
    from pacs.node import Node
    from pacs.services.retrieve import StoredInstance

STUDY, SERIES, OBJECT = "studyUID", "seriesUID", "objectUID"
PRESENTATION, PRESENTATION_SERIES = "presentationUID", "presentationSeriesUID"
KEYWORDS = {STUDY: "StudyInstanceUID", SERIES: "SeriesInstanceUID", OBJECT: "SOPInstanceUID"}
# parameters that change what is in the picture or the object: ignoring them would be answering something else
UNBUILT = {
    "anonymize": "Objects are not anonymised here; ask without the parameter, or not at all.",
}


async def retrieve(node: "Node", request: Request) -> Response:
    """One object as application/dicom, in Explicit VR Little Endian unless `transferSyntax` names another; or one of
    its frames as a picture, which is the default for images of one frame; reports are text/html by default (9.5)."""
    found = params.pairs(request.scope["query_string"])
    if params.first(found, "requestType") != "WADO":
        raise BadRequest("requestType must be WADO.")
    named = {name: uid for name in KEYWORDS if (uid := _uid(found, name))}
    if OBJECT not in named:
        raise BadRequest("objectUID must name an object.")
    if bool(_uid(found, PRESENTATION)) != bool(_uid(found, PRESENTATION_SERIES)):
        raise BadRequest("presentationUID and presentationSeriesUID belong together.")
    for name, sentence in UNBUILT.items():
        if params.first(found, name):
            raise NotAcceptable(sentence)
    look, number = looks.uri(found), looks.frame_number(found)
    scope = await run(lambda: _scope(node, named))
    instances = await run(lambda: node.retrieve.locate(scope))
    kind = params.first(found, "contentType")
    if is_report(instances[0].sop_class_uid) and not (kind and wado.DICOM in kind.lower()):
        return await documents.retrieve(node, request, instances[0], kind)
    offer = _offer(found, instances[0], number)
    if offer == wado.SINGLE:
        want = Want(wado.SINGLE, params.first(found, "transferSyntax") or "")
        return await wado.send(node, request, wado.plans(instances, [want], look.quality))
    require(instances[0], [number or 1])
    look = replace(look, media_type=offer.media_type)
    if state := _uid(found, PRESENTATION):
        place = Scope(instances[0].study_uid, _uid(found, PRESENTATION_SERIES), state)
        [shown] = await run(lambda: node.retrieve.locate(place))
        return await rendered.presented(node, request, shown, look, (instances[0], number or 1))
    return await rendered.single(node, request, [(instances[0], number or 1)], look, {})


def _offer(found: list[Pair], instance: "StoredInstance", number: int | None) -> Offer:
    """What goes out (9.5.1): by default a picture where one frame is meant, else the object. Raises NotAcceptable."""
    pictures = rendered.ALONE if instance.number_of_frames else ()
    is_picture = instance.number_of_frames == 1 or number is not None
    offers = (*pictures, wado.SINGLE) if is_picture else (wado.SINGLE, *pictures)
    return choose(params.first(found, "contentType"), offers)[0].offer


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
