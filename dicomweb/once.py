"""Work that many ask for at the same time is done once, and what was made lately is kept (within bytes)."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future


class Once:
    """Keeps up to `most_bytes` of made values. Thread-safe; a value larger than a quarter of that is not kept."""

    def __init__(self, most_bytes: int, told: Callable[[str], None] = lambda _outcome: None) -> None:
        """`told` hears of each call: hit, joined, made."""
        self.most_bytes, self._told = most_bytes, told
        self._lock = threading.Lock()
        self._running: dict[Hashable, Future[bytes]] = {}
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._size = 0

    def call(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """The value of `key`: kept, or being made by another thread, or made now. Raises what `make` raises."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                self._told("hit")
                return self._kept[key]
            waiting = self._running.get(key)
            if waiting is None:
                mine: Future[bytes] = Future()
                self._running[key] = mine
        self._told("made" if waiting is None else "joined")
        return self._make(key, make, mine) if waiting is None else waiting.result()

    def _make(self, key: Hashable, make: Callable[[], bytes], mine: "Future[bytes]") -> bytes:
        try:
            made = make()
        except BaseException as error:
            with self._lock:
                del self._running[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._running[key]
            self._keep(key, made)
        mine.set_result(made)
        return made

    def _keep(self, key: Hashable, made: bytes) -> None:
        if len(made) > self.most_bytes // 4:
            return
        self._kept[key] = made
        self._size += len(made)
        while self._size > self.most_bytes:
            _, gone = self._kept.popitem(last=False)
            self._size -= len(gone)
