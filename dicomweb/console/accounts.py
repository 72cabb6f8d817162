"""Users and tokens, for administrators: one page, one form a row."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import jinja2
from starlette.requests import Request
from starlette.responses import Response

from dicomweb import auth, problems
from dicomweb.auth import line
from dicomweb.console.login import require_proof
from dicomweb.console.shown import shown
from dicomweb.resources import identity_of, run, source
from pacs.domain.events import Source
from pacs.domain.roles import ROLES, VISIBLE_BY
from pacs.errors import BadRequest, FilmroomError

if TYPE_CHECKING:
    from pacs.node import Node

Fields = dict[str, Any]
DAYS = 90


class Said:
    """What became of a form: a sentence, and a secret that is shown this once."""

    def __init__(self, sentence: str = "", secret: str = "") -> None:
        self.sentence, self.secret = sentence, secret


class AccountPages:
    """The page of users and tokens."""

    def __init__(self, node: "Node", templates: jinja2.Environment) -> None:
        self.node, self.templates = node, templates
        self.acts: dict[str, Callable[[Request, Fields, Source], Awaitable[Said]]] = {
            "add-user": self._add_user,
            "set-roles": self._set_roles,
            "disable": self._switch,
            "enable": self._switch,
            "new-password": self._new_password,
            "remove": self._remove,
            "add-token": self._add_token,
            "revoke": self._revoke,
        }

    async def page(self, request: Request) -> Response:
        """All users and tokens; a form changes one of them and shows the page again."""
        if request.method != "POST":
            return await self._shown(request, Said())
        try:
            fields = await auth.form(request)
            require_proof(self.node, request, fields)
            act = self.acts.get(str(fields.get("act", "")))
            if act is None:
                raise BadRequest("The form asks for nothing that can be done here.")
            said = await act(request, fields, source(request, self.node.settings, "console"))
        except FilmroomError as error:
            return await self._shown(request, Said(), error)
        self.node.credentials.forget()
        return await self._shown(request, said)

    async def _shown(self, request: Request, said: Said, error: FilmroomError | None = None) -> Response:
        users, tokens = await run(lambda: (self.node.accounts.list(), self.node.tokens.list()))
        context = {
            "users": users,
            "tokens": [row for row in tokens if row["revoked_at"] is None],
            "roles": tuple(ROLES),
            "now": datetime.now(UTC),
            "days": DAYS,
            "said": said,
            "error": error.message if error else "",
        }
        status = problems.status_of(error) if error else 200
        return shown(self.node, self.templates, request, "accounts.html", status, **context)

    async def _add_user(self, request: Request, fields: Fields, asker: Source) -> Said:
        secret = self.node.passwords.generate()
        name, email, roles = fields.get("username"), fields.get("email", ""), _roles(fields)
        scope = _scope(fields)
        call = lambda: self.node.accounts.create(name, secret, roles, asker, email=email, scope=scope)  # noqa: E731
        row = await line(request).wait(call)
        return Said(f"{row['username']} may come in now, with this password:", secret)

    async def _set_roles(self, request: Request, fields: Fields, asker: Source) -> Said:
        return await self._change(request, fields, asker, {"roles": _roles(fields)}, "has other roles now")

    async def _switch(self, request: Request, fields: Fields, asker: Source) -> Said:
        disabled = fields["act"] == "disable"
        told = "is disabled; all sessions have ended" if disabled else "may come in again"
        return await self._change(request, fields, asker, {"disabled": disabled}, told)

    async def _new_password(self, request: Request, fields: Fields, asker: Source) -> Said:
        secret = self.node.passwords.generate()
        said = await self._change(request, fields, asker, {"password": secret}, "has this password now:")
        return Said(said.sentence.rstrip("."), secret)

    async def _change(self, request: Request, fields: Fields, asker: Source, changes: Fields, told: str) -> Said:
        name = fields.get("username")
        row = await line(request).wait(lambda: self.node.accounts.change(name, changes, asker))
        return Said(f"{row['username']} {told}.")

    async def _remove(self, _request: Request, fields: Fields, asker: Source) -> Said:
        name = fields.get("username")
        await run(lambda: self.node.accounts.remove(name, asker))
        return Said(f"{name} is removed; the audit trail keeps the name.")

    async def _add_token(self, request: Request, fields: Fields, asker: Source) -> Said:
        who = identity_of(request)
        days = str(fields.get("days", DAYS))
        if not (days.isascii() and days.isdecimal() and len(days) < 5):
            raise BadRequest("For how many days the token is good is a whole number.")
        end, owner = datetime.now(UTC) + timedelta(days=int(days)), who.actor if who and who.session else ""
        name, roles, scope = fields.get("name"), _roles(fields), _scope(fields)
        call = lambda: self.node.tokens.create(name, roles, asker, expires_at=end, scope=scope, owner=owner)  # noqa: E731
        made = await run(call)
        return Said(f"{made.name} is good until {made.expires_at:%Y-%m-%d}:", made.token)

    async def _revoke(self, _request: Request, fields: Fields, asker: Source) -> Said:
        token = str(fields.get("token", ""))
        await run(lambda: self.node.tokens.revoke(token, asker))
        return Said("The token is worth nothing any more.")


def _roles(fields: Fields) -> list[str]:
    """The roles whose boxes are ticked."""
    return [role for role in ROLES if f"role-{role}" in fields]


def _scope(fields: Fields) -> dict[str, list[str]] | None:
    """Words separated by commas, by what they name; None where all fields are empty."""
    found = {name: [word.strip() for word in str(fields.get(name, "")).split(",")] for name in VISIBLE_BY}
    kept = {name: [word for word in words if word] for name, words in found.items()}
    return {name: words for name, words in kept.items() if words} or None
