"""Where readers of long lists stopped: clients turn pages by growing offsets, which slip when objects arrive or go.

A page's last place in the order is kept for a while; whoever asks for what comes after so many rows goes on behind that
place. What is forgotten, or was read from another process, is found by counting rows.
"""

import threading
import time
from collections import OrderedDict
from typing import Any

from pacs.domain.query import Query

KEPT = 2000  # bookmarks
SECONDS = 600.0
Place = tuple[Any, ...]


class Bookmarks:
    """Bookmarks by reader, list and number of rows before them. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, Query, int], tuple[float, Place]] = OrderedDict()

    def put(self, reader: str, query: Query, rows: int, last: Place) -> None:
        """The reader has seen so many rows of this list, the last of which stands there."""
        name = (reader, query, rows)
        with self._lock:
            self._kept[name] = (time.monotonic(), last)
            self._kept.move_to_end(name)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)

    def find(self, reader: str, query: Query, rows: int) -> Place:
        """The place after so many rows; empty when it is not known."""
        with self._lock:
            made, last = self._kept.get((reader, query, rows), (0.0, ()))
        return last if time.monotonic() - made < SECONDS else ()
