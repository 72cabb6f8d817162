"""The Store Instances Response Module (PS3.18 10.5.3, Annex I): outcomes of parts in, status and data set out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.responses import Response

from dicomweb.jsonorder import in_order
from dicomweb.nativexml import MEDIA_TYPE, native
from dicomweb.negotiate import Offer
from dicomweb.problems import FAILURES, RETRIED, RETRY_SECONDS
from dicomweb.resources import path_of
from pacs.domain.events import Stored
from pacs.domain.levels import Scope
from pacs.errors import Refused

ELEMENTS_DISCARDED = 0xB006  # Warning Reason (Table I.2-1)


@dataclass(frozen=True, slots=True)
class Remarked:
    """An object that was stored, but not as it was sent: `reason` is a Warning Reason."""

    stored: Stored
    reason: int


Outcome = Stored | Remarked | Refused
Item = dict[str, dict[str, Any]]

XML = Offer(MEDIA_TYPE)
OFFERS = (Offer("application/dicom+json"), Offer("application/json"), XML)
CLASS_UID, INSTANCE_UID = "00081150", "00081155"
RETRIEVE_URL, WARNING_REASON, FAILURE_REASON = "00081190", "00081196", "00081197"
FAILED, REFERENCED, OTHER_FAILURES = "00081198", "00081199", "0008119A"
# ours, under a private creator: the standard has no place for words, and (0000,0902) belongs to commands
CREATOR, REFUSAL_ID, REFUSAL_WORD, REFUSAL_SENTENCE = "00090010", "00091001", "00091002", "00091003"


def report(outcomes: Sequence[Outcome], root: str, offer: Offer) -> Response:
    """The answer to a store: sequences that would be empty are absent."""
    status = status_of(outcomes)
    headers = {"retry-after": str(RETRY_SECONDS)} if status in RETRIED else {}
    found = in_order(module(outcomes, root))
    body = native(found) if offer == XML else orjson.dumps(found)
    return Response(body, status, headers, offer.media_type)


def status_of(outcomes: Sequence[Outcome]) -> int:
    """200 all stored; 202 some, or with a remark; else what all refusals have in common, 409 for a mixture.

    Warning Reasons (Table I.2-1) are about data elements that were coerced or discarded, as happens to objects out of
    JSON only: what a store says of an object (a preamble that was emptied, elements out of order) is no reason for 202.
    """
    remarked = any(isinstance(outcome, Remarked) for outcome in outcomes)
    refused = [FAILURES[outcome.reason].status for outcome in outcomes if isinstance(outcome, Refused)]
    if len(refused) < len(outcomes):
        return 202 if refused or remarked else 200
    return refused[0] if len(set(refused)) == 1 else 409


def module(outcomes: Sequence[Outcome], root: str) -> Item:
    """The data set in DICOM JSON."""
    stored = [outcome for outcome in outcomes if not isinstance(outcome, Refused)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]
    named = [outcome for outcome in refused if _is_named(outcome)]
    nameless = [outcome for outcome in refused if not _is_named(outcome)]
    found: Item = {}
    studies = {_stored(outcome).study_uid for outcome in stored}
    if len(studies) == 1:
        found[RETRIEVE_URL] = _text("UR", root + path_of(Scope(studies.pop())))
    found |= _sequence(FAILED, ({**_name(item), **_failure(item)} for item in named))
    found |= _sequence(REFERENCED, (_referenced(item, root) for item in stored))
    found |= _sequence(OTHER_FAILURES, map(_failure, nameless))
    return found


def _stored(outcome: Stored | Remarked) -> Stored:
    return outcome.stored if isinstance(outcome, Remarked) else outcome


def _referenced(outcome: Stored | Remarked, root: str) -> Item:
    stored = _stored(outcome)
    url = root + path_of(Scope(stored.study_uid, stored.series_uid, stored.sop_instance_uid))
    item = {**_name(stored), RETRIEVE_URL: _text("UR", url)}
    if isinstance(outcome, Remarked):
        item[WARNING_REASON] = {"vr": "US", "Value": [outcome.reason]}
    return item


def _failure(refused: Refused) -> Item:
    item = {FAILURE_REASON: {"vr": "US", "Value": [FAILURES[refused.reason].code]}, CREATOR: _text("LO", "FILMROOM")}
    if refused.refusal_id:
        item[REFUSAL_ID] = _text("UT", refused.refusal_id)
    return {**item, REFUSAL_WORD: _text("LO", refused.code), REFUSAL_SENTENCE: _text("UT", refused.message)}


def _is_named(refused: Refused) -> bool:
    return bool(refused.sop_instance_uid and refused.sop_class_uid)


def _name(outcome: Stored | Refused) -> Item:
    return {CLASS_UID: _text("UI", outcome.sop_class_uid), INSTANCE_UID: _text("UI", outcome.sop_instance_uid)}


def _text(vr: str, value: str) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]}


def _sequence(tag: str, items: Iterable[Item]) -> Item:
    listed = list(items)
    return {tag: {"vr": "SQ", "Value": listed}} if listed else {}
