"""The audit trail as a chain: a row's seal is the SHA-256 of the seal before it and of the row (docs/decisions/0008).

Rows are sealed a moment after they are committed, in the order of their numbers, and never while a transaction that may
still bring a lower number is open: stores and deletes write theirs without waiting for one another. Numbers that a
rollback left out are no gap in the chain.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import structlog
from psycopg.rows import tuple_row
from psycopg_pool import ConnectionPool

from pacs.errors import BadRequest
from pacs.index.named import queries
from pacs.index.pool import Connection, transaction
from pacs.services.duties import Duty

if TYPE_CHECKING:
    from pacs.node import Node

SQL = queries("audit")
FIRST = bytes(32)  # what stands in the place of a seal before the first row
LOWEST = -(2**63)
BATCH = 5_000  # rows a transaction
PATIENCE_SECONDS = 1.0  # with a transaction that may still bring rows; then they are sealed the next time
LOOK_SECONDS = 0.02
TOLD_SECONDS = 60.0  # so often the log gets the chain's head: a copy where the database's owner may not write
Canonical = Sequence[Any]  # the columns of the statement `rows`, the number first
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Head:
    """A seal: of which row, and the hash."""

    audit_id: int = LOWEST
    hash: bytes = FIRST

    def __str__(self) -> str:
        return f"{self.audit_id}:{self.hash.hex()}"


@dataclass(frozen=True, slots=True)
class Broken:
    """The first row that does not fit the chain, and what is wrong with it."""

    audit_id: int
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a walk along the chain found. `unsealed`: rows behind its end, which are sealed in a moment."""

    rows: int
    unsealed: int
    head: Head
    broken: Broken | None = None


def next_seal(previous: bytes, row: Canonical) -> bytes:
    """The seal of a row: SHA-256 of the 32 bytes before it and of the row's columns as a JSON array without blanks."""
    return hashlib.sha256(previous + orjson.dumps(list(row))).digest()


class Chain:
    """Seals the trail and walks along it."""

    def __init__(self, pool: ConnectionPool[Any]) -> None:
        self._pool = pool
        self._told = -TOLD_SECONDS

    def length(self) -> int:
        """About how many rows are sealed. Raises Unavailable."""
        with transaction(self._pool) as connection:
            return int(_value(connection, "length") or 0)

    def seal(self, patience: float = PATIENCE_SECONDS) -> int:
        """Seal what is committed; how many rows. 0 also when a transaction stayed open that may bring older ones.

        Raises Unavailable.
        """
        upto = self._settled(patience)
        sealed = 0
        while upto is not None and (count := self._seal_some(upto)):
            sealed += count
        return sealed

    def _settled(self, patience: float) -> int | None:
        """A number up to which no row can come any more; None when there is nothing to seal, or not yet."""
        with transaction(self._pool) as connection:
            if not _some_behind(connection, _head(connection)):
                return None
            upto = int(_value(connection, "allocated"))
        with transaction(self._pool) as connection:  # only now: who has a number has the lock
            waited_for = _writers(connection)
        deadline = time.monotonic() + patience
        while waited_for:
            if time.monotonic() > deadline:
                return None
            time.sleep(LOOK_SECONDS)
            with transaction(self._pool) as connection:
                waited_for &= _writers(connection)
        return upto

    def _seal_some(self, upto: int) -> int:
        with transaction(self._pool) as connection:
            connection.execute(SQL["lock"])
            head = _head(connection)
            rows = _rows(connection, head.audit_id, upto)
            ids, hashes, last = [], [], head.hash
            for row in rows:
                last = next_seal(last, row)
                ids.append(row[0])
                hashes.append(last)
            if ids:
                connection.execute(SQL["seal"], {"ids": ids, "hashes": hashes})
        if ids and time.monotonic() - self._told >= TOLD_SECONDS:
            self._told = time.monotonic()
            log.info("audit_sealed", head=f"{ids[-1]}:{last.hex()}")
        return len(ids)

    def verify(self, known: Head | None = None, step: Callable[[int], None] = lambda _rows: None) -> Verdict:
        """Walk the whole chain and stop at the first row that does not fit. Raises Unavailable.

        `known`: a head that was written down elsewhere, which the chain must still hold; it shows that the end was cut
        off, or that all was sealed anew. `step` is told how many rows were looked at.
        """
        head, rows, met = Head(), 0, known is None
        while True:
            seals, found = self._page(head)
            if not seals:
                break
            for one in _compared(head, seals, found):
                if isinstance(one, Broken):
                    return Verdict(rows, self._unsealed(head), head, one)
                head, rows = one, rows + 1
                met = met or one == known
                if known and one.audit_id == known.audit_id and not met:
                    return Verdict(rows, self._unsealed(head), head, Broken(one.audit_id, RESEALED))
            step(len(seals))
        broken = None if met or known is None else Broken(known.audit_id, CUT)
        return Verdict(rows, self._unsealed(head), head, broken)

    def _page(self, head: Head) -> tuple[list[tuple[int, bytes]], list[tuple[Any, ...]]]:
        """The next seals and all rows up to the last of them."""
        with transaction(self._pool) as connection, connection.cursor(row_factory=tuple_row) as cursor:
            seals = cursor.execute(SQL["seals"], {"after": head.audit_id, "limit": BATCH}).fetchall()
            return seals, _rows(connection, head.audit_id, seals[-1][0], limit=None) if seals else []

    def _unsealed(self, head: Head) -> int:
        with transaction(self._pool) as connection:
            last = max(head.audit_id, _head(connection).audit_id)
            return int(_value(connection, "unsealed", {"after": last}))


