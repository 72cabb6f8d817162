"""The closed door: who is let in where, and how a token is bad (security.md 1)."""

import base64
import dataclasses
import hmac
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator
from hashlib import sha256

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from dicomweb import app as application
from dicomweb.app import API, ROUTES, Row, build
from pacs.domain.roles import PERMISSIONS, ROLES
from pacs.node import Node
from pacs.node import build as build_node
from pacs.settings import Settings
from tests.dicomweb import doors
from tests.dicomweb.doors import OPERATOR, PASSWORD, bearer
from tests.dicomweb.wire import call, calls

PUBLIC = {("GET", "/health"), ("GET", "/ready"), ("POST", f"{API}/auth/token")}
VALUES = {"frames": "1", "path": "00282000", "id": "1", "username": "nobody.here", "token": "none", "name": "NOBODY"}


@pytest.fixture(scope="module")
def closed(settings: Settings) -> Iterator[Node]:
    """A node that asks for a login."""
    with doors.closed(settings) as node:
        node.accounts.create("reader", PASSWORD, ["viewer"], OPERATOR)
        yield node


@pytest.fixture(scope="module")
def app(closed: Node) -> Starlette:
    return build(closed)


@pytest.fixture(scope="module")
def reader(app: Starlette) -> dict[str, str]:
    """The tokens of somebody with the role viewer."""
    answer = call(app, "POST", f"{API}/auth/token", data={"username": "reader", "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    return answer.json()


def filled(path: str) -> str:
    """A path of the table with something in its places."""
    return re.sub(r"{(\w+)(?::\w+)?}", lambda match: VALUES.get(match[1], "1.2.3"), path)


def all_routes(app: Starlette) -> Iterator[tuple[str, str]]:
    yield from ((row.method, filled(row.path)) for row in ROUTES)
    paths = {route.path for route in app.routes if isinstance(route, Route)} - {row.path for row in ROUTES}
    yield from (("GET", filled(path)) for path in sorted(paths))


def test_without_a_token_nothing_answers_but_what_is_for_everybody(app: Starlette) -> None:
    for method, path in all_routes(app):
        answer = call(app, method, path)
        if (method, path) in PUBLIC or path == "/console/login":
            assert answer.status_code != 401, (method, path)
            continue
        assert answer.status_code == 401, (method, path)
        assert answer.headers["www-authenticate"].startswith('Bearer realm="filmroom"')
        assert answer.json()["error"] == "unauthorized"


@pytest.mark.parametrize(("method", "path"), [("PUT", "/dicom-web/studies"), ("OPTIONS", "/dicom-web"), ("GET", "/x")])
def test_nor_does_it_tell_strangers_what_there_is(app: Starlette, method: str, path: str) -> None:
    assert call(app, method, path).status_code == 401


def test_files_of_the_pages_are_for_everybody(app: Starlette) -> None:
    assert call(app, "GET", "/console/static/console.css").status_code == 200


@pytest.fixture
def told(closed: Node, monkeypatch: pytest.MonkeyPatch) -> Starlette:
    """The application whose handlers do nothing: what answers 299 was let in."""

    async def handler(_node: Node, _request: Request) -> Response:
        """Lets in."""
        return Response(status_code=299)

    monkeypatch.setattr(application, "ROUTES", tuple(dataclasses.replace(row, handler=handler) for row in ROUTES))
    return build(closed)


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_do_what_the_table_says_and_nothing_else(closed: Node, told: Starlette, role: str) -> None:
    token = closed.tokens.create(f"walk {role}", [role], OPERATOR).token
    answers = calls(told, [(row.method, filled(row.path)) for row in ROUTES], bearer(token))
    for row, status in zip(ROUTES, answers, strict=True):
        allowed = row.permission in {"public", "signed-in"} or row.permission in ROLES[role]
        assert status == (299 if allowed else 403), (role, row.method, row.path)


def test_the_administrator_may_do_everything_and_nobody_else_does() -> None:
    assert ROLES["admin"] == set(PERMISSIONS)
    assert all(ROLES[role] < ROLES["admin"] for role in ROLES if role != "admin")


def test_a_route_without_a_permission_is_not_served(
    closed: Node, app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    for permission in ("", "everything"):
        extra = Row("GET", "/extra", ROUTES[0].handler, permission)
        monkeypatch.setattr(application, "ROUTES", (*ROUTES, extra))
        with pytest.raises(ValueError, match="/extra has no permission"):
            build(closed)
    monkeypatch.setattr(application, "ROUTES", ROUTES)
    monkeypatch.setattr(application, "_console", lambda _node: [Route("/console/extra", lambda _request: None)])
    with pytest.raises(ValueError, match="/console/extra has no permission"):
        build(closed)
    assert all(isinstance(route, Route | Mount) for route in app.routes)


class TestGoodTokens:
    def test_an_access_token_opens_what_the_role_may(self, app: Starlette, reader: dict[str, str]) -> None:
        assert reader["token_type"].lower() == "bearer"
        assert reader["expires_in"] == 15 * 60
        answer = call(app, "GET", f"{API}/auth/me", headers=bearer(reader["access_token"]))
        assert answer.status_code == 200
        assert (answer.json()["username"], answer.json()["roles"]) == ("reader", ["viewer"])
        assert call(app, "GET", "/dicom-web/studies", headers=bearer(reader["access_token"])).status_code == 200

    def test_an_api_token_too_and_its_name_is_the_actor(self, app: Starlette, closed: Node) -> None:
        token = closed.tokens.create("night job", ["viewer"], OPERATOR).token
        answer = call(app, "GET", f"{API}/auth/me", headers=bearer(token))
        assert answer.json()["username"] == "token:night job"

    def test_and_one_that_a_command_makes_of_the_key(self, app: Starlette, closed: Node) -> None:
        token = closed.keys.for_node("smoke", ("admin",))
        assert call(app, "GET", f"{API}/users", headers=bearer(token)).status_code == 200


def part(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def opened(token: str) -> tuple[dict[str, object], dict[str, object], str]:
    header, claims, signature = token.split(".")
    pad = lambda text: base64.urlsafe_b64decode(text + "==")  # noqa: E731
    return json.loads(pad(header)), json.loads(pad(claims)), signature


def real_key(closed: Node) -> bytes:
    """The key that access tokens are really signed with: forgers of these tests know everything."""
    return hmac.digest(closed.settings.secret_key.encode(), b"filmroom access token", "sha256")


Forge = Callable[[Node, str], str]


def resigned(changes: dict[str, object], *, drop: str = "", **header: object) -> Forge:
    """The token with other claims, signed with the real key."""

    def forge(closed: Node, token: str) -> str:
        head, claims, _ = opened(token)
        claims = {name: value for name, value in (claims | changes).items() if name != drop}
        return jwt.encode(claims, real_key(closed), "HS256", headers={**head, **header})

    return forge


def unsigned(algorithm: str, signature: str = "") -> Forge:
    def forge(_closed: Node, token: str) -> str:
        head, claims, _ = opened(token)
        return f"{part(head | {'alg': algorithm})}.{part(claims)}.{signature}"

    return forge


def swapped(closed: Node, token: str) -> str:
    """Signed by RSA, as if our secret were a public key's."""
    head, claims, _ = opened(token)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return jwt.encode(claims, key, "RS256", headers={"kid": head["kid"]})


def other_algorithm(closed: Node, token: str) -> str:
    head, claims, _ = opened(token)
    return jwt.encode(claims, real_key(closed), "HS512", headers={"kid": head["kid"]})


def with_plain_key(closed: Node, token: str) -> str:
    head, claims, _ = opened(token)
    return jwt.encode(claims, closed.settings.secret_key, "HS256", headers={"kid": head["kid"]})


def other_last_character(_closed: Node, token: str) -> str:
    """Another spelling of the same bytes: the last character of 32 bytes in base64 has two bits to spare."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spelled = token[:-1] + letters[letters.index(token[-1]) ^ 1]
    last = lambda text: base64.urlsafe_b64decode(text.rpartition(".")[2] + "=")  # noqa: E731
    assert last(spelled) == last(token)
    return spelled


def of_another_user(_closed: Node, token: str) -> str:
    head, claims, signature = opened(token)
    return f"{part(head)}.{part(claims | {'sub': 'chief'})}.{signature}"


NOW = int(time.time())
BAD: dict[str, Forge] = {
    "alg none": unsigned("none"),
    "alg None": unsigned("None"),
    "alg nOnE with a signature": unsigned("nOnE", "c2ln"),
    "no alg": lambda _c, t: f"{part({'typ': 'JWT'})}.{t.split('.', 1)[1]}",
    "RS256 instead of HS256": swapped,
    "HS512 with our key": other_algorithm,
    "signed with the plain SECRET_KEY": with_plain_key,
    "expired": resigned({"exp": NOW - 5}),
    "not yet good": resigned({"nbf": NOW + 3600}),
    "made tomorrow": resigned({"iat": NOW + 86400}),
    "never ending": resigned({}, drop="exp"),
    "exp infinite": resigned({"exp": float("inf")}),
    "exp no number": resigned({"exp": "tomorrow"}),
    "other issuer": resigned({"iss": "evil"}),
    "no issuer": resigned({}, drop="iss"),
    "other audience": resigned({"aud": "another"}),
    "no audience": resigned({}, drop="aud"),
    "no subject": resigned({}, drop="sub"),
    "another's session": resigned({"sub": "chief"}),
    "no session": resigned({}, drop="sid"),
    "made up session": resigned({"sid": "x" * 22}),
    "session with a NUL": resigned({"sid": "a\0b"}),
    "role of its own in an access token": resigned({"roles": ["admin"], "use": "x", "sid": "none"}),
    "unknown role of a node token": resigned({"roles": ["root"], "use": "node"}),
    "no role of a node token": resigned({"use": "node"}),
    "wrong kid": resigned({}, kid="0123456789abcdef"),
    "kid of a path": resigned({}, kid="../../../../dev/null"),
    "no kid": lambda c, t: jwt.encode(opened(t)[1], real_key(c), "HS256"),
    "key of its own in the header": resigned({}, jwk={"kty": "oct", "k": "AAAA"}),
    "key at an address of its own": resigned({}, jku="http://127.0.0.1:1/keys"),
    "critical extension": resigned({}, crit=["b64"], b64=False),
    "of another user": of_another_user,
    "another spelling": other_last_character,
    "trimmed": lambda _c, t: t[:-1],
    "trimmed in front": lambda _c, t: t[1:],
    "without signature": lambda _c, t: t.rpartition(".")[0] + ".",
    "two parts": lambda _c, t: t.rpartition(".")[0],
    "four parts": lambda _c, t: f"{t}.{t.rpartition('.')[2]}",
    "padded": lambda _c, t: t + "=",
    "with a space": lambda _c, t: f"{t[:30]} {t[30:]}",
    "empty": lambda _c, _t: "",
    "of dots": lambda _c, _t: "..",
    "deep header": lambda _c, t: f"{base64.urlsafe_b64encode(b'[' * 4000).decode()}.{t.split('.', 1)[1]}",
    "huge": lambda _c, t: t + "A" * 20_000,
    "header no object": lambda _c, t: f"{part([1])}.{t.split('.', 1)[1]}",
    "claims no object": lambda _c, t: f"{t.split('.')[0]}.{part('x')}.{t.split('.')[2]}",
    "made up API token": lambda _c, _t: "frt_" + secrets.token_urlsafe(32),
    "the refresh token": lambda _c, _t: "",  # replaced below
}


class TestBadTokens:
    @pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
    @pytest.mark.parametrize("name", BAD)
    def test_is_refused_and_told_how_one_comes_in(
        self, app: Starlette, closed: Node, reader: dict[str, str], name: str
    ) -> None:
        token = BAD[name](closed, reader["access_token"]) if name != "the refresh token" else reader["refresh_token"]
        answer = call(app, "GET", "/dicom-web/studies", headers=bearer(token))
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith('Bearer realm="filmroom", error="invalid_token"')

    @pytest.mark.parametrize(
        "headers",
        [
            [("Authorization", "Basic Y2hpZWY6Y2hpZWY=")],
            [("Authorization", "Bearer a.b.c"), ("Authorization", "Bearer d.e.f")],
            [("Authorization", "Negotiate x")],
        ],
    )
    def test_other_ways_to_say_it_are_refused(self, app: Starlette, headers: list[tuple[str, str]]) -> None:
        assert call(app, "GET", "/dicom-web/studies", headers=headers).status_code == 401

    def test_a_bad_token_is_refused_also_where_no_login_is_asked(self, settings: Settings, closed: Node) -> None:
        free = build_node(dataclasses.replace(settings, secret_key="x" * 40), component="test")
        try:
            local = build(free)
            assert call(local, "GET", f"{API}/auth/me").json()["username"] == "local"
            assert call(local, "GET", f"{API}/auth/me", headers=bearer("a.b.c")).status_code == 401
            basic = {"Authorization": "Basic Y2hpZWY6Y2hpZWY="}
            assert call(local, "GET", f"{API}/auth/me", headers=basic).status_code == 200
        finally:
            free.close()

    def test_what_was_revoked_elsewhere_is_refused_within_seconds(
        self, app: Starlette, closed: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pacs.services.credentials.KEPT_SECONDS", 0.0)
        made = closed.tokens.create("short lived", ["viewer"], OPERATOR)
        assert call(app, "GET", "/dicom-web/studies", headers=bearer(made.token)).status_code == 200
        closed.tokens.revoke("short lived", OPERATOR)
        assert call(app, "GET", "/dicom-web/studies", headers=bearer(made.token)).status_code == 401

    def test_a_disabled_user_and_the_tokens_they_made_are_refused_at_once(self, app: Starlette, closed: Node) -> None:
        closed.accounts.create("leaver", PASSWORD, ["admin"], OPERATOR)
        grant = call(app, "POST", f"{API}/auth/token", data={"username": "Leaver", "password": PASSWORD}).json()
        own = bearer(grant["access_token"])
        made = call(app, "POST", f"{API}/tokens", json={"name": "of leaver", "roles": ["viewer"]}, headers=own).json()
        assert call(app, "GET", "/dicom-web/studies", headers=bearer(made["token"])).status_code == 200
        chief = bearer(closed.keys.for_node("test", ("admin",)))
        gone = call(app, "PATCH", f"{API}/users/leaver", json={"disabled": True}, headers=chief)
        assert (gone.status_code, gone.json()["disabled"]) == (200, True)
        for token in (grant["access_token"], made["token"]):
            assert call(app, "GET", "/dicom-web/studies", headers=bearer(token)).status_code == 401
        spent = call(app, "POST", f"{API}/auth/refresh", data={"refresh_token": grant["refresh_token"]})
        assert spent.status_code == 401
        wrong = call(app, "POST", f"{API}/auth/token", data={"username": "leaver", "password": PASSWORD})
        assert wrong.status_code == 401

    def test_tokens_of_the_previous_key_are_heard_while_it_is_named(
        self, settings: Settings, closed: Node, reader: dict[str, str]
    ) -> None:
        for previous, status in ((closed.settings.secret_key, 200), ("", 401)):
            later = dataclasses.replace(closed.settings, secret_key="z" * 48, secret_key_previous=previous)
            node = build_node(later, component="test")
            try:
                answer = call(build(node), "GET", f"{API}/auth/me", headers=bearer(reader["access_token"]))
                assert answer.status_code == status
            finally:
                node.close()


def test_the_check_of_a_known_token_costs_next_to_nothing(app: Starlette, closed: Node, reader: dict[str, str]) -> None:
    """Nothing is read from the database, nothing is verified: the answer of a moment ago counts."""
    asked: list[object] = []
    call(app, "GET", f"{API}/auth/me", headers=bearer(reader["access_token"]))
    who, closed.credentials.who = closed.credentials.who, asked.append  # type: ignore[method-assign]
    try:
        for _ in range(5):
            assert call(app, "GET", f"{API}/auth/me", headers=bearer(reader["access_token"])).status_code == 200
    finally:
        closed.credentials.who = who  # type: ignore[method-assign]
    assert not asked


def test_sha_of_a_token_is_all_that_the_database_keeps(closed: Node) -> None:
    made = closed.tokens.create("kept", ["viewer"], OPERATOR)
    with closed.pool.connection() as connection:
        row = connection.execute("SELECT digest, t::text FROM api_token t WHERE name = 'kept'").fetchone()
    assert row is not None
    assert row[0] == sha256(made.token.encode()).digest()
    assert made.token not in row[1]


def test_the_page_about_accounts_names_each_role(request: pytest.FixtureRequest) -> None:
    text = (request.config.rootpath / "docs" / "accounts.md").read_text()
    table = text.partition("## Roles")[2].partition("## A part")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.M)) == set(ROLES)


class TestCors:
    """Pages of other origins that CORS_ORIGINS names may call a node that asks for a login; others read nothing."""

    VIEWER = "https://viewer.example"

    @pytest.fixture
    def shared(self, settings: Settings, closed: Node) -> Iterator[Starlette]:
        with doors.closed(settings, cors_origins=(self.VIEWER,), secret_key=closed.settings.secret_key) as node:
            yield build(node)

    def test_the_browsers_question_is_answered_without_a_credential(self, shared: Starlette) -> None:
        asked = {"Origin": self.VIEWER, "Access-Control-Request-Method": "GET"}
        asked["Access-Control-Request-Headers"] = "authorization"
        answer = call(shared, "OPTIONS", "/dicom-web/studies", headers=asked)
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == self.VIEWER
        assert answer.headers["access-control-allow-credentials"] == "true"
        assert "Authorization" in answer.headers["access-control-allow-headers"]

    def test_also_a_refusal_can_be_read_by_those_who_are_named(self, shared: Starlette) -> None:
        answer = call(shared, "GET", "/dicom-web/studies", headers={"Origin": self.VIEWER})
        assert answer.status_code == 401
        assert answer.headers["access-control-allow-origin"] == self.VIEWER
        assert "Origin" in answer.headers["vary"]

    @pytest.mark.parametrize("origin", ["https://evil.example", "https://viewer.example.evil.example", "null", "*"])
    def test_and_by_nobody_else(self, shared: Starlette, reader: dict[str, str], origin: str) -> None:
        headers = {"Origin": origin, **bearer(reader["access_token"])}
        answer = call(shared, "GET", "/dicom-web/studies", headers=headers)
        assert not [name for name in answer.headers if name.startswith("access-control")]
        asked = {"Origin": origin, "Access-Control-Request-Method": "GET"}
        told = call(shared, "OPTIONS", "/dicom-web/studies", headers=asked)
        assert not [name for name in told.headers if name.startswith("access-control")]


def test_behind_a_proxy_a_node_that_asks_nobody_hears_this_machine_only(settings: Settings) -> None:
    """It would otherwise be open to whomever the proxy lets through."""
    free = dataclasses.replace(settings, trusted_proxies=("127.0.0.1",), secret_key="x" * 40)
    node = build_node(free, component="test")
    try:
        for forwarded, status in (("127.0.0.1", 200), ("192.0.2.7", 403), ("::1", 200)):
            headers = {"X-Forwarded-For": forwarded, "X-Forwarded-Host": "localhost", "X-Forwarded-Proto": "http"}
            assert call(build(node), "GET", f"{API}/auth/me", headers=headers).status_code == status
    finally:
        node.close()
