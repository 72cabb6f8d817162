"""The sidecar's process: reads the packages, plans complete studies, runs jobs, says how it is."""

import os
import secrets
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from ai_sidecar.heartbeat import Pace
from ai_sidecar.planner import Planner
from ai_sidecar.worker import Worker
from pacs.errors import FilmroomError, Unavailable
from pacs.node import Node, build
from pacs.settings import Settings

if TYPE_CHECKING:
    from ai_sidecar.bench import LocalBench

log = structlog.get_logger()

SCAN_SECONDS = 10.0
PROVIDER = "Whether this sidecar's device is proved (1), by provider"


def serve(settings: Settings, stop: threading.Event) -> int:
    """Run models until `stop` is set, then finish what runs or give it back. Returns the exit code."""
    if not settings.ai_enabled:
        log.info("ai_disabled", setting="AI_ENABLED")
        stop.wait()
        return 0
    from ai_sidecar.bench import LocalBench  # the runtime and its libraries: not for a sidecar that sits idle

    node = build(settings, component="ai")
    try:
        Sidecar(node, LocalBench(node)).run(stop)
    finally:
        node.close()
    return 0


class Sidecar:
    """Bench, planner and worker of one process, and the loop that looks after them."""

    def __init__(self, node: Node, bench: "LocalBench", pace: Pace | None = None) -> None:
        self.node, self.bench = node, bench
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.planner = Planner(node, bench.decide, bench.ready)
        slots = node.settings.ai_max_concurrent_jobs
        self.worker = Worker(node, bench, owner=self.owner, slots=slots, pace=pace)

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set."""
        log.info("ai_sidecar_started", owner=self.owner, device=self.node.settings.ai_device)
        looking = threading.Thread(target=self._look_after, args=(stop,), name="shelf", daemon=True)
        looking.start()
        self.planner.start()
        self.worker.start()
        stop.wait()
        self.planner.end()
        self.worker.drain()
        _try(lambda: self.node.models.absent(self.owner))

    def _look_after(self, stop: threading.Event) -> None:
        """Packages and our own state, over and over: a package dropped in is noticed without a restart."""
        while not stop.is_set():
            _try(self.tell)
            _try(self.bench.shelf.scan)
            stop.wait(SCAN_SECONDS)

    def tell(self) -> None:
        """Write down whether this sidecar can run models, and on what."""
        device = self.bench.runtime.device
        ready = not device.problem
        reason = "" if ready else "device"
        self.node.metrics.gauge("filmroom_ai_device", PROVIDER, ("provider",)).labels(device.provider).set(ready)
        self.node.models.present(
            self.owner,
            ready=ready,
            device=device.wanted,
            provider=device.provider,
            reason=reason,
            message=device.problem or device.note,
        )
        if not ready:
            log.warning("ai_not_ready", reason=reason, said=device.problem)


def _try(act: Callable[[], object]) -> None:
    """Do it; what is away now is there at the next round."""
    try:
        act()
    except Unavailable:
        log.warning("ai_sidecar_waits", cause="database")
    except FilmroomError as error:
        log.error("ai_sidecar_stumbled", exc_info=error)
    except Exception as error:
        log.error("ai_sidecar_crashed", exc_info=error)
