"""`filmroom serve`: restarts what dies, ends as a whole, refuses in one sentence, leaves nothing behind."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import uuid

import psutil
import psycopg
import pytest

from pacs.cli.components import COMPONENTS, with_ports
from pacs.cli.supervisor import FIRST_DELAY, LONGEST_DELAY, Watch
from pacs.embedded.process import wait_until
from pacs.errors import SettingsError
from pacs.index import schema
from pacs.settings import Settings
from tests.running import RunningNode

# what stands while no other room does: the servers and the processes that the supervisor keeps alive
ALIVE = ("postgres", "valkey-server", "serve web", "serve dimse", "serve clerk")


@pytest.fixture
def node(short_folder, seed_home):
    home = short_folder / uuid.uuid4().hex[:8]
    shutil.copytree(seed_home, home)
    made = RunningNode(home, {"AI_ENABLED": "false"})
    yield made
    if made.process and made.process.poll() is None:
        made.stop(signal.SIGTERM)
    shutil.rmtree(home)


def up(node):
    """The servers answer, the schema is at head, the processes were started."""

    node.launch()
    node.wait(lambda: all(any(words in line for line in node.children()) for words in ALIVE))
    return node


def gone(processes):
    return all(not process.is_running() or process.status() == psutil.STATUS_ZOMBIE for process in processes)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_drains_and_leaves_no_process(node, number):
    family = up(node).family()
    assert node.stop(number) == 0, node.log_tail()
    assert gone(family)
    assert not list((node.home / "run").glob("*.sock"))
    assert not (node.home / "node.json").exists()


def test_nothing_outlives_a_killed_supervisor_and_the_next_one_starts(node):
    family = up(node).family()
    settings = node.settings
    node.stop(signal.SIGKILL)
    node.env = {"HTTP_PORT": str(settings.http_port), "DICOM_PORT": str(settings.dicom_port)} | node.env
    up(node)
    assert wait_until(lambda: gone(family), 40)
    assert (node.settings.http_port, node.settings.dicom_port) == (settings.http_port, settings.dicom_port)
    assert node.stop() == 0


@pytest.mark.parametrize("words", ["postgres", "valkey-server", "serve dimse"])
def test_a_killed_process_is_started_again(node, words):
    up(node)
    victim = node.child(words)
    victim.kill()

    node.wait(lambda: any(words in line and child.pid != victim.pid for line, child in node.children().items()))
    assert node.stop() == 0


def test_a_first_start_makes_all_that_is_needed_and_applies_migrations(node):
    shutil.rmtree(node.home)
    up(node)
    assert schema.current(node.settings.database_url) == schema.head()
    node.stop()


def test_a_newer_schema_is_one_sentence_and_no_process_is_left(node):
    up(node)
    with psycopg.connect(node.settings.database_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    node.stop()
    node.launch()
    family = node.family()
    assert node.process.wait(60) == 1
    assert "filmroom: The database is at revision 9999, which is newer" in node.log_tail()
    assert gone(family)


def test_a_second_node_on_one_home_is_refused_naming_the_first(node):
    up(node)
    second = RunningNode(node.home, node.env)
    second.launch()
    assert second.process.wait(30) == 1
    assert f"filmroom: {node.home} is in use by process {node.process.pid}; stop that one first" in second.log_tail()
    assert node.process.poll() is None
    assert node.stop() == 0


@pytest.mark.parametrize("name", ["HTTP_PORT", "WEB_PORT", "DICOM_PORT"])
def test_a_port_in_use_is_one_sentence_naming_the_setting(node, name):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        node.env[name] = str(port)
        node.launch()
        assert node.process.wait(30) == 1
    assert node.log_tail().splitlines()[-1] == (
        f"filmroom: Port {port} of 127.0.0.1 is in use; stop the program that holds it, or set {name} to another port "
        "(0 = any free one)."
    )


def refusal(*verb, **env):
    """What a command that must fail says."""
    line = [sys.executable, "-m", "pacs", *verb]
    done = subprocess.run(line, check=False, env={**os.environ, **env}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


@pytest.mark.parametrize("what", ["all", "web"])
def test_an_open_archive_is_refused_before_anything_starts(tmp_path, what):
    env = {"DATABASE_URL": "postgresql:///x", "REDIS_URL": "redis://x", "ENVIRONMENT": "production"}
    env |= {"FILMROOM_HOME": str(tmp_path / "home"), "HTTP_HOST": "0.0.0.0"}
    said = refusal("serve", what, **env)
    assert said.startswith("filmroom: SECRET_KEY must be set")
    assert said.count("\n") == 1
    assert not (tmp_path / "home" / "secret_key").exists()
    said = refusal("serve", what, **env, SECRET_KEY="gQ7c-Vx2pWm9Zs4LkT1yB8nRfH3uJd6eA0_iOoXv", AUTH_MODE="open")
    assert said.startswith("filmroom: AUTH_MODE=open is refused in production")


def test_one_process_without_servers_says_what_it_needs(tmp_path):
    assert refusal("serve", "dimse", FILMROOM_HOME=str(tmp_path / "home")) == (
        "filmroom: 'serve dimse' needs DATABASE_URL and REDIS_URL; set them, or run 'filmroom serve', which brings its "
        "own servers.\n"
    )


def test_port_0_takes_a_free_one_and_a_privileged_one_is_named(monkeypatch):
    chosen = with_ports(Settings(http_port=0, web_port=0, dicom_port=0), COMPONENTS)
    assert min(chosen.http_port, chosen.web_port, chosen.dicom_port) > 1023
    assert len({chosen.http_port, chosen.web_port, chosen.dicom_port}) == 3
    with pytest.raises(SettingsError, match="set WEB_PORT to another"):
        with_ports(Settings(http_port=chosen.http_port, web_port=chosen.http_port), COMPONENTS)
    with pytest.raises(SettingsError, match="correct HTTP_HOST"):
        with_ports(Settings(http_host="192.0.2.1", http_port=0), COMPONENTS)


class Dying:
    """A member that ends as soon as it is started."""

    name = "dying"
    exit_code = 1

    def __init__(self):
        self.starts = 0
        self.process = self

    returncode = 1

    def start(self):
        self.starts += 1

    def poll(self):
        return self.exit_code


def test_a_process_that_keeps_dying_is_started_ever_more_slowly():
    member = Dying()
    watch, now, delays = Watch(member, started=0.0), 0.0, []
    for _ in range(8):
        watch.tend(now)
        delays.append(watch.due - now)
        now = watch.due
        watch.tend(now)
    assert delays == [FIRST_DELAY, 2, 4, 8, 16, LONGEST_DELAY, LONGEST_DELAY, LONGEST_DELAY]
    assert member.starts == 8


def test_a_process_that_lived_long_is_started_at_once_again():
    watch = Watch(Dying(), started=0.0, failures=7)
    watch.tend(1000.0)
    assert watch.due == 1000.0 + FIRST_DELAY


def test_a_process_that_cannot_be_started_is_tried_again():
    member = Dying()
    member.start = lambda: (_ for _ in ()).throw(OSError("no memory"))
    watch = Watch(member, due=5.0)
    watch.tend(4.0)
    assert watch.due == 5.0
    watch.tend(5.0)
    assert watch.due == 5.0 + FIRST_DELAY
