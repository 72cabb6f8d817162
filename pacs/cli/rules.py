"""`filmroom rules`: what is forwarded where, what waits, what was given up, and trying that again."""

import argparse
import json
from collections.abc import Callable, Mapping

from pacs import node as nodes
from pacs.domain.uids import is_uid
from pacs.errors import BadRequest
from pacs.node import Node
from pacs.services.forward_rules import Rule
from pacs.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listed = actions.add_parser("list", help="the rules, and each destination's queue")
    tested = actions.add_parser("test", help="what the rules would do with a study; nothing is sent")
    tested.add_argument("--study", required=True, metavar="UID", help="Study Instance UID")
    dead = actions.add_parser("dead", help="objects that were given up, and why")
    replayed = actions.add_parser("replay", help="try objects again that were given up")
    replayed.add_argument("ids", nargs="*", type=int, metavar="ID", help="numbers that `rules dead` prints")
    replayed.add_argument("--all", action="store_true", help="all of them")
    for action in (dead, replayed):
        action.add_argument("--destination", default="", help="of this AE title or URL only")
    for action in (listed, tested, dead, replayed):
        action.add_argument("--json", action="store_true", help="one JSON object on standard output")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do it; exit code 0 only when all went well."""
    node = nodes.build(settings, component="rules")
    try:
        return _ACTIONS[args.action](args, node)
    finally:
        node.close()


def _list(args: argparse.Namespace, node: Node) -> int:
    rules, board = node.forwarding.rules.rules(), node.forwarding.board()
    if args.json:
        print(json.dumps({"rules": [_described(rule) for rule in rules], "destinations": board}, default=str))
        return 0
    for rule in rules:
        wanted = "everything" if not rule.conditions else f"{len(rule.conditions)} keys must match"
        senders = f", from {', '.join(rule.sources)}" if rule.sources else ""
        results = ", results of models too" if rule.results else ""
        print(f"{rule.name}: to {rule.destination}: {wanted}{senders}{results}")
    if not rules:
        print(f"There is no rule in {node.settings.rules_file}.")
    for row in board:
        held = f", held until {row['retry_at']:%H:%M:%S}: {row['message']}" if row["retry_at"] else ""
        print(f"{row['destination']}: {row['waiting']} waiting, {row['sent']} sent, {row['dead']} given up{held}")
    return 0


def _described(rule: Rule) -> dict[str, object]:
    return {
        "name": rule.name,
        "destination": rule.destination,
        "match": {".".join(f"{tag:08X}" for tag in one.path): list(one.values) for one in rule.conditions},
        "from": list(rule.sources),
        "results": rule.results,
    }


def _test(args: argparse.Namespace, node: Node) -> int:
    if not is_uid(args.study):
        raise BadRequest("--study must be a Study Instance UID.")
    found = node.forwarding.judge(args.study)
    if args.json:
        rows = [{"rule": one.rule.name, "destination": one.rule.destination, **one.counts} for one in found]
        print(json.dumps({"study": args.study, "rules": rows}))
        return 0
    for one in found:
        words = ", ".join(f"{what} {count}" for what, count in one.counts.items()) or "nothing matches"
        print(f"{one.rule.name}: to {one.rule.destination}: {words}")
    if not found:
        print(f"There is no rule in {node.settings.rules_file}.")
    return 0


def _dead(args: argparse.Namespace, node: Node) -> int:
    rows = node.forwarding.dead(args.destination)
    if args.json:
        print(json.dumps({"items": rows}, default=str))
        return 0
    for row in rows:
        print(f"{row['id']}  {row['sop_instance_uid']}  to {row['destination']}, rule {row['rule']}: {row['message']}")
    print(f"{len(rows)} given up" + ("; filmroom rules replay ID ... or --all tries again" if rows else ""))
    return 0


def _replay(args: argparse.Namespace, node: Node) -> int:
    everything = args.all or bool(args.destination and not args.ids)
    if not (everything or args.ids):
        raise BadRequest("Say which: numbers that `filmroom rules dead` prints, --destination, or --all.")
    count = node.forwarding.replay(args.ids, destination=args.destination, everything=everything)
    print(json.dumps({"replayed": count}) if args.json else f"{count} will be tried again")
    return 0 if count else 1


_ACTIONS: Mapping[str, Callable[[argparse.Namespace, Node], int]] = {
    "list": _list,
    "test": _test,
    "dead": _dead,
    "replay": _replay,
}
