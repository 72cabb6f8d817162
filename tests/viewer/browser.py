"""A real browser on the viewer's port, and what it asked for and complained of."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
         "--ignore-gpu-blocklist"]  # fmt: skip
PATIENCE = 90_000  # milliseconds; a small machine draws by its processor, beside other tests
# how many gray and how many coloured pixels a viewport shows
DRAWN = """() => {
  let gray = 0, coloured = 0;
  for (const canvas of document.querySelectorAll('canvas.cornerstone-canvas')) {
    const place = canvas.getContext('2d');
    if (!place || !canvas.width) continue;
    const seen = place.getImageData(0, 0, canvas.width, canvas.height).data;
    for (let i = 0; i < seen.length; i += 16) {
      const spread = Math.max(seen[i], seen[i+1], seen[i+2]) - Math.min(seen[i], seen[i+1], seen[i+2]);
      if (spread > 24) coloured++; else if (seen[i] > 24) gray++;
    }
  }
  return {gray, coloured};
}"""


@dataclass
class Visit:
    """One page: the hosts it spoke to beside ours, the answers that failed, what it wrote to its console."""

    page: Any
    origin: str
    shots: Path
    is_known: bool = False
    foreign: list[str] = field(default_factory=list)
    failed: list[tuple[int, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def watch(self) -> "Visit":
        self.page.on("request", lambda request: self._asked(request.url))
        self.page.on(
            "response", lambda answer: answer.status >= 400 and self.failed.append((answer.status, answer.url))
        )
        self.page.on("console", lambda said: said.type == "error" and self.errors.append(said.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        return self

    def _asked(self, url: str) -> None:
        self.asked.append(url)
        if not url.startswith((self.origin + "/", "data:", f"blob:{self.origin}/")):
            self.foreign.append(url)

    def open(self, path: str) -> None:
        """Go there, and put away what the viewer says to newcomers."""
        self.page.goto(self.origin + path)
        if not self.is_known:
            self.page.get_by_text("Confirm and hide").click(timeout=PATIENCE)
        self.is_known = True

    def study(self, study_uid: str) -> None:
        """Open a study; its first image is there when this returns."""
        self.open(f"/viewer?StudyInstanceUIDs={study_uid}")
        tour = self.page.get_by_text("Skip all")
        tour.click(timeout=PATIENCE)
        tour.wait_for(state="detached", timeout=PATIENCE)

    def drawn(self, what: str, at_least: int) -> None:
        """Wait until the viewport shows so many pixels of this kind, gray or coloured."""
        self.page.wait_for_function(f"({DRAWN})().{what} >= {at_least}", timeout=PATIENCE, polling=200)

    def keep(self, name: str) -> None:
        """Keep a picture of the page as it is."""
        self.shots.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=self.shots / f"{name}.png")

    def was_clean(self) -> bool:
        """No word to another host, no answer that failed, no error; what there was is in the assertion's message."""
        assert (self.foreign, self.failed, self.errors) == ([], [], [])
        return True


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium without a screen."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


def shots() -> Path:
    """Where pictures are kept: ARTIFACTS, or a folder that `make clean` removes."""
    return Path(os.environ.get("ARTIFACTS", "build")) / "viewer"
