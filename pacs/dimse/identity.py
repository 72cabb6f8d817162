"""User identity (PS3.7 D.3.3.7): whether a caller is who it says, checked away from the event loop.

A name without passcode (type 1) proves nothing; Kerberos and SAML (3, 4) are not spoken here.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from enum import IntEnum
from threading import BoundedSemaphore
from typing import Protocol

from pacs.dimse.associate import Identity
from pacs.services.peers import Peer

MOST_WAITING = 32  # further callers are told to come again
LONGEST = 8_192  # bytes of a name, a passcode or a token


class Kind(IntEnum):
    """User-Identity-Type, as far as it can be verified."""

    NAME_AND_PASSCODE = 2
    TOKEN = 5


class Accounts(Protocol):
    """Who may say what it is. Both raise FilmroomError when nobody can tell now."""

    def check(self, username: str, passcode: str, address: str) -> bool:
        """Whether this is a user's passcode; slow on purpose."""

    def user_of(self, token: str) -> str:
        """Whose token this is, empty where it is nobody's."""


class Verifier:
    """Checks identities one at a time, on a thread of its own: a passcode's hash takes time and memory on purpose, so
    neither queries nor other callers' memory shall depend on how many guess."""

    def __init__(self, accounts: Accounts | None) -> None:
        """`accounts`: None where there are none, so that no identity is right."""
        self._checks: Mapping[int, Callable[[Accounts, Identity, str], str]] = {
            Kind.NAME_AND_PASSCODE: _by_passcode,
            Kind.TOKEN: _by_token,
        }
        self._accounts = accounts
        self._places = BoundedSemaphore(MOST_WAITING)
        self._pool = ThreadPoolExecutor(1, "dimse-identity")

    def submit(self, identity: Identity, address: str) -> "Future[str] | None":
        """The future's result is the user's name, empty for a wrong identity. None: too many wait already."""
        if not self._places.acquire(blocking=False):
            return None
        future = self._pool.submit(self._verify, identity, address)
        future.add_done_callback(lambda _: self._places.release())
        return future

    def _verify(self, identity: Identity, address: str) -> str:
        check = self._checks.get(identity.kind)
        if check is None or self._accounts is None or max(len(identity.primary), len(identity.secondary)) > LONGEST:
            return ""
        return check(self._accounts, identity, address)

    def close(self) -> None:
        """Drop what waits."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def wants_check(identity: Identity | None, peer: Peer | None) -> bool:
    """Where the peer's entry requires an identity, or where the caller asks for a positive answer, which only a
    verified one gets. Any other is a claim that nothing here relies on."""
    required = peer is not None and peer.require_identity
    return identity is not None and (required or (identity.answer_wanted and can_be_verified(identity)))


def can_be_verified(identity: Identity | None) -> bool:
    """Whether the identity is of a type that proves something."""
    return identity is not None and identity.kind in set(Kind)


def _by_passcode(accounts: Accounts, identity: Identity, address: str) -> str:
    name, passcode = _text(identity.primary), _text(identity.secondary)
    return name if name and passcode and accounts.check(name, passcode, address) else ""


def _by_token(accounts: Accounts, identity: Identity, _address: str) -> str:
    token = _text(identity.primary)
    return accounts.user_of(token) if token else ""


def _text(raw: bytes) -> str:
    """UTF-8 (PS3.7 D.3.3.7.1), empty where it is none."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return ""
