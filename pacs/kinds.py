"""How the text of a setting becomes its value: one parser a kind, and what some settings ask beyond their kind."""

import ipaddress
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pacs.errors import SettingsError


def same(value: Any, _folder: Path) -> Any:
    return value


def _text(text: str, _folder: Path) -> str:
    return text


def _boolean(text: str, _folder: Path) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


def _integer(text: str, _folder: Path) -> int:
    return int(text)


def _number(text: str, _folder: Path) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _path(text: str, folder: Path) -> Path:
    return folder / Path(text).expanduser()


def _words(text: str, _folder: Path) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[,\s]+", text) if word)


def _paths(text: str, folder: Path) -> tuple[Path, ...]:
    return tuple(_path(part.strip(), folder) for part in re.split(f"[,{re.escape(os.pathsep)}]", text) if part.strip())


def _database_url(url: str, _folder: Path) -> str:
    scheme, _, rest = url.partition("://")
    if not re.fullmatch(r"postgres(ql)?(\+(asyncpg|psycopg|psycopg2))?", scheme):
        raise SettingsError("DATABASE_URL must begin with postgresql://; only Postgres is spoken.")
    return f"postgresql://{rest}"


def _redis_url(url: str, _folder: Path) -> str:
    if not url.startswith(("redis://", "rediss://", "unix://", "valkey://", "valkeys://")):
        raise SettingsError("REDIS_URL must begin with redis://, rediss:// or unix://.")
    return re.sub(r"^valkey(s?)://", r"redis\1://", url)


def _networks(words: tuple[str, ...], _folder: Path) -> tuple[str, ...]:
    for word in words:
        try:
            ipaddress.ip_network(word, strict=False)
        except ValueError as error:
            raise SettingsError(f"TRUSTED_PROXIES must be addresses or networks (10.0.0.0/8), not {word!r}.") from error
    return words


def _origins(words: tuple[str, ...], _folder: Path) -> tuple[str, ...]:
    for word in words:
        if not re.fullmatch(r"https?://[^/\s*]+", word):
            raise SettingsError(f"CORS_ORIGINS must be exact origins (https://viewer.example), not {word!r}.")
    return words


def _storage(text: str, folder: Path) -> str:
    return text if text.startswith("s3:") else str(_path(text, folder))


Parser = Callable[[str, Path], Any]
KINDS: dict[Any, tuple[Parser, str]] = {
    str: (_text, "text"),
    bool: (_boolean, "true or false"),
    int: (_integer, "a whole number"),
    float: (_number, "a number"),
    Path | None: (_path, "a path"),
    tuple[str, ...]: (_words, "a list (in the environment: separated by commas)"),
    tuple[Path, ...]: (_paths, "a list of paths"),
}
SPECIAL: dict[str, Callable[[Any, Path], Any]] = {
    "database_url": _database_url,
    "database_replica_url": _database_url,
    "redis_url": _redis_url,
    "cors_origins": _origins,
    "trusted_proxies": _networks,
    "dicom_storage_dir": _storage,
}
