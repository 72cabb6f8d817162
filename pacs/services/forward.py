"""Forwarding: what rules send on, in a queue that outlives every process (dimse.md 3).

Each stored object is looked at once, by its place in the change feed. What a rule wants becomes a row for its
destination; a row is sent, or waits, or is dead until somebody replays it. A destination that fails as such is left
alone for a while (circuit breaker), and its objects wait without being used up.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from psycopg.sql import SQL as Text

from pacs.domain.attributes import BY_KEYWORD
from pacs.domain.query import Condition
from pacs.errors import FilmroomError
from pacs.index.compile import compile_query
from pacs.index.named import queries
from pacs.services.books import Books, Cursor, Row
from pacs.services.changes import Changes
from pacs.services.duties import Duty
from pacs.services.forward_rules import Rule, RuleBook
from pacs.services.outgoing import Candidate

if TYPE_CHECKING:
    from pacs.node import Node

SQL = queries("forward")
BATCH = 500  # changes looked at in one transaction
LEASE_SECONDS = 90.0  # a sender that is killed gives its objects back so late
RENEW_SECONDS = 20.0
MOST_ATTEMPTS = 5  # that fail because of the object
FIRST_SECONDS = 5.0  # between them, four times as long each time
BREAK_SECONDS, LONGEST_BREAK = 1.0, 300.0  # a destination that fails is left alone so long, doubling
STOP_SECONDS = 10.0
_PKS = Text("i.pk")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Item:
    """A row of the queue; `candidate` is None when its object was deleted or replaced meanwhile."""

    id: int
    candidate: Candidate | None
    size: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a rule would do with the instances of a study that it matches, by word."""

    rule: Rule
    counts: dict[str, int]


