"""`filmroom keys rotate`: another key to sign with."""

import argparse
import json

from pacs.cli.people import opened
from pacs.hardening import new_key, with_secret_key
from pacs.services.sessions import LIFE_SECONDS
from pacs.settings import Settings

OUTSIDE = """SECRET_KEY is set from outside, so it is changed there. Set, for all processes of the node:
  SECRET_KEY={new}
{previous}and restart them. {effect}"""
OVERLAP = "  SECRET_KEY_PREVIOUS=(the key of now)\n"
HEARD = "Tokens of now stay good until they end; after {days} days remove SECRET_KEY_PREVIOUS."
DEAD = "Everybody has to sign in anew; API tokens stay good (revoke them with: filmroom token revoke)."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("rotate",))
    parser.add_argument("--revoke", action="store_true", help="the old key is worth nothing at once: all sessions end")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Make a new key where the home keeps it: processes that run take it within seconds. Else say what to set."""
    days = int(max(LIFE_SECONDS.values()) // 86400)
    with opened(with_secret_key(settings), "accounts") as node:
        if args.revoke:
            node.sessions.end_all("keys")
        if not node.keys.kept:
            return _outside(args, days)
        node.keys.rotate(overlap=not args.revoke)
    effect = DEAD if args.revoke else f"The key before it is heard for {days} days more; --revoke would end it at once."
    if args.json:
        print(json.dumps({"rotated": True, "revoked": args.revoke, "kept_in": str(settings.home / "secret_key")}))
    else:
        print(f"A new key is in {settings.home / 'secret_key'}; running processes take it within seconds. {effect}")
    return 0


def _outside(args: argparse.Namespace, days: int) -> int:
    """Nothing is changed but what the operator changes; exit code 3 says so to programs."""
    new, effect = new_key(), DEAD if args.revoke else HEARD.format(days=days)
    if args.json:
        print(json.dumps({"rotated": False, "secret_key": new, "message": "Set it as SECRET_KEY and restart."}))
    else:
        print(OUTSIDE.format(new=new, previous="" if args.revoke else OVERLAP, effect=effect))
    return 3
