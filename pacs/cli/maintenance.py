"""`filmroom maintenance`: AI jobs wait, storing if wanted too; `drain` returns when nothing runs any more."""

import argparse
import getpass
import json
import sys
import time
from dataclasses import asdict

from pacs import node as nodes
from pacs.domain.events import Source
from pacs.node import Node
from pacs.services.gate import Maintenance
from pacs.services.maintenance import Remaining, Since
from pacs.settings import Settings

TIMEOUT_SECONDS = 600.0
LINE_SECONDS = 10.0
JOBS_SHOWN = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    actions = {"on": _on, "drain": _drain, "off": _off, "status": _status}
    parser.add_argument("action", choices=list(actions))
    parser.add_argument("--timeout", type=float, default=TIMEOUT_SECONDS, metavar="S", help="drain: seconds to wait")
    parser.add_argument("--refuse-stores", action="store_true", help="on, drain: take no new objects either")
    parser.add_argument("--message", default="", metavar="TEXT", help="on, drain: shown on every page of the console")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.set_defaults(actions=actions)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do it. `drain`: 0 when nothing runs any more, 1 with what still runs when the time is over."""
    node = nodes.build(settings, component="maintenance")
    try:
        return int(args.actions[args.action](args, node))
    finally:
        node.close()


def _on(args: argparse.Namespace, node: Node) -> int:
    state = node.maintenance.on(_who(), message=args.message, refuse_stores=args.refuse_stores)
    if args.json:
        print(json.dumps(node.maintenance.as_json()))
    else:
        print(f"{state.sentence}\nWhat runs already goes on. To wait for it: filmroom maintenance drain")
    return 0


def _drain(args: argparse.Namespace, node: Node) -> int:
    _ensure_on(args, node)
    remaining = Remaining()
    with _Shown(quiet=args.json) as shown:
        for remaining in node.maintenance.drain(args.timeout):
            shown.show(remaining)
    if args.json:
        print(json.dumps({"drained": remaining.nothing, **asdict(remaining)}))
    elif remaining.nothing:
        print("Nothing runs.")
    else:
        print(f"Not drained in {args.timeout:g} s; still at work:", file=sys.stderr)
        print("\n".join(f"  {line}" for line in remaining.lines()), file=sys.stderr)
    return 0 if remaining.nothing else 1


def _ensure_on(args: argparse.Namespace, node: Node) -> None:
    """Draining without the switch would never end: what ends is followed by what begins."""
    state = node.maintenance.now()
    if not state.on or (args.refuse_stores and not state.refuse_stores) or args.message:
        refuse = args.refuse_stores or (state.on and state.refuse_stores)
        message = args.message or (state.message if state.on else "")
        state = node.maintenance.on(_who(), message=message, refuse_stores=refuse)
        print(state.sentence, file=sys.stderr)


def _off(args: argparse.Namespace, node: Node) -> int:
    window, happened = node.maintenance.off(_who())
    if args.json:
        print(json.dumps({"was": window.state, "since": window.since, "happened": asdict(happened)}))
    else:
        print("\n".join(_ended(window, happened)))
    return 0


def _status(args: argparse.Namespace, node: Node) -> int:
    found = node.maintenance.as_json()
    if args.json:
        print(json.dumps(found))
        return 0
    state = node.maintenance.now()
    print(state.sentence or "Maintenance is off.")
    for line in node.maintenance.remaining().lines():
        print(f"  {line}")
    if state.on:
        print(_counted(node.maintenance.since(state)))
    return 0


def _ended(window: Maintenance, happened: Since) -> list[str]:
    if not window.on:
        return ["Maintenance was off already."]
    since = window.since[:19].replace("T", " ")
    return [f"Maintenance is off. Since {since} UTC:", f"  {_counted(happened)}"]


def _counted(happened: Since) -> str:
    return (
        f"{happened.stored} objects stored, {happened.refused} refused, {happened.jobs_planned} AI jobs planned; "
        f"{happened.jobs_queued} AI jobs queued now."
    )


def _who() -> Source:
    """The account that typed the command, for the audit trail."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's bare number
        name = "operator"
    return Source("cli", name)


class _Shown:
    """What still runs: one line that is drawn anew on a terminal, a line now and then elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet, self.terminal = quiet, sys.stderr.isatty()
        self._last = 0.0

    def __enter__(self) -> "_Shown":
        return self

    def __exit__(self, *_: object) -> None:
        if self.terminal and not self.quiet:
            sys.stderr.write("\r\x1b[K")

    def show(self, remaining: Remaining) -> None:
        due = self.terminal or time.monotonic() - self._last >= LINE_SECONDS
        if self.quiet or remaining.nothing or not due:
            return
        self._last = time.monotonic()
        jobs, storing = len(remaining.jobs), len(remaining.storing)
        line = f"{jobs} AI jobs run, {storing} processes store: {'; '.join(remaining.lines()[:JOBS_SHOWN])}"
        sys.stderr.write(f"\r\x1b[K{line[:79]}" if self.terminal else f"{line}\n")
        sys.stderr.flush()
