"""Whether the archive is whole: every row has its file, every file its row, and every byte is what was stored."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from psycopg_pool import ConnectionPool

from pacs.index.named import queries
from pacs.index.pool import transaction
from pacs.store.base import Place, Store
from pacs.store.digest import sha256_of

SQL = queries("wholeness")
AT_ONCE = 1000


class Steps(Protocol):
    def step(self, count: int = 1) -> None:
        """So many more are done."""


Meter = Callable[[str, int], AbstractContextManager[Steps]]  # what is counted, how many there are


@dataclass(frozen=True, slots=True)
class Fault:
    """A file that is not as it should be: its path below the store, and the instance it belongs to ("" = none)."""

    path: str
    sop_instance_uid: str = ""


@dataclass
class Report:
    """`missing`: rows without a whole file; `changed`: other bytes than were stored; `orphans`: files without a row."""

    instances: int = 0
    checked: int = 0
    bytes: int = 0
    missing: list[Fault] = field(default_factory=list)
    changed: list[Fault] = field(default_factory=list)
    orphans: list[Fault] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return not (self.missing or self.changed or self.orphans)


class Wholeness:
    """Looks, and changes nothing. Runs beside stores and deletes."""

    def __init__(self, pool: ConnectionPool[Any], store: Store) -> None:
        self._pool, self._store = pool, store

    def check(self, meter: Meter, sample: int = 0) -> Report:
        """All instances, or so many of them by chance; the files always all. Raises Unavailable."""
        with transaction(self._pool) as connection:
            row = connection.execute(SQL["total"]).fetchone()
        report = Report(instances=int(row[0]) if row else 0)
        total = min(sample, report.instances) if sample else report.instances
        with meter("verify", total) as steps:
            for name, size, uid, sha256 in self._sampled(sample) if sample else self._all():
                self._check(name, size, uid, bytes(sha256), report)
                steps.step()
        self._set_aside(report)
        report.orphans += [Fault(f"objects/{name}") for name in self._orphans()]
        return report

    def _check(self, name: str, size: int, uid: str, sha256: bytes, report: Report) -> None:
        report.checked += 1
        report.bytes += size
        if self._store.size(name) != size:
            self._found(name, uid, report.missing)
            return
        try:
            with self._store.open(name) as file:
                whole = sha256_of(file) == sha256
        except OSError:
            whole = False
        if not whole:
            self._found(name, uid, report.changed)

    def _found(self, name: str, uid: str, faults: list[Fault]) -> None:
        """It counts only while the row still names the object: it may have been deleted since."""
        with transaction(self._pool) as connection:
            if connection.execute(SQL["still"], {"name": name}).fetchone() == (True,):
                faults.append(Fault(f"objects/{name}", uid))

    def _all(self) -> Iterator[tuple[str, int, str, bytes]]:
        after = 0
        while True:
            with transaction(self._pool) as connection:
                rows = connection.execute(SQL["objects"], {"after": after, "limit": AT_ONCE}).fetchall()
            yield from ((name, size, uid, sha256) for _pk, name, size, uid, sha256 in rows)
            if len(rows) < AT_ONCE:
                return
            after = rows[-1][0]

    def _sampled(self, limit: int) -> Iterator[tuple[str, int, str, bytes]]:
        with transaction(self._pool) as connection:
            rows = connection.execute(SQL["sample"], {"limit": limit}).fetchall()
        yield from ((name, size, uid, sha256) for _pk, name, size, uid, sha256 in rows)

    def _set_aside(self, report: Report) -> None:
        place: Place = "conflicts"
        with transaction(self._pool) as connection:
            rows = connection.execute(SQL["set_aside"]).fetchall()
        for name, size, uid in rows:
            if self._store.size(name, place) != size:
                report.missing.append(Fault(f"{place}/{name}", uid))

    def _orphans(self) -> Iterator[str]:
        """Files that nothing names and that no process is about to name."""
        for names in self._store.folders():
            for name in self._unnamed(names):
                if self._waits(name):
                    continue
                yield from self._unnamed([name])  # the row may have come while we looked

    def _waits(self, name: str) -> bool:
        """Empty files are made ahead for what will come; a held one is being written; a vanished one is no orphan."""
        try:
            return not self._store.size(name) or self._store.in_use(name)
        except FileNotFoundError:
            return True

    def _unnamed(self, names: list[str]) -> list[str]:
        with transaction(self._pool) as connection:
            return [name for (name,) in connection.execute(SQL["unnamed"], {"names": names})]
