"""The files under deploy/ as tests read them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pacs.places import config_folder
from tests.deploy import plainyaml

ROOT = config_folder().parent
DEPLOY = ROOT / "deploy"
VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>[A-Z0-9_]+)(?:(?P<how>:-|:\?)(?P<what>[^}]*))?\})")


class Unset(LookupError):
    """A variable without a default is not set, which ends compose with the sentence in the file."""


def read(name: str) -> Any:
    """A YAML file under deploy/."""
    return plainyaml.load((DEPLOY / name).read_text(encoding="utf-8"))


def interpolated(value: Any, env: Mapping[str, str]) -> Any:
    """What compose makes of `${NAME:-default}`, `${NAME:?sentence}` and `$$`."""
    if isinstance(value, dict):
        return {key: interpolated(inner, env) for key, inner in value.items()}
    if isinstance(value, list):
        return [interpolated(inner, env) for inner in value]
    return VARIABLE.sub(lambda match: _variable(match, env), value) if isinstance(value, str) else value


def _variable(match: re.Match[str], env: Mapping[str, str]) -> str:
    if match[0] == "$$":
        return "$"
    if match["how"] == ":?" and not env.get(match["name"]):
        raise Unset(f"{match['name']} {match['what']}")
    return env.get(match["name"]) or match["what"] or ""


def compose(**env: str) -> dict[str, Any]:
    """deploy/compose.yaml with these variables in .env."""
    found: dict[str, Any] = interpolated(read("compose.yaml"), env)
    return found


def env_example() -> dict[str, str]:
    """The variables of .env.example, those behind a # too."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    return dict(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=(.*)$", text, re.M))


def mounts(service: Mapping[str, Any]) -> dict[str, str]:
    """What is mounted: place in the container -> folder or volume."""
    return {target.split(":")[1]: target.split(":")[0] for target in service.get("volumes", [])}


def path(text: str) -> Path:
    """A path of deploy/compose.yaml, which counts from its folder."""
    return (DEPLOY / text).resolve()
