"""Bearer tokens as they arrive (RFC 7519): only the one spelling of a well-formed one is looked at any further.

Decoders of base64 forgive what they should not: strange characters, bits after the end. Two spellings of one token
would be two tokens for whoever revokes or counts them.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jwt
import orjson

from pacs.errors import Unauthorized

LONGEST = 8192
HEADERS = frozenset({"alg", "typ", "kid"})
TYPES = frozenset({"JWT", "AT+JWT", "APPLICATION/AT+JWT"})
REQUIRED = ("iss", "aud", "sub", "iat", "exp")
_FORM = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_WRONG = "The token is not one of this node's, or of the issuer that it trusts."


@dataclass(frozen=True, slots=True)
class Shown:
    """A token as it was shown; nothing of it is proven yet."""

    text: str
    algorithm: str
    key_id: str
    issuer: str


def wrong() -> Unauthorized:
    """What is said of every token that is none of ours, whatever is the matter with it."""
    return Unauthorized(_WRONG, shown=True)


def read(text: str) -> Shown:
    """The token's own words about itself. Raises Unauthorized for what is not the one spelling of a token."""
    form = _FORM.fullmatch(text) if len(text) <= LONGEST else None
    if form is None:
        raise wrong()
    header, claims = _object(form[1]), _object(form[2])
    _canonical(form[3])
    known = set(header) <= HEADERS and str(header.get("typ", "JWT")).upper() in TYPES
    algorithm, key_id, issuer = header.get("alg"), header.get("kid", ""), claims.get("iss")
    if not known or not all(isinstance(word, str) for word in (algorithm, key_id, issuer)):
        raise wrong()
    return Shown(text, str(algorithm), str(key_id), str(issuer))


def verified(shown: Shown, key: Any, algorithms: Sequence[str], *, issuer: str, audience: str) -> dict[str, Any]:
    """The claims of a token with a good signature that is of this issuer, for us, and of now. Raises Unauthorized."""
    try:
        claims: dict[str, Any] = jwt.decode(
            shown.text,
            key,
            algorithms=list(algorithms),
            issuer=issuer,
            audience=audience,
            options={"require": list(REQUIRED)},
        )
    except jwt.ExpiredSignatureError as error:
        raise Unauthorized("The token has expired; get a new one.", shown=True) from error
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise wrong() from error
    if not isinstance(claims["sub"], str) or not claims["sub"]:
        raise wrong()
    return claims


def _object(segment: str) -> dict[str, Any]:
    try:
        found = orjson.loads(_canonical(segment))
    except ValueError as error:
        raise wrong() from error
    if not isinstance(found, dict):
        raise wrong()
    return found


def _canonical(segment: str) -> bytes:
    """The bytes of a segment in base64url without padding, of which there is one spelling only (RFC 7515 2)."""
    try:
        raw = urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError as error:
        raise wrong() from error
    if urlsafe_b64encode(raw).rstrip(b"=") != segment.encode():
        raise wrong()
    return raw
