"""Passwords: what may be one, and argon2id (RFC 9106), a few at a time.

A hash takes 32 MiB and a tenth of a second by intention, so that guessing is slow; without a limit on how many are made
at once, guessing would also be a way to take the node's memory and cores away.
"""

import secrets
import threading
import unicodedata
from functools import cached_property

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from pacs.errors import BadRequest, Unavailable

AT_ONCE = 2
MEMORY_KIB = 32 << 10  # with three passes more than OWASP asks for, and a guesser does not double a process's memory
PATIENCE_SECONDS = 10.0
SHORTEST, LONGEST = 8, 256
USUAL = frozenset({"password", "password1", "passw0rd", "12345678", "123456789", "1234567890", "qwertyui", "changeme"})
GENERATED_BYTES = 15


class Passwords:
    """Hashes and verifies. Thread-safe; callers wait their turn."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._turn = threading.BoundedSemaphore(AT_ONCE)
        self._hasher = hasher or PasswordHasher(memory_cost=MEMORY_KIB)

    def hash(self, password: str) -> str:
        """The hash to keep. Raises Unavailable when too many wait."""
        with _Turn(self._turn):
            return self._hasher.hash(_normal(password))

    def verify(self, kept: str | None, password: str) -> bool:
        """Whether this is the password. `kept` is None for a name that nobody has, which takes as long.

        Raises Unavailable when too many wait.
        """
        nobody = self._nobody  # made once, before it is known whether it is needed: the first call tells nothing
        against = nobody if kept is None else kept
        with _Turn(self._turn):
            try:
                return self._hasher.verify(against, _normal(password)) and kept is not None
            except (VerificationError, InvalidHashError):
                return False

    def generate(self) -> str:
        """A password of chance that can be read out and typed."""
        return generated()

    def outdated(self, kept: str) -> bool:
        """Whether a hash was made with other costs than those of today."""
        return self._hasher.check_needs_rehash(kept)

    @cached_property
    def _nobody(self) -> str:
        return self._hasher.hash(secrets.token_urlsafe(16))


class _Turn:
    """A place among those that hash, or Unavailable."""

    def __init__(self, places: threading.BoundedSemaphore) -> None:
        self._places = places

    def __enter__(self) -> None:
        if not self._places.acquire(timeout=PATIENCE_SECONDS):
            raise Unavailable("Too many people sign in at this moment; try again.", retry_after=2)

    def __exit__(self, *_: object) -> None:
        self._places.release()


def checked(password: object, username: str) -> str:
    """A password that may be one. Raises BadRequest saying what is asked of it."""
    if not isinstance(password, str) or not SHORTEST <= len(password) <= LONGEST:
        raise BadRequest(f"A password has {SHORTEST} to {LONGEST} characters.")
    plain = _normal(password).casefold()
    if plain in USUAL or plain == username.casefold() or len(set(plain)) < 3:
        raise BadRequest("This password is among the first that anybody would try; choose another.")
    return password


def generated() -> str:
    """A password of chance that can be read out and typed."""
    text = secrets.token_hex(GENERATED_BYTES)
    return "-".join(text[at : at + 6] for at in range(0, len(text), 6))


def _normal(password: str) -> str:
    """As the same keys give it on every system (RFC 8265 4.2)."""
    return unicodedata.normalize("NFC", password)
