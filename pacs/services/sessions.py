"""Sessions: one sign-in of one person, by a browser's cookie or a program's chain of refresh tokens.

What is carried is `<id>.<secret>`; the table keeps a digest of it. Each refresh token is good once: shown a second time
it has been stolen, from us or from the thief, and the whole chain ends.
"""

import hmac
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from pacs.domain.events import Source
from pacs.domain.roles import Identity, identity, visible_from
from pacs.errors import Unauthorized
from pacs.index.named import queries
from pacs.index.pool import Connection, transaction
from pacs.services import audit
from pacs.services.duties import Duty
from pacs.services.keys import Keys

if TYPE_CHECKING:
    from pacs.node import Node

SQL = queries("sessions")

COOKIE, BEARER = "cookie", "bearer"
LIFE_SECONDS = {COOKIE: 12 * 3600.0, BEARER: 7 * 86400.0}
IDLE_SECONDS = 2 * 3600.0  # of a browser that nobody uses
SESSION, FORM = "session", "form"
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}(?=\.|$)")
ENDED = "The session has ended; sign in again."


@dataclass(frozen=True, slots=True)
class Grant:
    """What a program gets: an access token for `expires_in` seconds, and what gets it the next one."""

    access_token: str
    refresh_token: str
    expires_in: int
    token_type: str = "bearer"  # noqa: S105  not a secret, RFC 6749 5.1


class Sessions:
    """Opens, checks, renews and ends sessions. Thread-safe. All methods raise Unavailable."""

    def __init__(self, pool: ConnectionPool[Any], keys: Keys, access_seconds: float) -> None:
        self._pool, self._keys, self._access_seconds = pool, keys, access_seconds

    def open(self, connection: Connection, account_pk: int, kind: str, address: str) -> str:
        """Begin a session in the transaction that is open; what its owner carries."""
        id_ = secrets.token_urlsafe(16)
        carried = f"{id_}.{secrets.token_urlsafe(32)}"
        row = {
            "id": id_,
            "account_pk": account_pk,
            "kind": kind,
            "digest": self._keys.digest(SESSION, carried),
            "address": address,
            "seconds": LIFE_SECONDS[kind],
        }
        connection.execute(SQL["open"], row)
        return carried

    def grant(self, username: str, refresh_token: str) -> Grant:
        """The access token that goes with a refresh token that has just been made."""
        claims = {"sub": username, "sid": _id(refresh_token)}
        token = self._keys.sign(claims, self._access_seconds)
        return Grant(token, refresh_token, int(self._access_seconds))

    def refresh(self, shown: str, source: Source) -> Grant:
        """The next pair for the newest refresh token of a session. Raises Unauthorized.

        An older one of the same session ends it: somebody else has used it.
        """
        carried = f"{_id(shown)}.{secrets.token_urlsafe(32)}"
        row = {
            "id": _id(shown),
            "shown": self._keys.digests(SESSION, shown),
            "digest": self._keys.digest(SESSION, carried),
        }
        with transaction(self._pool) as connection:
            found = connection.execute(SQL["rotate"], row).fetchone()
            if found is None:
                self._end(connection, _id(shown), "reuse", source)
        if found is None:
            raise Unauthorized(ENDED, shown=True)
        return self.grant(found[0], carried)

    def of_cookie(self, carried: str) -> Identity | None:
        """Who carries this cookie, if its session still lives."""
        return self._alive(carried, COOKIE)

    def of_bearer(self, session_id: str) -> Identity | None:
        """Whose session an access token names, if it still lives."""
        return self._alive(session_id, BEARER)

    def _alive(self, carried: str, kind: str) -> Identity | None:
        id_ = _id(carried)
        with transaction(self._pool) as connection:
            cursor = connection.cursor(row_factory=dict_row)
            row = cursor.execute(SQL["alive"], {"id": id_, "idle": IDLE_SECONDS}).fetchone()
            if row is None or row["kind"] != kind:
                return None
            if kind == COOKIE:
                own = self._keys.digests(SESSION, carried)
                if not any(hmac.compare_digest(digest, row["digest"]) for digest in own):
                    return None
                if row["unseen"] or row["digest"] != own[0]:
                    connection.execute(SQL["seen"], {"id": id_, "digest": own[0]})
        return identity(row["username"], row["roles"], visible=visible_from(row["scope"]), kind=kind, session=id_)

    def end(self, session_id: str, source: Source) -> None:
        """End one session, as its owner wishes. What has ended already stays so."""
        with transaction(self._pool) as connection:
            self._end(connection, session_id, "logout", source)

    def end_of_account(self, connection: Connection, username: str, cause: str, *, but: str = "") -> None:
        """End all sessions of an account in the transaction that is open, but for one."""
        connection.execute(SQL["end_of_account"], {"username": username, "cause": cause, "except": but})

    def end_all(self, cause: str) -> None:
        """Everybody has to sign in anew."""
        with transaction(self._pool) as connection:
            connection.execute(SQL["end_all"], {"cause": cause})

    def form_proof(self, session_id: str) -> str:
        """What a form of ours holds when it is sent from this session, and a form of others cannot."""
        return self._keys.digest(FORM, session_id).hex()[:32]

    def proves_form(self, session_id: str, proof: str) -> bool:
        """Whether a form is one of ours, made for this session."""
        wanted = [digest.hex()[:32] for digest in self._keys.digests(FORM, session_id)]
        return any(hmac.compare_digest(proof.encode(), each.encode()) for each in wanted)

    def _end(self, connection: Connection, session_id: str, cause: str, source: Source) -> None:
        row = connection.execute(SQL["end"], {"id": session_id, "cause": cause}).fetchone()
        if row is not None:
            who = Source(source.door, row[0], source.address)
            outcome = "refused" if cause == "reuse" else "ok"
            audit.record(connection, [audit.row(who, "logout", outcome=outcome, detail={"cause": cause})])


def tidy(node: "Node") -> None:
    """Forget sessions and wrong passwords of long ago."""
    with transaction(node.pool) as connection:
        connection.execute(SQL["tidy"])
        connection.execute(SQL["tidy_failures"])


DUTIES = (Duty("tidy-sessions", 900.0, tidy),)


def _id(carried: str) -> str:
    """The part that names the session; "" names none."""
    found = _ID.match(carried)
    return found[0] if found else ""
