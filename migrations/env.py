"""Alembic's environment: one connection, one transaction, one migrator at a time.

The URL is the caller's (`pacs.index.schema`), or, when `alembic` itself was typed, the one of the settings; the
embedded servers are started for the duration when no node runs.

A node may run meanwhile. Whoever waits for a table stands before everybody that comes after, readers too: so a lock is
waited for a short while only, then all is rolled back and tried again.
"""

import time

from alembic import context
from sqlalchemy import create_engine, pool, text
from sqlalchemy.exc import DBAPIError

from pacs.embedded.connect import connected
from pacs.errors import FilmroomError, Unavailable
from pacs.settings import load

MIGRATORS_LOCK = 0x46_52_4D_47  # a number for pg_advisory_xact_lock that nothing else here uses
LOCK_TIMEOUT = "2s"
ATTEMPTS = 30
PAUSE_SECONDS = 1.0  # in which those that waited behind us go on
IN_THE_WAY = {"55P03", "40P01"}  # a lock was not to be had, or only by a deadlock


def migrate(database_url: str, attempts: int = ATTEMPTS) -> None:
    """Run the revisions that the command asks for, all or none of them.

    Raises Unavailable when tables stay in use, FilmroomError for a revision that fails.
    """
    dialect = database_url.replace("postgresql://", "postgresql+psycopg://", 1)
    engine = create_engine(dialect, poolclass=pool.NullPool)
    for _ in range(attempts):
        try:
            with engine.begin() as connection:
                connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": MIGRATORS_LOCK})
                connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
                context.configure(connection=connection, target_metadata=None)
                context.run_migrations()
                return
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in IN_THE_WAY:
                raise FilmroomError(f"The schema stays as it is: a revision failed ({_said(error)}).") from error
        time.sleep(PAUSE_SECONDS)
    raise Unavailable(
        "The schema was left as it is: its tables are in use all the time (a backup, a long report, another "
        "migration); try again when that is over."
    )


def _said(error: DBAPIError) -> str:
    """The server's first line; the lines below may quote rows."""
    return getattr(getattr(error.orig, "diag", None), "message_primary", None) or type(error.orig).__name__


if "database_url" in context.config.attributes:
    migrate(**context.config.attributes)
else:
    with connected(load(), start=True) as settings:
        migrate(settings.database_url)
