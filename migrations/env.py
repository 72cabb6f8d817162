"""Alembic's environment: one connection, one transaction, one migrator at a time.

The URL is the caller's (`pacs.index.schema`), or, when `alembic` itself was typed, the one of the settings; the
embedded servers are started for the duration when no node runs.
"""

from alembic import context
from sqlalchemy import create_engine, pool, text

from pacs.embedded.connect import connected
from pacs.settings import load

MIGRATORS_LOCK = 0x46_52_4D_47  # a number for pg_advisory_xact_lock that nothing else here uses


def migrate(database_url: str) -> None:
    """Run the revisions that the command asks for, all or none of them."""
    dialect = database_url.replace("postgresql://", "postgresql+psycopg://", 1)
    engine = create_engine(dialect, poolclass=pool.NullPool)
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": MIGRATORS_LOCK})
        context.configure(connection=connection, target_metadata=None)
        context.run_migrations()


if "database_url" in context.config.attributes:
    migrate(context.config.attributes["database_url"])
else:
    with connected(load(), start=True) as settings:
        migrate(settings.database_url)
