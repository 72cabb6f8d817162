"""Writing objects into the index: one connection, one statement and one commit for a batch (storage.md 2.5)."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
import psycopg
import structlog
from psycopg.errors import NoDataFound, SerializationFailure

from pacs.domain.attributes import BY_KEYWORD
from pacs.domain.header import REMEMBERED_SERIES, Header, Part
from pacs.domain.levels import Level
from pacs.index.courier import Courier
from pacs.index.named import queries
from pacs.index.pool import ATTEMPTS, PASSING, BoundedConnection, connection_arguments

SQL = queries("write")
STATEMENT_SECONDS = 5.0
ANSWER_SECONDS = 6.0
RECONNECT_SECONDS = 1.0  # between attempts to reach a database that is away
LOST_BACKEND_SECONDS = 2.0
KNOWN_SERIES = 4096
TRIED_AGAIN = frozenset({*(error.sqlstate for error in PASSING), NoDataFound.sqlstate})
log = structlog.get_logger()


class Away(Exception):
    """The database cannot be reached; nothing of the batch was committed."""


class Unknown(Exception):
    """The connection broke, and whether the batch was committed cannot be found out."""


class Rejected(Exception):
    """The database does not take the batch: one of its objects cannot be stored. `sqlstate` says why."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


@dataclass(frozen=True, slots=True)
class Item:
    """One object for the index: its JSON line, and its name in the store.

    `further` is the line for an object whose patient, study and series are in the index already, and `place` its
    study, series and instance UIDs; without it the object takes the long way.
    """

    line: bytes
    object_name: str
    further: bytes = b""
    place: tuple[str, str, str] = ("", "", "")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one item: stored, known or differs; then which object has its UID, and for how long."""

    outcome: str
    known_object: str = ""
    known_size: int = 0
    known_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class File:
    """The facts about a published file."""

    object_name: str
    size: int
    data_offset: int
    sha256: bytes
    data_sha256: bytes
    transfer_syntax_uid: str


def item(header: Header, file: File, door: str, peer: str, address: str) -> Item:
    """The lines for `store_objects`, with one object for each table, and for `store_further`, flat."""
    levels = {level: {**header.columns[level], "attrs": header.attrs[level]} for level in Level}
    instance = orjson.dumps(
        levels[Level.INSTANCE]
        | {
            "transfer_syntax_uid": file.transfer_syntax_uid,
            "number_of_frames": header.number_of_frames,
            "object_name": file.object_name,
            "size": file.size,
            "data_offset": file.data_offset,
            "sha256": "\\x" + file.sha256.hex(),
            "data_sha256": "\\x" + file.data_sha256.hex(),
            "original": header.original,
            "door": door,
            "peer": peer,
            "address": address,
            "study_uid": header.study_uid,
            "series_uid": header.series_uid,
            "patient_id": header.columns[Level.PATIENT]["patient_id"],
        }
    )
    line = b'{"instance":' + instance + b"," + parents(header.parents)[1:]
    return Item(line, file.object_name, instance, (header.study_uid, header.series_uid, header.sop_instance_uid))


@lru_cache(maxsize=REMEMBERED_SERIES)
def parents(part: Part) -> bytes:
    """The JSON object of who the patient is, and of the rows above the instance; made once for all that share it."""
    levels = {
        level.name.lower(): {**part.columns[level], "attrs": part.attrs[level]}
        for level in Level
        if level is not Level.INSTANCE
    }
    return orjson.dumps({"identity": identity(part), **levels})


def identity(part: Part) -> str:
    """Who the patient is: ID and issuer; without an ID each study has a patient of its own (storage.md 4)."""
    patient, study = part.columns[Level.PATIENT], part.columns[Level.STUDY]
    names = [patient[BY_KEYWORD[keyword].column or ""] for keyword in ("PatientID", "IssuerOfPatientID")]
    return "\\".join(names) if names[0] else f"\\\\{study['study_uid']}"


def _order(items: Sequence[Item]) -> list[int]:
    """The order in which batches take their locks."""
    return sorted(range(len(items)), key=lambda n: items[n].place)


def _further(items: Sequence[Item]) -> bytes:
    """The batch for `store_further`."""
    return b"[" + b",".join(items[n].further for n in _order(items)) + b"]"


def _in_their_order(items: Sequence[Item], verdicts: Sequence[Verdict]) -> list[Verdict]:
    by_place = dict(zip(_order(items), verdicts, strict=True))
    return [by_place[n] for n in range(len(items))]


class Writer:
    """The committing connection of a process. One thread at a time."""

    def __init__(self, database_url: str, component: str) -> None:
        self._url, self._component = database_url, component
        self._connection: BoundedConnection | None = None
        self._backend = 0
        self._away_until = 0.0
        self._known: dict[tuple[str, str], None] = {}  # study and series UIDs that are in the index
        self._courier: Courier | None = None

    def away(self) -> bool:
        """True shortly after an attempt to connect failed: the next one is not due yet."""
        return time.monotonic() < self._away_until

    def store(self, items: Sequence[Item]) -> list[Verdict]:
        """Commit a batch; one verdict for each item, in order.

        Raises Away, Unknown, or Rejected. After a broken connection the batch is looked up by object name, and when
        it proves not to be committed it is tried once more.
        """
        try:
            return self._store(items)
        except psycopg.OperationalError as error:
            return self._look_up(items, error)

    def _look_up(self, items: Sequence[Item], error: psycopg.OperationalError) -> list[Verdict]:
        log.warning("commit_outcome_unknown", objects=len(items), exc_info=error)
        if self._find([item.object_name for item in items]):
            return [Verdict("stored", item.object_name) for item in items]
        try:
            return self._store(items)
        except psycopg.OperationalError as again:
            raise Unknown from again

    def send(self, items: Sequence[Item]) -> bool:
        """Give a batch to the database without waiting: `receive` must follow. False when it has to be `store`."""
        connection = self._connection
        if connection is None or connection.closed or not self._knows(items):
            return False
        try:
            if self._courier is None or not self._courier.is_on(connection):
                self._courier = Courier(connection, SQL["store_further"])
            self._courier.send(_further(items))
        except psycopg.Error:
            self.close()
            return False
        return True

    def receive(self, items: Sequence[Item]) -> list[Verdict]:
        """What became of the batch that was sent. As `store`."""
        assert self._courier is not None
        try:
            rows = self._courier.receive(ANSWER_SECONDS)
        except psycopg.OperationalError as error:
            self.close()
            return self._look_up(items, error)
        if isinstance(rows, str):
            if rows in TRIED_AGAIN:
                return self.store(items)
            raise Rejected(rows)
        return _in_their_order(items, [Verdict(a, b, int(c), float(d)) for a, b, c, d in rows])

    def _store(self, items: Sequence[Item]) -> list[Verdict]:
        if self._knows(items):
            try:
                return self._store_further(items)
            except Rejected as error:
                if error.sqlstate != NoDataFound.sqlstate:
                    raise
                self._known.clear()  # a delete took one of them away
        lines = b"\n".join(item.line for item in items).decode()
        verdicts = [Verdict(*row) for row in self._run("store", (lines,))]
        while len(self._known) > KNOWN_SERIES:
            del self._known[next(iter(self._known))]
        self._known |= {
            item.place[:2]: None
            for item, verdict in zip(items, verdicts, strict=True)
            if item.further and verdict.outcome == "stored"
        }
        return verdicts

    def _knows(self, items: Sequence[Item]) -> bool:
        """Whether their series are in the index, as far as we know."""
        return all(item.place[:2] in self._known for item in items)

    def _store_further(self, items: Sequence[Item]) -> list[Verdict]:
        rows = self._run("store_further", (_further(items).decode(),))
        return _in_their_order(items, [Verdict(*row) for row in rows])

    def replace(self, item: Item, *, wanted: bool) -> str:
        """Put a durable object in the place of the one that has its UID; `known`, `replaced`, `differs` or `gone`.

        Raises Away, Unknown, or Rejected.
        """
        try:
            return str(self._run("replace", (item.line.decode(), wanted))[0][0])
        except psycopg.OperationalError as error:
            raise Unknown from error

    def drop(self, object_name: str) -> None:
        """Take an object out of the index whose file is not durable. Raises Away, Unknown, or Rejected."""
        try:
            self._run("drop", (object_name,))
        except psycopg.OperationalError as error:
            raise Unknown from error

    def set_aside(self, conflict: dict[str, object]) -> bool:
        """Add a row to the list of conflicts; False when it is there. Raises Away, Unknown, or Rejected."""
        try:
            return bool(self._run("set_aside", conflict))
        except psycopg.OperationalError as error:
            raise Unknown from error

    def ring(self) -> None:
        """Wake the relay; a failure is no harm, it also looks by itself."""
        try:
            self._run("ring", ())
        except (Away, Rejected, psycopg.OperationalError):
            log.debug("relay_not_woken")

    def _run(self, name: str, parameters: Sequence[object] | dict[str, object]) -> list[tuple[Any, ...]]:
        """Execute in a transaction of its own; what a concurrent process caused is tried again."""
        for attempt in range(ATTEMPTS):
            connection = self._connect()
            try:
                return connection.execute(SQL[name], parameters, prepare=True).fetchall()
            except PASSING as error:
                log.debug("transaction_repeated", statement=name, sqlstate=error.sqlstate)
                time.sleep(0.005 * attempt)
            except psycopg.OperationalError as error:
                if connection.closed or error.sqlstate is None:
                    self.close()
                    raise
                raise Rejected(error.sqlstate) from error
            except psycopg.Error as error:
                raise Rejected(error.sqlstate or "") from error
        raise Rejected(SerializationFailure.sqlstate or "")

    def _connect(self) -> BoundedConnection:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        if self.away():
            raise Away
        arguments = connection_arguments(self._component, STATEMENT_SECONDS)
        # planning costs more than running, and plans made on empty tables are kept
        arguments["options"] += " -c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
        try:
            connection = BoundedConnection.connect(self._url, autocommit=True, **arguments)
        except psycopg.OperationalError as error:
            self._away_until = time.monotonic() + RECONNECT_SECONDS
            log.warning("database_away", exc_info=error)
            raise Away from error
        connection.answer_seconds = ANSWER_SECONDS
        self._connection, self._backend = connection, connection.info.backend_pid
        return connection

    def _find(self, names: list[str]) -> bool:
        """Whether a batch, sent on a connection that broke, was committed. Raises Unknown."""
        lost = self._backend
        try:
            for _ in range(int(LOST_BACKEND_SECONDS / 0.05)):
                if self._run("still_running", (lost,))[0][0] == 0:
                    return bool(self._run("committed", (names,)))
                time.sleep(0.05)
        except (Away, Rejected, psycopg.OperationalError) as error:
            raise Unknown from error
        raise Unknown

    def close(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
