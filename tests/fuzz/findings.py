"""The corpus of found cases: each input that once broke a target stays a test."""

import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")
SECONDS = 3.0  # of the processor; no input of these sizes may take longer


class TooSlow(AssertionError):
    """A target took too long."""


def tried(name: str, data: bytes) -> None:
    """Run a target on an input. Raises whatever is a finding."""
    began = time.thread_time()
    TARGETS[name].run(data)
    taken = time.thread_time() - began
    if taken > SECONDS:
        raise TooSlow(f"{name} took {taken:.1f} s for {len(data)} bytes")


def kept() -> Iterator[tuple[str, Path]]:
    """Target and file of each kept case."""
    for folder in sorted(CORPUS.glob("*")):
        for file in sorted(folder.glob("*.bin")):
            yield folder.name, file


def keep(name: str, data: bytes) -> Path:
    """Add a case."""
    file = CORPUS / name / f"{sha256(data).hexdigest()[:16]}.bin"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file
