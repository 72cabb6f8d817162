"""`filmroom user`: who has an account, and what may they do."""

import argparse
import getpass
import json
import sys
from collections.abc import Callable
from typing import Any

from pacs.cli.people import add_password_arguments, opened, operator, password_from, show_password
from pacs.domain.roles import ROLES, VISIBLE_BY
from pacs.errors import BadRequest
from pacs.node import Node
from pacs.settings import Settings

Row = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own verbs."""
    verbs = parser.add_subparsers(dest="what", metavar="VERB", required=True)
    for name, (text, _) in ACTS.items():
        verb = verbs.add_parser(name, help=text, description=text)
        verb.add_argument("--json", action="store_true", help="for programs")
        if name != "list":
            verb.add_argument("username")
        if name == "create":
            verb.add_argument("--email", default="")
        if name in {"create", "roles"}:
            add_role_arguments(verb)
        if name in {"create", "passwd"}:
            add_password_arguments(verb)


def add_role_arguments(parser: argparse.ArgumentParser) -> None:
    """Roles, and the part of the archive they are good for."""
    parser.add_argument("--role", action="append", required=True, choices=list(ROLES), help="may be given again")
    for name, what in (("institution", "institution name"), ("ae", "calling AE title"), ("label", "label")):
        parser.add_argument(
            f"--{name}", action="append", default=[], help=f"only studies of this {what}; again for more"
        )


def scope_from(args: argparse.Namespace) -> dict[str, list[str]] | None:
    """The scope that these arguments give; None is every study."""
    found = dict(zip(VISIBLE_BY, (args.institution, args.ae, args.label), strict=True))
    return {name: words for name, words in found.items() if words} or None


def run(args: argparse.Namespace, settings: Settings) -> int:
    with opened(settings, "accounts") as node:
        return ACTS[args.what][1](node, args)


def _list(node: Node, args: argparse.Namespace) -> int:
    rows = node.accounts.list()
    if args.json:
        print(json.dumps(rows, default=str))
        return 0
    for row in rows:
        marks = [*(["disabled"] if row["disabled"] else []), *(["part of the archive"] if row["scope"] else [])]
        came = f"{row['signed_in_at']:%Y-%m-%d %H:%M}" if row["signed_in_at"] else "never"
        print(f"{row['username']:<24} {','.join(row['roles']):<24} last in: {came:<16} {', '.join(marks)}".rstrip())
    if not rows:
        print("Nobody has an account; make the first one with: filmroom create-admin --username NAME")
    return 0


def _create(node: Node, args: argparse.Namespace) -> int:
    password, made = password_from(args)
    row = node.accounts.create(args.username, password, args.role, operator(), email=args.email, scope=scope_from(args))
    _say(args, row, f"{row['username']} may come in now, as {', '.join(row['roles'])}.")
    if made:
        show_password(row["username"], password)
    return 0


def _roles(node: Node, args: argparse.Namespace) -> int:
    changes = {"roles": args.role, "scope": scope_from(args)}
    row = node.accounts.change(args.username, changes, operator())
    _say(args, row, f"{row['username']} is {', '.join(row['roles'])} now.")
    return 0


def _switch(disabled: bool) -> Callable[[Node, argparse.Namespace], int]:
    def act(node: Node, args: argparse.Namespace) -> int:
        row = node.accounts.change(args.username, {"disabled": disabled}, operator())
        told = "is disabled; all sessions and tokens have ended" if disabled else "may come in again"
        _say(args, row, f"{row['username']} {told}.")
        return 0

    return act


def _passwd(node: Node, args: argparse.Namespace) -> int:
    password, made = _typed() if _by_hand(args) else password_from(args)
    row = node.accounts.change(args.username, {"password": password}, operator())
    _say(args, row, f"The password of {row['username']} is changed; all sessions have ended.")
    if made:
        show_password(row["username"], password)
    return 0


def _remove(node: Node, args: argparse.Namespace) -> int:
    node.accounts.remove(args.username, operator())
    _say(args, {"removed": args.username}, f"{args.username} is removed; the audit trail keeps the name.")
    return 0


def _by_hand(args: argparse.Namespace) -> bool:
    return args.password is None and not args.password_stdin and sys.stdin.isatty()


def _typed() -> tuple[str, bool]:
    """A password typed twice, unseen."""
    first = getpass.getpass("New password: ")
    if first != getpass.getpass("Once more: "):
        raise BadRequest("The two passwords differ; nothing was changed.")
    return first, False


def _say(args: argparse.Namespace, row: Row, sentence: str) -> None:
    print(json.dumps(row, default=str) if args.json else sentence)


ACTS: dict[str, tuple[str, Callable[[Node, argparse.Namespace], int]]] = {
    "list": ("who has an account", _list),
    "create": ("give somebody an account", _create),
    "roles": ("what somebody may do, and in which part of the archive", _roles),
    "disable": ("end all that somebody has open, and let them in no more", _switch(True)),
    "enable": ("let somebody in again", _switch(False)),
    "passwd": ("give somebody a new password; all sessions end", _passwd),
    "remove": ("remove an account with its sessions and tokens", _remove),
}
