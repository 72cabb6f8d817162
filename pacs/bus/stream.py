"""The job streams in Redis: a doorbell that says "look at job N" (ai.md 4). Everything here may be lost at any time.

Written for Redis 6.2 to 8 and Valkey. Every failure of the server is our Unavailable; a missing group, as after a
FLUSHALL, is made again.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pacs.domain.jobs import PRIORITIES
from pacs.errors import Unavailable

T = TypeVar("T")
Reply = Any  # what redis-py makes of an answer; its shape depends on the command

GROUP = "workers"
EPOCH = "ai:epoch"
BEGINNING = "0"
COMMAND_SECONDS = 5.0
PAGE = 1000
KEYS = {priority: f"ai:jobs:{priority}" for priority in PRIORITIES}


@dataclass(frozen=True, slots=True)
class Entry:
    """One ring of the bell: where it stands, and the job that it names."""

    key: str
    entry_id: str
    job_id: int


class Stream:
    """The three streams and their consumer group. Thread-safe. Methods raise Unavailable when Redis is away."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = self._connect(COMMAND_SECONDS)
        self._blocking: dict[float, redis.Redis] = {}

    def _connect(self, socket_timeout: float) -> redis.Redis:
        # RESP2, because shapes of stream replies differ in RESP3; one quick retry covers a connection that went stale
        return redis.Redis.from_url(
            self.url,
            decode_responses=True,
            protocol=2,
            socket_timeout=socket_timeout,
            socket_connect_timeout=COMMAND_SECONDS,
            retry=Retry(NoBackoff(), 1),
        )

    def close(self) -> None:
        """Give the connections back."""
        for client in (self._client, *self._blocking.values()):
            client.close()

    # publishing

    def publish(self, jobs: Iterable[tuple[int, str]]) -> None:
        """Ring for each (job, priority). A ring too many does no harm."""
        with _ours(), self._client.pipeline(transaction=False) as pipe:
            for job_id, priority in jobs:
                pipe.xadd(KEYS.get(priority, KEYS["normal"]), {"job": str(job_id)})
            pipe.execute()

    # taking

    def take(self, consumer: str, *, oldest_first: bool = False) -> Entry | None:
        """The next entry nobody has: by priority, or of the class that waited longest. None when all are empty."""
        keys = self._by_age() if oldest_first else list(KEYS.values())
        return next((entry for key in keys if (entry := self._read_one(consumer, key))), None)

    def wait(self, consumer: str, seconds: float) -> Entry | None:
        """Like `take`, but wait up to that long for one to come."""
        found = self._with_group(lambda: self._read(consumer, list(KEYS.values()), seconds))
        for surplus in found[1:]:  # one of each stream may come at once: the others are for other hands
            self.give_back(surplus)
        return found[0] if found else None

    def claim_idle(self, consumer: str, idle_seconds: float) -> Entry | None:
        """An entry whose holder has been silent for that long, now ours."""
        for key in KEYS.values():
            claimed = self._with_group(partial(self._autoclaim, key, consumer, idle_seconds))
            if claimed:
                return claimed[0]
        return None

    def _autoclaim(self, key: str, consumer: str, idle_seconds: float) -> list[Entry]:
        idle = int(idle_seconds * 1000)
        return claimed_entries(key, self._client.xautoclaim(key, GROUP, consumer, idle, "0-0", count=1))

    def _read_one(self, consumer: str, key: str) -> Entry | None:
        found = self._with_group(lambda: self._read(consumer, [key], None))
        return found[0] if found else None

    def _read(self, consumer: str, keys: Sequence[str], seconds: float | None) -> list[Entry]:
        client = self._client if seconds is None else self._waiting(seconds)
        block = None if seconds is None else max(int(seconds * 1000), 1)
        reply: Reply = client.xreadgroup(GROUP, consumer, dict.fromkeys(keys, ">"), count=1, block=block)
        return [entry for key, rows in reply or () for entry in _entries(key, rows)]

    def _waiting(self, seconds: float) -> redis.Redis:
        """A client whose socket waits longer than the server blocks; redis-py's own limit is 5 s."""
        if seconds not in self._blocking:
            self._blocking[seconds] = self._connect(seconds + COMMAND_SECONDS)
        return self._blocking[seconds]

    def _by_age(self) -> list[str]:
        """The streams, the one whose first undelivered entry is oldest in front."""
        first = {key: self._with_group(partial(self._first_waiting, key)) for key in KEYS.values()}
        return sorted(first, key=lambda key: first[key])

    def _first_waiting(self, key: str) -> float:
        groups: Reply = self._client.xinfo_groups(key)
        last = next((group["last-delivered-id"] for group in groups if group["name"] == GROUP), "0-0")
        rows: Reply = self._client.xrange(key, min=f"({last}", count=1)
        return float(rows[0][0].partition("-")[0]) if rows else float("inf")

    # holding and letting go

    def keep(self, entries: Iterable[Entry], consumer: str) -> None:
        """Tell Redis that we still work on these, so that nobody claims them."""
        with _ours(), self._client.pipeline(transaction=False) as pipe:
            for entry in entries:
                pipe.xclaim(entry.key, GROUP, consumer, 0, [entry.entry_id], justid=True)
            pipe.execute(raise_on_error=False)

    def forget(self, entry: Entry) -> None:
        """The entry is done with: acknowledged and gone from memory."""
        with _ours(), self._client.pipeline(transaction=True) as pipe:
            pipe.xack(entry.key, GROUP, entry.entry_id)
            pipe.xdel(entry.key, entry.entry_id)
            pipe.execute()

    def give_back(self, entry: Entry) -> None:
        """Let somebody else have it: a new ring, and the old one gone."""
        with _ours(), self._client.pipeline(transaction=True) as pipe:
            pipe.xadd(entry.key, {"job": str(entry.job_id)})
            pipe.xack(entry.key, GROUP, entry.entry_id)
            pipe.xdel(entry.key, entry.entry_id)
            pipe.execute()

    def leave(self, consumer: str) -> None:
        """Take the consumer's name off the groups, unless it still holds something."""
        for key in KEYS.values():
            self._with_group(partial(self._delete_consumers, key, lambda name, _idle: name == consumer))

    # looking after

    def present(self) -> set[int]:
        """Every job that some entry names."""
        with _ours():
            return {entry.job_id for key in KEYS.values() for entry in self._all(key)}

    def _all(self, key: str) -> Iterator[Entry]:
        start = "-"
        while rows := self._page(key, start):
            yield from _entries(key, rows)
            start = f"({rows[-1][0]}"

    def _page(self, key: str, start: str) -> Reply:
        return self._client.xrange(key, min=start, count=PAGE)

    def tidy(self, keep_seconds: float) -> None:
        """Drop entries older than that (never by count: that would drop what is being worked on) and idle consumers."""
        oldest = str(int((time.time() - keep_seconds) * 1000))
        for key in KEYS.values():
            self._with_group(partial(self._client.xtrim, key, minid=oldest, approximate=False))
            self._with_group(partial(self._delete_consumers, key, lambda _name, idle: idle > keep_seconds))

    def _delete_consumers(self, key: str, doomed: Callable[[str, float], bool]) -> None:
        rows: Reply = self._client.xinfo_consumers(key, GROUP)
        for row in rows:
            if row["pending"] == 0 and doomed(row["name"], row["idle"] / 1000):
                self._client.xgroup_delconsumer(key, GROUP, row["name"])

    def figures(self) -> dict[str, tuple[int, int]]:
        """For each priority: entries in the stream, and those of them in somebody's hands."""
        return {priority: self._with_group(partial(self._lengths, key)) for priority, key in KEYS.items()}

    def _lengths(self, key: str) -> tuple[int, int]:
        length: Reply = self._client.xlen(key)
        pending: Reply = self._client.xpending(key, GROUP)
        return int(length), int(pending["pending"])

    def epoch(self) -> str | None:
        """The mirrored epoch; None after a flush."""
        with _ours():
            value: Reply = self._client.get(EPOCH)
            return value if value is None else str(value)

    def set_epoch(self, epoch: str) -> None:
        """Say that everything of this epoch has been published."""
        with _ours():
            self._client.set(EPOCH, epoch)

    # the group

    def _with_group(self, act: Callable[[], T]) -> T:
        with _ours():
            try:
                return act()
            except redis.ResponseError as error:
                if not str(error).startswith("NOGROUP") and "no such key" not in str(error):
                    raise
                self._make_groups()
                return act()

    def _make_groups(self) -> None:
        """From the beginning: what was published before the group was there counts too."""
        for key in KEYS.values():
            try:
                self._client.xgroup_create(key, GROUP, id=BEGINNING, mkstream=True)
            except redis.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise


def claimed_entries(key: str, reply: Reply) -> list[Entry]:
    """The entries of an XAUTOCLAIM reply: two elements on Redis 6.2 (deleted entries come as nil), three later."""
    return _entries(key, reply[1])


def _entries(key: str, rows: Reply) -> list[Entry]:
    return [
        Entry(key, entry_id, int(fields["job"]))
        for entry_id, fields in rows
        if fields and fields.get("job", "").isdigit()
    ]


@contextmanager
def _ours() -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise Unavailable("Redis does not answer; jobs go on through the database, more slowly.") from error
