"""Who may do what: THE table of roles, and the part of the archive that somebody may see.

A route names one permission (`dicomweb/app.py`), a role holds some. What is not in this table nobody may do.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pacs.errors import BadRequest

PUBLIC = "public"  # asked of nobody
SIGNED_IN = "signed-in"  # held by everybody who is known, whatever the role

READING = frozenset({"search", "retrieve", "ai"})
SIDECAR = READING | {"store", "ai-control", "changes"}

PERMISSIONS: Mapping[str, str] = {
    "search": "find studies",
    "retrieve": "fetch objects, pictures, metadata",
    "store": "store objects",
    "delete": "delete studies, series, objects",
    "review": "accept or reject results of the AI",
    "ai": "see models, jobs and timelines of the AI",
    "ai-control": "run, retry, cancel and drop jobs of the AI",
    "worklist": "plan what modalities are to do, and see what is planned",
    "changes": "follow the change feed",
    "status": "see state, refusals and conflicts of the node",
    "metrics": "read the measurements of the node",
    "audit": "see who did what",
    "accounts": "make and change users and tokens",
    "control": "change the state of the node: maintenance, conflicts, peers, labels",
}

ROLES: Mapping[str, frozenset[str]] = {
    "viewer": READING,
    "uploader": frozenset({"store"}),
    "clinician": READING | {"review"},
    "ai": SIDECAR,
    "planner": frozenset({"worklist"}),  # the program that fills the modality worklist
    "auditor": frozenset({"audit"}),
    "monitor": frozenset({"metrics", "status"}),
    "admin": frozenset(PERMISSIONS),
}
ADMIN = "admin"
# what somebody who sees a part of the archive may hold: all of it can be kept to that part
WITHIN_SCOPE = frozenset({"viewer", "uploader", "clinician"})


@dataclass(frozen=True, slots=True)
class Visible:
    """Studies of these institutions, from these calling AE titles, or with these labels; any one of them suffices."""

    institutions: tuple[str, ...] = ()
    aes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def as_json(self) -> dict[str, list[str]]:
        """As it is stored and shown."""
        return {name: list(getattr(self, name)) for name in VISIBLE_BY}


VISIBLE_BY = ("institutions", "aes", "labels")
MOST_WORDS, LONGEST_WORD = 200, 64


@dataclass(frozen=True, slots=True)
class Credential:
    """What a request shows of who sends it."""

    kind: Literal["bearer", "cookie"]
    text: str


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks. `actor` is the name that audit rows carry; `session` is what a logout ends."""

    actor: str
    roles: tuple[str, ...]
    permissions: frozenset[str]
    visible: Visible | None = None  # None: every study
    kind: str = "local"  # local, bearer, cookie, token, oidc, node
    session: str = ""

    def may(self, permission: str) -> bool:
        """Whether this permission is held."""
        return permission == SIGNED_IN or permission in self.permissions


def permissions_of(roles: Iterable[str]) -> frozenset[str]:
    """All that these roles may do; a role that is none adds nothing."""
    return frozenset().union(*(ROLES.get(role, frozenset()) for role in roles))


def identity(
    actor: str, roles: Iterable[str], *, visible: Visible | None = None, kind: str = "local", session: str = ""
) -> Identity:
    """Somebody with these roles."""
    held = tuple(roles)
    return Identity(actor, held, permissions_of(held), visible, kind, session)


def checked_roles(roles: object) -> list[str]:
    """The roles in the order of the table, each once. Raises BadRequest naming those that there are."""
    if not isinstance(roles, list | tuple) or not roles or not all(role in ROLES for role in map(str, roles)):
        raise BadRequest(f"roles is a list of some of: {', '.join(ROLES)}.")
    return [role for role in ROLES if role in roles]


def checked_scope(scope: object, roles: Iterable[str]) -> Visible | None:
    """The scope of an account with these roles; None is every study. Raises BadRequest."""
    if scope is None:
        return None
    if not isinstance(scope, dict) or not set(scope) <= set(VISIBLE_BY):
        raise BadRequest(f"scope is null, or lists of words under: {', '.join(VISIBLE_BY)}.")
    found = Visible(**{name: _words(scope.get(name, []), name) for name in VISIBLE_BY})
    if found == Visible():
        raise BadRequest("A scope without a word shows nothing; name some, or give null for every study.")
    if beyond := sorted(set(roles) - WITHIN_SCOPE):
        raise BadRequest(f"A scope goes with the roles {', '.join(sorted(WITHIN_SCOPE))} only, not {beyond[0]}.")
    return found


def visible_from(stored: Mapping[str, Any] | None) -> Visible | None:
    """The scope as the database keeps it."""
    return None if stored is None else Visible(**{name: tuple(stored.get(name, ())) for name in VISIBLE_BY})


def _words(given: object, name: str) -> tuple[str, ...]:
    fine = isinstance(given, list) and len(given) <= MOST_WORDS
    if not fine or not all(
        isinstance(word, str) and 0 < len(word.strip()) <= LONGEST_WORD and "\0" not in word
        for word in given  # type: ignore[attr-defined]
    ):
        raise BadRequest(f"{name} is a list of at most {MOST_WORDS} words of up to {LONGEST_WORD} characters.")
    return tuple(dict.fromkeys(word.strip() for word in given))  # type: ignore[attr-defined]
