"""The units are ones that systemd understands, confines and can run."""

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pacs.cli.components import COMPONENTS
from pacs.settings import load, schema
from tests.deploy import shipped

UNITS = shipped.DEPLOY / "systemd"
PROCESSES = tuple(component.name for component in COMPONENTS)
COMMON = UNITS / "filmroom-.service.d" / "10-common.conf"
MOST_EXPOSED = 2.0  # of ten, by systemd's own counting
needs_systemd = [
    pytest.mark.interop,
    pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze reads units"),
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The units as installed, their program being the one that we run."""
    folder = tmp_path_factory.mktemp("units") / "system"
    shutil.copytree(UNITS, folder)
    program = Path(sys.executable).with_name("filmroom")
    for unit in folder.glob("*.service"):
        unit.write_text(unit.read_text().replace("/opt/filmroom/bin/filmroom", str(program)))
    return folder


def analyze(folder, *words):
    env = os.environ | {"SYSTEMD_UNIT_PATH": f"{folder}:", "SYSTEMD_COLORS": "0"}
    line = ["systemd-analyze", "--no-pager", *words]
    return subprocess.run(line, env=env, capture_output=True, text=True, check=False)


def commands(name):
    return re.findall(r"^ExecStart=(\S+) (.*)$", (UNITS / f"filmroom-{name}.service").read_text(), re.M)


def test_there_is_one_unit_for_each_process_and_one_for_the_schema():
    assert {unit.stem for unit in UNITS.glob("*.service")} == {f"filmroom-{name}" for name in (*PROCESSES, "migrate")}
    wanted = re.search(r"^Wants=(.*)$", (UNITS / "filmroom.target").read_text(), re.M)[1].split()
    assert set(wanted) == {f"filmroom-{name}.service" for name in PROCESSES}


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs_systemd) for name in (*PROCESSES, "migrate")])
def test_systemd_verifies_the_unit_without_a_word(installed, name):
    done = analyze(installed, "verify", "--man=no", str(installed / f"filmroom-{name}.service"))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs_systemd) for name in PROCESSES])
def test_systemd_counts_little_exposure(installed, name):
    unit = str(installed / f"filmroom-{name}.service")
    done = analyze(installed, "security", "--offline=true", f"--threshold={MOST_EXPOSED * 10:.0f}", unit)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", PROCESSES)
def test_the_unit_runs_its_process(name):
    assert commands(name) == [("/opt/filmroom/bin/filmroom", f"serve {name}")]


def test_the_schema_is_brought_up_before_any_process():
    assert commands("migrate") == [("/opt/filmroom/bin/filmroom", "db upgrade")]
    for name in PROCESSES:
        text = (UNITS / f"filmroom-{name}.service").read_text()
        assert {"Requires=filmroom-migrate.service", "After=filmroom-migrate.service"} <= set(text.splitlines())


def test_secrets_come_as_credentials_and_the_environment_loads(tmp_path):
    text = COMMON.read_text()
    given = dict(re.findall(r"(?:^Environment=| )([A-Z_]+)=(\S+)", text, re.M))
    assert {key.removesuffix("_FILE") for key in given} <= {row.name.upper() for row in schema()} | {
        "FILMROOM_CONFIG",
        "PYTHONDONTWRITEBYTECODE",
    }
    credentials = dict(re.findall(r"^LoadCredential=(\w+):(\S+)$", text, re.M))
    assert credentials == {
        name: f"/etc/filmroom/credentials/{name}" for name in ("database_url", "redis_url", "secret_key")
    }
    values = {"database_url": "postgresql://u@h/d", "redis_url": "redis://h:6379/0", "secret_key": "k" * 48}
    for name, value in values.items():
        (tmp_path / name).write_text(f"{value}\n")
        assert given[f"{name.upper()}_FILE"] == f"%d/{name}"
    env = {key: value.replace("%d", str(tmp_path)) for key, value in given.items()}
    settings = load(env | {"FILMROOM_CONFIG": os.devnull})
    assert {name: getattr(settings, name) for name in values} == values
    assert settings.loopback_only


def test_a_process_has_longer_to_end_than_it_takes_itself():
    from pacs.cli.serve import LAST_WORD

    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read(COMMON)
    assert int(unit["Service"]["TimeoutStopSec"]) > LAST_WORD
    assert unit["Service"]["Restart"] == "on-failure"


@pytest.mark.interop
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="root types it; setpriv is of util-linux")
def test_what_root_types_runs_as_the_service_with_its_settings_and_secrets(short_folder):
    folder = short_folder / "typed"
    folder.mkdir(mode=0o755)
    text = (UNITS / "filmroom.sh").read_text()
    program = folder / "filmroom"
    program.write_text('#!/bin/sh\nid -un; pwd; echo "$@"; env\n')
    moved = {"/etc/filmroom": f"{folder}/etc", "/opt/filmroom/bin/filmroom": str(program), "=filmroom": "=nobody"}
    for old, new in moved.items():
        assert old in text
        text = text.replace(old, new)
    text = text.replace("--regid=nobody", "--regid=nogroup")
    (folder / "etc" / "credentials").mkdir(parents=True, mode=0o700)
    (folder / "etc" / "credentials" / "database_url").write_text("postgresql://u:p@h/d\n")
    (folder / "etc" / "filmroom.env").write_text("# a remark\nDISK_RESERVE_GB=5\nPUBLIC_URL=https://pacs.example/a b\n")
    script = folder / "script"
    script.write_text(text)
    for file in (program, script):
        file.chmod(0o755)
    done = subprocess.run(
        [script, "status", "a b"], capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]}
    )
    assert done.returncode == 0, done.stderr
    who, where, words, *env = done.stdout.splitlines()
    assert (who, where, words) == ("nobody", "/", "status a b")
    assert {"DATABASE_URL=postgresql://u:p@h/d", "DISK_RESERVE_GB=5", "PUBLIC_URL=https://pacs.example/a b"} <= set(env)
    assert f"FILMROOM_CONFIG={folder}/etc/filmroom.toml" in env
    refused = subprocess.run(["setpriv", "--reuid=nobody", "--", script], capture_output=True, text=True, check=False)
    assert (refused.returncode, "use sudo" in refused.stderr) == (1, True)
