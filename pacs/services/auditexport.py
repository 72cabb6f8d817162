"""The audit trail sent to a collector, by syslog over TLS (PS3.15 A.6, RFC 5425), at least once and in order.

Only sealed rows go out, so none can come in behind the cursor. Syslog answers nothing; a batch counts as taken when the
collector has closed its side after reading all of it, and else goes again.
"""

import fcntl
import socket
import ssl
import struct
import termios
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import structlog
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from pacs.errors import Unavailable
from pacs.index.named import queries
from pacs.index.pool import transaction
from pacs.services import auditmessage
from pacs.services.duties import Duty
from pacs.settings import Settings
from pacs.telemetry import Metrics

if TYPE_CHECKING:
    from pacs.node import Node

SQL = queries("audit")
BATCH = 500  # rows a connection
PATIENCE_SECONDS = 10.0
TURN_SECONDS = 60.0  # then the duty ends, and begins again at its next period
log = structlog.get_logger()


class Export:
    """Sends what is new since the cursor."""

    def __init__(self, pool: ConnectionPool[Any], settings: Settings, metrics: Metrics) -> None:
        self._pool, self._settings = pool, settings
        self._sent = metrics.counter("filmroom_audit_exported", "Rows that the collector took")
        self._behind = metrics.gauge("filmroom_audit_export_lag_rows", "Sealed rows that the collector has not taken")

    def run(self) -> int:
        """Send until nothing is left, or for a minute; how many rows. Does nothing without AUDIT_SYSLOG_HOST.

        Raises Unavailable when the collector or the database does not take them; they go the next time.
        """
        if not self._settings.audit_syslog_host:
            return 0
        sent, deadline = 0, time.monotonic() + TURN_SECONDS
        self._behind.set(self._rows("export_lag")[0]["rows"])
        while time.monotonic() < deadline and (rows := self._rows("to_export", limit=BATCH)):
            self._send(rows)
            self._advance(rows[-1]["id"])
            sent += len(rows)
            self._sent.inc(len(rows))
            self._behind.dec(len(rows))
        return sent

    def _rows(self, name: str, **parameters: object) -> list[dict[str, Any]]:
        with transaction(self._pool) as connection, connection.cursor(row_factory=dict_row) as cursor:
            found: list[dict[str, Any]] = cursor.execute(SQL[name], parameters).fetchall()
            return found

    def _send(self, rows: Sequence[auditmessage.Row]) -> None:
        settings = self._settings
        host, port = settings.audit_syslog_host, settings.audit_syslog_port
        title = settings.dicom_ae_title.strip()
        frames = b"".join(auditmessage.syslog(row, title) for row in rows)
        try:
            context = self._context()
            with (
                socket.create_connection((host, port), PATIENCE_SECONDS) as plain,
                context.wrap_socket(plain, server_hostname=host) as tls,
            ):
                tls.sendall(frames)
                _until_read(tls)
        except (OSError, ssl.SSLError) as error:
            log.warning("audit_not_exported", rows=len(rows), exc_info=error)
            raise Unavailable("The collector of audit messages takes none; see AUDIT_SYSLOG_HOST.") from error

    def _context(self) -> ssl.SSLContext:
        settings = self._settings
        context = ssl.create_default_context(cafile=settings.audit_syslog_ca and str(settings.audit_syslog_ca))
        if settings.audit_syslog_cert:
            context.load_cert_chain(settings.audit_syslog_cert, settings.audit_syslog_key)
        return context

    def _advance(self, last: int) -> None:
        with transaction(self._pool) as connection:
            connection.execute(SQL["exported"], {"value": Jsonb({"id": last})})


def _until_read(tls: ssl.SSLSocket) -> None:
    """Say that no more comes, and wait until the other side has read all and closed. Raises OSError."""
    try:
        tls.unwrap()
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):  # closed without the goodbye of TLS, as rsyslog does
        _until_acknowledged(tls)


def _until_acknowledged(connection: socket.socket) -> None:
    """Wait until the other machine has taken every byte; where its program had closed before, it says so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]:
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.01)
    if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise ConnectionResetError


def export(node: "Node") -> None:
    """Send the collector what is new."""
    node.audit_export.run()


DUTIES = (Duty("export-audit", 5.0, export),)
