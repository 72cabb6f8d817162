"""One prepared statement sent now and waited for later, so that a disk can work meanwhile.

On libpq itself: psycopg's cursors send and wait in one step.
"""

import select
import time

import psycopg
from psycopg import Connection, pq

NAME = b"courier"
TEXT_OID = 25
Row = tuple[str, ...]


class Courier:
    """A statement with one text parameter on a connection that nobody else uses between `send` and `receive`."""

    def __init__(self, connection: "Connection[object]", statement: bytes) -> None:
        """Prepare the statement (`%s` stands for the parameter). Raises psycopg.Error."""
        self._connection = connection
        self._pgconn = connection.pgconn
        prepared = self._pgconn.prepare(NAME, statement.replace(b"%s", b"$1"), [TEXT_OID])
        if prepared.status != pq.ExecStatus.COMMAND_OK:
            raise psycopg.OperationalError("the storing statement cannot be prepared")

    def is_on(self, connection: "Connection[object]") -> bool:
        """Whether the statement is prepared on this connection."""
        return self._connection is connection

    def send(self, parameter: bytes) -> None:
        """Hand the statement to the server. Raises psycopg.OperationalError."""
        self._pgconn.send_query_prepared(NAME, [parameter])
        self._pgconn.flush()

    def receive(self, seconds: float) -> list[Row] | str:
        """The rows, or the SQLSTATE of the server's refusal.

        Raises psycopg.OperationalError when the connection broke, or the server says nothing for so many seconds.
        """
        deadline = time.monotonic() + seconds
        while self._pgconn.flush():
            self._wait(deadline, writing=True)
        while self._pgconn.is_busy():
            self._wait(deadline)
            self._pgconn.consume_input()
        found: list[Row] | str = []
        while (result := self._pgconn.get_result()) is not None:
            if result.status == pq.ExecStatus.TUPLES_OK:
                found = _rows(result)
            elif (state := result.error_field(pq.DiagnosticField.SQLSTATE)) and self._pgconn.status == pq.ConnStatus.OK:
                found = state.decode()
            else:
                raise psycopg.OperationalError("the connection to the server broke")
        return found

    def _wait(self, deadline: float, *, writing: bool = False) -> None:
        socket = self._pgconn.socket
        poll = select.poll()
        poll.register(socket, select.POLLIN | (select.POLLOUT if writing else 0))
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise psycopg.OperationalError("the server does not answer")
        if writing:
            self._pgconn.consume_input()


def _rows(result: pq.abc.PGresult) -> list[Row]:
    return [
        tuple((result.get_value(row, column) or b"").decode() for column in range(result.nfields))
        for row in range(result.ntuples)
    ]
