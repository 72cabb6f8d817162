"""Who shows this credential: the one answer for bearer tokens of ours, API tokens, tokens of an issuer, cookies.

Each request asks, so an answer is kept for KEPT_SECONDS: what another process revokes is heard that much later, what
this process revokes at once. Wrong credentials are not kept.
"""

import threading
import time

from pacs.domain.roles import Credential, Identity, checked_roles, identity
from pacs.errors import BadRequest
from pacs.services.jwts import read, wrong
from pacs.services.keys import ISSUER, NODE, Keys
from pacs.services.oidc import Oidc
from pacs.services.sessions import Sessions
from pacs.services.tokens import PREFIX, Tokens

KEPT_SECONDS = 3.0
MOST_KEPT = 4096


class Credentials:
    """Thread-safe."""

    def __init__(self, keys: Keys, sessions: Sessions, tokens: Tokens, oidc: Oidc) -> None:
        self._keys, self._sessions, self._tokens, self._oidc = keys, sessions, tokens, oidc
        self._kept: dict[Credential, tuple[Identity, float]] = {}
        self._era = 0
        self._lock = threading.Lock()

    def known(self, credential: Credential) -> Identity | None:
        """Who showed it a moment ago; never waits."""
        found = self._kept.get(credential)
        return found[0] if found is not None and found[1] > time.monotonic() else None

    def who(self, credential: Credential) -> Identity:
        """Who shows it. Raises Unauthorized, or Unavailable when that cannot be found out now."""
        era = self._era
        found, ends = self._cookie(credential.text) if credential.kind == "cookie" else self._bearer(credential.text)
        left = min(KEPT_SECONDS, ends - time.time())
        with self._lock:
            if era == self._era:  # else something was revoked meanwhile, perhaps this
                if len(self._kept) >= MOST_KEPT:
                    self._kept.clear()
                self._kept[credential] = found, time.monotonic() + left
        return found

    def forget(self) -> None:
        """Something was revoked or changed: look again."""
        with self._lock:
            self._era += 1
            self._kept.clear()

    def _cookie(self, text: str) -> tuple[Identity, float]:
        found = self._sessions.of_cookie(text)
        if found is None:
            raise wrong()
        return found, float("inf")

    def _bearer(self, text: str) -> tuple[Identity, float]:
        if text.startswith(PREFIX):
            token = self._tokens.who(text)
            if token is None:
                raise wrong()
            return token
        shown = read(text)
        if shown.issuer == ISSUER:
            return self._own(self._keys.verify(shown))
        if self._oidc.issuer and shown.issuer == self._oidc.issuer:
            return self._oidc.who(shown)
        raise wrong()

    def _own(self, claims: dict[str, object]) -> tuple[Identity, float]:
        ends = float(str(claims["exp"]))
        if claims.get("use") == NODE:
            return _of_node(claims), ends
        found = self._sessions.of_bearer(str(claims.get("sid", "")))
        if found is None or found.actor != claims["sub"]:
            raise wrong()
        return found, ends


def _of_node(claims: dict[str, object]) -> Identity:
    try:
        return identity(str(claims["sub"]), checked_roles(claims.get("roles")), kind="node")
    except BadRequest as error:
        raise wrong() from error
