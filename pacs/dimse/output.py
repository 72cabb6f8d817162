"""Bytes on their way to a peer whose socket may not take them at once."""

import socket
import time
from collections import deque


class Output:
    """Sends what the socket takes and keeps the rest. Whoever puts bounds what is kept, by `size`."""

    def __init__(self, sock: socket.socket) -> None:
        self.size = 0  # bytes kept
        self.moved_at = time.monotonic()  # when the socket last took something, or the queue was last empty
        self._sock = sock
        self._kept: deque[memoryview] = deque()

    def put(self, data: bytes | memoryview) -> None:
        """Send `data` by one send where nothing waits before it. Raises OSError when the connection is gone."""
        view = memoryview(data)
        if not self._kept:
            self.moved_at = time.monotonic()
            view = view[self._send(view) :]
        if view:
            self._kept.append(view)
            self.size += len(view)

    def flush(self) -> None:
        """The socket takes bytes again. Raises OSError when the connection is gone."""
        while self._kept:
            data = self._kept[0]
            taken = self._send(data)
            if taken:
                self.moved_at = time.monotonic()
                self.size -= taken
            if taken < len(data):
                self._kept[0] = data[taken:]
                return
            self._kept.popleft()

    def clear(self) -> None:
        """Forget what is kept."""
        self._kept.clear()
        self.size = 0

    def _send(self, data: memoryview) -> int:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
