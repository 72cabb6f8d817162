"""What must hold before a process serves: a key to sign with, and no archive open by accident (security.md 1)."""

import dataclasses
import ipaddress
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from pacs.errors import SettingsError
from pacs.settings import Settings, kept_key

WEAK_KEYS = (
    "changeme",
    "change-me",
    "change_me",
    "secret",
    "password",
    "development",
    "filmroom",
    "default",
    "example",
)
KEY_LENGTH = 32
KEY_VARIETY = 8  # different characters that chance gives a key of that length at the very least
KEPT, KEPT_PREVIOUS = "secret_key", "secret_key_previous"
MAKE_ONE = "make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
ORIGIN = re.compile(r"https?://[A-Za-z0-9._\[\]:-]+")


def with_secret_key(settings: Settings) -> Settings:
    """The settings with a key: made once and kept in the home with mode 0600, safe against two makers at once."""
    if settings.secret_key:
        return settings
    mine = _written(settings.home, KEPT, new_key())
    try:
        os.link(mine, settings.home / KEPT)
    except FileExistsError:
        pass  # another process was first: its key counts
    finally:
        mine.unlink()
    return dataclasses.replace(settings, secret_key=kept_key(settings.home))


def new_key() -> str:
    """A key of chance."""
    return secrets.token_urlsafe(48)


def kept_keys(home: Path) -> tuple[str, str, float]:
    """The key that the home keeps, the one before it or "", and when it was replaced (seconds since 1970)."""
    current = kept_key(home)
    try:
        before = home / KEPT_PREVIOUS
        return current, before.read_text(encoding="ascii").strip(), before.stat().st_mtime
    except FileNotFoundError:
        return current, "", 0.0
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{home / KEPT_PREVIOUS} cannot be read; remove it or restore it.") from error


def replace_kept_key(home: Path, *, keep_previous: bool) -> None:
    """A new key takes the place of the one in the home. Whoever looks meanwhile finds the old or the new one."""
    if keep_previous:
        os.replace(_written(home, KEPT_PREVIOUS, kept_key(home)), home / KEPT_PREVIOUS)
    else:
        (home / KEPT_PREVIOUS).unlink(missing_ok=True)
    os.replace(_written(home, KEPT, new_key()), home / KEPT)
    folder = os.open(home, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _written(home: Path, name: str, text: str) -> Path:
    """A file of this process, mode 0600, whose content is on the disk."""
    mine = home / f"{name}.{os.getpid()}"
    mine.unlink(missing_ok=True)  # of a process that was killed, whose number came round again
    with os.fdopen(os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return mine


def refuse_unsafe(settings: Settings) -> None:
    """Raise SettingsError when serving with these settings would open the archive (security.md 1)."""
    message = next(_dangers(settings), None)
    if message is not None:
        raise SettingsError(message)


def is_weak(key: str) -> bool:
    """Whether a key is missing, short, of few characters, or made of a word that examples use."""
    plain = key.lower()
    return len(key) < KEY_LENGTH or len(set(key)) < KEY_VARIETY or any(word in plain for word in WEAK_KEYS)


def _dangers(settings: Settings) -> Iterator[str]:
    """What is wrong, one sentence each."""
    if settings.environment == "production":
        yield from _dangers_in_production(settings)
    if settings.oidc_issuer and not settings.oidc_audience:
        yield "OIDC_ISSUER needs OIDC_AUDIENCE: a token that was made for another service must not open this one."
    for origin in settings.cors_origins:
        if not ORIGIN.fullmatch(origin):
            yield f"CORS_ORIGINS takes exact origins such as https://viewer.example, not {origin!r}."
    for network in settings.trusted_proxies:
        if not _is_network(network):
            yield f"TRUSTED_PROXIES takes addresses and networks such as 10.0.0.0/8, not {network!r}."


def _dangers_in_production(settings: Settings) -> Iterator[str]:
    if settings.enable_demo_data:
        yield "ENABLE_DEMO_DATA is refused in production; unset it."
    if settings.auth_mode == "open":
        yield "AUTH_MODE=open is refused in production; use auto."
    if is_weak(settings.secret_key):
        yield f"SECRET_KEY must be set to at least {KEY_LENGTH} characters of chance in production; {MAKE_ONE}"
    if settings.secret_key_previous and is_weak(settings.secret_key_previous):
        yield "SECRET_KEY_PREVIOUS is weak, and tokens that it signed are still accepted; unset it in production."
    if any(_is_network(network) and network.endswith("/0") for network in settings.trusted_proxies):
        yield "TRUSTED_PROXIES trusts everybody, who may then name any address as theirs; name the proxy's own network."


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True
