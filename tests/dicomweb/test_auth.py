"""Coming in and going out for programs; users and tokens as administrators change them (operations.md 5)."""

import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from starlette.applications import Starlette

from dicomweb.app import API, build
from pacs.node import Node
from pacs.settings import Settings
from tests.dicomweb import doors
from tests.dicomweb.doors import OPERATOR, PASSWORD, administrator, bearer, signed_in
from tests.dicomweb.objects import ct, multipart, part10
from tests.dicomweb.wire import call

NEW = "another horse 8"


@pytest.fixture(scope="module")
def closed(settings: Settings) -> Iterator[Node]:
    with doors.closed(settings) as node:
        yield node


@pytest.fixture(scope="module")
def app(closed: Node) -> Starlette:
    return build(closed)


@pytest.fixture
def person(closed: Node, request: pytest.FixtureRequest) -> str:
    """A viewer of this test's own."""
    name = f"p{abs(hash(request.node.nodeid)) % 10**9}"
    closed.accounts.create(name, PASSWORD, ["viewer"], OPERATOR)
    return name


def me(app: Starlette, token: str) -> int:
    return call(app, "GET", f"{API}/auth/me", headers=bearer(token)).status_code


def refreshed(app: Starlette, token: str):
    return call(app, "POST", f"{API}/auth/refresh", data={"refresh_token": token})


class TestSigningIn:
    def test_name_and_password_bring_a_pair_of_tokens_that_nobody_keeps(self, app: Starlette, person: str) -> None:
        answer = signed_in(app, person.upper())
        assert set(answer.json()) == {"access_token", "refresh_token", "token_type", "expires_in"}
        assert answer.headers["cache-control"] == "no-store"
        assert me(app, answer.json()["access_token"]) == 200

    def test_json_is_as_good_as_a_form_and_so_is_multipart(self, app: Starlette, person: str) -> None:
        fields = {"username": person, "password": PASSWORD, "grant_type": "password"}
        assert call(app, "POST", f"{API}/auth/token", json=fields).status_code == 200
        parts = {name: (None, value) for name, value in fields.items()}
        assert call(app, "POST", f"{API}/auth/token", files=parts).status_code == 200

    @pytest.mark.parametrize(
        ("sent", "status"),
        [
            ({"data": {"username": "chief"}}, 400),
            ({"data": {}}, 400),
            ({"json": {"username": "chief", "password": 7}}, 400),
            ({"json": ["chief"]}, 400),
            ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 400),
            ({"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415),
            ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400),
            ({"files": {"username": ("name.txt", b"chief"), "password": (None, b"x")}}, 400),
            ({"data": {"username": "chief", "password": "x" * 20_000}}, 413),
            ({"data": {f"f{n}": "x" for n in range(40)}}, 400),
            ({"data": {"username": "chief\0", "password": "x\0y"}}, 401),
            ({"data": {"username": "x" * 300, "password": "x" * 3000}}, 401),
        ],
    )
    def test_what_is_no_name_and_password_is_told_so(self, app: Starlette, sent: dict, status: int) -> None:
        answer = call(app, "POST", f"{API}/auth/token", **sent)
        assert answer.status_code == status, answer.text
        assert answer.json()["message"].endswith(".")

    def test_nobody_can_tell_a_wrong_name_from_a_wrong_password(self, app: Starlette, person: str) -> None:
        wrong, unknown = signed_in(app, person, "not this one"), signed_in(app, "not." + person)
        assert wrong.status_code == unknown.status_code == 401
        assert wrong.json()["message"] == unknown.json()["message"]

    def test_unknown_names_are_held_against_a_hash_as_dear_as_the_others(self, closed: Node) -> None:
        seen: list[str] = []
        hasher = closed.passwords._hasher
        verify = type(hasher).verify

        class Seeing:
            def __getattr__(self, name: str):
                return getattr(hasher, name)

            def verify(self, kept: str, password: str) -> bool:
                seen.append(kept.rpartition("$")[0].rpartition("$")[0])
                return verify(hasher, kept, password)

        closed.passwords._hasher = Seeing()  # type: ignore[assignment]
        try:
            with pytest.raises(Exception, match="wrong"):
                closed.sign_in.for_browser("nobody.at.all", "x", OPERATOR)
            closed.sign_in.for_browser("chief", PASSWORD, OPERATOR)
        finally:
            closed.passwords._hasher = hasher
        assert len(seen) == 2
        assert seen[0] == seen[1]


