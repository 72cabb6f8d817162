"""Postgres, Redis, the proxy and the sidecar: whether they keep what the node relies on."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import redis
from psycopg.rows import dict_row

from pacs.places import checkout
from pacs.services.clerk import LOCK
from pacs.services.doctor.case import SQL, Case
from pacs.services.doctor.configuration import entries, env_files
from pacs.services.doctor.finding import ERROR, WARNING, Check, Finding
from pacs.services.gate import read

OLDEST_POSTGRES = 140_000
OLDEST_REDIS = (6, 2)
PROCESSES, CONNECTIONS_EACH = 4, 16  # of a whole node: the pool, the writers, the listeners
USED_PART = 0.8
MAINTENANCE_HOURS = 24
LEAST_READ_SECONDS = 120.0
GIB = 1 << 30
PROMISES = (
    ("fsync", "on", ERROR, "what was acknowledged is lost when the machine goes down"),
    ("full_page_writes", "on", ERROR, "pages are torn when the machine goes down"),
    ("synchronous_commit", "on", WARNING, "other programs on this database lose what they committed"),
    ("autovacuum", "on", WARNING, "tables grow, and queries get slower"),
    ("zero_damaged_pages", "off", ERROR, "damaged pages are emptied without a word"),
    ("default_transaction_read_only", "off", ERROR, "nothing can be stored"),
    ("in_hot_standby", "off", ERROR, "this is a replica: nothing can be stored"),
    ("server_encoding", "UTF8", ERROR, "names of patients cannot be kept"),
)
AS_GOOD = frozenset({"remote_apply", "remote_write", "local"})  # of synchronous_commit: down here before the answer
PROXY_FILES = ("deploy/nginx/nginx.conf", "/etc/nginx/filmroom/nginx.conf", "/etc/nginx/sites-enabled/filmroom",
               "/etc/nginx/conf.d/filmroom.conf")  # fmt: skip
POLICY = "redis-cli CONFIG SET maxmemory-policy noeviction, and the same in redis.conf"
GPU_PLACES = ("/dev/nvidiactl", "/proc/driver/nvidia", "/dev/dxg")
SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
TIMES = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "ms": 0.001, "d": 86400.0}


def database(case: Case) -> Iterator[Finding]:
    if case.has_node and "database" in case.troubles:
        yield Finding(case.troubles["database"])


def postgres(case: Case) -> Iterator[Finding]:
    facts = _server(case)
    if int(facts["server_version_num"]) < OLDEST_POSTGRES:
        yield Finding(f"This is Postgres {facts['server_version']}; 14 or later is needed.")


def durability(case: Case) -> Iterator[Finding]:
    facts = _server(case)
    for name, wanted, severity, consequence in PROMISES:
        found = facts.get(name, wanted)
        if found != wanted and found not in AS_GOOD:
            cure = f"set {name} = {wanted} in postgresql.conf, then reload or restart Postgres"
            what = f"Postgres has {name} = {found}: {consequence}."
            yield Finding(what, examples=(name,), severity=severity, cure=cure)


def _server(case: Case) -> dict[str, str]:
    """Its settings as a connection finds them that asks for nothing."""
    with suppress(psycopg.Error), psycopg.connect(case.settings.database_url, connect_timeout=3) as connection:
        rows = connection.cursor(row_factory=dict_row).execute(SQL["server"]).fetchall()
        return {str(row["name"]): str(row["setting"]) for row in rows}
    return {"server_version_num": str(OLDEST_POSTGRES)}


def connections(case: Case) -> Iterator[Finding]:
    row = case.rows("backends")[0]
    needed = PROCESSES * CONNECTIONS_EACH
    if row["most"] < needed:
        what = f"Postgres lets {row['most']} connections in; a node may want {needed}."
        yield Finding(what, examples=("max_connections",), severity=WARNING)
    if row["used"] > row["most"] * USED_PART:
        yield Finding(f"{row['used']} of {row['most']} connections of Postgres are in use.",
                      examples=("max_connections",), severity=WARNING)  # fmt: skip


def redis_away(case: Case) -> Iterator[Finding]:
    if case.has_node and "redis" in case.troubles:
        yield Finding(case.troubles["redis"])


def redis_policy(case: Case) -> Iterator[Finding]:
    facts = _redis_facts(case)
    version = tuple(int(part) for part in re.findall(r"\d+", str(facts.get("redis_version", "")))[:2])
    if version and version < OLDEST_REDIS:
        yield Finding(f"This is Redis {facts['redis_version']}; 6.2 or later is needed.", cure="upgrade Redis")
    policy = str(facts.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        yield Finding(f"Redis drops entries when its memory is full ({policy}): AI jobs wait for the clerk.",
                      examples=("maxmemory-policy",), cure=POLICY)  # fmt: skip
    most, used = int(facts.get("maxmemory", 0)), int(facts.get("used_memory", 0))
    if most and used > most * 0.9:
        yield Finding("Redis has used nine tenths of its memory.", examples=("maxmemory",), severity=WARNING,
                      cure="raise maxmemory")  # fmt: skip


def redis_persistence(case: Case) -> Iterator[Finding]:
    facts = _redis_facts(case)
    if "aof_enabled" in facts and not facts["aof_enabled"] and facts.get("save") == "":
        yield Finding("Redis keeps nothing on disk: after its restart all queued jobs are told anew.",
                      examples=("appendonly",), severity=WARNING)  # fmt: skip


def _redis_facts(case: Case) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    with suppress(redis.RedisError), case.redis() as client:
        facts |= client.info()
        with suppress(redis.RedisError):  # hosted ones do not tell
            facts |= client.config_get("save")
    return facts


# the proxy before the node


def proxy(case: Case) -> Iterator[Finding]:
    for file in proxy_files(case):
        text = re.sub(r"#[^\n]*", "", file.read_text(encoding="utf-8", errors="replace"))
        yield from _proxy(case, file, text)


def proxy_files(case: Case) -> list[Path]:
    """The configurations of nginx that stand before this node."""
    root = checkout() or Path("/nonexistent")
    named = [case.proxy] if case.proxy else [root / name for name in PROXY_FILES]
    return [file for file in named if file.is_file()]


def _proxy(case: Case, file: Path, text: str) -> Iterator[Finding]:
    where, limit = (str(file),), _largest_upload(case)
    size = directive(text, "client_max_body_size", "1m", SIZES)
    if 0 < size < limit:
        yield Finding(f"The proxy stops bodies at {_gib(size)}, the node takes {_gib(limit)}.", examples=where,
                      cure=f"client_max_body_size {limit / GIB:g}g in {file}, then nginx -s reload")  # fmt: skip
    for name in ("proxy_read_timeout", "client_body_timeout"):
        seconds = directive(text, name, "60s", TIMES)
        least = LEAST_READ_SECONDS if name == "proxy_read_timeout" else 30.0
        if seconds < least:
            yield Finding(f"{name} of the proxy is {seconds:g} s: long stores are cut off.", examples=where,
                          severity=WARNING, cure=f"{name} {least * 5:g}s in {file}, then nginx -s reload")  # fmt: skip
    for name in ("proxy_request_buffering", "proxy_buffering"):
        values = re.findall(rf"\b{name}\s+(\w+)\s*;", text)
        if not values or "on" in values:
            yield Finding(f"{name} of the proxy is on: it keeps whole bodies on its own disk.", examples=where,
                          severity=WARNING, cure=f"{name} off in {file}, then nginx -s reload")  # fmt: skip


def directive(text: str, name: str, default: str, units: dict[str, float] | dict[str, int]) -> float:
    """The least value of a directive of nginx, in bytes or seconds; 0 means without limit for sizes."""
    found = re.findall(rf"\b{name}\s+(\d+)\s*(ms|[kmgshdKMG]?)\s*;", text) or re.findall(r"(\d+)(ms|\w?)", default)
    return min(int(number) * units[unit.lower()] for number, unit in found)


def _largest_upload(case: Case) -> int:
    """Of this process's settings and of those that compose gives to its own."""
    texts = [value for file in env_files(case) for name, value in entries(file) if name == "DICOM_MAX_UPLOAD_SIZE_GB"]
    found = [case.settings.max_upload_bytes]
    for text in texts:
        with suppress(ValueError):
            found.append(int(float(text) * GIB))
    return max(found)


