"""The node's processes: what runs in each, and the ports it takes."""

import errno
import fcntl
import importlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pacs.errors import FilmroomError, SettingsError
from pacs.places import port_lock
from pacs.settings import Settings

Entry = Callable[[Settings, threading.Event], int]


@dataclass(frozen=True)
class Port:
    """The settings of a host and a port. `optional`: 0 means that it is not served, and not any free one.
    `shared`: several processes of one home may serve it together."""

    host: str
    port: str
    optional: bool = False
    shared: bool = False


@dataclass(frozen=True)
class Component:
    """`entry`: dotted name of `serve(settings, stop) -> exit code`; `ports`: those that it takes.
    `delay`: seconds that it lets the doors go first, which are waited for, and for which two cores are few."""

    name: str
    entry: str
    ports: tuple[Port, ...] = ()
    delay: float = 0.0
    enabled: str = ""  # the setting that can turn it off


COMPONENTS = (
    Component("web", "dicomweb.server:serve", ports=(Port("http_host", "http_port"), Port("http_host", "web_port"))),
    Component(
        "dimse",
        "pacs.dimse.server:serve",
        ports=(
            Port("dicom_host", "dicom_port", shared=True),
            Port("dicom_host", "dicom_tls_port", optional=True, shared=True),
        ),
    ),
    Component("clerk", "pacs.services.clerk:serve", delay=1.5),
    Component("ai", "ai_sidecar.server:serve", delay=1.5, enabled="ai_enabled"),
)


def enabled(settings: Settings) -> tuple[Component, ...]:
    """Those that these settings run."""
    return tuple(one for one in COMPONENTS if not one.enabled or getattr(settings, one.enabled))


def entry_of(component: Component) -> Entry:
    """Import the component's code. Raises FilmroomError when it is not there."""
    module, _, function = component.entry.partition(":")
    try:
        entry: Entry = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise FilmroomError(f"'serve {component.name}' is not built yet.") from error
    return entry


def with_ports(settings: Settings, components: tuple[Component, ...], patience: float = 0.0) -> Settings:
    """The settings with each port 0 replaced by a free one. Raises SettingsError naming the port that is in use.

    `patience`: seconds to wait for one that a node killed a moment ago may still hold.
    """
    deadline = time.monotonic() + patience
    chosen: dict[str, Any] = {}
    for one in (port for component in components for port in component.ports):
        wanted, host = getattr(settings, one.port), getattr(settings, one.host)
        if one.optional and not wanted:
            continue
        siblings = one.shared and _has_siblings(settings, wanted)
        while (taken := _free_port(host, wanted, one, shared=siblings)) in {0, *chosen.values()}:
            if wanted and time.monotonic() > deadline:
                raise SettingsError(
                    f"Port {wanted} of {host} is in use; stop the program that holds it, or set "
                    f"{one.port.upper()} to another port ({'0 = none' if one.optional else '0 = any free one'})."
                )
            time.sleep(0.1)
        chosen[one.port] = taken
    return replace(settings, **chosen)


def _has_siblings(settings: Settings, port: int) -> bool:
    """Whether processes of this home serve the port already: they hold its lock together."""
    try:
        with port_lock(settings.run_dir, port).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _free_port(host: str, port: int, names: Port, *, shared: bool) -> int:
    """The port, or the free one chosen for 0; 0 when it is in use by others than those it is `shared` with."""
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(address[0], socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: TIME_WAIT is no user
            if shared:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            probe.bind(address[4])
            return int(probe.getsockname()[1])
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return 0
        cure = (
            f"set {names.port.upper()} above 1023" if error.errno == errno.EACCES else f"correct {names.host.upper()}"
        )
        raise SettingsError(f"Port {port} of {host} cannot be opened ({error.strerror}); {cure}.") from error