class TestLockout:
    def test_after_five_wrong_passwords_the_right_one_is_not_heard_either(self, app: Starlette, person: str) -> None:
        assert [signed_in(app, person, f"wrong {n}").status_code for n in range(5)] == [401] * 5
        answer = signed_in(app, person)
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 15 * 60
        assert answer.json()["error"] == "too-many-attempts"
        unknown = [signed_in(app, "un" + person, "x").status_code for _ in range(6)]
        assert unknown == [401] * 5 + [429]

    def test_it_is_over_a_quarter_of_an_hour_later(self, app: Starlette, closed: Node, person: str) -> None:
        for n in range(5):
            signed_in(app, person, f"wrong {n}")
        assert signed_in(app, person).status_code == 429
        with closed.pool.connection() as connection:
            connection.execute("UPDATE login_failure SET at = at - interval '15 minutes'")
        assert signed_in(app, person).status_code == 200

    def test_the_right_password_makes_the_wrong_ones_forgotten(self, app: Starlette, person: str) -> None:
        for _ in range(3):
            assert [signed_in(app, person, "wrong").status_code for _ in range(4)] == [401] * 4
            assert signed_in(app, person).status_code == 200

    def test_a_burst_of_tries_does_not_slip_past_the_count(self, closed: Node, person: str) -> None:
        heard: list[str] = []

        def attempt(n: int) -> None:
            try:
                closed.sign_in.for_program(person, f"wrong {n}", OPERATOR)
            except Exception as error:
                heard.append(getattr(error, "code", "?"))

        threads = [threading.Thread(target=attempt, args=(n,)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(heard) == ["too-many-attempts"] * 7 + ["unauthorized"] * 5

    def test_another_address_is_another_count(self, closed: Node, person: str) -> None:
        from dataclasses import replace

        near, far = replace(OPERATOR, address="192.0.2.1"), replace(OPERATOR, address="192.0.2.2")
        for n in range(5):
            with pytest.raises(Exception, match="wrong"):
                closed.sign_in.for_program(person, f"wrong {n}", near)
        assert closed.sign_in.for_program(person, PASSWORD, far).access_token

    def test_many_names_from_one_address_end_too(self, closed: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        from dataclasses import replace

        monkeypatch.setattr("pacs.services.signin.TRIES_OF_ADDRESS", 8)
        sprayer = replace(OPERATOR, address="192.0.2.3")
        codes = []
        for n in range(10):
            try:
                closed.sign_in.for_program(f"name{n}", "Winter2026!", sprayer)
            except Exception as error:
                codes.append(getattr(error, "code", "?"))
        assert codes == ["unauthorized"] * 8 + ["too-many-attempts"] * 2

    def test_what_was_typed_as_a_name_is_kept_nowhere(self, app: Starlette, closed: Node) -> None:
        canary = "hunter2canary"
        signed_in(app, canary, "x")
        with closed.pool.connection() as connection:
            kept = connection.execute("SELECT f::text FROM login_failure f").fetchall()
            kept += connection.execute("SELECT a::text FROM audit a").fetchall()
        assert kept
        assert not [row for row in kept if canary in row[0]]


class TestRefreshing:
    def test_each_refresh_token_is_good_once(self, app: Starlette, person: str) -> None:
        first = signed_in(app, person).json()
        second = refreshed(app, first["refresh_token"]).json()
        assert second["refresh_token"] != first["refresh_token"]
        assert me(app, second["access_token"]) == 200
        assert refreshed(app, second["refresh_token"]).status_code == 200

    def test_a_spent_one_ends_the_whole_session(self, app: Starlette, person: str) -> None:
        first, other = signed_in(app, person).json(), signed_in(app, person).json()
        second = refreshed(app, first["refresh_token"]).json()
        assert refreshed(app, first["refresh_token"]).status_code == 401
        assert refreshed(app, second["refresh_token"]).status_code == 401
        assert me(app, second["access_token"]) == 401
        assert me(app, other["access_token"]) == 200

    def test_of_two_at_once_one_wins_at_most(self, closed: Node, person: str) -> None:
        grant = closed.sign_in.for_program(person, PASSWORD, OPERATOR)
        won: list[object] = []

        def attempt() -> None:
            with contextlib.suppress(Exception):
                won.append(closed.sessions.refresh(grant.refresh_token, OPERATOR))

        threads = [threading.Thread(target=attempt) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1

    @pytest.mark.parametrize("shown", ["", "x", "a.b", "x" * 22 + ".y", "\0.\0", "é.é"])
    def test_what_is_none_is_refused(self, app: Starlette, shown: str) -> None:
        assert refreshed(app, shown).status_code == 401
        assert call(app, "POST", f"{API}/auth/refresh", json={"refresh_token": shown}).status_code == 401

    def test_the_cookie_of_a_browser_is_none(self, closed: Node, app: Starlette, person: str) -> None:
        carried = closed.sign_in.for_browser(person, PASSWORD, OPERATOR)
        assert refreshed(app, carried).status_code == 401

    def test_a_session_does_not_last_for_ever(self, app: Starlette, closed: Node, person: str) -> None:
        grant = signed_in(app, person).json()
        with closed.pool.connection() as connection:
            connection.execute("UPDATE session SET expires_at = now()")
        closed.credentials.forget()
        assert me(app, grant["access_token"]) == 401
        assert refreshed(app, grant["refresh_token"]).status_code == 401


def test_logout_ends_the_session_and_no_other(app: Starlette, person: str) -> None:
    one, other = signed_in(app, person).json(), signed_in(app, person).json()
    assert call(app, "POST", f"{API}/auth/logout", headers=bearer(one["access_token"])).status_code == 204
    assert me(app, one["access_token"]) == 401
    assert refreshed(app, one["refresh_token"]).status_code == 401
    assert me(app, other["access_token"]) == 200


class TestPassword:
    def changed(self, app: Starlette, token: str, old: str, new: str):
        body = {"current_password": old, "new_password": new}
        return call(app, "POST", f"{API}/auth/password", json=body, headers=bearer(token))

    def test_a_new_one_ends_all_other_sessions(self, app: Starlette, person: str) -> None:
        one, other = signed_in(app, person).json(), signed_in(app, person).json()
        assert self.changed(app, one["access_token"], PASSWORD, NEW).status_code == 204
        assert me(app, one["access_token"]) == 200
        assert me(app, other["access_token"]) == 401
        assert refreshed(app, other["refresh_token"]).status_code == 401
        assert signed_in(app, person).status_code == 401
        assert signed_in(app, person, NEW).status_code == 200

    def test_the_old_one_is_asked_for_and_guessing_it_ends(self, app: Starlette, person: str) -> None:
        token = signed_in(app, person).json()["access_token"]
        codes = [self.changed(app, token, f"guess {n}", NEW).status_code for n in range(6)]
        assert codes == [401] * 5 + [429]

    @pytest.mark.parametrize("new", ["short", "password1", "aaaaaaaaaa", PASSWORD, "x" * 300])
    def test_a_bad_one_is_refused_with_a_reason(self, app: Starlette, person: str, new: str) -> None:
        token = signed_in(app, person).json()["access_token"]
        answer = self.changed(app, token, PASSWORD, new)
        assert (answer.status_code, answer.json()["error"]) == (400, "bad-request")

    def test_programs_have_none(self, app: Starlette, closed: Node) -> None:
        assert self.changed(app, closed.keys.for_node("x", ("admin",)), PASSWORD, NEW).status_code == 403


class TestUsers:
    def test_are_made_listed_changed_and_removed(self, app: Starlette, closed: Node) -> None:
        chief = administrator(closed)
        body = {"username": "New.Person", "email": "new@example.org", "password": PASSWORD, "roles": ["clinician"]}
        made = call(app, "POST", f"{API}/users", json=body, headers=chief)
        assert made.status_code == 201, made.text
        assert made.json()["username"] == "new.person"
        assert "password" not in made.text
        assert call(app, "POST", f"{API}/users", json=body, headers=chief).status_code == 409
        listed = call(app, "GET", f"{API}/users", headers=chief).json()
        assert listed["next"] is None
        assert "new.person" in {row["username"] for row in listed["items"]}
        changed = call(app, "PATCH", f"{API}/users/new.person", json={"roles": ["viewer", "uploader"]}, headers=chief)
        assert changed.json()["roles"] == ["viewer", "uploader"]
        assert call(app, "DELETE", f"{API}/users/new.person", headers=chief).status_code == 204
        assert call(app, "GET", f"{API}/users/new.person", headers=chief).status_code == 404

    @pytest.mark.parametrize(
        "changes",
        [
            {"username": "a b"}, {"username": ""}, {"username": "x" * 65}, {"username": None}, {"username": "a\0b"},
            {"username": "system"}, {"email": "nowhere"}, {"password": "short"}, {"password": None}, {"roles": []},
            {"roles": ["root"]}, {"roles": "admin"}, {"roles": None}, {"rules": ["viewer"]}, {"scope": {}},
            {"scope": {"wards": ["x"]}}, {"scope": {"aes": "X"}}, {"scope": {"aes": [""]}},
            {"roles": ["admin"], "scope": {"aes": ["X"]}}, {"scope": {"labels": ["a\0"]}},
        ],
    )  # fmt: skip
    def test_what_cannot_be_one_is_refused(self, app: Starlette, closed: Node, changes: dict) -> None:
        body = {"username": "somebody", "password": PASSWORD, "roles": ["viewer"]} | changes
        answer = call(app, "POST", f"{API}/users", json=body, headers=administrator(closed))
        assert answer.status_code == 400, answer.text
        assert answer.json()["message"].endswith(".")

    def test_other_roles_count_at_once(self, app: Starlette, closed: Node, person: str) -> None:
        token = signed_in(app, person).json()["access_token"]
        assert call(app, "GET", f"{API}/users", headers=bearer(token)).status_code == 403
        call(app, "PATCH", f"{API}/users/{person}", json={"roles": ["admin"]}, headers=administrator(closed))
        assert call(app, "GET", f"{API}/users", headers=bearer(token)).status_code == 200
        call(app, "PATCH", f"{API}/users/{person}", json={"roles": ["viewer"]}, headers=administrator(closed))

    def test_a_password_that_an_administrator_sets_ends_all_sessions(
        self, app: Starlette, closed: Node, person: str
    ) -> None:
        token = signed_in(app, person).json()["access_token"]
        call(app, "PATCH", f"{API}/users/{person}", json={"password": NEW}, headers=administrator(closed))
        assert me(app, token) == 401
        assert signed_in(app, person, NEW).status_code == 200

    @pytest.mark.parametrize(
        ("method", "body"), [("PATCH", {"disabled": True}), ("PATCH", {"roles": ["viewer"]}), ("DELETE", None)]
    )
    def test_the_last_administrator_stays(self, app: Starlette, closed: Node, method: str, body: dict | None) -> None:
        for row in closed.accounts.list():
            if "admin" in row["roles"] and row["username"] != "chief":
                closed.accounts.change(row["username"], {"roles": ["viewer"]}, OPERATOR)
        answer = call(app, method, f"{API}/users/chief", headers=administrator(closed), json=body)
        assert answer.status_code == 409
        assert signed_in(app, "chief").status_code == 200


class TestTokens:
    def test_are_shown_once_listed_without_and_revoked_by_name_or_id(self, app: Starlette, closed: Node) -> None:
        chief = administrator(closed)
        end = (datetime.now(UTC) + timedelta(days=3)).isoformat()
        body = {"name": "night job", "roles": ["uploader"], "expires_at": end}
        made = call(app, "POST", f"{API}/tokens", json=body, headers=chief)
        assert made.status_code == 201, made.text
        token = made.json()["token"]
        assert call(app, "POST", f"{API}/tokens", json=body, headers=chief).status_code == 409
        listed = call(app, "GET", f"{API}/tokens", headers=chief)
        assert token not in listed.text
        assert listed.json()["items"][0]["name"] == "night job"
        assert me(app, token) == 200
        assert call(app, "DELETE", f"{API}/tokens/night%20job", headers=chief).status_code == 204
        assert me(app, token) == 401
        again = call(app, "POST", f"{API}/tokens", json=body, headers=chief).json()
        assert call(app, "DELETE", f"{API}/tokens/{again['id']}", headers=chief).status_code == 204
        assert call(app, "DELETE", f"{API}/tokens?name=night job", headers=chief).status_code == 404

    def test_end_by_themselves_and_leave_their_name(self, app: Starlette, closed: Node) -> None:
        made = closed.tokens.create("brief", ["viewer"], OPERATOR)
        with closed.pool.connection() as connection:
            connection.execute("UPDATE api_token SET expires_at = now() WHERE name = 'brief'")
        closed.credentials.forget()
        assert me(app, made.token) == 401
        assert closed.tokens.create("brief", ["viewer"], OPERATOR).token

    @pytest.mark.parametrize(
        "body",
        [
            {}, {"name": "x"}, {"name": "", "roles": ["viewer"]}, {"name": "x", "roles": ["root"]},
            {"name": "x", "roles": ["viewer"], "expires_at": "tomorrow"},
            {"name": "x", "roles": ["viewer"], "expires_at": "2001-01-01T00:00:00Z"},
            {"name": "x", "roles": ["viewer"], "expires_at": "2999-01-01T00:00:00Z"},
            {"name": "x", "roles": ["viewer"], "expires": "2030-01-01T00:00:00Z"},
            {"name": "x\0", "roles": ["viewer"]}, {"name": 7, "roles": ["viewer"]},
        ],
    )  # fmt: skip
    def test_what_cannot_be_one_is_refused(self, app: Starlette, closed: Node, body: dict) -> None:
        assert call(app, "POST", f"{API}/tokens", json=body, headers=administrator(closed)).status_code == 400


def test_comings_goings_and_changes_are_in_the_audit_trail(app: Starlette, closed: Node, person: str) -> None:
    token = signed_in(app, person).json()["access_token"]
    signed_in(app, person, "wrong")
    call(app, "POST", f"{API}/auth/logout", headers=bearer(token))
    call(app, "PATCH", f"{API}/users/{person}", json={"email": "a@b.example"}, headers=administrator(closed))
    with closed.pool.connection() as connection:
        rows = connection.execute("SELECT actor, action, outcome, detail FROM audit ORDER BY id").fetchall()
    own = [row[1:3] for row in rows if row[0] == person]
    assert own == [("login", "ok"), ("login", "refused"), ("logout", "ok")]
    assert ("account-change", person) in [(row[1], row[3].get("account")) for row in rows if row[0] == "test"]
    assert PASSWORD not in str(rows)


def test_what_somebody_stores_finds_and_deletes_is_in_the_trail_under_their_name(
    app: Starlette, closed: Node, person: str
) -> None:
    closed.accounts.change(person, {"roles": ["admin"], "email": "a.b@c.example"}, OPERATOR)
    own = bearer(signed_in(app, person).json()["access_token"])
    assert call(app, "GET", f"{API}/auth/me", headers=own).json()["email"] == "a.b@c.example"
    found = ct()
    place = f"/dicom-web/studies/{found.StudyInstanceUID}"
    headers, body = multipart(part10(found))
    assert call(app, "POST", "/dicom-web/studies", content=body, headers=headers | own).status_code == 200
    for method, path in (("GET", f"/dicom-web/studies?PatientID={found.PatientID}"), ("GET", place), ("DELETE", place)):
        assert call(app, method, path, headers=own).status_code in {200, 204}
    wanted = {"store", "search", "read", "delete"}
    deadline = time.monotonic() + 30
    while wanted and time.monotonic() < deadline:  # reads are noted a moment later
        wanted -= {
            row["action"] for row in closed.audit.of_study(str(found.StudyInstanceUID)) if row["actor"] == person
        }
        time.sleep(0.05)
    assert not wanted
