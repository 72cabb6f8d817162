"""The worklist and the peers over the admin API: what is told to whom, and what is told of a mistake."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from dicomweb.app import API, build
from pacs.domain.events import Source
from pacs.node import Node
from pacs.settings import Settings
from tests.dicomweb.doors import PASSWORD, administrator, bearer, closed, signed_in
from tests.dicomweb.wire import call
from tests.dimse.door import opened
from tests.dimse.test_worklist import planned

Ask = Callable[..., httpx.Response]
OPERATOR = Source("cli", "operator")


@pytest.fixture(scope="module")
def peers_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("peers") / "peers.toml"


@pytest.fixture(scope="module")
def door(settings: Settings, peers_file: Path) -> Iterator[Node]:
    peers_file.write_text("")
    with closed(settings, dicom_peers=peers_file) as node:
        for name, role in (("ris", "planner"), ("reader", "viewer")):
            node.accounts.create(name, PASSWORD, [role], OPERATOR)
        yield node


@pytest.fixture(scope="module")
def app(door: Node) -> Starlette:
    return build(door)


@pytest.fixture
def ask(app: Starlette, door: Node) -> Ask:
    headers = administrator(door)

    def send(method: str, path: str, **more: Any) -> httpx.Response:
        return call(app, method, f"{API}{path}", headers=headers, **more)

    return send


def item(**changes: Any) -> dict[str, Any]:
    return planned(**changes).to_json_dict()


def test_an_item_is_planned_read_changed_and_removed(ask: Ask) -> None:
    given = item()
    added = ask("POST", "/worklist", json=given)
    assert added.status_code == 201, added.text
    number = added.json()["id"]
    assert added.json()["state"] == "scheduled"
    assert ask("GET", f"/worklist/{number}").json()["item"]["00100020"] == given["00100020"]
    given["00100020"]["Value"] = ["CHANGED"]
    assert ask("PUT", f"/worklist/{number}", json=given).json()["item"]["00100020"]["Value"] == ["CHANGED"]
    assert ask("DELETE", f"/worklist/{number}").status_code == 204
    for method in ("GET", "DELETE"):
        assert ask(method, f"/worklist/{number}").status_code == 404
    assert ask("PUT", f"/worklist/{number}", json=given).status_code == 404


def test_many_are_planned_at_once_and_listed_page_by_page(ask: Ask) -> None:
    added = ask("POST", "/worklist", json=[item() for _ in range(5)])
    assert added.status_code == 201
    ids = [row["id"] for row in added.json()["items"]]
    first = ask("GET", f"/worklist?limit=3&after={ids[0] - 1}").json()
    assert [row["id"] for row in first["items"]] == ids[:3]
    assert [row["id"] for row in ask("GET", f"/worklist?after={first['next']}").json()["items"]] == ids[3:]
    assert ask("GET", "/worklist?state=completed").json()["items"] == []
    assert ask("GET", "/worklist?state=flying").status_code == 400


def test_a_step_is_planned_once(ask: Ask) -> None:
    given = item()
    assert ask("POST", "/worklist", json=given).status_code == 201
    answer = ask("POST", "/worklist", json=given)
    assert answer.status_code == 409
    assert answer.json()["error"] == "conflict"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b'{"00100020": 1}', b"[" * 2000, b'"x"', b"null"])
def test_what_is_no_item_is_a_bad_request(ask: Ask, body: bytes) -> None:
    answer = ask("POST", "/worklist", content=body)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) >= {"error", "message", "request_id"}


def test_a_body_without_end_is_too_large(ask: Ask) -> None:
    assert ask("POST", "/worklist", content=b"[" + b" " * (2 << 20)).status_code == 413


def test_only_whoever_plans_sees_and_fills_the_list(app: Starlette) -> None:
    tokens = {name: bearer(signed_in(app, name).json()["access_token"]) for name in ("ris", "reader")}
    for method, path in (("GET", "/worklist"), ("POST", "/worklist"), ("DELETE", "/worklist/1"), ("GET", "/peers")):
        assert call(app, method, f"{API}{path}").status_code == 401
        assert call(app, method, f"{API}{path}", headers=tokens["reader"]).status_code == 403
    assert call(app, "POST", f"{API}/worklist", headers=tokens["ris"], json=item()).status_code == 201
    assert call(app, "GET", f"{API}/peers", headers=tokens["ris"]).status_code == 403


def test_peers_are_listed_and_tested(ask: Ask, peers_file: Path, tmp_path: Path) -> None:
    with opened(tmp_path) as other:
        host, port = other.address
        peers_file.write_text(f'[peers.FILMROOM]\nhost = "{host}"\nport = {port}\n[peers.GONE]\nservices = ["echo"]\n')
        rows = {row["name"]: row for row in ask("GET", "/peers").json()["items"]}
        assert rows["FILMROOM"]["port"] == port
        assert rows["GONE"]["services"] == ["echo"]
        assert ask("POST", "/peers/FILMROOM/test").json()["ok"] is True
        gone = ask("POST", "/peers/GONE/test").json()
        assert gone["ok"] is False
        assert "host" in gone["message"]
    assert ask("POST", "/peers/NOBODY/test").status_code == 404


def test_a_broken_peers_file_is_told(ask: Ask, peers_file: Path) -> None:
    peers_file.write_text("[peers.A]\nport = 0\n")
    answer = ask("GET", "/peers")
    assert answer.status_code == 409
    assert "peers.A.port" in answer.json()["message"]
