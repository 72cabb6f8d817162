"""Each command of the runbook is one that its program takes, and what the text names is there."""

import argparse
import importlib
import re
import shlex

import pytest

from pacs.cli.main import VERBS
from tests.deploy import shipped

TEXT = (shipped.ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S) for line in block.splitlines()]
QUOTED = [line for line in re.findall(r"`([^`\n]+)`", TEXT) if line.startswith(("filmroom ", "docker compose "))]
FREE = {("--profile", "gpu"), ("--env-file", ".env")}  # deploy/prepare makes .env
SUBCOMMANDS = {"up", "down", "stop", "ps", "logs", "exec", "run", "restart"}


def filmroom(line):
    """The words for `filmroom` in a line, if there are any."""
    words = shlex.split(line)
    return words[words.index("filmroom") + 1 :] if "filmroom" in words else []


@pytest.mark.parametrize("line", [line for line in (*LINES, *QUOTED) if filmroom(line)])
def test_filmroom_takes_the_command(line):
    name, *words = filmroom(line)
    module = importlib.import_module(next(verb.module for verb in VERBS if verb.name == name))
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    parser.parse_args([{"JOB": "1"}.get(word, word) for word in words])


@pytest.mark.parametrize("line", [line for line in (*LINES, *QUOTED) if line.startswith("docker compose")])
def test_compose_lines_name_services_and_files_that_are_there(line):
    words = shlex.split(line)[2:]
    while words[0].startswith("-"):
        option, value, *words = words
        assert (option, value) in FREE or (option == "-f" and (shipped.ROOT / value).is_file())
    assert words[0] in SUBCOMMANDS
    services = set(shipped.compose()["services"])
    if words[0] in {"exec", "run", "restart"}:
        assert next(word for word in words[1:] if not word.startswith("-")) in services
    scaled = re.search(r"--scale (\w+)=", line)
    assert scaled is None or scaled[1] in services


def test_the_files_that_are_named_are_there():
    named = set(re.findall(r"(?<![\w/])((?:deploy|config|decisions)/[\w./*-]+\w)", TEXT))
    made = {name for name in named if name.startswith("deploy/secrets")}
    for name in named - made:
        folder = shipped.ROOT / "docs" if name.startswith("decisions") else shipped.ROOT
        assert list(folder.glob(name + ("*" if name.startswith("decisions") else ""))), name


def test_each_alert_is_in_the_table_and_each_of_the_table_is_an_alert():
    (group,) = shipped.read("prometheus/alerts.yml")["groups"]
    assert set(re.findall(r"`(Filmroom[A-Za-z]+)`", TEXT)) == {rule["alert"] for rule in group["rules"]}
