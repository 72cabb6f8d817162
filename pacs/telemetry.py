"""What a process tells its operators: events as JSON lines, and metrics.

Neither ever holds patient data (security.md 3). Fields named like patient data are withheld, objects that are not plain
values are reduced to their type, exceptions to their type and place: a driver's message may quote the row it failed on.
"""

import fcntl
import itertools
import logging
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, TypeVar
from uuid import UUID

import orjson
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from pacs.errors import FilmroomError
from pacs.settings import Settings

Event = MutableMapping[str, Any]
Family = tuple[str, str, str]  # name, the lines that say what it is, the lines of its samples
M = TypeVar("M", Counter, Gauge, Histogram)

WITHHELD = "[withheld]"
PRIVATE = re.compile(
    r"patient|person|accession|birth|issuer|physician|operator_name|institution|description|comments?$|"
    r"query|identifier$|password|passwd|secret|token|authorization|cookie|credential|api_key",
    re.IGNORECASE,
)
LIKE_UID = re.compile(r"[0-9.]{0,64}")
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
LONGEST = 500
FRAMES_SHOWN = 8
# Loggers of libraries whose sentences hold no request's content; of all others only the fact is told.
TRUSTED_LOGGERS = ("uvicorn", "alembic", "psycopg.pool")
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SHARE_EVERY = 5.0
HOST = re.sub(r"[^\w.-]", "_", socket.gethostname())[:64]


def configure(settings: Settings, component: str, stream: TextIO | None = None) -> None:
    """Send the events of this process to `stream` (standard error), each with the component's name.

    `structlog.get_logger()` anywhere then logs: `log.info("instance_stored", sop_instance_uid=uid, size=n)`.
    """
    stream = stream or sys.stderr
    on_terminal = settings.log_format == "auto" and stream.isatty()
    console = settings.log_format == "console" or on_terminal
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _named(component),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            place_exception,
            withhold,
            _render_console if console else _render_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[settings.log_level]),
        logger_factory=structlog.WriteLoggerFactory(stream),
    )
    _take_over_logging(LEVELS[settings.log_level])


def withhold(_logger: object, _method: str, event: Event) -> Event:
    """Replace what may be patient data or a secret; escape what may forge a line or move a cursor."""
    return {key: WITHHELD if _is_private(key, value) else _plain(value) for key, value in event.items()}


def _is_private(key: str, value: Any) -> bool:
    """Also what is called a UID and is none: a name may stand in its place."""
    if key.endswith("_uid"):
        return not isinstance(value, str) or LIKE_UID.fullmatch(value) is None
    return key != "event" and PRIVATE.search(key) is not None


def place_exception(_logger: object, _method: str, event: Event) -> Event:
    """`exc_info` becomes the exception's type and the innermost frames; its words only where they are ours."""
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["exception"] = f"{type(error).__module__}.{type(error).__qualname__}"
        event["where"] = list(_frames(error.__traceback__))[-FRAMES_SHOWN:]
        if isinstance(error, FilmroomError):
            event["reason"] = error.message
    return event


def _frames(trace: TracebackType | None) -> Iterator[str]:
    while trace is not None:
        code = trace.tb_frame.f_code
        yield f"{'/'.join(Path(code.co_filename).parts[-3:])}:{trace.tb_lineno} {code.co_name}"
        trace = trace.tb_next


def _plain(value: Any) -> Any:
    if isinstance(value, str | Path | UUID):
        return CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", str(value)[:LONGEST])
    if value is None or isinstance(value, bool | int | float | datetime):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return f"<{type(value).__name__}>"


def _named(component: str) -> structlog.typing.Processor:
    def add(_logger: object, _method: str, event: Event) -> Event:
        event.setdefault("component", component)
        return event

    return add


def _render_json(_logger: object, _method: str, event: Event) -> str:
    order = ("timestamp", "level", "component", "event")
    fields = {key: event[key] for key in order if key in event} | dict(event)
    return orjson.dumps(fields, option=orjson.OPT_NON_STR_KEYS, default=str).decode()


