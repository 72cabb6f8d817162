"""`filmroom db`: the schema's revision, up and down (also: `alembic upgrade head`, `downgrade -1`, `current`)."""

import argparse
import json

from pacs.errors import Conflict, FilmroomError
from pacs.index import schema
from pacs.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("upgrade", "downgrade", "current", "history"))
    parser.add_argument("revision", nargs="?", help="upgrade: default head; downgrade: default -1 (one back)")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--quiet", action="store_true", help="say nothing when all went well")
    parser.add_argument("--lose-index", action="store_true", help="downgrade to base although studies are stored")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Show or move. Raises SchemaMismatch, Conflict, Unavailable, FilmroomError for a revision that is not known."""
    if args.action in {"upgrade", "downgrade"}:
        _move(args, settings.database_url)
    if args.quiet:
        return 0
    found = schema.current(settings.database_url)
    if args.action == "history":
        _history(found, args.json)
    else:
        print(json.dumps({"current": found, "head": schema.head()}) if args.json else _sentence(found))
    return 0


def _move(args: argparse.Namespace, url: str) -> None:
    from alembic.util import CommandError

    found = schema.current(url)
    known = [revision.name for revision in schema.revisions()]
    schema.refuse_newer(found)
    try:
        if args.action == "upgrade":
            schema.upgrade(url, args.revision or "head")
            return
        wanted = args.revision or "-1"
        if not args.lose_index and _drops_all(wanted, known.index(found) if found else 0):
            _refuse_loss(url)
        schema.downgrade(url, wanted)
    except CommandError as error:
        raise FilmroomError(f"The schema stays as it is: {str(error).rstrip('.')}; see: filmroom db history") from error


def _drops_all(wanted: str, at: int) -> bool:
    """Whether a downgrade goes below the first revision."""
    steps = wanted.removeprefix("-")
    return wanted == "base" or (wanted != steps and steps.isdigit() and int(steps) > at)


def _refuse_loss(url: str) -> None:
    count = schema.stored(url)
    if count:
        raise Conflict(
            f"{count} instances are stored, and below the first revision there is no index of them. Make a backup, "
            "then say --lose-index if you mean it."
        )


def _history(found: str | None, as_json: bool) -> None:
    for revision in reversed(schema.revisions()):
        is_current = revision.name == found
        line = {"revision": revision.name, "summary": revision.summary, "current": is_current}
        print(
            json.dumps(line) if as_json else f"{revision.name}{' (current)' if is_current else ''}  {revision.summary}"
        )


def _sentence(found: str | None) -> str:
    return f"{found or 'no schema'}{' (head)' if found == schema.head() else f', head is {schema.head()}'}"
