"""What all resources share (PS3.18 chapter 8): D35 and D36 of the wire contract, deletion, and the admin API."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from dicomweb.app import build
from pacs import node as nodes
from tests.conformance.conftest import path, value
from tests.dicomweb.objects import ct
from tests.dicomweb.wire import serving

Store = Callable[..., httpx.Response]


def test_d35_c14_options_tells_capabilities(http: httpx.Client) -> None:
    answer = http.options("/")
    assert answer.status_code == 200
    listed = {row["path"]: row["methods"] for row in answer.json()["resources"]}
    assert listed["/dicom-web/studies"] == ["GET", "POST"]
    assert listed["/dicom-web/studies/{study}"] == ["DELETE", "GET", "POST"]
    wadl = http.options("/", headers={"Accept": "application/vnd.sun.wadl+xml"})
    assert wadl.headers["content-type"].startswith("application/vnd.sun.wadl+xml")
    assert b'<resource path="/dicom-web/studies">' in wadl.content


@pytest.mark.parametrize(
    ("method", "place", "headers", "status"),
    [
        ("GET", "/nothing", {}, 404),
        ("GET", "/studies/1.2.3", {}, 404),
        ("GET", "/studies/1.2.3/metadata", {}, 404),
        ("GET", "/studies/1.2.3/series/4.5/instances/6.7/frames/1", {}, 404),
        ("GET", "/studies/a.b", {}, 400),
        ("GET", "/studies/1.2.3/series/x/metadata", {}, 400),
        ("GET", "/studies?limit=x", {}, 400),
        ("PUT", "/studies", {}, 405),
        ("DELETE", "/studies", {}, 405),
        ("GET", "/studies", {"Accept": "text/html"}, 406),
        ("POST", "/studies", {"Content-Type": "text/plain"}, 415),
        ("POST", "/studies", {"Content-Type": "application/dicom"}, 400),
        ("DELETE", "/studies/1.2.3", {}, 404),
        ("GET", "/studies/1.2.3/series/4.5/instances/6.7/rendered", {}, 404),
    ],
)
def test_d36_c12_each_mistake_has_its_status(
    http: httpx.Client, method: str, place: str, headers: dict[str, str], status: int
) -> None:
    answer = http.request(method, place, headers=headers)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) >= {"error", "message", "request_id"}
    assert answer.json()["message"].endswith(".")


@pytest.fixture
def open_to_a_page(node: Any) -> Iterator[httpx.Client]:
    """The same archive served by a node whose CORS_ORIGINS names one page."""
    settings = dataclasses.replace(node.settings, cors_origins=("http://viewer.example",))
    other = nodes.build(settings, component="test")
    with (
        serving(build(other), settings) as (port, _),
        httpx.Client(base_url=f"http://127.0.0.1:{port}/dicom-web") as client,
    ):
        yield client
    other.close()


def test_c19_d35_a_named_page_may_call_and_no_star_is_ever_sent(open_to_a_page: httpx.Client) -> None:
    asked = {
        "Origin": "http://viewer.example",
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "Accept, Range",
    }
    allowed = open_to_a_page.options("/studies", headers=asked)
    assert allowed.status_code in {200, 204}
    assert allowed.headers["access-control-allow-origin"] == "http://viewer.example"
    words = {word.strip().lower() for word in allowed.headers["access-control-allow-headers"].split(",")}
    assert {"accept", "authorization", "content-type", "if-none-match", "range"} <= words
    methods = allowed.headers["access-control-allow-methods"]
    assert all(verb in methods for verb in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"))
    assert int(allowed.headers["access-control-max-age"]) > 0
    answer = open_to_a_page.get("/studies", headers={"Origin": "http://viewer.example"})
    assert answer.headers["access-control-allow-origin"] == "http://viewer.example"
    exposed = answer.headers["access-control-expose-headers"].lower()
    assert all(word in exposed for word in ("content-location", "content-range", "etag", "warning", "location"))
    other = open_to_a_page.get("/studies", headers={"Origin": "http://elsewhere.example"})
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("place", ["/workitems", "/workitems/1.2.3", "/workitems/1.2.3/state"])
def test_x02_workitems_are_not_offered(http: httpx.Client, place: str) -> None:
    assert http.get(place).status_code == 404
    assert http.post(place, json={}).status_code == 404


def test_c01_a_slash_at_the_end_changes_nothing(http: httpx.Client, store: Store) -> None:
    item = ct()
    store(item)
    for place in ("/studies", path(item, "study"), f"{path(item)}/metadata", f"{path(item)}/frames/1"):
        assert http.get(f"{place}/").status_code == http.get(place).status_code == 200


def test_x01_deletion_is_seen_by_all_and_a_second_one_finds_nothing(http: httpx.Client, store: Store) -> None:
    first = ct()
    items = [first, ct(study=first.StudyInstanceUID, series=first.SeriesInstanceUID), ct(study=first.StudyInstanceUID)]
    store(*items)
    study = f"/studies?StudyInstanceUID={first.StudyInstanceUID}"
    for level, item, left in (("instance", items[1], 2), ("series", items[0], 1), ("study", items[2], 0)):
        assert http.delete(path(item, level)).status_code == 204
        assert http.get(f"{path(item, level)}/metadata").status_code == 404
        assert http.delete(path(item, level)).status_code == 404
        rows = http.get(study).json()
        assert [value(row, "00201208") for row in rows] == ([left] if left else [])


def test_x01_what_was_deleted_may_come_again(http: httpx.Client, store: Store) -> None:
    item = ct()
    for _ in range(2):
        store(item)
        assert http.get(f"{path(item)}/metadata").status_code == 200
        assert http.delete(path(item, "study")).status_code == 204


@pytest.fixture
def api(port: int) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{port}")


def test_health_and_readiness(api: httpx.Client) -> None:
    assert api.get("/health").json()["status"] == "healthy"
    ready = api.get("/ready")
    assert ready.status_code == 200
    assert ready.json()["status"] == "ready"
    assert set(ready.json()["checks"]) >= {"database", "schema", "redis", "store", "disk"}


def test_metrics_are_prometheus_text(api: httpx.Client, http: httpx.Client) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    http.get("/studies")
    answer = api.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    families = {family.name for family in text_string_to_metric_families(answer.text)}
    assert "filmroom_http_request_seconds" in families


def test_x03_change_feed_tells_each_change_once_in_order(api: httpx.Client, http: httpx.Client, store: Store) -> None:
    start = 0
    while (page := api.get(f"/api/v1/changes?since={start}").json())["items"]:
        start = page["next"]
    item = ct()
    store(item)
    http.delete(path(item, "study"))
    page = api.get(f"/api/v1/changes?since={start}").json()
    mine = [change for change in page["items"] if change["study_uid"] == item.StudyInstanceUID]
    assert [change["action"] for change in mine] == ["create", "delete"]
    assert [change["seq"] for change in page["items"]] == list(range(start + 1, page["next"] + 1))
    assert api.get(f"/api/v1/changes?since={page['next']}").json() == {"items": [], "next": page["next"]}


def test_status_and_lists_of_the_admin_api(api: httpx.Client) -> None:
    assert api.get("/api/v1/status").json()["stored"]
    for place in ("conflicts", "ai/models", "ai/jobs", "ai/jobs?state=DEAD&limit=5"):
        assert set(api.get(f"/api/v1/{place}").json()) == {"items", "next"}


def test_ai_timeline_of_a_study(api: httpx.Client, store: Store) -> None:
    item = ct()
    store(item)
    found = api.get(f"/api/v1/ai/studies/{item.StudyInstanceUID}").json()
    assert set(found) >= {"completeness", "jobs", "skipped", "results"}
    asked = api.post(f"/api/v1/ai/studies/{item.StudyInstanceUID}/run", json={"priority": "urgent"})
    assert asked.status_code == 202


@pytest.mark.parametrize(
    ("method", "place", "body", "status"),
    [
        ("GET", "refusals/nope", None, 404),
        ("GET", "ai/jobs/1", None, 404),
        ("GET", "ai/jobs/x", None, 400),
        ("GET", "ai/jobs?state=NONSENSE", None, 400),
        ("GET", "ai/studies/1.2.3.4", None, 404),
        ("POST", "ai/jobs/1/retry", None, 404),
        ("POST", "ai/studies/1.2.3.4/run", b"{}", 404),
        ("POST", "ai/studies/1.2.3.4/run", b'{"model": 5}', 400),
        ("GET", "changes?since=x", None, 400),
    ],
)
def test_admin_api_mistakes(api: httpx.Client, method: str, place: str, body: bytes | None, status: int) -> None:
    answer = api.request(method, f"/api/v1/{place}", content=body)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) >= {"error", "message", "request_id"}


def test_who_saw_what_is_in_the_audit_trail(http: httpx.Client, store: Store, node: Any) -> None:
    item = ct()
    store(item)
    http.get(f"{path(item)}/frames/1")
    http.get(f"{path(item, 'study')}/series")
    http.delete(path(item, "study"))
    deadline = time.monotonic() + 10
    while len(rows := node.audit.of_study(item.StudyInstanceUID)) < 4:
        assert time.monotonic() < deadline, rows
        time.sleep(0.05)
    assert {row["action"] for row in rows} == {"store", "read", "search", "delete"}
    [seen] = [row for row in rows if row["action"] == "read"]
    assert (seen["sop_instance_uid"], seen["address"]) == (item.SOPInstanceUID, "127.0.0.1")