def _render_console(_logger: object, _method: str, event: Event) -> str:
    event = dict(event)
    time = str(event.pop("timestamp", ""))[11:19]
    head = f"{time} {event.pop('level', ''):<7} {event.pop('component', ''):<8} {event.pop('event', '')}"
    return "  ".join([head, *(f"{key}={value}" for key, value in event.items())])


class _Forward(logging.Handler):
    """Records of libraries, as events of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        trusted = record.name.startswith(TRUSTED_LOGGERS)
        said = {"said": record.getMessage()} if trusted else {}
        structlog.get_logger().log(
            record.levelno, "library_event", logger=record.name, **said, exc_info=record.exc_info
        )


def _take_over_logging(level: int) -> None:
    logging.basicConfig(handlers=[_Forward()], level=max(level, logging.WARNING), force=True)
    logging.captureWarnings(True)
    for name in ("pynetdicom", "pydicom", "py.warnings"):  # they quote identifiers and values
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.excepthook = lambda _kind, error, _trace: _crashed(error)
    threading.excepthook = lambda arguments: _crashed(arguments.exc_value)


def _crashed(error: BaseException | None) -> None:
    structlog.get_logger().error("crashed", exc_info=error)


class Metrics:
    """The metrics of one process. Built once, passed to whoever counts.

    `share` lets the process that answers `/metrics` tell those of the others on this home too; every sample is labelled
    with the component it comes from, and with the process: machine and number of the place it took, which the next
    process of the component takes when it is free.
    """

    def __init__(self, component: str) -> None:
        self.component = component
        self.registry = CollectorRegistry()
        self._made: dict[str, Counter | Gauge | Histogram | None] = {}
        self._written: dict[tuple[str, ...], str] = {}
        self._lock = threading.Lock()
        self._place: Place | None = None
        self._stop = threading.Event()
        ProcessCollector(registry=self.registry)

    def counter(self, name: str, help_text: str, labels: Sequence[str] = ()) -> Counter:
        """The counter of this name, made on first use; its name ends in `_total` when rendered."""
        return self._kept(name, Counter, lambda: Counter(name, help_text, labels, registry=self.registry))

    def gauge(self, name: str, help_text: str, labels: Sequence[str] = ()) -> Gauge:
        """The gauge of this name, made on first use."""
        return self._kept(name, Gauge, lambda: Gauge(name, help_text, labels, registry=self.registry))

    def histogram(
        self, name: str, help_text: str, labels: Sequence[str] = (), buckets: Sequence[float] = SECONDS
    ) -> Histogram:
        """The histogram of this name, made on first use; of durations in seconds unless buckets are given."""
        make = partial(Histogram, name, help_text, labels, buckets=buckets, registry=self.registry)
        return self._kept(name, Histogram, make)

    def cache(self, name: str) -> Callable[[str], None]:
        """Counts the requests to a cache by what came of each: hit, joined (another was making it), or made."""
        counter = self.counter("filmroom_cache_requests", "Requests to caches by outcome", ("cache", "outcome"))
        counted = {outcome: counter.labels(name, outcome) for outcome in ("hit", "joined", "made")}
        return lambda outcome: counted[outcome].inc()

    def _kept(self, name: str, kind: type[M], make: Callable[[], M]) -> M:
        with self._lock:
            made = self._made.setdefault(name, None) or make()
            self._made[name] = made
        if not isinstance(made, kind):
            raise TypeError(f"metric {name} is a {type(made).__name__}, not a {kind.__name__}")
        return made

    def add(self, collector: Collector) -> None:
        """Ask this collector too, whenever samples are wanted; it must answer at once."""
        self.registry.register(collector)

    def share(self, folder: Path) -> None:
        """Write the samples to a file of this process in `folder` every few seconds, until `close`."""
        with self._lock:
            if self._place is not None:
                return
            self._place = Place.take(folder, self.component)
            self._written.clear()
        threading.Thread(target=self._share_until_closed, name="metrics", daemon=True).start()

    def close(self) -> None:
        """Stop sharing; the file goes away with the process's samples."""
        with self._lock:
            self._stop.set()
            if self._place is not None:
                self._place.leave()

    def render(self) -> bytes:
        """Prometheus text of this process and of those that share the folder and live."""
        families: dict[str, list[str]] = {}
        for name, head, lines in (*self._own(), *self._others()):
            families.setdefault(name, [head]).append(lines)
        return "".join(itertools.chain.from_iterable(families.values())).encode()

    def _own(self) -> Iterator[Family]:
        ours = {"component": self.component, "process": f"{HOST}-{self._place.number if self._place else 0}"}
        for family in self.registry.collect():
            number: Callable[[float], str] = floatToGoString
            lines = [
                f"{self._series(sample, ours)} {number(sample.value)}\n"
                for sample in family.samples
                if not sample.name.endswith("_created")
            ]
            name = f"{family.name}_total" if family.type == "counter" else family.name
            text = family.documentation.replace("\n", " ")
            yield family.name, f"# HELP {name} {text}\n# TYPE {name} {family.type}\n", "".join(lines)

    def _series(self, sample: Sample, ours: dict[str, str]) -> str:
        """Name and labels as they are written, kept: writing them costs ten times what the value does."""
        key = (sample.name, *sample.labels.values())
        kept = self._written.get(key)
        if kept is None:
            labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in {**ours, **sample.labels}.items())
            kept = self._written[key] = f"{sample.name}{{{labels}}}"
        return kept

    def _others(self) -> Iterator[Family]:
        for content in self._place.others() if self._place else ():
            with suppress(orjson.JSONDecodeError, ValueError, TypeError):  # of another version of ours
                yield from [(str(name), str(head), str(lines)) for name, head, lines in orjson.loads(content)]

    def _share_until_closed(self) -> None:
        while not self._stop.is_set():
            with suppress(OSError):
                self.publish()
            self._stop.wait(SHARE_EVERY)

    def publish(self) -> None:
        """Write the shared file now."""
        content = orjson.dumps(list(self._own()))
        with self._lock:
            if not self._stop.is_set() and self._place is not None:
                self._place.write(content)


