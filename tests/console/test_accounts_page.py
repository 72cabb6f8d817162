"""The page of users and tokens: what administrators change there holds at the door."""

import re
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from dicomweb.app import API
from pacs.node import Node
from pacs.settings import Settings
from tests.console.test_login import ORIGIN, browser, come_in, proof
from tests.dicomweb import doors
from tests.dicomweb.doors import OPERATOR, PASSWORD, bearer

PAGE = "/console/accounts"


@pytest.fixture(scope="module")
def closed(settings: Settings) -> Iterator[Node]:
    with doors.closed(settings, http_host="0.0.0.0", auth_mode="auto") as node:
        yield node


@pytest.fixture
def chief(closed: Node) -> TestClient:
    client = browser(closed)
    assert come_in(client, "chief").status_code == 303
    return client


def sent(client: TestClient, act: str, **fields: str):
    shown = proof(client.get(PAGE).text)
    return client.post(PAGE, data={"proof": shown, "act": act, **fields}, headers=ORIGIN)


def secret(page: str) -> str:
    found = re.search(r'role="status">[^<]*<code>([^<]+)</code>', page)
    assert found, page
    return found[1]


def test_a_user_is_made_with_a_password_that_is_shown_once_and_lets_in(closed: Node, chief: TestClient) -> None:
    fields = {"username": "Nina", "email": "nina@hospital.example", "role-clinician": "on", "institutions": "A, B"}
    page = sent(chief, "add-user", **fields)
    assert page.status_code == 200
    word = secret(page.text)
    assert word not in chief.get(PAGE).text
    assert come_in(browser(closed), "nina", word).status_code == 303
    kept = closed.accounts.get("nina")
    assert (kept["roles"], kept["scope"]["institutions"]) == (["clinician"], ["A", "B"])


def test_a_user_is_disabled_let_in_again_given_another_password_and_removed(closed: Node, chief: TestClient) -> None:
    closed.accounts.create("omar", PASSWORD, ["viewer"], OPERATOR)
    theirs = browser(closed)
    come_in(theirs, "omar")
    assert "omar is disabled" in sent(chief, "disable", username="omar").text
    assert theirs.get("/console/").status_code == 303
    assert come_in(browser(closed), "omar").status_code == 401
    assert "may come in again" in sent(chief, "enable", username="omar").text
    assert come_in(browser(closed), "omar").status_code == 303
    word = secret(sent(chief, "new-password", username="omar").text)
    assert come_in(browser(closed), "omar", word).status_code == 303
    assert "other roles" in sent(chief, "set-roles", username="omar", **{"role-auditor": "on"}).text
    assert closed.accounts.get("omar")["roles"] == ["auditor"]
    assert "is removed" in sent(chief, "remove", username="omar").text
    assert "omar" not in chief.get(PAGE).text


def test_a_token_is_made_shown_once_and_revoked(closed: Node, chief: TestClient) -> None:
    token = secret(sent(chief, "add-token", name="scanner room", days="3", **{"role-uploader": "on"}).text)
    me = lambda: browser(closed).get(f"{API}/auth/me", headers=bearer(token))  # noqa: E731
    assert me().json()["username"] == "token:scanner room"
    page = chief.get(PAGE).text
    assert "scanner room" in page
    assert token not in page
    number = re.search(r'name="token" value="(\d+)"', page)[1]
    assert "worth nothing" in sent(chief, "revoke", token=number).text
    assert "scanner room" not in chief.get(PAGE).text


@pytest.mark.parametrize(
    ("act", "fields", "status"),
    [
        ("add-user", {"username": "x"}, 400),
        ("add-user", {"username": "chief", "role-viewer": "on"}, 409),
        ("add-user", {"username": "<b>x</b>", "role-viewer": "on"}, 400),
        ("add-token", {"name": "x", "days": "x", "role-viewer": "on"}, 400),
        ("add-token", {"name": "x", "days": "99999", "role-viewer": "on"}, 400),
        ("disable", {"username": "nobody.there"}, 404),
        ("disable", {"username": "chief"}, 409),
        ("remove", {"username": "chief"}, 409),
        ("revoke", {"token": "none"}, 404),
        ("explode", {}, 400),
        ("", {}, 400),
    ],
)
def test_what_cannot_be_done_is_told_on_the_page(chief: TestClient, act: str, fields: dict, status: int) -> None:
    answer = sent(chief, act, **fields)
    assert answer.status_code == status
    assert 'role="alert"' in answer.text
    assert "<b>x</b>" not in answer.text


def test_a_form_of_others_changes_nothing(closed: Node, chief: TestClient) -> None:
    fields = {"act": "add-user", "username": "planted", "role-admin": "on"}
    assert chief.post(PAGE, data=fields, headers=ORIGIN).status_code == 403
    shown = proof(chief.get(PAGE).text)
    evil = {"Origin": "http://evil.example"}
    assert chief.post(PAGE, data={**fields, "proof": shown}, headers=evil).status_code == 403
    assert "planted" not in {row["username"] for row in closed.accounts.list()}


def test_the_page_is_for_administrators(closed: Node) -> None:
    closed.accounts.create("pia", PASSWORD, ["clinician"], OPERATOR)
    client = browser(closed)
    come_in(client, "pia")
    assert PAGE not in client.get("/console/").text
    assert client.get(PAGE).status_code == 403
    assert client.post(PAGE, data={"act": "disable", "username": "chief"}, headers=ORIGIN).status_code == 403


def test_on_a_node_that_asks_nobody_the_first_account_can_be_made_there(settings: Settings, closed: Node) -> None:
    with doors.closed(settings, auth_mode="auto") as node:
        client = browser(node, "http://127.0.0.1")
        fields = {"act": "add-user", "username": "first", "role-admin": "on"}
        page = client.post(PAGE, data=fields, headers={"Origin": "http://127.0.0.1"})
        assert page.status_code == 200
        assert secret(page.text)
        evil = client.post(PAGE, data={**fields, "username": "evil"}, headers={"Origin": "http://evil.example"})
        assert evil.status_code == 403
