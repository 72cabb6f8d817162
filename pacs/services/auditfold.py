"""What one principal does again and again within a minute: the first time a row at once, the rest one row with a count.

A viewer asks for each of a series' 600 frames by itself; 600 rows would say nothing more and hide the rest.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]

WINDOW_SECONDS = 60.0
MOST_HELD = 10_000  # windows at a time; what comes beyond is written as it is
SAME = ("door", "actor", "address", "action", "outcome", "patient_id", "study_uid")
FINER = ("series_uid", "sop_instance_uid")  # told while all repeats agree on them


def _key(row: Row) -> tuple[Any, ...]:
    """What makes two accesses the same; a list that shows other studies is another one."""
    place = row["study_uid"] or row["sop_instance_uid"]
    return *(row[name] for name in SAME), place, repr(row["detail"].obj), tuple(row["listed"])


class Window:
    """The repeats of one access since its first."""

    def __init__(self, first: Row, now: float) -> None:
        self.begun, self.count = now, 0
        self.row = first

    def add(self, row: Row) -> None:
        """One more; places that differ from the earlier ones are left out."""
        agreed = {name: row[name] if self.count == 0 or row[name] == self.row[name] else "" for name in FINER}
        self.row = {**row, **agreed}
        self.count += 1

    def folded(self) -> Row | None:
        """The row that stands for the repeats, if there were any; its time is that of the last."""
        if not self.count:
            return None
        detail = self.row["detail"]
        return {**self.row, "detail": type(detail)({**detail.obj, "times": self.count})}


class Fold:
    """Windows by what they repeat. Thread-safe."""

    def __init__(self, seconds: float = WINDOW_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._windows: dict[tuple[Any, ...], Window] = {}
        self._lock = threading.Lock()

    def take(self, row: Row) -> Row | None:
        """The row to write now: itself where it is the first of its kind, else None; `due` gives the rest."""
        key = _key(row)
        now = self._clock()
        with self._lock:
            window = self._windows.get(key)
            if window is not None and now - window.begun < self._seconds:
                window.add(row)
                return None
            if window is None and len(self._windows) < MOST_HELD:
                self._windows[key] = Window(row, now)
            return row if window is None else self._renewed(key, window, row, now)

    def _renewed(self, key: tuple[Any, ...], window: Window, row: Row, now: float) -> Row:
        """The window is over but nobody has asked for it yet: what it holds counts with the newcomer."""
        if window.count:
            window.add(row)
            folded = window.folded()
            assert folded is not None
            row = folded
        self._windows[key] = Window(row, now)
        return row

    def due(self, *, everything: bool = False) -> list[Row]:
        """Rows of the windows that are over, or of all."""
        now = self._clock()
        with self._lock:
            over = [k for k, w in self._windows.items() if everything or now - w.begun >= self._seconds]
            windows = [self._windows.pop(key) for key in over]
        return [folded for window in windows if (folded := window.folded()) is not None]
