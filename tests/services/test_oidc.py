"""Tokens of an issuer on this machine: its keys, its claims, and what forgers and a silent issuer bring."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from dicomweb.app import API, build
from pacs.errors import Unauthorized, Unavailable
from pacs.services.jwts import read
from pacs.services.oidc import DISCOVERY, KEPT_SECONDS, LAST_RESORT_SECONDS, REFETCH_SECONDS, Oidc
from pacs.settings import Settings
from tests.dicomweb import doors
from tests.dicomweb.wire import call

AUDIENCE = "filmroom-of-the-hospital"
KEYS = {
    "RS256": (RSAAlgorithm, rsa.generate_private_key(public_exponent=65537, key_size=2048)),
    "ES256": (ECAlgorithm, ec.generate_private_key(ec.SECP256R1())),
    "EdDSA": (OKPAlgorithm, ed25519.Ed25519PrivateKey.generate()),
}
STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass
class Issuer:
    """What the issuer serves, and how often it was asked."""

    url: str = ""
    keys: list[dict[str, Any]] = field(default_factory=list)
    moved: str = ""
    asked: list[str] = field(default_factory=list)
    down: bool = False
    changes: dict[str, Any] = field(default_factory=dict)

    def answer(self, path: str) -> tuple[int, Any]:
        self.asked.append(path)
        if self.down:
            return 500, {}
        document = {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.changes}
        return 200, {DISCOVERY: document, "/keys": {"keys": self.keys}}.get(path, {})


def jwk(algorithm: str, key_id: str, **more: object) -> dict[str, Any]:
    kind, key = KEYS[algorithm]
    return {**json.loads(kind.to_jwk(key.public_key())), "kid": key_id, "use": "sig", "alg": algorithm, **more}


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """A real issuer on a port of its own."""
    told = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if told.moved and self.path == "/keys":
                self.send_response(302)
                self.send_header("Location", told.moved)
                self.end_headers()
                return
            status, body = told.answer(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_port}"
    told.keys = [jwk(algorithm, f"key {algorithm}") for algorithm in KEYS]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def oidc(issuer: Issuer, clock: Clock) -> Oidc:
    return Oidc(Settings(oidc_issuer=issuer.url, oidc_audience=AUDIENCE), clock=clock)


def claims(issuer: Issuer, **changes: object) -> dict[str, Any]:
    now = int(time.time())
    base = {"iss": issuer.url, "aud": AUDIENCE, "sub": "user-17", "iat": now, "exp": now + 300, "roles": ["viewer"]}
    return {name: value for name, value in (base | changes).items() if value is not None}


def signed(issuer: Issuer, algorithm: str = "RS256", *, key: Any = None, headers: Any = None, **changes: object) -> str:
    headers = {"kid": f"key {algorithm}"} if headers is None else headers
    return jwt.encode(claims(issuer, **changes), key or KEYS[algorithm][1], algorithm, headers=headers)


@pytest.mark.parametrize("algorithm", KEYS)
def test_its_people_are_let_in_with_their_roles(issuer: Issuer, oidc: Oidc, algorithm: str) -> None:
    who, ends = oidc.who(read(signed(issuer, algorithm, aud=["another", AUDIENCE])))
    assert (who.actor, who.roles, who.kind) == ("oidc:user-17", ("viewer",), "oidc")
    assert who.may("search")
    assert not who.may("accounts")
    assert 290 < ends - time.time() <= 300


@pytest.mark.parametrize(
    ("claim", "held", "roles"),
    [
        ("", {"roles": ["clinician", "baker"]}, ("clinician",)),
        ("", {"roles": "viewer uploader"}, ("viewer", "uploader")),
        ("", {"roles": "viewer,auditor"}, ("viewer", "auditor")),
        ("", {"roles": ["filmroom-admin", "admins"]}, ("admin",)),
        ("realm_access.roles", {"roles": ["admin"], "realm_access": {"roles": ["viewer"]}}, ("viewer",)),
        ("groups", {"groups": ["filmroom:ai"]}, ("ai",)),
        ("groups", {"groups": None}, ()),
        ("groups", {"groups": 7}, ()),
        ("groups.deep", {"groups": ["admin"]}, ()),
        ("", {"roles": [["admin"], {"admin": 1}, 7]}, ()),
    ],
)
def test_roles_come_from_the_claim_that_is_named(issuer: Issuer, claim: str, held: dict, roles: tuple) -> None:
    wanted = Settings(oidc_issuer=issuer.url, oidc_audience=AUDIENCE, oidc_role_claim=claim)
    assert Oidc(wanted).who(read(signed(issuer, **held)))[0].roles == roles


def public_pem() -> bytes:
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return KEYS["RS256"][1].public_key().public_bytes(serialization.Encoding.PEM, kind)


def hmac_with_public_key(issuer: Issuer) -> str:
    """The old trick: the public key as the secret of an HMAC."""
    import base64
    import hmac

    part = lambda found: base64.urlsafe_b64encode(json.dumps(found).encode()).rstrip(b"=")  # noqa: E731
    text = part({"alg": "HS256", "kid": "key RS256", "typ": "JWT"}) + b"." + part(claims(issuer))
    signature = hmac.digest(public_pem(), text, "sha256")
    return (text + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


NOW = int(time.time())
BAD = {
    "of a stranger's key": lambda i: signed(i, key=STRANGER),
    "HMAC with the public key": hmac_with_public_key,
    "none": lambda i: jwt.encode(claims(i), None, "none", headers={"kid": "key RS256"}),
    "RS512": lambda i: jwt.encode(claims(i), KEYS["RS256"][1], "RS512", headers={"kid": "key RS256"}),
    "ES256 under the id of RS256": lambda i: signed(i, "ES256", headers={"kid": "key RS256"}),
    "unknown key": lambda i: signed(i, headers={"kid": "another"}),
    "expired": lambda i: signed(i, exp=NOW - 60),
    "not yet good": lambda i: signed(i, nbf=NOW + 3600),
    "without end": lambda i: signed(i, exp=None),
    "without subject": lambda i: signed(i, sub=None),
    "subject no text": lambda i: jwt.encode(
        {**claims(i), "sub": ""}, KEYS["RS256"][1], "RS256", headers={"kid": "key RS256"}
    ),
    "for another service": lambda i: signed(i, aud="another"),
    "for nobody": lambda i: signed(i, aud=None),
    "of another issuer": lambda i: signed(i, iss="https://evil.example"),
    "key in the header": lambda i: signed(i, headers={"kid": "x", "jwk": jwk("RS256", "x")}),
    "critical extension": lambda i: signed(i, headers={"kid": "key RS256", "crit": ["x"], "x": 1}),
}


@pytest.mark.parametrize("name", BAD)
def test_forged_tokens_are_refused(issuer: Issuer, oidc: Oidc, name: str) -> None:
    with pytest.raises(Unauthorized):
        oidc.who(read(BAD[name](issuer)))


def test_keys_are_fetched_once_and_again_for_a_new_one_but_not_for_every_made_up_one(
    issuer: Issuer, oidc: Oidc, clock: Clock
) -> None:
    for _ in range(3):
        oidc.who(read(signed(issuer)))
    assert issuer.asked == [DISCOVERY, "/keys"]
    issuer.keys = [jwk("RS256", "rolled over")]
    fresh = read(signed(issuer, headers={"kid": "rolled over"}))
    with pytest.raises(Unauthorized):
        oidc.who(fresh)  # too soon to ask again
    clock.now += REFETCH_SECONDS + 1
    assert oidc.who(fresh)[0].actor == "oidc:user-17"
    asked = len(issuer.asked)
    for n in range(20):
        with pytest.raises(Unauthorized):
            oidc.who(read(signed(issuer, headers={"kid": f"made up {n}"})))
    assert len(issuer.asked) == asked
    with pytest.raises(Unauthorized):
        oidc.who(read(signed(issuer)))  # the old key is gone


def test_without_a_name_the_only_key_of_the_algorithm_counts(issuer: Issuer, oidc: Oidc, clock: Clock) -> None:
    assert oidc.who(read(signed(issuer, headers={})))[0].actor == "oidc:user-17"
    issuer.keys.append(jwk("RS256", "second"))
    clock.now += KEPT_SECONDS + 1
    with pytest.raises(Unauthorized):
        oidc.who(read(signed(issuer, headers={})))


def test_a_silent_issuer_is_waited_for_with_the_keys_of_before(issuer: Issuer, oidc: Oidc, clock: Clock) -> None:
    issuer.down = True
    with pytest.raises(Unavailable):
        oidc.who(read(signed(issuer)))
    issuer.down = False
    clock.now += REFETCH_SECONDS + 1
    oidc.who(read(signed(issuer)))
    issuer.down = True
    clock.now += KEPT_SECONDS + 1
    assert oidc.who(read(signed(issuer)))[0].actor == "oidc:user-17"
    clock.now += LAST_RESORT_SECONDS
    with pytest.raises(Unavailable):
        oidc.who(read(signed(issuer)))


@pytest.mark.parametrize(
    "changes",
    [
        {"jwks_uri": "http://192.0.2.1/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "ftp://127.0.0.1/keys"},
        {"jwks_uri": None},
        {"issuer": "https://another.example"},
    ],
)
def test_keys_come_from_where_the_issuer_may_have_them(issuer: Issuer, oidc: Oidc, changes: dict) -> None:
    issuer.changes = changes
    with pytest.raises(Unavailable):
        oidc.who(read(signed(issuer)))
    assert issuer.asked == [DISCOVERY]


def test_redirects_are_not_followed(issuer: Issuer, oidc: Oidc) -> None:
    issuer.moved = f"{issuer.url}/elsewhere"
    with pytest.raises(Unavailable):
        oidc.who(read(signed(issuer)))
    assert "/elsewhere" not in issuer.asked


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
def test_keys_that_sign_nothing_of_ours_are_left_out(issuer: Issuer, oidc: Oidc) -> None:
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    weak = {**json.loads(RSAAlgorithm.to_jwk(short.public_key())), "kid": "weak"}
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "oct", "alg": "HS256"}
    issuer.keys = [
        weak,
        secret,
        jwk("RS256", "enc", use="enc"),
        {"kty": "RSA", "kid": "torn"},
        {},
        jwk("ES256", "good"),
    ]
    for key_id, key in (("weak", short), ("enc", KEYS["RS256"][1])):
        with pytest.raises(Unauthorized):
            oidc.who(read(signed(issuer, key=key, headers={"kid": key_id})))
    assert oidc.who(read(signed(issuer, "ES256", headers={"kid": "good"})))[0].actor == "oidc:user-17"


def test_the_door_of_http_hears_them_and_names_them_in_its_trail(settings: Settings, issuer: Issuer) -> None:
    changes = {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE}
    with doors.closed(settings, **changes) as node:
        app = build(node)
        me = lambda token: call(app, "GET", f"{API}/auth/me", headers=doors.bearer(token))  # noqa: E731
        assert me(signed(issuer)).json()["username"] == "oidc:user-17"
        assert me(signed(issuer, exp=NOW - 60)).status_code == 401
        assert me(signed(issuer, iss="https://evil.example")).status_code == 401
        nothing = doors.bearer(signed(issuer, roles=[]))
        assert call(app, "GET", "/dicom-web/studies", headers=nothing).status_code == 403
