"""Coming in by the browser: cookie, forms that only we can make, and the way back to what was asked for."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dicomweb.app import API, build
from dicomweb.console.login import local
from pacs.node import Node
from pacs.settings import Settings
from tests.dicomweb import doors
from tests.dicomweb.doors import OPERATOR, PASSWORD

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
ORIGIN = {"Origin": "http://pacs.example"}
NEW = "another horse 8"


@pytest.fixture(scope="module")
def closed(settings: Settings) -> Iterator[Node]:
    with doors.closed(settings, http_host="0.0.0.0", auth_mode="auto") as node:
        yield node


@pytest.fixture
def person(closed: Node, request: pytest.FixtureRequest) -> str:
    name = f"p{abs(hash(request.node.nodeid)) % 10**9}"
    closed.accounts.create(name, PASSWORD, ["clinician", "uploader"], OPERATOR)
    return name


def browser(node: Node, base: str = "http://pacs.example", **more: object) -> TestClient:
    return TestClient(build(node), base_url=base, follow_redirects=False, headers=HTML, **more)


def proof(page: str) -> str:
    found = re.search(r'name="proof" value="([0-9a-f]+)"', page)
    assert found, page
    return found[1]


def come_in(client: TestClient, name: str, password: str = PASSWORD, **more: str):
    page = client.get("/console/login", params=more)
    fields = {"username": name, "password": password, "proof": proof(page.text), **more}
    return client.post("/console/login", data=fields, headers=ORIGIN)


def test_who_is_not_known_is_shown_the_way_in_and_comes_back(closed: Node, person: str) -> None:
    client = browser(closed)
    sent = client.get("/console/?q=Doe&modality=CT")
    assert sent.status_code == 303
    assert sent.headers["location"] == "/console/login?next=/console/%3Fq%3DDoe%26modality%3DCT"
    page = client.get(sent.headers["location"])
    assert page.status_code == 200
    assert 'name="next" value="/console/?q=Doe&amp;modality=CT"' in page.text
    back = come_in(client, person, next="/console/?q=Doe&modality=CT")
    assert (back.status_code, back.headers["location"]) == (303, "/console/?q=Doe&modality=CT")
    assert person in client.get("/console/").text


def test_programs_are_told_401_and_pages_of_data_are_no_pages(closed: Node) -> None:
    client = browser(closed)
    assert client.get("/console/", headers={"Accept": "*/*"}).status_code == 401
    for path in ("/dicom-web/studies", f"{API}/status", "/wado?requestType=WADO"):
        assert client.get(path).status_code == 401


def test_the_cookie_opens_dicomweb_and_no_script_can_read_it(closed: Node, person: str) -> None:
    client = browser(closed)
    answer = come_in(client, person)
    cookie = next(line for line in answer.headers.get_list("set-cookie") if line.startswith("filmroom="))
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie
    assert client.get("/dicom-web/studies", headers={"Accept": "application/json"}).status_code in {200, 204}
    assert client.get(f"{API}/auth/me").json()["username"] == person


@pytest.mark.parametrize("how", ["public url", "trusted proxy"])
def test_behind_tls_the_cookie_is_of_this_host_alone_and_never_sent_otherwise(
    settings: Settings, closed: Node, person: str, how: str
) -> None:
    changes = {"public_url": "https://pacs.example"} if how == "public url" else {"trusted_proxies": ("10.0.0.7",)}
    with doors.closed(settings, http_host="0.0.0.0", auth_mode="auto", **changes) as node:
        client = browser(node, "https://pacs.example", client=("10.0.0.7", 999))
        told = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "pacs.example", "X-Forwarded-For": "192.0.2.9"}
        page = client.get("/console/login", headers=told)
        assert page.headers["strict-transport-security"].startswith("max-age=")
        fields = {"username": person, "password": PASSWORD, "proof": proof(page.text)}
        answer = client.post("/console/login", data=fields, headers={"Origin": "https://pacs.example", **told})
        cookie = next(line for line in answer.headers.get_list("set-cookie") if line.startswith("__Host-"))
        assert "Secure" in cookie
        assert "Path=/" in cookie
        assert client.get("/console/", headers=told).status_code == 200
        assert closed.pool  # the same database


def test_strangers_cannot_say_that_they_came_over_tls(closed: Node) -> None:
    client = browser(closed)
    page = client.get("/console/login", headers={"X-Forwarded-Proto": "https", "Forwarded": "proto=https;host=x"})
    assert "strict-transport-security" not in page.headers
    assert "Secure" not in page.headers["set-cookie"]


class TestForms:
    def test_one_that_we_did_not_show_is_refused(self, closed: Node, person: str) -> None:
        client = browser(closed)
        for fields in ({}, {"proof": "0" * 32}, {"proof": "é"}):
            data = {"username": person, "password": PASSWORD, **fields}
            answer = client.post("/console/login", data=data, headers=ORIGIN)
            assert answer.status_code == 403
            assert "fill it in again" in answer.text

    def test_nor_one_of_another_browser_or_origin(self, closed: Node, person: str) -> None:
        shown = proof(browser(closed).get("/console/login").text)
        client = browser(closed)
        client.get("/console/login")
        data = {"username": person, "password": PASSWORD, "proof": shown}
        assert client.post("/console/login", data=data, headers=ORIGIN).status_code == 403
        own = {**data, "proof": proof(client.get("/console/login").text)}
        for origin in ("http://evil.example", "null", "http://pacs.example.evil.example"):
            assert client.post("/console/login", data=own, headers={"Origin": origin}).status_code == 403

    def test_a_wrong_password_shows_the_form_again_and_in_the_end_how_long_to_wait(
        self, closed: Node, person: str
    ) -> None:
        client = browser(closed)
        for _ in range(5):
            answer = come_in(client, person, "wrong")
            assert answer.status_code == 401
            assert "The name or the password is wrong." in answer.text
        answer = come_in(client, person)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0

    def test_hostile_names_are_text(self, closed: Node) -> None:
        page = browser(closed).get("/console/login", params={"next": '/"><script>alert(1)</script>'}).text
        assert "<script>alert" not in page


@pytest.mark.parametrize(
    "target",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "\\\\evil", "javascript:alert(1)", "", "x",
     "///evil.example", "/\t/evil.example", "http:/console/", "/console/logout", "/console/login?next=x", "//[::1",
     "é"],
)  # fmt: skip
def test_nobody_is_led_elsewhere(target: str) -> None:
    assert local(target) == "/console/"


@pytest.mark.parametrize("target", ["/", "/console/studies/1.2", "/viewer?StudyInstanceUIDs=1.2&x=%2F", "/?q=a"])
def test_and_back_to_what_was_asked_for(target: str) -> None:
    assert local(target) == target


class TestChangesByCookie:
    @pytest.fixture
    def inside(self, closed: Node, person: str) -> TestClient:
        client = browser(closed)
        assert come_in(client, person).status_code == 303
        return client

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"Origin": "http://pacs.example"}, 415),
            ({"Origin": "http://pacs.example:80"}, 415),
            ({"Sec-Fetch-Site": "same-origin"}, 415),
            ({}, 403),
            ({"X-CSRF-Token": "0" * 32}, 403),
            ({"Origin": "http://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Origin": "http://pacs.example:8080"}, 403),
            ({"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Sec-Fetch-Site": "same-site"}, 403),
        ],
    )
    def test_come_from_our_pages_or_not_at_all(self, inside: TestClient, headers: dict, status: int) -> None:
        answer = inside.post("/dicom-web/studies", content=b"x", headers={**headers, "Content-Type": "text/plain"})
        assert answer.status_code == status  # 415: let in, and told that this is no object

    def test_or_prove_it_by_what_only_the_session_can_read(self, inside: TestClient) -> None:
        known = inside.get(f"{API}/auth/me").json()["csrf_token"]
        headers = {"X-CSRF-Token": known, "Content-Type": "text/plain"}
        assert inside.post("/dicom-web/studies", content=b"x", headers=headers).status_code == 415

    def test_a_token_needs_no_proof(self, closed: Node) -> None:
        token = closed.tokens.create(f"t{id(self)}", ["uploader"], OPERATOR).token
        headers = {"Authorization": f"Bearer {token}", "Origin": "http://evil.example", "Content-Type": "text/plain"}
        assert browser(closed).post("/dicom-web/studies", content=b"x", headers=headers).status_code == 415

    def test_the_password_is_changed_and_other_browsers_are_out(
        self, closed: Node, inside: TestClient, person: str
    ) -> None:
        other = browser(closed)
        come_in(other, person)
        page = inside.get("/console/password")
        fields = {
            "proof": proof(page.text),
            "current_password": PASSWORD,
            "new_password": NEW,
            "repeated": NEW,
        }
        assert "differ" in inside.post("/console/password", data={**fields, "repeated": "x"}, headers=ORIGIN).text
        assert inside.post("/console/password", data={**fields, "proof": ""}, headers=ORIGIN).status_code == 403
        done = inside.post("/console/password", data=fields, headers=ORIGIN)
        assert done.status_code == 200
        assert "The password is changed" in done.text
        assert inside.get("/console/").status_code == 200
        assert other.get("/console/").status_code == 303
        assert come_in(browser(closed), person, NEW).status_code == 303

    def test_signing_out_ends_the_session_not_only_the_cookie(self, inside: TestClient) -> None:
        carried = inside.cookies["filmroom"]
        shown = proof(inside.get("/console/").text)
        assert inside.post("/console/logout", data={}, headers=ORIGIN).status_code == 403
        out = inside.post("/console/logout", data={"proof": shown}, headers=ORIGIN)
        assert (out.status_code, out.headers["location"]) == (303, "/console/login")
        inside.cookies.set("filmroom", carried, domain="pacs.example")
        assert inside.get("/console/").status_code == 303

    def test_a_session_that_nobody_uses_ends(self, closed: Node, inside: TestClient) -> None:
        with closed.pool.connection() as connection:
            connection.execute("UPDATE session SET seen_at = seen_at - interval '3 hours'")
        closed.credentials.forget()
        assert inside.get("/console/").status_code == 303

    @pytest.mark.parametrize("carried", ["", "x", "a.b", "é", "x" * 5000, "../x", "frt_abc"])
    def test_another_cookie_is_nobody(self, closed: Node, carried: str) -> None:
        client = browser(closed)
        headers = {"Cookie": f"filmroom={carried}".encode()}
        assert client.get("/console/", headers=headers).status_code == 303


def test_where_nobody_has_an_account_the_page_says_how_one_is_made(settings: Settings, closed: Node) -> None:
    client = browser(closed)
    closed.accounts.any = lambda: False  # type: ignore[method-assign]
    try:
        assert "filmroom create-admin" in client.get("/console/login").text
    finally:
        del closed.accounts.any


def test_where_no_login_is_asked_a_banner_says_so(settings: Settings, node: Node) -> None:
    page = TestClient(build(node), base_url="http://127.0.0.1").get("/console/").text
    assert "so no login is asked" in page


class TestOpenToAll:
    """AUTH_MODE=open beyond loopback: everybody may do everything, but pages of others may change nothing."""

    def test_a_page_of_another_origin_cannot_post_to_the_archive(self, settings: Settings) -> None:
        with doors.closed(settings, http_host="0.0.0.0", auth_mode="open") as node:
            client = browser(node)
            headers = {"Content-Type": "text/plain"}
            post = lambda **more: client.post("/dicom-web/studies", content=b"x", headers=headers | more).status_code  # noqa: E731
            assert post() == 415
            assert post(Origin="http://pacs.example") == 415
            assert post(Origin="http://evil.example") == 403
            assert client.get(f"{API}/auth/me").json()["username"] == "anonymous"

    def test_on_loopback_foreign_hosts_and_origins_are_refused_as_ever(self, settings: Settings) -> None:
        with doors.closed(settings, auth_mode="open") as node:
            assert browser(node).get("/console/").status_code == 403
            client = browser(node, "http://localhost")
            assert client.get("/console/").status_code == 200
            assert client.get("/console/", headers={"Origin": "http://evil.example"}).status_code == 403


def test_an_error_of_a_page_is_a_page_with_the_way_out(closed: Node) -> None:
    closed.accounts.create("porter", PASSWORD, ["uploader"], OPERATOR)
    client = browser(closed)
    come_in(client, "porter")
    page = client.get("/console/")
    assert page.status_code == 403
    assert "needs the permission" in page.text
    assert "Sign out" in page.text
    assert client.get("/console/", headers={"Accept": "application/json"}).json()["error"] == "forbidden"


def test_a_form_that_is_sent_after_the_session_has_ended_leads_to_the_way_in(closed: Node) -> None:
    answer = browser(closed).post("/console/password", data={}, headers=ORIGIN)
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/login?next=/console/")


def test_files_of_the_viewer_are_for_everybody_but_its_page_is_not(
    settings: Settings, closed: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "index.html").write_text("<html>the viewer</html>")
    (tmp_path / "app.js").write_text("1")
    monkeypatch.setattr("dicomweb.viewerpackage.folder", lambda _settings: tmp_path)
    with doors.closed(settings, http_host="0.0.0.0", auth_mode="auto", web_port=80) as node:
        client = browser(node)
        assert client.get("/app.js", headers={"Accept": "*/*"}).status_code == 200
        away = client.get("/viewer?StudyInstanceUIDs=1.2")
        assert (away.status_code, away.headers["location"]) == (
            303,
            "/console/login?next=/viewer%3FStudyInstanceUIDs%3D1.2",
        )
        node.accounts.create("viewing", PASSWORD, ["viewer"], OPERATOR)
        come_in(client, "viewing")
        assert "the viewer" in client.get("/viewer?StudyInstanceUIDs=1.2").text
