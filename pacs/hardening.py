"""What must hold before a process serves: a key to sign with, and no archive open by accident (security.md 1)."""

import dataclasses
import os
import secrets

from pacs.errors import SettingsError
from pacs.settings import Settings, kept_key

WEAK_KEYS = frozenset({"changeme", "secret", "password", "development", "filmroom", "default"})
KEY_LENGTH = 32


def with_secret_key(settings: Settings) -> Settings:
    """The settings with a key: made once and kept in the home with mode 0600, safe against two makers at once."""
    if settings.secret_key:
        return settings
    kept = settings.home / "secret_key"
    mine = kept.with_name(f"secret_key.{os.getpid()}")
    with os.fdopen(os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(48))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(mine, kept)
    except FileExistsError:
        pass  # another process was first: its key counts
    finally:
        mine.unlink()
    return dataclasses.replace(settings, secret_key=kept_key(settings.home))


def refuse_unsafe(settings: Settings) -> None:
    """Raise SettingsError when serving with these settings would open the archive (security.md 1)."""
    for applies, message in _dangers(settings):
        if applies:
            raise SettingsError(message)


def _dangers(settings: Settings) -> tuple[tuple[bool, str], ...]:
    production = settings.environment == "production"
    weak = len(settings.secret_key) < KEY_LENGTH or settings.secret_key.lower() in WEAK_KEYS
    return (
        (
            production and weak,
            f"SECRET_KEY must be set to at least {KEY_LENGTH} characters of chance in production; "
            "make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'",
        ),
        (production and settings.enable_demo_data, "ENABLE_DEMO_DATA is refused in production; unset it."),
        (production and settings.auth_mode == "open", "AUTH_MODE=open is refused in production; use auto."),
        (settings.auth_mode == "required", "AUTH_MODE=required needs accounts, which are not built yet; use auto."),
        (
            not settings.loopback_only and settings.auth_mode != "open",
            f"HTTP_HOST={settings.http_host} would open the archive to the network without a login (accounts are "
            "not built yet); use 127.0.0.1, or say AUTH_MODE=open (development only).",
        ),
    )
