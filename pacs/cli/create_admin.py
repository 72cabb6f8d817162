"""`filmroom create-admin`: the first administrator, also while the node runs."""

import argparse
import json

from pacs.cli.people import add_password_arguments, opened, operator, password_from, show_password
from pacs.domain.roles import ADMIN
from pacs.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--username", required=True, help="letters, digits and . _ @ -")
    parser.add_argument("--email", default="", help="where the person is reached")
    parser.add_argument("--json", action="store_true", help="for programs")
    add_password_arguments(parser)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Make an account with the role admin. A password that is not given is made, and printed once."""
    password, made = password_from(args)
    with opened(settings, "accounts") as node:
        account = node.accounts.create(args.username, password, [ADMIN], operator(), email=args.email)
    if args.json:
        shown = {"username": account["username"], "email": account["email"], "roles": account["roles"]}
        print(json.dumps(shown | ({"password": password} if made else {})))
        return 0
    print(f"{account['username']} is an administrator now.")
    if made:
        show_password(account["username"], password)
    return 0
