"""Accounts of people: made, changed and removed by administrators; each changes the own password.

An administrator who can still come in is always left: what would take the last one away is refused.
"""

import re
from collections.abc import Mapping
from typing import Any

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from pacs.domain.events import Source
from pacs.domain.roles import ADMIN, checked_roles, checked_scope
from pacs.errors import BadRequest, Conflict, NotFound
from pacs.index.named import queries
from pacs.index.pool import Connection, transaction
from pacs.services import audit
from pacs.services.passwords import Passwords, checked
from pacs.services.sessions import Sessions

SQL = queries("accounts")
Row = dict[str, Any]

USERNAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
EMAIL = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f]{1,190}")
RESERVED = frozenset({"local", "anonymous", "system", "node", "smoke"})  # whom audit rows name without an account
CHANGEABLE = frozenset({"email", "password", "roles", "disabled", "scope"})


class Accounts:
    """Thread-safe. All methods raise Unavailable when the database is away."""

    def __init__(self, pool: ConnectionPool[Any], passwords: Passwords, sessions: Sessions) -> None:
        self._pool, self._passwords, self._sessions = pool, passwords, sessions

    def create(
        self,
        username: object,
        password: object,
        roles: object,
        source: Source,
        *,
        email: object = "",
        scope: object = None,
    ) -> Row:
        """A new account. Raises BadRequest, or Conflict when there is one of that name."""
        name = named(username)
        if name in RESERVED:
            raise BadRequest("This name stands for something else in the audit trail; choose another.")
        held = checked_roles(roles)
        visible = checked_scope(scope, held)
        row = {
            "username": name,
            "email": _email(email),
            "roles": held,
            "scope": Jsonb(visible.as_json()) if visible else None,
            "password": self._passwords.hash(checked(password, name)),
        }
        with transaction(self._pool) as connection:
            if connection.execute(SQL["add"], row).fetchone() is None:
                raise Conflict("There is an account of that name already; change it, or choose another name.")
            _note(connection, source, "account-create", name, {"roles": held})
        return self.get(name)

    def list(self) -> list[Row]:
        """All accounts by name, without what they are let in by."""
        with transaction(self._pool) as connection:
            return connection.cursor(row_factory=dict_row).execute(SQL["list"]).fetchall()

    def get(self, username: object) -> Row:
        """One account. Raises NotFound."""
        with transaction(self._pool) as connection:
            return _get(connection, _known(username))

    def any(self) -> bool:
        """Whether there is an account at all."""
        with transaction(self._pool) as connection:
            row = connection.execute(SQL["count"]).fetchone()
            return row is not None and row[0] > 0

    def change(self, username: object, changes: Mapping[str, object], source: Source) -> Row:
        """Change email, password, roles, scope, or whether the account is disabled. Raises NotFound, BadRequest,
        and Conflict when no administrator would be left.

        A new password, or the end of the account's use, ends its sessions.
        """
        name = _known(username)
        if not changes or not set(changes) <= CHANGEABLE:
            raise BadRequest(f"What can be changed is: {', '.join(sorted(CHANGEABLE))}.")
        password = changes.get("password")
        hashed = None if password is None else self._passwords.hash(checked(password, name))
        with transaction(self._pool) as connection:
            connection.execute(SQL["lock"])
            wanted = _changed(_get(connection, name), changes)
            connection.execute(SQL["change"], {**wanted, "username": name, "password": hashed})
            _administrator_is_left(connection)
            if hashed is not None or wanted["disabled"]:
                self._sessions.end_of_account(connection, name, "disabled" if wanted["disabled"] else "password")
            _note(connection, source, "account-change", name, {"changed": sorted(changes)})
        return self.get(name)

    def remove(self, username: object, source: Source) -> None:
        """Remove an account, its sessions and its tokens; audit rows keep its name.

        Raises NotFound, or Conflict when no administrator would be left.
        """
        name = _known(username)
        with transaction(self._pool) as connection:
            connection.execute(SQL["lock"])
            if connection.execute(SQL["remove"], {"username": name}).rowcount == 0:
                raise NotFound("There is no such account.")
            _administrator_is_left(connection)
            _note(connection, source, "account-remove", name, {})


def named(username: object) -> str:
    """A username in the form it is kept in. Raises BadRequest."""
    name = username.strip().lower() if isinstance(username, str) else ""
    if not USERNAME.fullmatch(name):
        raise BadRequest("username is 1 to 64 letters, digits and . _ @ -, and begins with a letter or digit.")
    return name


def _known(username: object) -> str:
    try:
        return named(username)
    except BadRequest as error:
        raise NotFound("There is no such account.") from error


def _email(email: object) -> str:
    if email in {"", None}:
        return ""
    if not isinstance(email, str) or not EMAIL.fullmatch(email):
        raise BadRequest("email is an address such as a.person@hospital.example.")
    return email


def _get(connection: Connection, name: str) -> Row:
    row = connection.cursor(row_factory=dict_row).execute(SQL["get"], {"username": name}).fetchone()
    if row is None:
        raise NotFound("There is no such account.")
    return row


def _changed(now: Row, changes: Mapping[str, object]) -> Row:
    disabled = changes.get("disabled", now["disabled"])
    if not isinstance(disabled, bool):
        raise BadRequest("disabled is true or false.")
    roles = checked_roles(changes.get("roles", now["roles"]))
    visible = checked_scope(changes.get("scope", now["scope"]), roles)
    return {
        "email": _email(changes.get("email", now["email"])),
        "roles": roles,
        "scope": Jsonb(visible.as_json()) if visible else None,
        "disabled": disabled,
    }


def _administrator_is_left(connection: Connection) -> None:
    row = connection.execute(SQL["administrators"]).fetchone()
    if row is None or row[0] == 0:
        raise Conflict(f"Nobody could change accounts any more; give somebody else the role {ADMIN} first.")


def _note(connection: Connection, source: Source, action: str, name: str, detail: Row) -> None:
    audit.record(connection, [audit.row(source, action, detail={"account": name, **detail})])
