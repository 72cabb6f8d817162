"""What was set: keys that nobody reads, weak secrets, doors that stand open, modes of files."""

import difflib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pacs.errors import SettingsError, Unavailable
from pacs.hardening import KEPT, KEPT_PREVIOUS, WEAK_KEYS, is_weak
from pacs.places import checkout
from pacs.services import peers
from pacs.services.doctor.case import Case
from pacs.services.doctor.finding import DOCTOR_FIX, ERROR, WARNING, Check, Finding, many, some
from pacs.settings import Settings, is_loopback, load, schema

WEAK_PASSWORDS = frozenset(WEAK_KEYS) | {"", "postgres", "admin", "root", "pacs", "123456", "letmein", "test"}
# read by other programs of ours than the settings' schema, or by the compose file
OTHERS = frozenset({"FILMROOM_CONFIG", "FILMROOM_CI", "FILMROOM_TEST_DATA", "FILMROOM_UID", "FILMROOM_GID"})
VARIABLE = re.compile(r"\${(\w+)")
LINE = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$")
NEAR = 0.85
SECRET_WORDS = ("PASSWORD", "SECRET", "TOKEN", "DATABASE_URL")
ENV_FILES = (".env", "deploy/.env", "/etc/filmroom/filmroom.env")


def lenient(environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """The settings, and a sentence for each that had to be left out because it cannot be read."""
    left = dict(environ)
    faults: list[str] = []
    while True:
        try:
            return load(left), faults
        except SettingsError as error:
            faults.append(error.message)
            if not _without(left, error.message):
                return Settings(), faults


def _without(environ: dict[str, str], message: str) -> bool:
    """Leave out what the message is about: the variable it begins with, else the file of settings."""
    word = message.partition(" ")[0].rstrip(":,")
    name = word if environ.get(word) else f"{word}_FILE"
    if environ.pop(name, None) is not None:
        return True
    before = environ.get("FILMROOM_CONFIG")
    environ["FILMROOM_CONFIG"] = os.devnull
    return before != os.devnull


def unreadable(case: Case) -> Iterator[Finding]:
    for fault in case.faults:
        yield Finding(fault, cure="correct it; all names are in docs/settings.md")


def unknown_keys(case: Case) -> Iterator[Finding]:
    known = {name for field in schema() for name in (field.name.upper(), f"{field.name.upper()}_FILE")} | OTHERS
    for file in env_files(case):
        for name, _value in entries(file):
            if name not in known | _compose_names():
                near = _nearest(name, known)
                yield Finding(f"{file} sets {name}, which nobody reads{near}.", examples=(name,), severity=WARNING)
    for name in sorted(set(case.environ) - known):
        near = _nearest(name, known, strict=True)
        if near:
            yield Finding(f"The environment has {name}, which nobody reads{near}.", examples=(name,), severity=WARNING)


def _nearest(name: str, known: set[str], *, strict: bool = False) -> str:
    """The setting that is meant; `strict`: only where it is hard to mean anything else."""
    near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=NEAR if strict else 0.7)
    if not near or (strict and near[0].partition("_")[0] != name.upper().partition("_")[0] and len(name) < 8):
        return ""
    return f" (is {near[0]} meant?)"


def env_files(_case: Case) -> list[Path]:
    """The files of variables that compose and systemd read, where they are."""
    root = checkout() or Path.cwd()
    return [root / name for name in ENV_FILES if (root / name).is_file() and os.access(root / name, os.R_OK)]


def entries(file: Path) -> Iterator[tuple[str, str]]:
    """Names and values of a file of variables."""
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        if match := LINE.match(line):
            yield match[1], match[2].strip("'\"")


def _compose_names() -> set[str]:
    root = checkout()
    files = [*(root / "deploy").glob("compose*.yaml")] if root else []
    return {name for file in files for name in VARIABLE.findall(file.read_text(encoding="utf-8"))}


# secrets and doors


def secret_key(case: Case) -> Iterator[Finding]:
    key, production = case.settings.secret_key, _production(case)
    if is_weak(key) and (key or production):
        what = "SECRET_KEY is missing, short, or one that everybody knows: tokens can be forged."
        yield Finding(what, examples=("SECRET_KEY",), severity=ERROR if production else WARNING)


def database_password(case: Case) -> Iterator[Finding]:
    url = urlsplit(case.settings.database_url)
    if not url.hostname:  # a Unix socket
        return
    if unquote(url.password or "").lower() in WEAK_PASSWORDS and not (is_loopback(url.hostname) and not url.password):
        what = f"The password in DATABASE_URL for {url.hostname} is missing or one that everybody knows."
        yield Finding(what, examples=("DATABASE_URL",), severity=ERROR if _production(case) else WARNING)


def open_access(case: Case) -> Iterator[Finding]:
    if case.settings.auth_mode == "open" and not case.settings.loopback_only:
        what = f"AUTH_MODE=open on {case.settings.http_host}: everybody who reaches it can read and change all of it."
        yield Finding(what, examples=("AUTH_MODE",), severity=ERROR if _production(case) else WARNING)