class Forwarding:
    """Thread-safe. Methods raise Unavailable when the database is away, SettingsError when the rules file is wrong."""

    def __init__(self, books: Books, changes: Changes, rules: RuleBook) -> None:
        self._books, self._changes, self.rules = books, changes, rules
        self._busy: dict[str, threading.Thread] = {}
        self._lock = threading.Lock()
        self.closing = threading.Event()

    # from the change feed to the queue

    def plan(self) -> int:
        """Look at what was stored since the last time; how many changes."""
        rules = self.rules.rules()
        if not rules:
            with self._books.transaction() as cursor:
                cursor.execute(SQL["skip"])
            return 0
        self._changes.seal()
        total = seen = self._plan(rules)
        while seen == BATCH:
            total += (seen := self._plan(rules))
        return total

    def _plan(self, rules: Sequence[Rule]) -> int:
        with self._books.transaction() as cursor:
            row = cursor.execute(SQL["cursor"]).fetchone()
            if row is None:
                return 0
            changes = cursor.execute(SQL["arrived"], {"seq": row["seq"], "limit": BATCH}).fetchall()
            if not changes:
                return 0
            arrived = tuple({change["sop_instance_uid"] for change in changes if change["action"] != "delete"})
            for rule in rules if arrived else ():
                pks = _matched(cursor, rule, Condition((BY_KEYWORD["SOPInstanceUID"].tag,), arrived))
                if pks:
                    cursor.execute(SQL["enqueue"], _fields(rule) | {"pks": pks})
            cursor.execute(SQL["move_cursor"], {"seq": changes[-1]["seq"]})
            return len(changes)

    def judge(self, study_uid: str) -> list[Judgement]:
        """What each rule would do with a study's instances, without doing it."""
        only = Condition((BY_KEYWORD["StudyInstanceUID"].tag,), (study_uid,))
        found = []
        with self._books.transaction() as cursor:
            for rule in self.rules.rules():
                rows = cursor.execute(SQL["judge"], _fields(rule) | {"pks": _matched(cursor, rule, only)}).fetchall()
                found.append(Judgement(rule, {row["what"]: row["instances"] for row in rows}))
        return found

    # from the queue to the destinations

    def due(self) -> list[str]:
        """Destinations that something waits for and that may be tried now."""
        with self._books.transaction() as cursor:
            return [row["destination"] for row in cursor.execute(SQL["due"]).fetchall()]

    def engage(self, destination: str, work: Callable[[], None]) -> bool:
        """Run `work` on a thread of its own unless one is at this destination already: none delays another."""
        with self._lock:
            running = self._busy.get(destination)
            if self.closing.is_set() or (running is not None and running.is_alive()):
                return False
            thread = threading.Thread(target=_guarded, args=(destination, work), name="forward", daemon=True)
            self._busy[destination] = thread
            thread.start()
            return True

    def lease(self, destination: str, limit: int) -> list[Item]:
        """The next objects, this caller's for LEASE_SECONDS; those that were deleted are dropped here."""
        values = {"destination": destination, "limit": limit, "seconds": LEASE_SECONDS}
        with self._books.transaction() as cursor:
            rows = cursor.execute(SQL["lease"], values).fetchall()
            gone = [row["id"] for row in rows if row["pk"] is None]
            if gone:
                cursor.execute(SQL["dropped"], {"ids": gone})
        return [_item(row) for row in rows if row["pk"] is not None]

    def renew(self, ids: Sequence[int]) -> None:
        """The caller is still at those of them that have had no turn."""
        with self._books.transaction() as cursor:
            cursor.execute(SQL["renew"], {"ids": list(ids), "seconds": LEASE_SECONDS})

    def sent(self, destination: str, ids: Sequence[int]) -> None:
        """They have arrived. Should Postgres crash within a second they go once more, which does no harm."""
        with self._books.transaction() as cursor:
            cursor.execute("SET LOCAL synchronous_commit = off")
            cursor.execute(SQL["sent"], {"ids": list(ids)})
            cursor.execute(SQL["close"], {"destination": destination})

    def failed(self, number: int, message: str, *, final: bool = False) -> None:
        """The destination did not take this one; `final`: nor ever will."""
        limits = {"most": MOST_ATTEMPTS, "first": FIRST_SECONDS}
        with self._books.transaction() as cursor:
            cursor.execute(SQL["failed"], {"id": number, "message": message, "final": final, **limits})

    def trip(self, destination: str, message: str) -> None:
        """The destination failed as such: leave it alone for a while."""
        values = {"destination": destination, "message": message, "first": BREAK_SECONDS, "longest": LONGEST_BREAK}
        with self._books.transaction() as cursor:
            cursor.execute(SQL["trip"], values)
        log.warning("forwarding_held", destination=destination, reason=message)

    def give_back(self, ids: Sequence[int]) -> None:
        """Not tried after all."""
        with self._books.transaction() as cursor:
            cursor.execute(SQL["give_back"], {"ids": list(ids)})

    # for people

    def dead(self, destination: str = "", limit: int = 1000) -> list[Row]:
        """Objects that were given up."""
        with self._books.transaction() as cursor:
            return cursor.execute(SQL["dead"], {"destination": destination, "limit": limit}).fetchall()

    def replay(self, ids: Sequence[int] = (), *, destination: str = "", everything: bool = False) -> int:
        """Try dead ones again; how many. Their destinations are tried at once."""
        values = {"ids": list(ids), "destination": destination, "everything": everything}
        with self._books.transaction() as cursor:
            rows = cursor.execute(SQL["replay"], values).fetchall()
            cursor.execute(SQL["reopen"], {"destinations": sorted({row["destination"] for row in rows})})
            return len(rows)

    def board(self) -> list[Row]:
        """Each destination: what waits, went, was given up, and whether it is held."""
        with self._books.transaction() as cursor:
            return cursor.execute(SQL["board"]).fetchall()

    def prune(self) -> None:
        """Forget what went a week ago."""
        with self._books.transaction() as cursor:
            cursor.execute(SQL["prune"])

    def close(self) -> None:
        """Let senders end with the object they are at."""
        self.closing.set()
        for thread in list(self._busy.values()):
            thread.join(STOP_SECONDS)


def _matched(cursor: Cursor, rule: Rule, only: Condition) -> list[int]:
    statement = compile_query(rule.query(only), _PKS, limit=1_000_000)
    return [next(iter(row.values())) for row in cursor.execute(statement.text, statement.values, prepare=False)]


def _fields(rule: Rule) -> dict[str, Any]:
    return {
        "rule": rule.name,
        "destination": rule.destination,
        "results": rule.results,
        "sources": list(rule.sources),
    }


def _item(row: Row) -> Item:
    return Item(row["id"], Candidate._make(row[name] for name in Candidate._fields), row["size"])


def _guarded(destination: str, work: Callable[[], None]) -> None:
    """What goes wrong is told; the next turn tries again."""
    try:
        work()
    except FilmroomError as error:
        log.warning("forwarding_failed", destination=destination, reason=error.message)
    except Exception as error:
        log.error("forwarding_broke", destination=destination, exc_info=error)


def plan(node: "Node") -> None:
    """Look at what was stored."""
    node.forwarding.plan()


def prune(node: "Node") -> None:
    """Forget what went a while ago."""
    node.forwarding.prune()


DUTIES = (Duty("forward-plan", 1.0, plan, woken_by="outbox"), Duty("forward-prune", 3600.0, prune))
