"""The one door in: every object, whoever brings it, passes here (storage.md 2)."""

from concurrent.futures import Future

from pacs.domain.events import Expected, Source, Stored
from pacs.errors import Reason, Refused
from pacs.services.refusals import Refusals
from pacs.settings import Settings
from pacs.store.base import Store
from pacs.telemetry import Metrics


class Incoming:
    """One object on its way in: bytes to the staging file, hashed while written."""

    source: Source
    expected: Expected
    size: int

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Append bytes. Raises Refused (TOO_LARGE, OUT_OF_SPACE, UNAVAILABLE)."""
        raise NotImplementedError

    def abort(self) -> None:
        """Forget it; idempotent."""
        raise NotImplementedError


class Ingest:
    """Takes objects in. Thread-safe."""

    def __init__(self, settings: Settings, store: Store, refusals: Refusals, metrics: Metrics) -> None:
        self._settings, self._store, self._refusals, self._metrics = settings, store, refusals, metrics

    def begin(self, source: Source, expected: Expected | None = None, *, raw: bool = False) -> Incoming:
        """Begin an object, or raise Refused (OUT_OF_SPACE, UNAVAILABLE) at once."""
        raise NotImplementedError

    def submit(self, incoming: Incoming) -> "Future[Stored]":
        """The answer, after fsync and commit; its exception is Refused, recorded under its `refusal_id`."""
        raise NotImplementedError

    def store(self, incoming: Incoming) -> Stored:
        """`submit` and wait."""
        return self.submit(incoming).result()

    def refuse(self, source: Source, expected: Expected, reason: Reason, message: str) -> Refused:
        """Record a refusal that the door itself decided, and return it for raising."""
        raise NotImplementedError

    def close(self) -> None:
        """Refuse what comes from now on, wait for what is under way."""
