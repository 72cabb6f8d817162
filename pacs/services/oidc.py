"""Bearer tokens of the issuer that OIDC_ISSUER names (OpenID Connect Core 1.0, RFC 9068): who it says is asking.

The issuer's keys are fetched when the first of its tokens comes, kept, and fetched again when a token names a key that
is not among them, never more often than every REFETCH_SECONDS: strangers can make up key names. Addresses come from the
configuration and from the issuer's own document; redirects are not followed.
"""

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

import jwt
import orjson
import structlog

from pacs.domain.roles import ROLES, Identity, identity
from pacs.errors import Unavailable
from pacs.services.jwts import Shown, verified, wrong
from pacs.settings import Settings, is_loopback

log = structlog.get_logger()

DISCOVERY = "/.well-known/openid-configuration"
KEPT_SECONDS = 600.0
REFETCH_SECONDS = 30.0
LAST_RESORT_SECONDS = 86400.0  # how long keys are used while the issuer does not answer
PATIENCE_SECONDS = 5.0
MOST_BYTES, MOST_KEYS = 1 << 20, 100
DEFAULT_CLAIM = "roles"
PREFIXES = ("", "filmroom-", "filmroom_", "filmroom:")  # of role names at an issuer that has those of others, too
RSA_BITS = 2048
# the algorithm follows from the key, never from the token
ALGORITHMS = {("RSA", ""): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}

Fetch = Callable[[str], bytes]


class Oidc:
    """Verifies tokens of one issuer. Thread-safe."""

    def __init__(
        self, settings: Settings, fetch: "Fetch | None" = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.issuer, self._audience = settings.oidc_issuer, settings.oidc_audience
        self._claim = (settings.oidc_role_claim or DEFAULT_CLAIM).split(".")
        self._fetch, self._clock = fetch or fetched, clock
        self._lock = threading.Lock()
        self._keys: list[tuple[str, str, Any]] = []  # id, algorithm, key
        self._at = self._tried = float("-inf")

    def who(self, shown: Shown) -> tuple[Identity, float]:
        """Whom a token of the issuer names, and when (seconds since 1970) it ends.

        Raises Unauthorized, or Unavailable when the issuer's keys are not to be had.
        """
        algorithm, key = self._key(shown)
        claims = verified(shown, key, [algorithm], issuer=self.issuer, audience=self._audience)
        name = str(claims["sub"])
        return identity(f"oidc:{name}", self._roles(claims), kind="oidc"), float(claims["exp"])

    def _roles(self, claims: Any) -> list[str]:
        found = claims
        for part in self._claim:
            found = found.get(part) if isinstance(found, dict) else None
        words = found.replace(",", " ").split() if isinstance(found, str) else found
        held = {word for word in words if isinstance(word, str)} if isinstance(words, list) else set()
        return [role for role in ROLES if any(prefix + role in held for prefix in PREFIXES)]

    def _key(self, shown: Shown) -> tuple[str, Any]:
        found = self._find(shown)
        if found is None or self._clock() - self._at > KEPT_SECONDS:
            self._renew()
            found = self._find(shown)
        if found is None:
            raise wrong()
        return found

    def _find(self, shown: Shown) -> tuple[str, Any] | None:
        """The key that the token names; without a name the only one of its algorithm."""
        fitting = [
            (algorithm, key)
            for id_, algorithm, key in self._keys
            if algorithm == shown.algorithm and shown.key_id in {id_, ""}
        ]
        return fitting[0] if len(fitting) == 1 else None

    def _renew(self) -> None:
        """Fetch the keys, unless that has just been tried. Raises Unavailable when there are none to go on with."""
        if self._lock.acquire(blocking=not self._keys):  # whoever has keys does not wait for others who ask
            try:
                self._try()
            finally:
                self._lock.release()
        if self._clock() - self._at > LAST_RESORT_SECONDS:
            raise Unavailable("The issuer of the token does not answer; see OIDC_ISSUER.", retry_after=30)

    def _try(self) -> None:
        now = self._clock()
        if now - self._tried <= REFETCH_SECONDS:
            return
        self._tried = now
        try:
            self._keys, self._at = list(self._fetch_keys()), now
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            log.warning("oidc_keys_not_fetched", error=type(error).__name__, said=str(error)[:200])

    def _fetch_keys(self) -> Iterable[tuple[str, str, Any]]:
        document = orjson.loads(self._fetch(self.issuer.rstrip("/") + DISCOVERY))
        if document["issuer"] != self.issuer:
            raise ValueError("the issuer calls itself by another name")
        keys = orjson.loads(self._fetch(_safe(document["jwks_uri"], self.issuer)))["keys"]
        return [made for entry in keys[:MOST_KEYS] if (made := _made(entry)) is not None]


def _made(entry: dict[str, Any]) -> tuple[str, str, Any] | None:
    """A key that signs by one of our algorithms; None for any other."""
    algorithm = ALGORITHMS.get((entry.get("kty", ""), entry.get("crv", "")))
    if algorithm is None or entry.get("use", "sig") != "sig" or entry.get("alg", algorithm) != algorithm:
        return None
    try:
        key = jwt.PyJWK(entry, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if algorithm == "RS256" and key.key_size < RSA_BITS:
        return None
    return str(entry.get("kid", "")), algorithm, key


def _safe(url: object, issuer: str) -> str:
    """An address that may be asked: over TLS, or on this machine where the issuer itself is."""
    text = str(url)
    parts, own = urlsplit(text), urlsplit(issuer)
    here = is_loopback(own.hostname or "") and is_loopback(parts.hostname or "")
    if parts.scheme == "https" or (parts.scheme == "http" and here):
        return text
    raise ValueError("the issuer's keys are not behind TLS")


class _Straight(urllib.request.HTTPRedirectHandler):
    """Goes nowhere else than it was sent."""

    def redirect_request(self, *_: Any) -> None:
        return None


def fetched(url: str) -> bytes:
    """What is at an address of the issuer, one mebibyte at most. Raises OSError."""
    if urlsplit(url).scheme not in {"http", "https"}:
        raise OSError("an issuer is asked by HTTP only")
    opener = urllib.request.build_opener(_Straight, urllib.request.ProxyHandler())
    with opener.open(url, timeout=PATIENCE_SECONDS) as answer:
        content: bytes = answer.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise OSError("the issuer's answer is too long")
    return content
