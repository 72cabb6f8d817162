"""Each command of the runbook is one that its program takes, and what the text names is there."""

import argparse
import importlib
import os
import re
import subprocess

import pytest

from pacs.cli.main import VERBS
from tests.deploy import runbook, shipped

LINES = [line.text for line in runbook.lines()]
EVERY = [*LINES, *runbook.quoted()]
FREE = {("--profile", "gpu"), ("--env-file", ".env")}  # deploy/prepare makes .env
SUBCOMMANDS = {"up", "down", "stop", "ps", "logs", "exec", "run", "restart"}
HEADINGS = (
    "Startup", "Upload limits", "Demo data", "Volumes", "GPU", "Shutdown", "Monitoring", "Backup", "Restore",
    "Migration", "Scaling", "Incidents", "Security procedures", "Maintenance windows", "Useful commands",
)  # fmt: skip
NUMBERS = {"JOB": "1", "DIR": "/backup"}


def test_the_headings_are_those_that_operators_know():
    assert tuple(re.findall(r"^## (.*)$", runbook.TEXT, re.M)) == HEADINGS


@pytest.mark.parametrize("text", [text for text in EVERY if runbook.inner(text)])
def test_filmroom_takes_the_command(text):
    name, *words = runbook.inner(text)
    if name == "--version":
        return
    module = importlib.import_module(next(verb.module for verb in VERBS if verb.name == name))
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    if words or text in LINES:  # a bare name in running text stands for the command, not for a line
        parser.parse_args([NUMBERS.get(word, word) for word in words])


@pytest.mark.parametrize("text", [text for text in EVERY if text.startswith(runbook.COMPOSE)])
def test_compose_lines_name_services_and_files_that_are_there(text):
    options, verb, service, rest = runbook.compose(text)
    assert all((o, v) in FREE or (o == "-f" and (shipped.ROOT / v).is_file()) for o, v in options)
    assert verb in SUBCOMMANDS
    services = shipped.compose()["services"]
    assert {word for word in (service, *(rest if verb == "up" else ())) if word} <= set(services)
    assert not re.search(r"--scale (\w+)=", text) or re.search(r"--scale (\w+)=", text)[1] in services
    if verb == "run":
        assert services[service]["build"]["target"] in {"node", "ai"}


@pytest.mark.parametrize("service", ["ai"])
def test_the_service_that_saves_and_restores_has_all_that_is_saved(service):
    mounted = set(shipped.mounts(shipped.compose()["services"][service]))
    assert {
        "/var/lib/filmroom/storage",
        "/var/lib/filmroom/models",
        "/var/lib/filmroom/results",
        "/etc/filmroom",
    } <= mounted


def test_the_files_that_are_named_are_there():
    named = set(re.findall(r"(?<![\w/])((?:deploy|config|decisions)/[\w./*-]+\w)", runbook.TEXT))
    made = {name for name in named if name.startswith("deploy/secrets")}
    for name in named - made:
        folder = shipped.ROOT / "docs" if name.startswith("decisions") else shipped.ROOT
        assert list(folder.glob(name + ("*" if name.startswith("decisions") else ""))), name
    assert os.access(shipped.DEPLOY / "prepare", os.X_OK)


def test_each_alert_is_in_the_table_and_each_of_the_table_is_an_alert():
    (group,) = shipped.read("prometheus/alerts.yml")["groups"]
    assert set(re.findall(r"`(Filmroom[A-Za-z]+)`", runbook.TEXT)) == {rule["alert"] for rule in group["rules"]}


def test_the_units_are_installed_by_the_lines_that_install_them(tmp_path):
    for text in [text for text in LINES if text.startswith("install ") and "/mnt/" not in text]:
        moved = re.sub(r"(?<= )/(etc|usr)/", rf"{tmp_path}/\1/", text)
        for folder in ("etc/sysusers.d", "etc/systemd/system", "usr/local/sbin"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        subprocess.run(["sh", "-euc", moved], cwd=shipped.ROOT, check=True)
    units = tmp_path / "etc" / "systemd" / "system"
    shipped_units = {
        path.relative_to(shipped.DEPLOY / "systemd") for path in (shipped.DEPLOY / "systemd").rglob("*.conf")
    }
    installed = {path.relative_to(units) for path in units.rglob("*") if path.is_file()}
    assert {path for path in shipped_units if path.parent.name} <= installed
    assert {path.name for path in (shipped.DEPLOY / "systemd").glob("*.service")} <= {path.name for path in installed}
    assert os.access(tmp_path / "usr" / "local" / "sbin" / "filmroom", os.X_OK)
    assert {path.name for path in (tmp_path / "etc" / "filmroom").iterdir()} == {
        "filmroom.toml",
        "peers.toml",
        "credentials",
    }
    assert (tmp_path / "etc" / "filmroom" / "credentials").stat().st_mode & 0o777 == 0o700


def test_systemd_is_asked_for_units_that_are_there():
    units = {path.name for path in (shipped.DEPLOY / "systemd").glob("filmroom*")}
    for text in [text for text in LINES if text.startswith(("systemctl", "journalctl"))]:
        for name in re.findall(r"\bfilmroom[\w.-]*", text):
            assert name in units or f"{name}.service" in units, text