def no_admin(case: Case) -> Iterator[Finding]:
    if case.settings.login_required and not case.rows("administrators")[0]["rows"]:
        yield Finding("A login is asked, and no account is an administrator's: nobody can come in.")


def trusted_proxies(case: Case) -> Iterator[Finding]:
    wide = [network for network in case.settings.trusted_proxies if network.endswith("/0")]
    if wide:
        what = "TRUSTED_PROXIES names everybody: any client can say that it is another."
        yield Finding(what, examples=tuple(wide), severity=WARNING)


def demo_data(case: Case) -> Iterator[Finding]:
    if not _production(case):
        return
    if case.settings.enable_demo_data:
        yield Finding("ENABLE_DEMO_DATA is set in production.", examples=("ENABLE_DEMO_DATA",), cure="unset it")
    studies = case.rows("demo") if "schema" not in case.troubles else []
    if studies:
        what = f"{many(len(studies), 'demo study', 'demo studies')} in a production archive."
        yield Finding(what, len(studies), some(row["study_uid"] for row in studies))


def _production(case: Case) -> bool:
    return case.settings.environment == "production"


# peers


def peers_file(case: Case) -> Iterator[Finding]:
    file, named = case.settings.peers_file, case.settings.dicom_peers is not None
    if not file.exists():
        if named:
            yield Finding(f"DICOM_PEERS names {file}, which is not there.", examples=(str(file),))
        return
    try:
        found = peers.read(file)
    except SettingsError as error:
        yield Finding(error.message, examples=(str(file),))
        return
    nowhere = [title for title, peer in found.items() if not peer.networks]
    if nowhere:
        what = f"{many(len(nowhere), 'peer')} of {file} may call from nowhere: the name of the host is not known."
        yield Finding(what, len(nowhere), some(nowhere), WARNING)


# modes of files


def modes(case: Case) -> Iterator[Finding]:
    open_ = [path for path, forbidden in _guarded(case) if _mode(path) & forbidden]
    if open_:
        what = f"{many(len(open_), 'file or folder', 'files or folders')} that others may read or write."
        cure = f"chmod go-rwx {' '.join(map(str, open_[:3]))}; or {DOCTOR_FIX}"
        yield Finding(what, len(open_), some(open_), cure=cure, items=tuple(open_))


def _guarded(case: Case) -> Iterator[tuple[Path, int]]:
    """What nobody else may read (or, of the home, write), with the bits that must not be set."""
    home, readable, writable = case.settings.home, 0o066, 0o022
    for path in (home / KEPT, home / KEPT_PREVIOUS, case.settings.dicom_tls_key):
        if path is not None:
            yield path, 0o077
    if not _mode(home) & stat.S_ISVTX:
        yield home, 0o004 | writable if _production(case) else writable
    inside = (case.settings.storage_dir / name for name in ("objects", "conflicts", "quarantine", "tmp"))
    for folder in (*inside, home / "postgres", home / "valkey", home / "logs"):
        yield folder, readable
    yield case.settings.run_dir, writable
    yield from ((file, 0o044) for file in env_files(case) if _holds_secret(file))


def _holds_secret(file: Path) -> bool:
    return any(value and any(word in name for word in SECRET_WORDS) for name, value in entries(file))


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return 0


def close_modes(_case: Case, finding: Finding) -> str:
    """Take the rights of others away; the owner keeps his."""
    for path in finding.items:
        try:
            path.chmod(_mode(path) & (0o711 if path.is_dir() else 0o700))
        except OSError as error:
            raise Unavailable(f"The mode of {path} cannot be changed ({error.strerror}); its owner can.") from error
    return f"{many(len(finding.items), 'mode')} corrected."


NEW_KEY = "python3 -c 'import secrets; print(secrets.token_urlsafe(48))', put it into SECRET_KEY and restart"
CHECKS = (
    Check("settings", "configuration", "settings that cannot be read", "correct it", unreadable),
    Check("unknown-key", "configuration", "misspelt names in files of variables and in the environment",
          "correct or remove the line; all names are in docs/settings.md", unknown_keys),
    Check("secret-key", "configuration", "a missing or weak SECRET_KEY", NEW_KEY, secret_key),
    Check("database-password", "configuration", "a missing or well known password of the database",
          "ALTER ROLE ... PASSWORD, then DATABASE_URL", database_password),
    Check("open-access", "configuration", "an archive that asks nobody for a name", "AUTH_MODE=auto, then restart",
          open_access),
    Check("no-admin", "configuration", "a login that nobody can pass",
          "filmroom create-admin --username NAME --email ADDRESS", no_admin, needs=("schema",)),
    Check("trusted-proxies", "configuration", "proxies that are everybody", "name the proxy's own network",
          trusted_proxies),
    Check("demo-data", "configuration", "demo data in production", "filmroom demo purge --apply", demo_data),
    Check("peers-file", "configuration", "errors in config/peers.toml", "correct the file; it is read again by itself",
          peers_file),
    Check("file-modes", "configuration", "keys and folders that others may read or write", DOCTOR_FIX, modes,
          close_modes),
)  # fmt: skip
