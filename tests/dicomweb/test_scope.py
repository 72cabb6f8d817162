"""Who may see a part of the archive only: by institution, calling AE or label. The rest is not there."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from pydicom.dataset import Dataset
from starlette.applications import Starlette

from dicomweb.app import API, ROUTES, build
from dicomweb.door import NARROWED
from pacs.domain.events import Source
from pacs.domain.roles import ROLES, WITHIN_SCOPE
from pacs.node import Node
from pacs.settings import Settings
from tests.dicomweb import doors
from tests.dicomweb.doors import OPERATOR, PASSWORD, administrator, bearer
from tests.dicomweb.objects import ct, multipart, part10
from tests.dicomweb.wire import call

PATIENT = "P-" + secrets.token_hex(3)


@dataclass
class Shelf:
    """Studies of one patient: at St. Mary, at St. Luke sent by CT_EAST, and one with the label `trial`."""

    mary: Dataset
    luke: Dataset
    trial: Dataset

    @property
    def uids(self) -> dict[str, str]:
        return {name: str(getattr(self, name).StudyInstanceUID) for name in ("mary", "luke", "trial")}


@pytest.fixture(scope="module")
def closed(settings: Settings) -> Iterator[Node]:
    with doors.closed(settings) as node:
        yield node


@pytest.fixture(scope="module")
def app(closed: Node) -> Starlette:
    return build(closed)


@pytest.fixture(scope="module")
def shelf(closed: Node) -> Shelf:
    made = Shelf(
        ct(InstitutionName="St. Mary", PatientID=PATIENT),
        ct(InstitutionName="St. Luke", PatientID=PATIENT),
        ct(PatientID=PATIENT),
    )
    for found, peer in ((made.mary, "CT_WEST"), (made.luke, "CT_EAST"), (made.trial, "CT_WEST")):
        incoming = closed.ingest.begin(Source("dimse", peer, "192.0.2.5"))
        incoming.write(part10(found))
        closed.ingest.store(incoming)
    assert closed.labels.put(made.uids["trial"], ["trial", "checked"], OPERATOR) == ["checked", "trial"]
    return made


SCOPES: dict[str, tuple[dict[str, list[str]] | None, set[str]]] = {
    "all": (None, {"mary", "luke", "trial"}),
    "institution": ({"institutions": ["St. Mary"]}, {"mary"}),
    "ae": ({"aes": ["CT_EAST", "CT_NORTH"]}, {"luke"}),
    "label": ({"labels": ["trial"]}, {"trial"}),
    "any of them": ({"institutions": ["St. Luke"], "labels": ["checked"]}, {"luke", "trial"}),
    "none": ({"institutions": ["St. Nobody"]}, set()),
}


@pytest.fixture(params=SCOPES)
def scoped(request: pytest.FixtureRequest, closed: Node) -> tuple[dict[str, str], set[str]]:
    """Headers of somebody with this scope, and what they see."""
    scope, seen = SCOPES[request.param]
    name = f"{request.param} {secrets.token_hex(3)}"
    return bearer(closed.tokens.create(name, ["clinician"], OPERATOR, scope=scope).token), seen


def rows(answer: httpx.Response) -> set[str]:
    assert answer.status_code in {200, 204}, answer.text
    return {row["0020000D"]["Value"][0] for row in answer.json()} if answer.content else set()


def test_searches_find_what_is_within(app: Starlette, shelf: Shelf, scoped: tuple[dict[str, str], set[str]]) -> None:
    headers, seen = scoped
    wanted = {shelf.uids[name] for name in seen}
    for level in ("studies", "series", "instances"):
        for query in (f"PatientID={PATIENT}", "PatientName=Random*&limit=100", "includefield=all"):
            assert rows(call(app, "GET", f"/dicom-web/{level}?{query}", headers=headers)) == wanted
    for name, uid in shelf.uids.items():
        found = rows(call(app, "GET", f"/dicom-web/studies?StudyInstanceUID={uid}", headers=headers))
        assert found == ({uid} if name in seen else set())


def test_what_is_named_is_there_or_is_not(
    app: Starlette, shelf: Shelf, scoped: tuple[dict[str, str], set[str]]
) -> None:
    headers, seen = scoped
    for name in shelf.uids:
        found: Dataset = getattr(shelf, name)
        study = f"/dicom-web/studies/{found.StudyInstanceUID}"
        instance = f"{study}/series/{found.SeriesInstanceUID}/instances/{found.SOPInstanceUID}"
        uri = f"/wado?requestType=WADO&objectUID={found.SOPInstanceUID}"
        places = (
            study, f"{study}/metadata", f"{study}/rendered", f"{study}/thumbnail", instance, f"{instance}/metadata",
            f"{instance}/frames/1", f"{instance}/bulkdata", uri,
            f"{uri}&studyUID={found.StudyInstanceUID}&seriesUID={found.SeriesInstanceUID}",
            f"{API}/ai/studies/{found.StudyInstanceUID}",
        )  # fmt: skip
        for place in places:
            status = call(app, "GET", place, headers=headers).status_code
            assert status == (200 if name in seen else 404), (name, place)


def test_nobody_can_tell_what_is_outside_from_what_is_not_stored(app: Starlette, closed: Node, shelf: Shelf) -> None:
    token = closed.tokens.create("teller", ["viewer"], OPERATOR, scope={"labels": ["x"]}).token
    told = []
    for uid in (shelf.uids["mary"], "1.2.3.4"):
        answer = call(app, "GET", f"/dicom-web/studies/{uid}/metadata", headers=bearer(token))
        body = answer.json()
        body.pop("request_id")
        told.append((answer.status_code, body))
    assert told[0] == told[1]


@pytest.mark.parametrize("role", sorted(WITHIN_SCOPE))
def test_routes_that_show_the_whole_archive_are_closed_within_a_scope(app: Starlette, closed: Node, role: str) -> None:
    name = f"whole {role}"
    headers = bearer(closed.tokens.create(name, [role], OPERATOR, scope={"labels": ["x"]}).token)
    for row in ROUTES:
        if row.permission in ROLES[role] and row.permission not in NARROWED and "{" not in row.path:
            assert call(app, row.method, row.path, headers=headers).status_code == 403, row.path


def test_storing_goes_on_within_a_scope(app: Starlette, closed: Node) -> None:
    token = closed.tokens.create("stores", ["uploader"], OPERATOR, scope={"labels": ["x"]}).token
    headers, body = multipart(part10(ct()))
    assert call(app, "POST", "/dicom-web/studies", content=body, headers=headers | bearer(token)).status_code == 200


def test_pages_and_people_too(app: Starlette, closed: Node, shelf: Shelf) -> None:
    scope = {"institutions": ["St. Mary"]}
    closed.accounts.create("mary", PASSWORD, ["viewer"], OPERATOR, scope=scope)
    headers = bearer(doors.signed_in(app, "mary").json()["access_token"])
    page = call(app, "GET", "/console/", headers=headers)
    assert shelf.uids["mary"] in page.text
    assert shelf.uids["luke"] not in page.text
    for name, status in (("mary", 200), ("luke", 404)):
        assert call(app, "GET", f"/console/studies/{shelf.uids[name]}", headers=headers).status_code == status
    assert call(app, "GET", f"{API}/auth/me", headers=headers).json()["scope"]["institutions"] == ["St. Mary"]
    call(app, "PATCH", f"{API}/users/mary", json={"scope": None}, headers=administrator(closed))
    assert shelf.uids["luke"] in call(app, "GET", "/console/", headers=headers).text


def test_labels_are_put_and_shown(app: Starlette, closed: Node, shelf: Shelf) -> None:
    place, chief = f"{API}/studies/{shelf.uids['luke']}/labels", administrator(closed)
    assert call(app, "PUT", place, json={"labels": ["b", "a", "b"]}, headers=chief).json() == {"labels": ["a", "b"]}
    assert call(app, "PUT", place, json={"labels": ["a"]}, headers=chief).status_code == 200
    assert call(app, "GET", place, headers=chief).json() == {"labels": ["a"]}
    assert call(app, "PUT", place, json={"labels": []}, headers=chief).json() == {"labels": []}
    for body in ({}, {"labels": "a"}, {"labels": [""]}, {"labels": ["x" * 65]}, {"labels": ["a\0"]}):
        assert call(app, "PUT", place, json=body, headers=chief).status_code == 400
    assert call(app, "GET", f"{API}/studies/1.2.3/labels", headers=chief).status_code == 404


def test_a_study_with_labels_can_be_deleted(app: Starlette, closed: Node) -> None:
    found = ct()
    incoming = closed.ingest.begin(OPERATOR)
    incoming.write(part10(found))
    closed.ingest.store(incoming)
    closed.labels.put(str(found.StudyInstanceUID), ["x"], OPERATOR)
    gone = call(app, "DELETE", f"/dicom-web/studies/{found.StudyInstanceUID}", headers=administrator(closed))
    assert gone.status_code == 204
