"""Every setting, once: its name, kind, default and meaning (operations.md 3).

A field of `Settings` is one row of the schema. The configuration file, `docs/settings.md` and `filmroom config show`
are printed from these rows, and `load` reads them: environment, then `NAME_FILE`, then the file, then the default.
"""

import dataclasses
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pacs.errors import SettingsError
from pacs.kinds import KINDS, SPECIAL, same
from pacs.places import config_folder, default_config_file, default_home, run_folder

T = TypeVar("T")

SECTIONS = ("General", "Servers", "Secrets", "HTTP", "DICOM", "Storage", "AI", "Access", "Logs")


def row(
    section: str,
    help_text: str,
    default: T,
    *,
    shown: str = "",
    secret: bool = False,
    effective: bool = True,
    choices: tuple[str, ...] = (),
    pattern: tuple[str, str] = ("", ""),
    limits: tuple[float, float] | None = None,
) -> T:
    """One row of the schema. `shown` describes a default that depends on other things; `effective` is false while
    the setting is accepted but nothing reads it yet. `pattern` is an expression and what it means."""
    metadata = {
        "section": section,
        "help": help_text,
        "shown": shown,
        "secret": secret,
        "effective": effective,
        "choices": choices,
        "pattern": pattern,
        "limits": limits,
    }
    field: T = dataclasses.field(default=default, metadata=metadata, repr=not secret)
    return field


