"""`filmroom token`: tokens of programs."""

import argparse
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from pacs.cli.people import opened, operator
from pacs.cli.user import add_role_arguments, scope_from
from pacs.errors import BadRequest
from pacs.node import Node
from pacs.settings import Settings

DAYS = 90


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own verbs."""
    verbs = parser.add_subparsers(dest="what", metavar="VERB", required=True)
    for name, (text, _) in ACTS.items():
        verb = verbs.add_parser(name, help=text, description=text)
        verb.add_argument("--json", action="store_true", help="for programs")
        if name == "create":
            verb.add_argument("--name", required=True, help="what it is for; audit rows show it")
            verb.add_argument("--days", type=int, default=DAYS, help=f"how long it is good (default {DAYS})")
            verb.add_argument("--expires", help="or until when, such as 2030-01-31")
            add_role_arguments(verb)
        if name == "revoke":
            verb.add_argument("token", help="its name or its number")


def run(args: argparse.Namespace, settings: Settings) -> int:
    with opened(settings, "accounts") as node:
        return ACTS[args.what][1](node, args)


def _create(node: Node, args: argparse.Namespace) -> int:
    made = node.tokens.create(args.name, args.role, operator(), expires_at=_end(args), scope=scope_from(args))
    if args.json:
        shown = {"id": made.id, "name": made.name, "roles": made.roles, "expires_at": made.expires_at.isoformat()}
        print(json.dumps(shown | {"token": made.token}))
        return 0
    print(f"Good until {made.expires_at:%Y-%m-%d}, shown this once:")
    print(made.token)
    return 0


def _list(node: Node, args: argparse.Namespace) -> int:
    rows = node.tokens.list()
    if args.json:
        print(json.dumps(rows, default=str))
        return 0
    for row in rows:
        used = f"{row['used_at']:%Y-%m-%d %H:%M}" if row["used_at"] else "never"
        print(f"{row['id']:>4}  {row['name']:<24} {','.join(row['roles']):<20} used: {used:<16} {_state(row)}")
    if not rows:
        print("There is no token; make one with: filmroom token create --name NAME --role ROLE")
    return 0


def _revoke(node: Node, args: argparse.Namespace) -> int:
    node.tokens.revoke(args.token, operator())
    print(json.dumps({"revoked": args.token}) if args.json else f"{args.token} is worth nothing any more.")
    return 0


def _end(args: argparse.Namespace) -> datetime:
    if args.expires is None:
        return datetime.now(UTC) + timedelta(days=args.days)
    try:
        found = datetime.fromisoformat(args.expires)
    except ValueError as error:
        raise BadRequest("--expires is a day such as 2030-01-31, or a time.") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _state(row: dict[str, Any]) -> str:
    if row["revoked_at"]:
        return f"revoked {row['revoked_at']:%Y-%m-%d}"
    ends = row["expires_at"]
    return f"{'ended' if ends <= datetime.now(UTC) else 'good until'} {ends:%Y-%m-%d}"


ACTS: dict[str, tuple[str, Callable[[Node, argparse.Namespace], int]]] = {
    "create": ("make a token for a program; it is shown once", _create),
    "list": ("the tokens that there are, and were", _list),
    "revoke": ("end a token", _revoke),
}
