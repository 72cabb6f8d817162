"""Connections to Postgres that never wait for ever: each connect, statement and answer has its time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import DeadlockDetected, ForeignKeyViolation, SerializationFailure
from psycopg_pool import ConnectionPool

from pacs.errors import Unavailable

T = TypeVar("T")
Connection = psycopg.Connection[Any]

CONNECT_SECONDS = 2
STATEMENT_SECONDS = 30.0
ANSWER_SLACK_SECONDS = 2.0  # past its statement timeout a server that says nothing counts as away
CHECKOUT_SECONDS = 2.0  # how long a caller waits for a connection before the database counts as away
TRUSTED_SECONDS = 1.0  # a connection that answered so lately is lent without asking it again
LARGEST = 12
PASSING = (DeadlockDetected, SerializationFailure, ForeignKeyViolation)  # a concurrent delete or batch; try again
ATTEMPTS = 5
AWAY = "The database does not answer; see /ready."
# libpq gives a dead peer up after these, so that a vanished machine is noticed
LIVELINESS: dict[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 5000,
}


class BoundedConnection(Connection):
    """A connection that gives a silent server up. `answer_seconds` may be set after connecting."""

    answer_seconds = STATEMENT_SECONDS + ANSWER_SLACK_SECONDS
    checked_at = 0.0  # by the monotonic clock

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
        check=_check,
        name=component,
        open=True,
    )


def _check(connection: psycopg.Connection[Any]) -> None:
    """Ask a connection whether it lives before it is lent. A stopped server has as long as a checkout, no longer."""
    bounded = cast(BoundedConnection, connection)
    now = time.monotonic()
    if now - bounded.checked_at < TRUSTED_SECONDS:
        return
    bounded.answer_seconds = CHECKOUT_SECONDS
    ConnectionPool.check_connection(bounded)
    bounded.answer_seconds = BoundedConnection.answer_seconds
    bounded.checked_at = now


@contextmanager
def reading(pool: "ConnectionPool[Any]", timeout: float | None = None) -> "Iterator[Connection]":
    """A connection for single statements that only read: one way to the server and back each, without BEGIN and COMMIT.

    Raises what psycopg raises.
    """
    with pool.connection(timeout) as connection:
        connection.autocommit = True
        try:
            yield connection
        finally:
            if not connection.closed:
                connection.autocommit = False


@contextmanager
def transaction(pool: "ConnectionPool[Any]") -> "Iterator[Connection]":
    """A connection of the pool: commits at the end of the block, rolls back when it raises.

    Raises Unavailable when the database is away; what it was asked to do may then be done or not.
    """
    try:
        with pool.connection() as connection:
            yield connection
    except PASSING:
        raise
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise Unavailable(AWAY) from error


def repeated(pool: "ConnectionPool[Any]", work: Callable[[Connection], T]) -> T:
    """`work` in a transaction, from the start again when a concurrent one stood in its way. Raises Unavailable."""
    for attempt in range(ATTEMPTS):
        try:
            with transaction(pool) as connection:
                return work(connection)
        except PASSING:
            time.sleep(0.01 * attempt)
    raise Unavailable("Others are at work on the same objects; try again.")