PORT = (0, 65535)
AE_TITLE = (r"(?=.*\S)[\x20-\x5b\x5d-\x7e]{1,16}", "1 to 16 ASCII characters without backslash (PS3.5 6.2, AE)")
DEVICE = (r"cpu|auto|cuda(:\d+)?", "cpu, cuda, cuda:N or auto")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one process runs with. Lower-case attributes named as the environment variables are."""

    filmroom_home: Path | None = row(
        "General",
        "State: embedded servers, sockets, keys, logs, and the folders below unless they are set.",
        None,
        shown="./var in a checkout, else the user's data folder",
    )
    environment: str = row(
        "General",
        "`production` refuses a missing or weak SECRET_KEY, demo data, and open access from outside.",
        "development",
        choices=("development", "production"),
    )
    database_url: str = row(
        "Servers",
        "Postgres 14 or later: `postgresql://`, also `postgresql+asyncpg://` and `postgresql+psycopg://`.",
        "",
        shown="unset: the embedded server",
        secret=True,
    )
    database_replica_url: str = row(
        "Servers", "A read replica that answers QIDO.", "", shown="unset", secret=True, effective=False
    )
    redis_url: str = row(
        "Servers",
        "Redis 6.2 or later, or Valkey: `redis://`, `rediss://` or `unix://`.",
        "",
        shown="unset: the embedded server",
        secret=True,
    )
    secret_key: str = row(
        "Secrets",
        "Signs tokens. At least 32 characters in production.",
        "",
        shown="made once, kept in the home, mode 0600",
        secret=True,
    )
    secret_key_previous: str = row(
        "Secrets",
        "The key before the last rotation, accepted until its tokens end.",
        "",
        shown="unset",
        secret=True,
    )
    http_host: str = row("HTTP", "Address that HTTP listens on.", "127.0.0.1")
    http_port: int = row("HTTP", "DICOMweb, admin API, console. 0 = any free port, printed.", 8000, limits=PORT)
    web_port: int = row("HTTP", "The viewer, with all of the same on one origin. 0 = any free port.", 3000, limits=PORT)
    cors_origins: tuple[str, ...] = row("HTTP", "Exact origins whose pages may call us.", (), shown="none")
    trusted_proxies: tuple[str, ...] = row("HTTP", "Networks whose `Forwarded` headers count.", (), shown="none")
    index_attributes: tuple[str, ...] = row(
        "HTTP",
        "More attributes to search by: keywords or tags, dotted within sequences, private ones by tag. What is stored "
        "already is indexed in the background.",
        (),
        shown="none",
    )
    public_url: str = row("HTTP", "The URL that answers name, where a proxy stands before us.", "", shown="unset")
    dicom_host: str = row("DICOM", "Address that DIMSE listens on.", "127.0.0.1")
    dicom_port: int = row("DICOM", "DIMSE. 0 = any free port, printed.", 11112, limits=PORT)
    dicom_ae_title: str = row("DICOM", "Our application entity title.", "FILMROOM", pattern=AE_TITLE)
    dicom_peers: Path | None = row(
        "DICOM",
        "Known AE titles: address, port, networks, services. Read again when it changes.",
        None,
        shown="peers.toml beside this file",
    )
    dicom_rules: Path | None = row(
        "DICOM",
        "What is forwarded where. Read again when it changes.",
        None,
        shown="rules.toml beside the peers file",
    )
    dicom_tls_port: int = row("DICOM", "TLS for DIMSE (usually 2762); 0 = off.", 0, limits=PORT, shown="unset")
    dicom_tls_cert: Path | None = row("DICOM", "Our certificate and its chain (PEM).", None, shown="unset")
    dicom_tls_key: Path | None = row("DICOM", "Its private key (PEM).", None, shown="unset")
    dicom_tls_ca: Path | None = row(
        "DICOM",
        "Who may sign our peers (PEM). Where it is set, callers must show a certificate (mutual TLS). All three files "
        "are read again when they change.",
        None,
        shown="unset",
    )
    dicom_storage_dir: str = row(
        "Storage",
        "The file store. `s3://bucket/prefix` will select object storage and is refused until then.",
        "",
        shown="$FILMROOM_HOME/storage/dicom",
    )
    dicom_max_upload_size_gb: float = row(
        "Storage",
        "One request body (STOW) or one instance (C-STORE), in GiB; more is refused before it is read to the end.",
        10.0,
        limits=(0.000001, 1024),
    )
    dicom_duplicates: str = row(
        "Storage",
        "Other content under a known SOP Instance UID: `keep` refuses it and sets it aside as a conflict, "
        "`replace` makes it the new version.",
        "keep",
        choices=("keep", "replace"),
    )
    disk_reserve_gb: float = row(
        "Storage", "Below this much free disk, in GiB, new objects are refused; reads go on.", 2.0, limits=(0, 1e6)
    )
    conversion_cache_gb: float = row(
        "Storage",
        "Objects converted to other transfer syntaxes are kept in the home for whoever asks again, for a day and up to "
        "so many GiB; 0 keeps none.",
        2.0,
        limits=(0, 1e6),
    )
    enable_demo_data: bool = row("Storage", "Seed marked demo studies at start.", False)
    ai_enabled: bool = row("AI", "Run models on what is stored.", True)
    ai_device: str = row(
        "AI",
        "`cpu`, `cuda`, `cuda:0`, `auto`. `cuda` without a working GPU is not ready, never a silent fallback.",
        "cpu",
        pattern=DEVICE,
    )
    ai_models_dir: tuple[Path, ...] = row(
        "AI",
        "Folders of model packages; one dropped in is listed without restart.",
        (),
        shown="config/models and $FILMROOM_HOME/models",
    )
    ai_results_dir: Path | None = row("AI", "Working files of jobs.", None, shown="$FILMROOM_HOME/results")
    ai_series_quiet_seconds: float = row("AI", "A series counts as complete after.", 15.0, limits=(0, 86400))
    ai_study_quiet_seconds: float = row("AI", "A study counts as complete after.", 60.0, limits=(0, 86400))
    ai_max_wait_minutes: float = row("AI", "A study that never goes quiet is taken after.", 30.0, limits=(0, 10080))
    ai_max_concurrent_jobs: int = row("AI", "Jobs that one sidecar runs at a time.", 1, limits=(1, 64))
    ai_job_timeout_seconds: float = row("AI", "A job that runs longer is ended.", 900.0, limits=(1, 86400))
    ai_webhook_urls: tuple[str, ...] = row("AI", "Told of finished jobs, by POST.", (), shown="none", effective=False)
    ai_webhook_secret: str = row(
        "AI", "Signs those calls (HMAC-SHA256).", "", shown="unset", secret=True, effective=False
    )
    auth_mode: str = row(
        "Access",
        "`auto`: on loopback no login is asked, elsewhere it is required. `required`. `open`: never (not in "
        "production).",
        "auto",
        choices=("auto", "required", "open"),
    )
    oidc_issuer: str = row(
        "Access", "Accept bearer tokens of this issuer (its URL, as its tokens name it).", "", shown="unset"
    )
    oidc_audience: str = row("Access", "The audience those tokens name; needed with OIDC_ISSUER.", "", shown="unset")
    oidc_role_claim: str = row(
        "Access", "The claim that holds roles; a dot goes into it, as in `realm_access.roles`.", "", shown="roles"
    )
    access_token_expire_minutes: float = row("Access", "Life of an access token.", 15.0, limits=(1, 1440))
    audit_syslog_host: str = row(
        "Logs", "Collector that gets the audit trail as DICOM audit messages, by syslog over TLS.", "", shown="unset"
    )
    audit_syslog_port: int = row("Logs", "Its port.", 6514, limits=PORT)
    audit_syslog_ca: Path | None = row(
        "Logs", "Who may sign its certificate (PEM).", None, shown="unset: whom this machine trusts"
    )
    audit_syslog_cert: Path | None = row("Logs", "Our certificate for it (PEM).", None, shown="unset")
    audit_syslog_key: Path | None = row("Logs", "Its private key (PEM).", None, shown="unset")
    log_level: str = row(
        "Logs", "The least level that is logged.", "info", choices=("debug", "info", "warning", "error")
    )
    log_format: str = row(
        "Logs",
        "`json`: one object a line, no patient data. `auto`: `console` on a terminal, `json` elsewhere.",
        "auto",
        choices=("auto", "json", "console"),
    )

    @property
    def home(self) -> Path:
        """Where all state lives."""
        return self.filmroom_home or default_home()

    @property
    def storage_dir(self) -> Path:
        return Path(self.dicom_storage_dir) if self.dicom_storage_dir else self.home / "storage" / "dicom"

    @property
    def models_dirs(self) -> tuple[Path, ...]:
        return self.ai_models_dir or (config_folder() / "models", self.home / "models")

    @property
    def results_dir(self) -> Path:
        return self.ai_results_dir or self.home / "results"

    @property
    def peers_file(self) -> Path:
        return self.dicom_peers or default_config_file(self.home).with_name("peers.toml")

    @property
    def rules_file(self) -> Path:
        return self.dicom_rules or self.peers_file.with_name("rules.toml")

    @property
    def run_dir(self) -> Path:
        """Sockets and notes of running processes; its path is short enough for a Unix socket."""
        return run_folder(self.home)

    @property
    def max_upload_bytes(self) -> int:
        return int(self.dicom_max_upload_size_gb * 2**30)

    @property
    def disk_reserve_bytes(self) -> int:
        return int(self.disk_reserve_gb * 2**30)

    @property
    def login_required(self) -> bool:
        """Whether who asks has to say who they are (security.md 1)."""
        return self.auth_mode == "required" or (self.auth_mode == "auto" and not self.loopback_only)

    @property
    def loopback_only(self) -> bool:
        """True when HTTP cannot be reached from another machine (security.md 1)."""
        return is_loopback(self.http_host)


def load(env: Mapping[str, str] = os.environ, config: Path | None = None) -> Settings:
    """The settings of this process. Raises SettingsError naming the setting at fault and the cure."""
    home = Path(env["FILMROOM_HOME"]).expanduser().absolute() if env.get("FILMROOM_HOME") else default_home()
    file = config or (Path(env["FILMROOM_CONFIG"]) if env.get("FILMROOM_CONFIG") else default_config_file(home))
    if (config or env.get("FILMROOM_CONFIG")) and not file.exists():
        raise SettingsError(f"There is no configuration file {file}; correct FILMROOM_CONFIG or unset it.")
    values = dict(_from_file(file)) if file.exists() else {}
    values |= dict(_from_environment(env))
    values.setdefault("filmroom_home", home)
    settings = Settings(**{name: value for name, value in values.items() if value is not None})
    if settings.dicom_storage_dir.startswith("s3:"):
        raise SettingsError("DICOM_STORAGE_DIR: object storage (s3://) is not built yet; name a folder.")
    return settings if settings.secret_key else dataclasses.replace(settings, secret_key=kept_key(settings.home))


def schema() -> tuple[dataclasses.Field[Any], ...]:
    """The rows in order; `metadata` holds what `row` was given."""
    return dataclasses.fields(Settings)


def _from_environment(env: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    for field in schema():
        name = field.name.upper()
        text = env.get(name) or _secret_file(name, env.get(f"{name}_FILE", ""))
        if text:
            yield field.name, _parse(field, text, Path.cwd())


def _secret_file(name: str, path: str) -> str:
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name}_FILE names {path}, which cannot be read ({type(error).__name__}).") from error


def _from_file(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{file} cannot be read as TOML: {error}.") from error
    rows = {field.name: field for field in schema()}
    for key, value in table.items():
        if key not in rows:
            raise SettingsError(f"{file} has an unknown key {key!r}{_nearest(key, rows)}; correct or remove it.")
        text = _plain(rows[key], value)
        if text:
            yield key, _parse(rows[key], text, file.absolute().parent)


def _plain(field: dataclasses.Field[Any], value: Any) -> str:
    """A TOML value as the environment would hold it."""
    is_list = field.type in (tuple[str, ...], tuple[Path, ...])
    if isinstance(value, dict) or (isinstance(value, list) and not is_list):
        raise SettingsError(f"{field.name} must be {KINDS[field.type][1]}, not a {type(value).__name__}.")
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _nearest(key: str, known: Mapping[str, object]) -> str:
    import difflib

    near = difflib.get_close_matches(key.lower(), known, n=1)
    return f" (is {near[0]!r} meant?)" if near else ""


def _parse(field: dataclasses.Field[Any], text: str, folder: Path) -> Any:
    """The value of one setting from its text; relative paths count from `folder`."""
    name, rules = field.name.upper(), field.metadata
    parse, wanted = KINDS[field.type]
    try:
        value = parse(text.strip(), folder)
    except ValueError as error:
        shown = "" if rules["secret"] else f", not {text!r}"
        raise SettingsError(f"{name} must be {wanted}{shown}.") from error
    if rules["choices"] and value not in rules["choices"]:
        raise SettingsError(f"{name} must be one of {', '.join(rules['choices'])}, not {text!r}.")
    pattern, meaning = rules["pattern"]
    if pattern and not re.fullmatch(pattern, value):
        raise SettingsError(f"{name} must be {meaning}, not {text!r}.")
    if rules["limits"] and not rules["limits"][0] <= value <= rules["limits"][1]:
        raise SettingsError(f"{name} must be from {rules['limits'][0]:g} to {rules['limits'][1]:g}, not {text}.")
    return SPECIAL.get(field.name, same)(value, folder)


def is_loopback(host: str) -> bool:
    """True for `localhost` and addresses that only this machine reaches; an unknown name counts as outside."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def kept_key(home: Path) -> str:
    """The signing key that the home keeps, or "" before it is made."""
    try:
        return (home / "secret_key").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{home / 'secret_key'} cannot be read; restore it or set SECRET_KEY.") from error
