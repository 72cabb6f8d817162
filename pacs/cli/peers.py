"""`filmroom peers`: who is known by AE title, and whether one can be reached."""

import argparse
import dataclasses
import json
from typing import Any

from pacs.services.calls import Peers
from pacs.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own verbs."""
    verbs = parser.add_subparsers(dest="what", metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="known AE titles, and what each may do")
    testing = verbs.add_parser("test", help="C-ECHO to a peer, over TLS where its entry says so")
    testing.add_argument("name", metavar="NAME", help="its AE title")
    for verb in (listing, testing):
        verb.add_argument("--json", action="store_true", help="JSON on standard output")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do one of them. Exit code 0 only when all went well."""
    peers = Peers(settings)
    return _test(peers, args) if args.what == "test" else _list(peers, args, settings)


def _list(peers: Peers, args: argparse.Namespace, settings: Settings) -> int:
    rows = peers.list()
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        print(f"{row['name']:<16}  {_place(row):<28}  {', '.join(row['networks']) or 'nowhere'}")
        print(f"{'':<16}  {_terms(row)}")
    if not rows:
        print(f"No peers: {settings.peers_file} names none. On loopback every caller is welcome, from elsewhere none.")
    return 0


def _place(row: dict[str, Any]) -> str:
    if not row["host"]:
        return "calls only"
    return f"{row['host']}:{row['port'] or '?'}{' TLS' if row['tls'] else ''}"


def _terms(row: dict[str, Any]) -> str:
    words = [" ".join(row["services"])]
    words += ["certificate"] * bool(row["fingerprint"]) + ["identity"] * row["require_identity"]
    if row["max_associations"]:
        words.append(f"at most {row['max_associations']} associations")
    return ", ".join(words)


def _test(peers: Peers, args: argparse.Namespace) -> int:
    reached = peers.test(args.name)
    if args.json:
        print(json.dumps(dataclasses.asdict(reached)))
    else:
        print(f"{'ok' if reached.ok else 'FAILED'}      {reached.message} ({reached.ms:g} ms)")
    return 0 if reached.ok else 1
