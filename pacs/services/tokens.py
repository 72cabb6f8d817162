"""API tokens: for programs that come every day, with a name, roles and an end, shown once and kept as a digest."""

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from pacs.domain.events import Source
from pacs.domain.roles import Identity, checked_roles, checked_scope, identity, visible_from
from pacs.errors import BadRequest, Conflict, NotFound
from pacs.index.named import queries
from pacs.index.pool import transaction
from pacs.services import audit

SQL = queries("tokens")
Row = dict[str, Any]

PREFIX = "frt_"  # by which people, and those who look for leaked secrets, know one
DEFAULT_LIFE, LONGEST_LIFE = timedelta(days=90), timedelta(days=3660)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}")


@dataclass(frozen=True, slots=True)
class Made:
    """A new token; `token` is never shown again."""

    id: int
    name: str
    roles: list[str]
    expires_at: datetime
    token: str
    scope: dict[str, list[str]] | None = None


class Tokens:
    """Makes, lists, checks and revokes. Thread-safe. All methods raise Unavailable."""

    def __init__(self, pool: ConnectionPool[Any]) -> None:
        self._pool = pool

    def create(
        self,
        name: object,
        roles: object,
        source: Source,
        *,
        expires_at: datetime | None = None,
        scope: object = None,
        owner: str = "",
    ) -> Made:
        """A new token, good for 90 days unless `expires_at` (aware) says otherwise.

        `owner` is the account that makes it: when that is disabled or removed the token ends. Raises BadRequest, and
        Conflict when a token of that name is in use.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise BadRequest("name is 1 to 64 letters, digits, spaces and . _ @ -, and begins with a letter or digit.")
        held = checked_roles(roles)
        visible = checked_scope(scope, held)
        now = datetime.now(UTC)
        end = expires_at or now + DEFAULT_LIFE
        if not now < end <= now + LONGEST_LIFE:
            raise BadRequest("expires_at must be later than now, and within ten years.")
        token = PREFIX + secrets.token_urlsafe(32)
        row = {
            "name": name,
            "digest": _digest(token),
            "roles": held,
            "scope": Jsonb(visible.as_json()) if visible else None,
            "owner": owner,
            "expires_at": end,
        }
        with transaction(self._pool) as connection:
            connection.execute(SQL["retire_ended"], row)
            found = connection.execute(SQL["add"], row).fetchone()
            if found is None:
                raise Conflict("A token of this name is in use; revoke it, or choose another name.")
            detail = {"token": name, "roles": held}
            audit.record(connection, [audit.row(source, "token-create", detail=detail)])
        return Made(found[0], name, held, end, token, visible.as_json() if visible else None)

    def list(self) -> list[Row]:
        """All tokens, newest first, those that have ended or were revoked too."""
        with transaction(self._pool) as connection:
            return connection.cursor(row_factory=dict_row).execute(SQL["list"]).fetchall()

    def revoke(self, token: str, source: Source) -> None:
        """End a token, by its id or its name. Raises NotFound."""
        with transaction(self._pool) as connection:
            found = connection.execute(SQL["revoke"], {"token": token.replace("\0", "")}).fetchone()
            if found is None:
                raise NotFound("No token of this id or name is in use.")
            audit.record(connection, [audit.row(source, "token-revoke", detail={"token": found[1]})])

    def who(self, shown: str) -> tuple[Identity, float] | None:
        """Who shows this token, and when (seconds since 1970) it ends; None where it is no good."""
        with transaction(self._pool) as connection:
            cursor = connection.cursor(row_factory=dict_row)
            row = cursor.execute(SQL["alive"], {"digest": _digest(shown)}).fetchone()
            if row is None:
                return None
            if row["unseen"]:
                connection.execute(SQL["used"], {"id": row["id"]})
        actor = f"token:{row['name']}"
        return identity(actor, row["roles"], visible=visible_from(row["scope"]), kind="token"), row["ends"]


def _digest(token: str) -> bytes:
    """The token is of 256 bits of chance: a plain digest cannot be guessed back."""
    return sha256(token.encode()).digest()
