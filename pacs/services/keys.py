"""The key that signs (SECRET_KEY), the one before it, and what is signed with them: access tokens, digests, forms.

The key itself signs nothing: each use has a key of its own, made from it. Where the key is kept in the home, and not
set from outside, a rotation reaches running processes within FOLLOWED_SECONDS.
"""

import hmac
import secrets
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

from pacs.errors import SettingsError
from pacs.hardening import kept_keys, replace_kept_key
from pacs.services.jwts import Shown, verified, wrong
from pacs.settings import Settings, kept_key

ISSUER = AUDIENCE = "filmroom"
ALGORITHM = "HS256"
FOLLOWED_SECONDS = 2.0
OVERLAP_SECONDS = 7 * 86400.0  # the life of a session: by then all that the old key signed has ended
NODE = "node"  # the use of tokens that commands on this machine make for themselves
NODE_SECONDS = 300.0
ACCESS, KEY_ID = "access token", "key id"


class Keys:
    """Signs and verifies. Thread-safe."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._settings, self._clock = settings, clock
        self._kept = bool(settings.secret_key) and kept_key(settings.home) == settings.secret_key
        self._looked = -FOLLOWED_SECONDS
        self._known: tuple[str, ...] = self._configured()

    @property
    def kept(self) -> bool:
        """Whether the key lives in the home; else it is set from outside, and only there it can be changed."""
        return self._kept

    def sign(self, claims: dict[str, Any], seconds: float) -> str:
        """An access token with these claims, good from now on for so many seconds."""
        import jwt

        now = int(self._clock())
        key = self._keys()[0]
        whole = {"iss": ISSUER, "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + int(seconds)}
        whole |= {"jti": secrets.token_hex(8), **claims}
        return jwt.encode(whole, _derived(key, ACCESS), ALGORITHM, headers={"kid": _key_id(key)})

    def for_node(self, actor: str, roles: Sequence[str]) -> str:
        """A token for a command on this machine, which has the key anyway; good for five minutes, asks no database."""
        return self.sign({"sub": actor, "use": NODE, "roles": list(roles)}, NODE_SECONDS)

    def verify(self, shown: Shown) -> dict[str, Any]:
        """The claims of an access token of ours. Raises Unauthorized."""
        key = next((key for key in self._keys() if hmac.compare_digest(_key_id(key), shown.key_id)), None)
        if key is None:
            raise wrong()
        claims = verified(shown, _derived(key, ACCESS), [ALGORITHM], issuer=ISSUER, audience=AUDIENCE)
        if not isinstance(claims.get("nbf"), int) or not claims.get("jti"):
            raise wrong()
        return claims

    def digest(self, purpose: str, text: str) -> bytes:
        """What is kept of a secret that somebody carries; also the proof that a form is of our making."""
        return _digest(self._keys()[0], purpose, text)

    def digests(self, purpose: str, text: str) -> list[bytes]:
        """The same under each key that counts, that of today first."""
        return [_digest(key, purpose, text) for key in self._keys()]

    def rotate(self, *, overlap: bool) -> None:
        """A new key in the home; the old one is still heard for a while where `overlap`. Raises SettingsError."""
        if not self._kept:
            raise SettingsError("SECRET_KEY is set from outside (environment or file); it can be changed there only.")
        replace_kept_key(self._settings.home, keep_previous=overlap)
        self._looked = -FOLLOWED_SECONDS

    def _keys(self) -> tuple[str, ...]:
        if self._kept and time.monotonic() - self._looked > FOLLOWED_SECONDS:
            self._looked = time.monotonic()
            current, previous, since = kept_keys(self._settings.home)
            heard = previous if self._clock() - since < OVERLAP_SECONDS else ""
            self._known = tuple(key for key in (current, heard, self._settings.secret_key_previous) if key)
        if not self._known:
            raise SettingsError("There is no SECRET_KEY yet; start the node once, or set it.")
        return self._known

    def _configured(self) -> tuple[str, ...]:
        return tuple(key for key in (self._settings.secret_key, self._settings.secret_key_previous) if key)


def _derived(key: str, purpose: str) -> bytes:
    return hmac.digest(key.encode(), f"filmroom {purpose}".encode(), "sha256")


def _digest(key: str, purpose: str, text: str) -> bytes:
    return hmac.digest(_derived(key, purpose), text.encode(), "sha256")


def _key_id(key: str) -> str:
    return sha256(_derived(key, KEY_ID)).hexdigest()[:16]
