"""Progress of long work: a bar with rate and time left on a terminal, a line now and then elsewhere."""

import sys
import time
from types import TracebackType
from typing import TextIO

BAR_WIDTH = 30
REDRAW_SECONDS = 0.1
LINE_SECONDS = 10.0


class Progress:
    """Counts steps of known total and shows them on standard error. Use it as a context manager."""

    def __init__(self, what: str, total: int, *, quiet: bool = False, out: TextIO | None = None) -> None:
        self.what, self.total, self.quiet = what, total, quiet
        self.out = out or sys.stderr
        self.terminal = self.out.isatty()
        self.done = 0
        self.started = self._shown = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.quiet:
            self._show()
            if self.terminal:
                self.out.write("\n")

    def step(self, count: int = 1) -> None:
        """Note that `count` more are done."""
        self.done += count
        due = REDRAW_SECONDS if self.terminal else LINE_SECONDS
        if not self.quiet and time.monotonic() - self._shown >= due:
            self._show()

    def say(self, line: str) -> None:
        """Write a line of its own above the bar."""
        if self.terminal:
            self.out.write("\r\x1b[K")
        self.out.write(line + "\n")

    def _show(self) -> None:
        self._shown = time.monotonic()
        if self.terminal:
            self.out.write("\r\x1b[K" + self._bar() + " " + self._figures())
        else:
            self.out.write(f"{self.what}: {self._figures()}\n")
        self.out.flush()

    def _bar(self) -> str:
        filled = BAR_WIDTH * self.done // max(self.total, 1)
        return f"{self.what} [{'#' * filled}{'.' * (BAR_WIDTH - filled)}]"

    def _figures(self) -> str:
        rate = self.done / max(time.monotonic() - self.started, 1e-9)
        left = (self.total - self.done) / rate if rate else 0.0
        return f"{self.done}/{self.total}  {rate:.0f}/s  {left:.0f} s left"