def _gib(size: float) -> str:
    return f"{size / GIB:g} GiB" if size >= GIB / 10 else f"{size / (1 << 20):g} MiB"


# who runs


def clerk(case: Case) -> Iterator[Finding]:
    running = {row["process"] for row in case.rows("processes")}
    if running & {"web", "dimse"} and not case.rows("clerk", lock=LOCK)[0]["there"]:
        yield Finding("Doors are open, and no clerk is at work: nothing is derived, planned or swept.")


def sidecar(case: Case) -> Iterator[Finding]:
    if not case.settings.ai_enabled:
        return
    rows = case.node.models.sidecars()
    for row in rows:
        if not row["ready"]:
            yield Finding(f"The sidecar {row['owner']} cannot run models: {row['message']}", examples=(row["device"],))
        elif case.settings.ai_device.startswith("cuda") and "CUDA" not in row["provider"]:
            what = f"AI_DEVICE is {case.settings.ai_device}, and the sidecar {row['owner']} runs on {row['provider']}."
            yield Finding(what, examples=(row["device"],))
    running = {row["process"] for row in case.rows("processes")}
    if not rows and running & {"web", "dimse"}:
        yield Finding("AI_ENABLED is set, and no sidecar was heard of for a minute.", severity=WARNING,
                      cure="filmroom serve ai, or AI_ENABLED=false")  # fmt: skip


