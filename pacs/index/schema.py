"""The schema's revisions: which one a database is at, and the way up and down.

`head` and `current` read the revision files and one table, so that processes which only ask carry no Alembic.
"""

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import tuple_row
from psycopg_pool import ConnectionPool

from pacs.errors import FilmroomError, Unavailable

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).resolve().parent.parent.parent / "migrations"
CONNECT_TIMEOUT = 5


class SchemaMismatch(FilmroomError):
    """The database's schema is not the one this code was written for."""

    code = "schema"


@dataclass(frozen=True)
class Revision:
    name: str
    below: str | None
    summary: str


def revisions() -> tuple[Revision, ...]:
    """All revisions, oldest first. They form one straight line."""
    found = {revision.below: revision for revision in _read_revisions()}
    line: list[Revision] = []
    while (above := found.get(line[-1].name if line else None)) is not None:
        line.append(above)
    return tuple(line)


def head() -> str:
    """The newest revision that this code knows."""
    return revisions()[-1].name


def current(database_url: str) -> str | None:
    """The revision that the database is at; None for an empty one. Raises Unavailable when it cannot be asked."""
    try:
        with psycopg.connect(database_url, connect_timeout=CONNECT_TIMEOUT) as connection:
            return recorded(connection)
    except psycopg.OperationalError as error:
        raise Unavailable("The database cannot be reached; check DATABASE_URL and that Postgres runs.") from error


def stored(database_url: str) -> int:
    """How many instances the index holds; 0 for a database without a schema."""
    with psycopg.connect(database_url, connect_timeout=CONNECT_TIMEOUT, row_factory=tuple_row) as connection:
        if recorded(connection) is None:
            return 0
        row = connection.execute("SELECT count(*) FROM instance").fetchone()
    return int(row[0]) if row else 0


def recorded(connection: psycopg.Connection) -> str | None:
    """`current` on an open connection, in its transaction."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        if cursor.execute("SELECT to_regclass('alembic_version')").fetchone() == (None,):
            return None
        row = cursor.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else None


def ping(pool: ConnectionPool[Any], patience: float) -> None:
    """One round trip. Raises Unavailable after `patience` seconds without one."""
    with _asked(pool, patience) as connection:
        connection.execute("SELECT 1")


def recorded_in(pool: ConnectionPool[Any], patience: float) -> str | None:
    """`current` through a pool."""
    with _asked(pool, patience) as connection:
        return recorded(connection)


def node_state(pool: ConnectionPool[Any], key: str, patience: float) -> dict[str, Any] | None:
    """A value that the node remembers about itself; None when it has none."""
    with _asked(pool, patience) as connection, connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute("SELECT value FROM node_state WHERE key = %s", (key,)).fetchone()
    return dict(row[0]) if row else None


@contextmanager
def _asked(pool: ConnectionPool[Any], patience: float) -> Iterator[psycopg.Connection]:
    try:
        with pool.connection(timeout=patience) as connection:
            yield connection
    except psycopg.OperationalError as error:
        raise Unavailable("The database does not answer; check DATABASE_URL and that Postgres runs.") from error
    except psycopg.errors.UndefinedTable as error:
        raise Unavailable("The database has no schema yet; run: filmroom db upgrade") from error


def require_head(found: str | None) -> None:
    """Raise SchemaMismatch with the cure unless `found` is the head."""
    refuse_newer(found)
    if found != head():
        state = "has no schema yet" if found is None else f"is at revision {found}"
        raise SchemaMismatch(f"The database {state}, this version needs {head()}; run: filmroom db upgrade")


def refuse_newer(found: str | None) -> None:
    """Raise SchemaMismatch when `found` is a revision that this version does not know."""
    if found is not None and found not in {revision.name for revision in revisions()}:
        raise SchemaMismatch(
            f"The database is at revision {found}, which is newer than this version (it knows {head()}); "
            "run the newer version of Filmroom, or let that one downgrade the database first."
        )


def upgrade(database_url: str, revision: str = "head") -> None:
    """Apply revisions up to `revision`; nothing when it is there already. Concurrent callers take turns.

    Raises SchemaMismatch for a database that a newer version made, Unavailable when it is away.
    """
    found = current(database_url)
    refuse_newer(found)
    if revision == "head" and found == head():
        return
    from alembic import command

    command.upgrade(_alembic(database_url), revision)


def downgrade(database_url: str, revision: str = "-1") -> None:
    """Undo revisions down to `revision` (`base`, a name, or `-n`). Raises as `upgrade` does."""
    refuse_newer(current(database_url))
    from alembic import command

    command.downgrade(_alembic(database_url), revision)


def _alembic(database_url: str) -> "Config":
    from alembic.config import Config

    config = Config(attributes={"database_url": database_url})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _read_revisions() -> Iterator[Revision]:
    for file in sorted((MIGRATIONS / "versions").glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and _literal(node.value)
        }
        if "revision" in names:
            summary = (ast.get_docstring(tree) or "").partition("\n")[0]
            yield Revision(names["revision"], names["down_revision"], summary)


def _literal(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant)
