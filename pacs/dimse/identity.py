"""User identity (PS3.7 D.3.3.7): whether a caller is who it says, checked away from the event loop.

A name without passcode (type 1) proves nothing; Kerberos and SAML (3, 4) are not spoken here.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from enum import IntEnum
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Protocol

from pacs.dimse.associate import Identity
from pacs.domain.events import Source
from pacs.domain.roles import Credential
from pacs.domain.roles import Identity as Who
from pacs.errors import TooManyAttempts, Unauthorized
from pacs.services.peers import Peer

if TYPE_CHECKING:
    from pacs.node import Node

MOST_WAITING = 32  # further callers are told to come again
LONGEST = 8_192  # bytes of a name, a passcode or a token


class Kind(IntEnum):
    """User-Identity-Type, as far as it can be verified."""

    NAME_AND_PASSCODE = 2
    TOKEN = 5


class Accounts(Protocol):
    """Who may say what it is. Both raise Unavailable when nobody can tell now."""

    def by_passcode(self, username: str, passcode: str, address: str) -> Who | None:
        """Whose name and passcode these are, None where they are nobody's; slow on purpose."""

    def by_token(self, token: str) -> Who | None:
        """Whose token this is, None where it is nobody's."""


class NodeAccounts:
    """The accounts, sessions and tokens of this node.

    Who may see a part of the archive only is not let in: what DIMSE shows is not kept to a part.
    """

    def __init__(self, node: "Node") -> None:
        self._node = node

    def by_passcode(self, username: str, passcode: str, address: str) -> Who | None:
        return _seeing_all(lambda: self._node.sign_in.confirm(username, passcode, Source("dimse", "", address)))

    def by_token(self, token: str) -> Who | None:
        return _seeing_all(lambda: self._node.credentials.who(Credential("bearer", token)))


def _seeing_all(ask: Callable[[], Who]) -> Who | None:
    try:
        who = ask()
    except (Unauthorized, TooManyAttempts):
        return None
    return who if who.visible is None else None


class Verifier:
    """Checks identities one at a time, on a thread of its own: a passcode's hash takes time and memory on purpose, so
    neither queries nor other callers' memory shall depend on how many guess."""

    def __init__(self, accounts: Accounts | None) -> None:
        """`accounts`: None where there are none, so that no identity is right."""
        self._checks: Mapping[int, Callable[[Accounts, Identity, str], Who | None]] = {
            Kind.NAME_AND_PASSCODE: _by_passcode,
            Kind.TOKEN: _by_token,
        }
        self._accounts = accounts
        self._places = BoundedSemaphore(MOST_WAITING)
        self._pool = ThreadPoolExecutor(1, "dimse-identity")

    def submit(self, identity: Identity, address: str) -> "Future[Who | None] | None":
        """The future's result is who it is, None for a wrong identity. No future: too many wait already."""
        if not self._places.acquire(blocking=False):
            return None
        future = self._pool.submit(self._verify, identity, address)
        future.add_done_callback(lambda _: self._places.release())
        return future

    def _verify(self, identity: Identity, address: str) -> Who | None:
        check = self._checks.get(identity.kind)
        if check is None or self._accounts is None or max(len(identity.primary), len(identity.secondary)) > LONGEST:
            return None
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


def _by_passcode(accounts: Accounts, identity: Identity, address: str) -> Who | None:
    name, passcode = _text(identity.primary), _text(identity.secondary)
    return accounts.by_passcode(name, passcode, address) if name and passcode else None


def _by_token(accounts: Accounts, identity: Identity, _address: str) -> Who | None:
    token = _text(identity.primary)
    return accounts.by_token(token) if token else None


def _text(raw: bytes) -> str:
    """UTF-8 (PS3.7 D.3.3.7.1), empty where it is none."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return ""