def gpu(case: Case) -> Iterator[Finding]:
    if not case.settings.ai_enabled or not case.settings.ai_device.startswith("cuda"):
        return
    proved = "schema" not in case.troubles and any(
        row["ready"] and "CUDA" in row["provider"] for row in case.node.models.sidecars()
    )
    if not proved and not any(map(os.path.exists, GPU_PLACES)):
        what = f"AI_DEVICE is {case.settings.ai_device}, and this machine shows no NVIDIA GPU: no model will run."
        yield Finding(what, examples=("AI_DEVICE",))


def maintenance(case: Case) -> Iterator[Finding]:
    value = case.rows("recall", key="maintenance")
    window = read(value[0]["value"] if value else None)
    hours = (datetime.now(UTC) - window.began).total_seconds() / 3600
    if window.on and hours > MAINTENANCE_HOURS:
        yield Finding(f"Maintenance has been on for {hours:.0f} hours: was it forgotten?", severity=WARNING)


DATABASE = ("database",)
CHECKS = (
    Check("database", "configuration", "a database that does not answer", "check DATABASE_URL and that Postgres runs",
          database),
    Check("postgres-version", "configuration", "a Postgres that is too old", "upgrade Postgres to 14 or later",
          postgres, needs=DATABASE),
    Check("postgres-durability", "configuration", "a Postgres that loses what was committed", "", durability,
          needs=DATABASE),
    Check("postgres-connections", "configuration", "fewer connections than the node may want",
          "raise max_connections in postgresql.conf and restart Postgres", connections, needs=DATABASE),
    Check("redis", "configuration", "a Redis that does not answer", "check REDIS_URL and that it runs", redis_away),
    Check("redis-policy", "configuration", "a Redis that is old, full, or forgets entries", "", redis_policy,
          needs=("redis",)),
    Check("redis-persistence", "configuration", "a Redis that keeps nothing on disk",
          "redis-cli CONFIG SET appendonly yes, and the same in redis.conf", redis_persistence, needs=("redis",)),
    Check("proxy-limits", "configuration", "limits of nginx that are lower than the node's", "", proxy),
    Check("no-clerk", "configuration", "a node without its clerk", "filmroom serve clerk", clerk, needs=("schema",)),
    Check("sidecar", "configuration", "a sidecar that cannot run models, or runs on another device than AI_DEVICE",
          "see its log; correct AI_DEVICE, or install the driver", sidecar, needs=("schema",)),
    Check("gpu", "configuration", "AI_DEVICE=cuda without a GPU", "install the driver, or AI_DEVICE=cpu", gpu),
    Check("maintenance", "configuration", "a maintenance window that was forgotten", "filmroom maintenance off",
          maintenance, needs=("schema",)),
)  # fmt: skip
