"""The schema: its revision, and whether all that the revisions made is still there."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import psycopg
from psycopg import sql

from pacs.errors import Unavailable
from pacs.index import schema
from pacs.index.pool import BoundedConnection, connection_arguments
from pacs.services.doctor.case import PATIENCE_SECONDS, Case
from pacs.services.doctor.finding import DOCTOR_FIX, WARNING, Check, Finding, many, some

MADE = re.compile(r"^CREATE (?:OR REPLACE )?(?:UNIQUE )?(TABLE|INDEX|FUNCTION|VIEW|TRIGGER) (\w+)", re.MULTILINE)
GONE = re.compile(r"^DROP (TABLE|INDEX|FUNCTION|VIEW|TRIGGER) (?:IF EXISTS )?([\w, \n]+)", re.MULTILINE)
COMMENT = re.compile(r"--[^\n]*")
CURABLE = ("function", "index", "view")
TRIGRAMS = "0003"
LONG_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that a revision makes: its kind, its name, the statement."""

    kind: str
    name: str
    statement: str

    @property
    def body(self) -> str:
        """What a function does."""
        return self.statement.partition("$$")[2].rpartition("$$")[0].strip()


@cache
def made() -> tuple[Thing, ...]:
    """All that the revisions make, up to the head, read from their SQL."""
    found: dict[tuple[str, str], Thing] = {}
    for file in sorted((schema.MIGRATIONS / "versions").glob("*/*.sql")):
        if file.name == "down.sql":
            continue
        text = file.read_text(encoding="utf-8")
        for kind, names in GONE.findall(text):
            for name in names.replace("\n", " ").split(","):
                found.pop((kind.lower(), name.strip()), None)
        for match in MADE.finditer(text):
            kind, name = match[1].lower(), match[2]
            found[kind, name] = Thing(kind, name, _statement(text, match.start(), kind))
    return tuple(found.values())


def _statement(text: str, start: int, kind: str) -> str:
    """From its first word to the semicolon that ends it; comments and functions have others."""
    if kind == "function":
        body = text.index("$$", text.index("$$", start) + 2)
        return text[start : text.index(";", body) + 1]
    statement, _, _ = COMMENT.sub("", text[start:]).partition(";")
    return f"{statement};"


def behind(case: Case) -> Iterator[Finding]:
    try:
        schema.require_head(schema.recorded_in(case.node.pool, PATIENCE_SECONDS))
    except schema.SchemaMismatch as error:
        yield Finding(error.message)


def missing(case: Case) -> Iterator[Finding]:
    there = {(row["kind"], row["name"]) for row in case.rows("things")}
    absent = [thing for thing in made() if (thing.kind, thing.name) not in there]
    for kind in dict.fromkeys(thing.kind for thing in absent):
        things = [thing for thing in absent if thing.kind == kind]
        what = f"{many(len(things), kind, f'{kind[:-1]}ies' if kind.endswith('y') else '')} of the schema missing."
        cure = DOCTOR_FIX if kind in CURABLE else "filmroom restore: what it held is gone"
        yield Finding(what.replace("indexs", "indexes"), len(things), some(t.name for t in things), cure=cure,
                      items=tuple(things))  # fmt: skip


def changed(case: Case) -> Iterator[Finding]:
    there = {(row["name"], row["body"].strip()) for row in case.rows("functions")}
    names = {name for name, _body in there}
    wrong = [
        one for one in made() if one.kind == "function" and one.name in names and (one.name, one.body) not in there
    ]
    if wrong:
        what = f"{many(len(wrong), 'function')} of the schema doing something else than the revisions say."
        yield Finding(what, len(wrong), some(one.name for one in wrong), items=tuple(wrong))


def make(case: Case, finding: Finding) -> str:
    """Run the statements of the revisions again; indexes beside whatever goes on."""
    wrong = [thing.name for thing in finding.items if thing.kind not in CURABLE]
    if wrong:
        raise Unavailable(f"{wrong[0]} cannot be made again, for what it held is gone; restore a backup.")
    for thing in finding.items:
        statement = thing.statement
        if thing.kind == "index":
            statement = re.sub(r"^(CREATE (?:UNIQUE )?INDEX) ", r"\1 CONCURRENTLY IF NOT EXISTS ", statement)
        if thing.kind == "function":
            statement = statement.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1)
        _execute(case, statement.encode())
    return f"Made again: {', '.join(thing.name for thing in finding.items)}."


def invalid(case: Case) -> Iterator[Finding]:
    names = [row["name"] for row in case.rows("invalid_indexes")]
    if names:
        what = f"{many(len(names), 'index is', 'indexes are')} not valid, and of no use to queries."
        yield Finding(what, len(names), some(names), items=tuple(names))


def rebuild(case: Case, finding: Finding) -> str:
    """Build them again beside whatever goes on."""
    for name in finding.items:
        _execute(case, sql.SQL("REINDEX INDEX CONCURRENTLY {}").format(sql.Identifier(name)))
    return f"Built again: {', '.join(finding.items)}."


def trigrams(case: Case) -> Iterator[Finding]:
    state = case.rows("trigrams")[0]
    if state["available"] and not state["indexed"]:
        what = "Searches for a part of a name read every study: the index of trigrams is missing"
        why = "." if state["there"] else ", and so is the extension pg_trgm."
        yield Finding(what + why, examples=("study_trigrams",), severity=WARNING)


def make_trigrams(case: Case, _finding: Finding) -> str:
    """What the revision does, where the right to create the extension is there."""
    (folder,) = (schema.MIGRATIONS / "versions").glob(f"{TRIGRAMS}_*/")
    _execute(case, (folder / "up.sql").read_bytes())
    if not case.rows("trigrams")[0]["indexed"]:
        raise Unavailable(
            "The database's role may not create the extension: as its superuser, CREATE EXTENSION pg_trgm"
        )
    return "Made again: study_trigrams."


def _execute(case: Case, statement: bytes | sql.Composed) -> None:
    """On a connection of its own, outside of transactions, with an hour's time."""
    arguments = connection_arguments("doctor", LONG_SECONDS)
    try:
        with BoundedConnection.connect(case.settings.database_url, autocommit=True, **arguments) as connection:
            connection.answer_seconds = LONG_SECONDS
            connection.execute(statement)
    except psycopg.Error as error:
        raise Unavailable(f"The database did not do it (SQLSTATE {error.sqlstate or 'unknown'}).") from error


CHECKS = (
    Check("schema", "damage", "a schema that is behind or ahead of this version", "filmroom db upgrade", behind,
          needs=("database",)),
    Check("schema-object", "damage", "tables, indexes, functions of the schema that are missing", DOCTOR_FIX, missing,
          make, ("schema",)),
    Check("schema-function", "damage", "functions of the schema that somebody changed", DOCTOR_FIX, changed, make,
          ("schema",)),
    Check("invalid-index", "damage", "indexes that no query uses", DOCTOR_FIX, invalid, rebuild, ("schema",)),
    Check("no-trigrams", "configuration", "part-of-name searches without their index",
          f"as superuser: CREATE EXTENSION pg_trgm; then {DOCTOR_FIX}", trigrams, make_trigrams, ("schema",)),
)  # fmt: skip
