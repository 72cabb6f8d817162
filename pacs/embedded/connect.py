"""How a command finds the servers of its home: those of a running node, or its own for the duration."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pacs.embedded.lock import holder
from pacs.embedded.postgres import Postgres
from pacs.embedded.servers import Servers
from pacs.embedded.valkey import Valkey
from pacs.settings import Settings

NOTE_NAME = "node.json"
NOTED = ("http_host", "http_port", "web_port", "dicom_host", "dicom_port", "dicom_ae_title")


@contextmanager
def connected(settings: Settings, *, start: bool) -> Iterator[Settings]:
    """The settings with the URLs of this home's servers filled in where they are unset.

    A node that runs on the home is joined. Without one the servers are started for the duration when `start`, and the
    URLs stay empty otherwise.
    """
    if settings.database_url and settings.redis_url:
        yield settings
    elif holder(settings.home):
        yield located(noted(settings))
    elif start:
        servers = Servers(settings.home, missing(settings))
        try:
            servers.start()
            yield located(settings)
        finally:
            servers.stop()
    else:
        yield settings


def missing(settings: Settings) -> tuple[str, ...]:
    """Names of the servers that no URL is set for."""
    urls = {"postgres": settings.database_url, "valkey": settings.redis_url}
    return tuple(name for name, url in urls.items() if not url)


def located(settings: Settings) -> Settings:
    """The settings with the fixed URLs of the home's embedded servers where none are set."""
    home, run_dir = settings.home, settings.run_dir
    return dataclasses.replace(
        settings,
        database_url=settings.database_url or Postgres(home, run_dir).url,
        redis_url=settings.redis_url or Valkey(home, run_dir).url,
    )


def write_note(settings: Settings) -> None:
    """Tell later commands which ports the node of this home took (port 0 = any)."""
    ports = {name: getattr(settings, name) for name in NOTED}
    _note(settings.home).write_text(json.dumps(ports), encoding="utf-8")


def noted(settings: Settings) -> Settings:
    try:
        return dataclasses.replace(settings, **json.loads(_note(settings.home).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return settings


def note_exists(settings: Settings) -> bool:
    """True while a node runs, and after one that ended without a drain."""
    return _note(settings.home).exists()


def erase_note(settings: Settings) -> None:
    _note(settings.home).unlink(missing_ok=True)


def _note(home: Path) -> Path:
    return home / NOTE_NAME
