"""Connections to Postgres that never wait for ever: each connect, statement and answer has its time."""

from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg_pool import ConnectionPool

T = TypeVar("T")

CONNECT_SECONDS = 2
STATEMENT_SECONDS = 30.0
ANSWER_SLACK_SECONDS = 2.0  # past its statement timeout a server that says nothing counts as away
CHECKOUT_SECONDS = 2.0  # how long a caller waits for a connection before the database counts as away
LARGEST = 12
# libpq gives a dead peer up after these, so that a vanished machine is noticed
LIVELINESS: dict[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 5000,
}


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that gives a silent server up. `answer_seconds` may be set after connecting."""

    answer_seconds = STATEMENT_SECONDS + ANSWER_SLACK_SECONDS

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """See psycopg. Raises psycopg.OperationalError, and the connection is closed, when time is up."""
        try:
            return super().wait(gen, interval, self.answer_seconds if timeout is None else timeout)
        except psycopg.errors._WaitTimeout as error:
            if timeout is not None:  # the caller's own patience (`notifies`), not the server's silence
                raise
            self.pgconn.finish()
            raise psycopg.OperationalError("the server does not answer") from error


def connection_arguments(component: str, statement_seconds: float = STATEMENT_SECONDS) -> dict[str, Any]:
    """Keywords for `psycopg.connect`: who we are, and how long anything may take."""
    return {
        "connect_timeout": CONNECT_SECONDS,
        "application_name": f"filmroom {component}",
        "options": f"-c statement_timeout={int(statement_seconds * 1000)} -c synchronous_commit=on -c TimeZone=UTC",
        **LIVELINESS,
    }


def open_pool(database_url: str, component: str) -> ConnectionPool:
    """A pool that connects in the background and by itself again after the database was away.

    While it is away, `connection()` raises `psycopg_pool.PoolTimeout`, a `psycopg.Error`, after CHECKOUT_SECONDS.
    """
    return ConnectionPool(
        database_url,
        connection_class=BoundedConnection,
        kwargs=connection_arguments(component),
        min_size=1,
        max_size=LARGEST,
        timeout=CHECKOUT_SECONDS,
        reconnect_timeout=CHECKOUT_SECONDS,
        check=ConnectionPool.check_connection,
        name=component,
        open=True,
    )