class Place:
    """A process's place in a folder that several share: the first free number of its component.

    Whoever holds the lock of a place lives; so it is seen where processes cannot see one another, in containers with
    numbers of their own. The kernel gives the lock back however a process ends.
    """

    def __init__(self, folder: Path, component: str, number: int, lock: int) -> None:
        self.folder, self.number, self._lock = folder, number, lock
        self._file = folder / f"{component}-{number}.json"

    @classmethod
    def take(cls, folder: Path, component: str) -> "Place":
        """The first place that nobody holds; what a dead process left there is gone. Raises OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = 0
        while (lock := _locked(folder / f"{component}-{number}.lock")) is None:
            number += 1
        place = cls(folder, component, number, lock)
        place._file.unlink(missing_ok=True)
        return place

    def write(self, content: bytes) -> None:
        """Show this to the others. Raises OSError."""
        fresh = self._file.with_suffix(".part")
        fresh.write_bytes(content)
        fresh.replace(self._file)

    def others(self) -> Iterator[bytes]:
        """What the others show that live; what the dead showed is removed."""
        for file in sorted(self.folder.glob("*.json")):
            if file == self._file:
                continue
            with suppress(OSError):
                lock = _locked(file.with_suffix(".lock"))
                if lock is None:
                    yield file.read_bytes()
                else:
                    file.unlink(missing_ok=True)
                    os.close(lock)

    def leave(self) -> None:
        """Give the place back. Idempotent."""
        if self._lock >= 0:
            self._file.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1


def _locked(path: Path) -> int | None:
    """The descriptor of a file that is now locked by us, or None while another process holds it. Raises OSError."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
