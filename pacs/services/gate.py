"""What each process knows of maintenance, without asking for each object: a thread listens to the database.

While a process takes objects in, the thread's connection holds a shared advisory lock; once storing is refused and
nothing is under way any more it lets go. Who drains looks at who holds the lock: a process that dies, dies with it.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import structlog

from pacs.index.named import queries
from pacs.index.pool import BoundedConnection, connection_arguments

SQL = queries("maintenance")
CHANNEL = "maintenance"
LOCK_CLASS, STORES = 0x46494C4D, 1  # the two numbers of the lock of those who store
LOOK_SECONDS = 1.0
FIRST_LOOK_SECONDS = 3.0  # how long the first object waits to hear of a maintenance that began before this process
EXEMPT = frozenset({"ai"})  # results of jobs that were running already: draining waits for them
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Maintenance:
    """The state of the switch, as it is kept. `since` is ISO 8601, of the moment it was turned on."""

    state: str = "off"
    message: str = ""
    refuse_stores: bool = False
    since: str = ""
    by: str = ""

    @property
    def on(self) -> bool:
        return self.state == "on"

    @property
    def began(self) -> datetime:
        """When it was turned on; now, where nobody wrote that down."""
        return datetime.fromisoformat(self.since) if self.since else datetime.now(UTC)

    @property
    def sentence(self) -> str:
        """What people are told; empty when it is off."""
        if not self.on:
            return ""
        effect = "no new objects are taken" if self.refuse_stores else "AI jobs wait, storing goes on"
        since = f" since {self.since[:16].replace('T', ' ')} UTC" if self.since else ""
        return f"Maintenance is on{since}: {effect}.{f' {self.message}' if self.message else ''}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def read(value: dict[str, Any] | None) -> Maintenance:
    """The state from its row, whatever else somebody wrote there."""
    known = {name: value[name] for name in Maintenance.__dataclass_fields__ if name in value} if value else {}
    state = Maintenance(**known)
    with suppress(ValueError):
        return state if state.began.tzinfo else Maintenance(**known | {"since": ""})
    return Maintenance(**known | {"since": ""})


class Gate:
    """Watches the switch for one process. The last state known holds while the database is away.

    `under_way` tells how many objects this process has begun to take in and not answered for.
    """

    def __init__(self, database_url: str, component: str, under_way: Callable[[], int] = lambda: 0) -> None:
        self.under_way = under_way
        self._url, self._component = database_url, component
        self._state = Maintenance()
        self._known = threading.Event()
        self._stop = threading.Event()
        self._holds = False
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def state(self) -> Maintenance:
        """What was last heard. The first caller waits until the database was asked once."""
        if not self._known.is_set():
            self.start()
            self._known.wait(FIRST_LOOK_SECONDS)
        return self._state

    def refusal(self, door: str) -> str:
        """Why an object may not come through this door now; empty when it may."""
        state = self.state()
        if not (state.refuse_stores and state.on) or door in EXEMPT:
            return ""
        return f"{state.sentence} Send the object again later."

    def start(self) -> None:
        """Begin to watch. Idempotent."""
        with self._starting:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="gate", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Stop watching; the lock is given back."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(LOOK_SECONDS * 2)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._watch()
            except Exception as error:  # whatever it is: a process that hears of nothing would go on for ever
                with suppress(Exception):  # a log that is closed, too
                    log.warning("maintenance_not_watched", exc_info=error)
            self._known.set()  # the database is away: nobody need wait for it
            self._stop.wait(LOOK_SECONDS)

    def _watch(self) -> None:
        arguments = connection_arguments(f"{self._component} gate")
        with BoundedConnection.connect(self._url, autocommit=True, **arguments) as connection:
            self._holds = False
            connection.execute("LISTEN maintenance")
            while not self._stop.is_set():
                self._look(connection)
                self._known.set()
                for _ in connection.notifies(timeout=LOOK_SECONDS, stop_after=1):
                    pass

    def _look(self, connection: psycopg.Connection[Any]) -> None:
        """Hear the state, then hold the lock or let go. Whoever begins an object looks at the state after counting."""
        row = connection.execute(SQL["state"]).fetchone()
        state = read(row[0] if row else None)
        before, self._state = self._state, state
        if state != before:
            log.info("maintenance_changed", state=state.state, refuse_stores=state.refuse_stores)
        taking = not (state.on and state.refuse_stores) or self.under_way() > 0
        if taking != self._holds:
            move = "pg_advisory_lock_shared" if taking else "pg_advisory_unlock_shared"
            connection.execute(f"SELECT {move}(%s, %s)", (LOCK_CLASS, STORES))
            self._holds = taking
