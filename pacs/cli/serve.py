"""`filmroom serve`: the whole node under one supervisor, or one of its processes."""

import argparse
import gc
import os
import signal
import threading
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pacs.cli.components import COMPONENTS, Component, entry_of, with_ports
from pacs.embedded.connect import located, missing, noted
from pacs.embedded.lock import holder
from pacs.embedded.servers import prepare_home
from pacs.errors import SettingsError, Unavailable
from pacs.hardening import refuse_unsafe, with_secret_key
from pacs.settings import Settings
from pacs.telemetry import configure

GARBAGE_LOOKED_AT = 20_000  # new objects between two looks of the garbage collector; Python's own 700 cost a tenth
LAST_WORD = 25.0  # a process that was asked to end and has not by then is ended


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = ["all", *(component.name for component in COMPONENTS)]
    parser.add_argument("what", nargs="?", default="all", choices=names, help="default: all, with embedded servers")


def run(args: argparse.Namespace, settings: Settings) -> int:
    chosen = next((component for component in COMPONENTS if component.name == args.what), None)
    configure(settings, chosen.name if chosen else "node")
    if chosen:
        return _serve_one(chosen, settings)
    refuse_unsafe(settings)
    from pacs.cli.supervisor import Supervisor

    return Supervisor(settings).run()


def _serve_one(component: Component, settings: Settings) -> int:
    """One process, until SIGTERM or SIGINT. Its exit code is what its entry point returns."""
    refuse_unsafe(settings)  # before a key is made: production brings its own
    prepare_home(settings.home)
    settings = _with_servers(with_secret_key(settings), component)
    refuse_unsafe(settings)
    _refuse_newer_schema(settings)
    entry = entry_of(component)
    settings = with_ports(settings, (component,))
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _ask(stop))
    # what was imported stays: the collector looks at it no more, and comes less often to what follows
    gc.freeze()
    gc.set_threshold(GARBAGE_LOOKED_AT)
    return entry(settings, stop)


def _refuse_newer_schema(settings: Settings) -> None:
    """Code that meets the schema of a newer version says so and ends; a database that is away is waited for."""
    from pacs.index import schema

    with suppress(Unavailable):
        schema.refuse_newer(schema.current(settings.database_url))


def _with_servers(settings: Settings, component: Component) -> Settings:
    if not missing(settings):
        return settings
    if not holder(settings.home):
        raise SettingsError(
            f"'serve {component.name}' needs DATABASE_URL and REDIS_URL; "
            "set them, or run 'filmroom serve', which brings its own servers."
        )
    return replace(located(noted(settings)), **_own_ports(settings, component))


def _own_ports(settings: Settings, component: Component) -> dict[str, Any]:
    """The ports that were set for this process, and not left to what the running node of the home serves."""
    wanted = {one.port: int(getattr(settings, one.port)) for one in component.ports}
    return {name: port for name, port in wanted.items() if port not in {0, getattr(Settings, name)}}


def _ask(stop: threading.Event) -> None:
    if not stop.is_set():
        watchdog = threading.Timer(LAST_WORD, os._exit, (1,))
        watchdog.daemon = True
        watchdog.start()
    stop.set()
