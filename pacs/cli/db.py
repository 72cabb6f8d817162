"""`filmroom db`: the schema's revision, up and down (also: `alembic upgrade head`, `downgrade -1`, `current`)."""

import argparse
import json

from pacs.index import schema
from pacs.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("upgrade", "downgrade", "current", "history"))
    parser.add_argument("revision", nargs="?", help="upgrade: default head; downgrade: default -1 (one back)")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--quiet", action="store_true", help="say nothing when all went well")


def run(args: argparse.Namespace, settings: Settings) -> int:
    if args.action == "upgrade":
        schema.upgrade(settings.database_url, args.revision or "head")
    elif args.action == "downgrade":
        schema.downgrade(settings.database_url, args.revision or "-1")
    if args.quiet:
        return 0
    found = schema.current(settings.database_url)
    if args.action == "history":
        _history(found, args.json)
    else:
        print(json.dumps({"current": found, "head": schema.head()}) if args.json else _sentence(found))
    return 0


def _history(found: str | None, as_json: bool) -> None:
    for revision in reversed(schema.revisions()):
        is_current = revision.name == found
        line = {"revision": revision.name, "summary": revision.summary, "current": is_current}
        print(
            json.dumps(line) if as_json else f"{revision.name}{' (current)' if is_current else ''}  {revision.summary}"
        )


def _sentence(found: str | None) -> str:
    return f"{found or 'no schema'}{' (head)' if found == schema.head() else f', head is {schema.head()}'}"
