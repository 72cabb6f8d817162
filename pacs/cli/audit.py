"""`filmroom audit`: who did what, whether the trail is whole, and the trail as DICOM audit messages."""

import argparse
import json
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

from pacs import node as nodes
from pacs.cli.progress import Progress
from pacs.cli.who import local_user
from pacs.domain.moments import moment
from pacs.node import Node
from pacs.services import auditmessage
from pacs.services.auditchain import head_of
from pacs.settings import Settings

Row = dict[str, Any]

PAGE = 1_000
COLUMNS = ("id", "at", "outcome", "action", "door", "actor", "address", "patient_id", "study_uid")
FILTERS = (
    ("--patient", "about this Patient ID, also where a list showed it; - reads it from standard input"),
    ("--study", "with this Study Instance UID"),
    ("--user", "by this user, AE title or program"),
    ("--from", "not before this day or time (2026-01-31, 2026-01-31T08:00:00Z)"),
    ("--to", "not after this day, or before this time"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own verbs."""
    verbs = parser.add_subparsers(dest="what", metavar="VERB", required=True)
    query = verbs.add_parser("query", help="who did what, newest first")
    verify = verbs.add_parser("verify", help="walk the whole chain; exit code 1 when a row does not fit")
    export = verbs.add_parser("export", help="the rows as DICOM audit messages (PS3.15 A.5), one XML a line")
    for verb in (query, export):
        for flag, text in FILTERS:
            verb.add_argument(flag, dest=f"{flag[2:]}_", metavar=flag[2:].upper(), help=text)
    query.add_argument("--limit", type=int, default=200, help="so many rows (200)")
    query.add_argument("--json", action="store_true", help="one JSON object a row on standard output")
    verify.add_argument("--head", metavar="NUMBER:HASH", help="a head printed earlier, which must still be there")
    verify.add_argument("--json", action="store_true", help="one JSON object on standard output")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do one of them. Exit code 0 only when all went well."""
    if getattr(args, "patient_", None) == "-":  # other users of this machine see command lines
        args.patient_ = sys.stdin.readline().strip()
    node = nodes.build(settings, component="audit")
    try:
        return ACTS[args.what](node, args)
    finally:
        node.close()


def _query(node: Node, args: argparse.Namespace) -> int:
    rows = list(_found(node, args, args.limit))
    if args.json:
        for row in rows:
            print(json.dumps(row, default=str))
    else:
        print("\n".join(_lines(rows)) if rows else "Nothing was noted.")
    return 0


def _found(node: Node, args: argparse.Namespace, limit: int | None = None) -> Iterator[Row]:
    """The rows asked for, newest first, fetched page by page; the asking is noted, too."""
    since = moment(args.from_, "--from") if args.from_ else None
    until = moment(args.to_, "--to", end=True) if args.to_ else None
    asked = {"patient": args.patient_, "study": args.study_, "user": args.user_}
    detail = {"command": f"audit {args.what}", "asked": {name: value for name, value in asked.items() if value}}
    before, left = None, limit
    while left is None or left > 0:
        page = node.audit.find(
            **asked, since=since, until=until, before=before, limit=PAGE if left is None else min(left, PAGE)
        )
        yield from page
        if len(page) < PAGE:
            break
        before, left = page[-1]["id"], None if left is None else left - len(page)
    node.audit.note(local_user(), "audit", detail=detail)


def _lines(rows: list[Row]) -> list[str]:
    """A table; what was repeated shows how often."""
    cells = [[name.replace("_", " ").upper() for name in (*COLUMNS, "detail")]]
    cells += [[_cell(row, name) for name in COLUMNS] + [_detail(row)] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _cell(row: Row, name: str) -> str:
    return f"{row[name]:%Y-%m-%d %H:%M:%S}" if name == "at" else _printable(str(row[name]))


def _detail(row: Row) -> str:
    return _printable(" ".join(f"{key}={value}" for key, value in row["detail"].items()))


def _printable(text: str) -> str:
    """What peers said must move no cursor."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _verify(node: Node, args: argparse.Namespace) -> int:
    known = head_of(args.head) if args.head else None
    with Progress("verify", node.chain.length(), quiet=args.json) as progress:
        verdict = node.chain.verify(known, progress.step)
    broken = verdict.broken
    if args.json:
        found = broken and {"id": broken.audit_id, "message": broken.message}
        head = str(verdict.head) if verdict.rows else None
        print(json.dumps({"rows": verdict.rows, "unsealed": verdict.unsealed, "head": head, "broken": found}))
    elif broken:
        print(f"BROKEN: row {broken.audit_id} {broken.message}.")
        print(f"The {verdict.rows} rows before it are whole. Compare it with a backup, and find out who was there.")
    else:
        print(f"The trail is whole: {verdict.rows} rows, {verdict.unsealed} more not sealed yet.")
        print(f"Its head is {verdict.head}; keep it elsewhere, and say it next time with --head.")
    return 1 if broken else 0


def _export(node: Node, args: argparse.Namespace) -> int:
    title = node.settings.dicom_ae_title.strip()
    for row in _found(node, args):
        sys.stdout.write(auditmessage.xml(row, title, socket.gethostname()) + "\n")
    return 0


ACTS: dict[str, Callable[[Node, argparse.Namespace], int]] = {"query": _query, "verify": _verify, "export": _export}
