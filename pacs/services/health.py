"""Is the process alive, and can the node do its work? A table of checks, each one sentence when it fails."""

import shutil
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import redis
from psycopg_pool import ConnectionPool

from pacs.errors import FilmroomError, Unavailable
from pacs.index import schema
from pacs.services.gate import read
from pacs.settings import Settings

PATIENCE = 2.0  # of each check, in seconds
FRESH = 1.0  # a report this young is given again, so that many askers cost one
OK = "ok"
NEEDS = {"schema": "database", "maintenance": "database"}  # not asked while the other fails: each would wait again

Check = Callable[[], None]


@dataclass(frozen=True)
class Readiness:
    """`checks`: name -> "ok" or the sentence that says what is wrong and what to do."""

    ready: bool
    checks: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """The body of `/ready` (operations.md 5)."""
        return {"status": "ready" if self.ready else "not_ready", "checks": dict(self.checks)}


class Health:
    """The node's health. `more` adds checks of other rooms: they return when well and raise FilmroomError when not."""

    def __init__(self, settings: Settings, pool: ConnectionPool[Any], more: Mapping[str, Check] | None = None) -> None:
        self._settings = settings
        self._pool = pool
        self._started = time.monotonic()
        self._checks: dict[str, Check] = {
            "database": self._database,
            "schema": self._schema,
            "redis": self._redis,
            "store": self._store,
            "disk": self._disk,
            "maintenance": self._maintenance,
            **(more or {}),
        }
        self._lock = threading.Lock()
        self._last: tuple[float, Readiness] | None = None

    def live(self) -> dict[str, Any]:
        """The body of `/health`: asks nobody, so it is answered with the database down too."""
        uptime = round(time.monotonic() - self._started, 1)
        return {"status": "healthy", "version": version("filmroom"), "uptime_seconds": uptime}

    def ready(self) -> Readiness:
        """All checks, in at most a few seconds whatever is down. Thread-safe."""
        with self._lock:
            if self._last and time.monotonic() - self._last[0] < FRESH:
                return self._last[1]
            checks: dict[str, str] = {}
            for name, check in self._checks.items():
                cause = NEEDS.get(name, "")
                checks[name] = _outcome(check) if checks.get(cause, OK) == OK else f"Not asked: see {cause}."
            report = Readiness(all(outcome == OK for outcome in checks.values()), checks)
            self._last = (time.monotonic(), report)
            return report

    def _database(self) -> None:
        schema.ping(self._pool, PATIENCE)

    def _schema(self) -> None:
        schema.require_head(schema.recorded_in(self._pool, PATIENCE))

    def _maintenance(self) -> None:
        state = read(schema.node_state(self._pool, "maintenance", PATIENCE))
        if state.on:
            raise Unavailable(f"{state.sentence} It is ended by: filmroom maintenance off")

    def _redis(self) -> None:
        url = self._settings.redis_url
        if not url:
            raise Unavailable("REDIS_URL is not set and no embedded server runs; start the node with: filmroom serve")
        try:
            with redis.Redis.from_url(url, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE) as client:
                client.ping()
        except redis.RedisError as error:
            raise Unavailable("Redis does not answer; check REDIS_URL and that it runs.") from error

    def _store(self) -> None:
        folder = self._settings.storage_dir / "tmp"
        probe = folder / f"{uuid.uuid4().hex}.part"  # the sweep removes it should we die here
        try:
            folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            probe.write_bytes(b"probe")
        except OSError as error:
            raise Unavailable(
                f"The file store cannot be written ({error.strerror}); check DICOM_STORAGE_DIR."
            ) from error
        finally:
            probe.unlink(missing_ok=True)

    def _disk(self) -> None:
        free = shutil.disk_usage(_existing(self._settings.storage_dir)).free
        if free < self._settings.disk_reserve_bytes:
            raise Unavailable(
                f"{free / 2**30:.1f} GiB are free, less than DISK_RESERVE_GB ({self._settings.disk_reserve_gb:g}): "
                "new objects are refused; free space or enlarge the disk."
            )


def _outcome(check: Check) -> str:
    try:
        check()
    except FilmroomError as error:
        return error.message
    except Exception as error:  # a check that breaks is a check that fails, never a failed answer
        return f"The check failed ({type(error).__name__})."
    return OK


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())
