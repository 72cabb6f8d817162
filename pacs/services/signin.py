"""Coming in by name and password, and changing the password. Guessing is slow, and ends after a few tries.

Wrong passwords are counted by name and address; what was typed as a name is kept as a digest only. The tries for one
name from one address go one after another in a process, so a burst of them cannot slip past the count.
"""

import threading
from hashlib import sha256
from math import ceil
from typing import Any

import structlog
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from pacs.domain.events import Source
from pacs.domain.roles import Identity, identity, visible_from
from pacs.errors import BadRequest, TooManyAttempts, Unauthorized
from pacs.index.named import queries
from pacs.index.pool import transaction
from pacs.services import audit
from pacs.services.passwords import LONGEST, Passwords, checked
from pacs.services.sessions import BEARER, COOKIE, Grant, Sessions

SQL, SESSIONS = queries("accounts"), queries("sessions")
Row = dict[str, Any]

TRIES, WITHIN_SECONDS = 5, 15 * 60.0
TRIES_OF_ADDRESS = 1000  # for any names: many people share a proxy's address, together they do not mistype so often
LANES = 64
log = structlog.get_logger()
WRONG = "The name or the password is wrong."
UNKNOWN = "unknown"  # the actor of a row about a name that nobody has: it may have been a password


class SignIn:
    """Thread-safe. All methods raise Unavailable when the database is away or too many sign in at once."""

    def __init__(self, pool: ConnectionPool[Any], passwords: Passwords, sessions: Sessions) -> None:
        self._pool, self._passwords, self._sessions = pool, passwords, sessions
        self._lanes = [threading.Lock() for _ in range(LANES)]

    def for_program(self, username: str, password: str, source: Source) -> Grant:
        """Tokens for a program. Raises Unauthorized, TooManyAttempts."""
        account, carried = self._sign_in(username, password, BEARER, source)
        return self._sessions.grant(account["username"], carried)

    def for_browser(self, username: str, password: str, source: Source) -> str:
        """What a browser's cookie carries. Raises Unauthorized, TooManyAttempts."""
        return self._sign_in(username, password, COOKIE, source)[1]

    def confirm(self, username: str, password: str, source: Source) -> Identity:
        """Who this is, without a session: an association's user. Raises Unauthorized, TooManyAttempts."""
        account = self._let_in(username, password, source)
        who = Source(source.door, account["username"], source.address)
        with transaction(self._pool) as connection:
            audit.record(connection, [audit.row(who, "login", detail={"kind": "association"})])
        return identity(who.peer, account["roles"], visible=visible_from(account["scope"]), kind="association")

    def change_password(self, username: str, old: object, new: object, source: Source, session: str) -> None:
        """A new password of one's own; all other sessions of the account end.

        Raises Unauthorized for a wrong old one, which counts as a try to come in, TooManyAttempts, BadRequest.
        """
        if not isinstance(old, str):
            raise BadRequest("current_password and new_password are both needed.")
        checked(new, username)
        account = self._let_in(username, old, source)
        if new == old:
            raise BadRequest("The new password is the old one.")
        row = {"pk": account["pk"], "old": account["password"], "password": self._passwords.hash(str(new))}
        with transaction(self._pool) as connection:
            if connection.execute(SQL["set_password"], row).rowcount == 0:
                raise Unauthorized(WRONG)
            self._sessions.end_of_account(connection, account["username"], "password", but=session)
            audit.record(connection, [audit.row(source, "password-change", detail={"account": account["username"]})])

    def _sign_in(self, username: str, password: str, kind: str, source: Source) -> tuple[Row, str]:
        account = self._let_in(username, password, source)
        who = Source(source.door, account["username"], source.address)
        with transaction(self._pool) as connection:
            carried = self._sessions.open(connection, account["pk"], kind, source.address)
            connection.execute(SQL["signed_in"], account)
            audit.record(connection, [audit.row(who, "login", detail={"kind": kind})])
        return account, carried

    def _let_in(self, username: str, password: str, source: Source) -> Row:
        """The account of this name, if this is its password."""
        who = {"who": sha256(username.strip().lower().encode()).digest(), "address": source.address}
        with self._lanes[hash(who["who"]) % LANES]:
            self._not_too_often(who)
            account = self._account(username)
            kept = account["password"] if account else None
            good = self._passwords.verify(kept, password[: LONGEST + 1])
            if account is None or not good or account["disabled"]:
                self._failed(who, account, source)
                raise Unauthorized(WRONG)
            self._welcome(who, account, password)
        return account

    def _not_too_often(self, who: Row) -> None:
        limits = {"recent_failures": TRIES, "failures_from": TRIES_OF_ADDRESS}
        with transaction(self._pool) as connection:
            for name, most in limits.items():
                question = {**who, "seconds": WITHIN_SECONDS, "most": most}
                row = connection.execute(SESSIONS[name], question).fetchone()
                if row is not None and row[0] >= most:
                    wait = max(ceil(row[1]), 1)
                    raise TooManyAttempts(f"Too many wrong passwords; try again in {ceil(wait / 60)} minutes.", wait)

    def _account(self, username: str) -> Row | None:
        with transaction(self._pool) as connection:
            cursor = connection.cursor(row_factory=dict_row)
            name = username.strip().lower().replace("\0", "")
            return cursor.execute(SQL["to_verify"], {"username": name}).fetchone()

    def _failed(self, who: Row, account: Row | None, source: Source) -> None:
        actor = Source(source.door, account["username"] if account else UNKNOWN, source.address)
        log.warning("login_refused", door=source.door, address=source.address)
        with transaction(self._pool) as connection:
            connection.execute(SESSIONS["failed"], who)
            audit.record(connection, [audit.row(actor, "login", outcome="refused")])

    def _welcome(self, who: Row, account: Row, password: str) -> None:
        outdated = self._passwords.outdated(account["password"])
        hashed = self._passwords.hash(password) if outdated else ""
        with transaction(self._pool) as connection:
            connection.execute(SESSIONS["forgive"], who)
            if hashed:
                connection.execute(SQL["rehash"], {"pk": account["pk"], "old": account["password"], "password": hashed})
        account["password"] = hashed or account["password"]
