"""One command, `filmroom`: a table of verbs, each a module that is imported only when its verb is typed.

A verb's module offers `add_arguments(parser)` and `run(args, settings) -> int` (0 = all went well).
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pacs.errors import FilmroomError
from pacs.settings import Settings, load


@dataclass(frozen=True)
class Verb:
    """`servers`: "" = the verb needs none; "running" = it is told the URLs of a node running on this home, if any;
    "needed" = the embedded servers are started for it when no node runs; "filled" = and their database, when it is new,
    gets its schema."""

    name: str
    help: str
    module: str
    servers: str = ""


VERBS = (
    Verb("serve", "run the node, or one of its processes", "pacs.cli.serve"),
    Verb("import", "store files, folders, DICOMDIRs and zips", "pacs.cli.import_", servers="filled"),
    Verb("status", "what is stored, queued, running, and what is wrong", "pacs.cli.status", servers="running"),
    Verb("doctor", "what is wrong with the node, and the commands that cure it", "pacs.cli.doctor"),
    Verb("demo", "seed or purge marked demo studies", "pacs.cli.demo", servers="filled"),
    Verb("smoke", "store, find, retrieve and delete a synthetic study through every door", "pacs.cli.smoke", "running"),
    Verb("ai", "models, jobs and results of the AI sidecar", "pacs.cli.ai", servers="running"),
    Verb(
        "maintenance",
        "pause AI jobs, and storing if wanted, and wait until nothing runs",
        "pacs.cli.maintenance",
        "filled",
    ),
    Verb("backup", "save database, objects, models and configuration while the node runs", "pacs.cli.backup", "needed"),
    Verb("restore", "bring a backup back into an empty system, then verify", "pacs.cli.restore", servers="needed"),
    Verb("verify", "compare index and store, and every byte with its digest", "pacs.cli.verify", servers="needed"),
    Verb("rules", "what is forwarded where, what waits, what was given up", "pacs.cli.rules", servers="running"),
    Verb("peers", "who is known by AE title, and whether one can be reached", "pacs.cli.peers", servers="running"),
    Verb("create-admin", "make the first administrator", "pacs.cli.create_admin", servers="filled"),
    Verb("user", "who has an account, and what may they do", "pacs.cli.user", servers="filled"),
    Verb("token", "tokens of programs: make, list, revoke", "pacs.cli.token", servers="filled"),
    Verb("keys", "another key to sign with", "pacs.cli.keys", servers="filled"),
    Verb("db", "upgrade, downgrade or show the database schema", "pacs.cli.db", servers="needed"),
    Verb("audit", "who did what; whether the trail is whole; its export", "pacs.cli.audit", servers="filled"),
    Verb("config", "show the settings in force", "pacs.cli.config"),
)


OWN_EVENTS = frozenset({"serve", "config"})  # the first tells more, the second nothing


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Errors of ours are one sentence on standard error and exit code 1; a wrong line is 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except FilmroomError as error:
        print(f"filmroom: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader (head, less) has gone: nothing more to say
        return 0


def _run(arguments: list[str]) -> int:
    verb = next((verb for verb in VERBS if arguments and verb.name == arguments[0]), None)
    if verb is None:
        _parser().parse_args(arguments or ["--help"])
        return 2
    try:
        module = importlib.import_module(verb.module)
    except ModuleNotFoundError as error:
        if error.name != verb.module:
            raise
        raise FilmroomError(f"'{verb.name}' is not built yet.") from error
    parser = argparse.ArgumentParser(prog=f"filmroom {verb.name}", description=verb.help)
    module.add_arguments(parser)
    args = parser.parse_args(arguments[1:])
    settings = getattr(module, "load_settings", load)()  # the doctor must run where settings cannot be read
    if verb.name not in OWN_EVENTS:
        _tell_warnings(settings, verb)
    if not verb.servers:
        return int(module.run(args, settings))
    from pacs.embedded.connect import connected

    with connected(settings, start=verb.servers in {"needed", "filled"}) as reached:
        if verb.servers == "filled":
            _require_schema(reached.database_url, embedded=not settings.database_url)
        return int(module.run(args, reached))


def _tell_warnings(settings: Settings, verb: Verb) -> None:
    """Events of a command that a person should see, on standard error; like those of the node without patient data."""
    from pacs.telemetry import configure

    level = settings.log_level if settings.log_level == "error" else "warning"
    configure(replace(settings, log_level=level), verb.name)


def _require_schema(database_url: str, *, embedded: bool) -> None:
    """A new database of our own gets the schema; any other must be at the head. Raises SchemaMismatch, Unavailable."""
    from pacs.index import schema

    found = schema.current(database_url)
    if found is None and embedded:
        schema.upgrade(database_url)
    else:
        schema.require_head(found)


def _parser() -> argparse.ArgumentParser:
    from importlib.metadata import version

    parser = argparse.ArgumentParser(prog="filmroom", description="A DICOMweb PACS node with an AI sidecar.")
    parser.add_argument("--version", action="version", version=f"filmroom {version('filmroom')}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for verb in VERBS:
        verbs.add_parser(verb.name, help=verb.help)
    return parser