EDITED = "does not fit its seal: it was edited, or it, its seal or the ones before were exchanged"
DELETED = "was deleted: its seal is there, the row is not"
INSERTED = "was inserted after its place had been sealed, or its seal was deleted"
RESEALED = "has another seal than the one that was written down: the chain was made anew"
CUT = "is missing with all behind it, and its seal was written down: the end of the chain was cut off"


def _compared(
    head: Head, seals: Sequence[tuple[int, bytes]], rows: Sequence[tuple[Any, ...]]
) -> Iterator[Head | Broken]:
    """Seals beside rows, both in order: the head after each pair that fits, or the first break."""
    waiting = iter(rows)
    row = next(waiting, None)
    for audit_id, seal in seals:
        if row is None or row[0] > audit_id:
            yield Broken(audit_id, DELETED)
            return
        if row[0] < audit_id:
            yield Broken(row[0], INSERTED)
            return
        head = Head(audit_id, next_seal(head.hash, row))
        if head.hash != bytes(seal):
            yield Broken(audit_id, EDITED)
            return
        yield head
        row = next(waiting, None)


def _rows(connection: Connection, after: int, upto: int, limit: int | None = BATCH) -> list[tuple[Any, ...]]:
    with connection.cursor(row_factory=tuple_row) as cursor:
        parameters = {"after": after, "upto": upto, "limit": limit}
        found: list[tuple[Any, ...]] = cursor.execute(SQL["rows"], parameters).fetchall()
        return found


def _head(connection: Connection) -> Head:
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(SQL["head"]).fetchone()
        return Head(row[0], bytes(row[1])) if row else Head()


def _some_behind(connection: Connection, head: Head) -> bool:
    return bool(_rows(connection, head.audit_id, 2**63 - 1, limit=1))


def _value(connection: Connection, name: str, parameters: dict[str, Any] | None = None) -> Any:
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(SQL[name], parameters).fetchone()
        return row[0] if row else None


def _writers(connection: Connection) -> set[tuple[int, str]]:
    with connection.cursor(row_factory=tuple_row) as cursor:
        return {(pid, turn) for pid, turn in cursor.execute(SQL["writers"])}


def head_of(text: str) -> Head:
    """A head as it was printed, `NUMBER:HASH`. Raises BadRequest."""
    number, _, digest = text.partition(":")
    try:
        head = Head(int(number), bytes.fromhex(digest))
    except ValueError:
        head = Head()
    if len(head.hash) != len(FIRST) or head == Head():
        raise BadRequest("A head is written as NUMBER:HASH, as `filmroom audit verify` prints it.")
    return head


def seal(node: "Node") -> None:
    """Seal what was committed."""
    node.chain.seal()


DUTIES = (Duty("seal-audit", 1.0, seal),)
