"""Where things lie on disk: the checkout, the shipped configuration, the home, the folder of sockets."""

import os
import tempfile
from hashlib import sha256
from pathlib import Path

SOCKET_PATH_LIMIT = 100  # sun_path holds 108 bytes; Postgres appends ".s.PGSQL.5432.lock" to the folder's name


def checkout() -> Path | None:
    """The checkout that this code runs from, or None when it is installed."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").is_file() and (root / "Makefile").is_file() else None


def config_folder() -> Path:
    """The folder of what is shipped: the example configuration and the model packages."""
    root = checkout()
    return root / "config" if root else Path(__file__).resolve().parent / "default_config"


def default_home() -> Path:
    root = checkout()
    if root:
        return root / "var"
    from platformdirs import user_data_path

    return user_data_path("filmroom", appauthor=False)


def default_config_file(home: Path) -> Path:
    return config_folder() / "filmroom.toml" if checkout() else home / "filmroom.toml"


def port_lock(run_dir: Path, port: int) -> Path:
    """The file that all processes of one home lock together which share a port, so that they know each other."""
    return run_dir / f"dimse-{port}.lock"


def run_folder(home: Path) -> Path:
    """`home/run`, or, where that is too long for a socket's name, a short folder that the home's path decides."""
    folder = home.absolute() / "run"
    if len(os.fsencode(folder)) + len("/.s.PGSQL.5432.lock") < SOCKET_PATH_LIMIT:
        return folder
    name = sha256(os.fsencode(home.resolve())).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"filmroom-{os.getuid()}" / name
