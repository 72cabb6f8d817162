"""`filmroom config`: the settings in force, and the two files that are printed from their schema (`make docs`)."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import Field
from pathlib import Path
from typing import Any

from pacs.kinds import KINDS
from pacs.settings import SECTIONS, Settings, schema

MASK = "********"
LATER = "not in effect yet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = {"show": show, "toml": toml, "markdown": markdown}
    parser.add_argument(
        "action",
        nargs="?",
        default="show",
        choices=list(actions),
        help="show: values in force, secrets masked (default); toml: config/filmroom.toml; markdown: docs/settings.md",
    )
    parser.add_argument("--json", action="store_true", help="show: for programs")
    parser.set_defaults(actions=actions)


def run(args: argparse.Namespace, settings: Settings) -> int:
    if args.json and args.action == "show":
        print(json.dumps({row.name.upper(): _value(row, settings) for row in schema()}, default=str, indent=2))
    else:
        print(args.actions[args.action](settings), end="")
    return 0


def show(settings: Settings) -> str:
    """One line a setting: name, value, and whether it is the default or without effect yet."""
    width = max(len(row.name) for row in schema())
    return "".join(f"{row.name.upper():<{width}}  {_shown(row, settings)}\n" for row in schema())


def toml(_settings: Settings) -> str:
    """The configuration file with every setting at its default, commented out."""
    return "".join(_toml_lines())


def markdown(_settings: Settings) -> str:
    """The page that lists every setting."""
    return "".join(_markdown_lines())


def _value(row: Field[Any], settings: Settings) -> Any:
    value = getattr(settings, row.name)
    return MASK if row.metadata["secret"] and value else value


def _shown(row: Field[Any], settings: Settings) -> str:
    value = _value(row, settings)
    unset = value == row.default
    text = row.metadata["shown"] if unset and row.metadata["shown"] else _text(value)
    marks = (["default"] if unset else []) + ([] if row.metadata["effective"] else [LATER])
    return f"{text}  ({', '.join(marks)})" if marks else text


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _toml_lines() -> Iterator[str]:
    yield (
        "# Every setting of Filmroom, each at its default. Remove the # of a line to change it.\n"
        "# The environment variable of the same name in capitals wins, and so does NAME_FILE, the path of\n"
        "# a file that holds the value. Relative paths count from this file's folder.\n"
        "# Printed from the schema by: make docs\n"
    )
    for section in SECTIONS:
        yield f"\n# {section}\n"
        for row in _rows(section):
            mark = "" if row.metadata["effective"] else f" ({LATER})"
            yield f"\n# {row.metadata['help']}{mark}\n"
            shown = row.metadata["shown"]
            yield f"# {row.name} = {_toml_value(row.default)}{f'  # {shown}' if shown else ''}\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    return json.dumps("" if value is None else str(value) if isinstance(value, Path) else value)


def _markdown_lines() -> Iterator[str]:
    yield (
        "# Settings\n\n"
        "Printed from `pacs/settings.py` by `make docs`.\n\n"
        "A setting comes from the environment variable of its name, else from the file that `NAME_FILE` names (for "
        "secrets), else from the same key in lower case in the configuration file, else it has its default. The "
        "configuration file is the one that `FILMROOM_CONFIG` names, else `config/filmroom.toml` in a checkout and "
        "`filmroom.toml` in the home of an installed Filmroom. An unknown key in the file, or a value of the wrong "
        "kind, is an error that names it. Relative paths count from the folder of the configuration file, or, in the "
        "environment, from the working directory.\n\n"
        "`filmroom config show` prints the values in force. Secrets are never printed.\n"
    )
    for section in SECTIONS:
        yield f"\n## {section}\n\n| Name | Kind | Default | Meaning |\n|---|---|---|---|\n"
        for row in _rows(section):
            yield f"| `{row.name.upper()}` | {_kind(row)} | {_default(row)} | {_meaning(row)} |\n"


def _rows(section: str) -> list[Field[Any]]:
    return [row for row in schema() if row.metadata["section"] == section]


def _kind(row: Field[Any]) -> str:
    rules = row.metadata
    limits = f", {rules['limits'][0]:g} to {rules['limits'][1]:g}" if rules["limits"] else ""
    kind = " or ".join(f"`{choice}`" for choice in rules["choices"]) or KINDS[row.type][1] + limits
    return f"{kind}, secret" if rules["secret"] else kind


def _default(row: Field[Any]) -> str:
    return str(row.metadata["shown"]) or f"`{_toml_value(row.default)}`"


def _meaning(row: Field[Any]) -> str:
    return str(row.metadata["help"]) + ("" if row.metadata["effective"] else f" **{LATER.capitalize()}.**")
