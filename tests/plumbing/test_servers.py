"""The embedded servers: start, crash, restart, move, and one holder a home."""

import os
import shutil
import signal
import subprocess
import sys
import uuid
from contextlib import suppress

import psutil
import psycopg
import pytest
import redis

from pacs.embedded.connect import connected, located, write_note
from pacs.embedded.lock import HomeLock, holder
from pacs.embedded.process import own, service_account, spawn, wait_until
from pacs.embedded.servers import Servers
from pacs.errors import Conflict
from pacs.settings import Settings


@pytest.fixture
def home(short_folder, seed_home):
    folder = short_folder / uuid.uuid4().hex[:8]
    shutil.copytree(seed_home, folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def start():
    started = []

    def on(home):
        servers = Servers(home)
        started.append(servers)
        servers.start()
        return servers

    yield on
    for servers in started:
        for member in servers.members:
            member.stop()


def write(servers):
    postgres, valkey = servers.members
    with psycopg.connect(postgres.url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (value text)")
        connection.execute("INSERT INTO kept VALUES ('here')")
    with redis.Redis.from_url(valkey.url) as client:
        client.set("kept", "here")
        client.execute_command("WAITAOF", 1, 0, 5000)


def assert_kept(servers):
    postgres, valkey = servers.members
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute("SELECT value FROM kept").fetchall() == [("here",)]
    with redis.Redis.from_url(valkey.url) as client:
        assert client.get("kept") == b"here"


def test_what_was_written_is_there_after_a_stop_and_a_start(home, start):
    first = start(home)
    urls = [member.url for member in first.members]
    write(first)
    first.stop()
    second = start(home)
    assert_kept(second)
    assert [member.url for member in second.members] == urls


def test_postgres_is_durable_and_tells_no_values_in_its_log(home, start):
    postgres, valkey = start(home).members
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        shown = {
            name: connection.execute(f"SHOW {name}").fetchone()[0]
            for name in ("fsync", "synchronous_commit", "full_page_writes", "listen_addresses", "server_encoding")
        }
        assert shown == {
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "listen_addresses": "",
            "server_encoding": "UTF8",
        }
        assert connection.execute("SELECT lower('ÄÉ'), 'Z' < 'a'").fetchone() == ("äé", True)
        connection.execute("CREATE TABLE once (name text PRIMARY KEY)")
        for _ in range(2):
            with suppress(psycopg.errors.UniqueViolation):
                connection.execute("INSERT INTO once VALUES (%s)", ["CANARY"])
    assert "once_pkey" in postgres.log_path.read_text()
    assert "CANARY" not in postgres.log_path.read_text()
    with redis.Redis.from_url(valkey.url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}


def test_killed_servers_start_again_on_the_same_addresses_with_all_they_acknowledged(home, start):
    servers = start(home)
    write(servers)
    for member in servers.members:
        member.process.kill()
        member.process.wait()
        member.start()
    assert wait_until(lambda: all(member.ready() for member in servers.members), 30)
    assert_kept(servers)


def test_a_stale_note_of_postgres_that_names_a_living_process_is_not_believed(home, start):
    servers = start(home)
    write(servers)
    postgres = servers.members[0]
    noted = (postgres.data / "postmaster.pid").read_text().splitlines()
    servers.stop()
    account = service_account()
    with subprocess.Popen(["sleep", "60"], user=account.uid if account else None) as bystander:
        (postgres.data / "postmaster.pid").write_text("\n".join([str(bystander.pid), *noted[1:]]))
        try:
            assert_kept(start(home))
            assert bystander.poll() is None
        finally:
            bystander.kill()


def test_a_half_made_cluster_is_made_anew(home, start):
    shutil.rmtree(home)
    (home / "postgres.new" / "base").mkdir(parents=True)
    write(start(home))
    assert not (home / "postgres.new").exists()


def test_a_home_moved_to_another_folder_works_there(home, start, short_folder):
    first = start(home)
    write(first)
    first.stop()
    moved = short_folder / f"a much longer name that no socket would fit {'x' * 60}"
    home.rename(moved)
    second = start(moved)
    assert_kept(second)
    second.stop()
    shutil.rmtree(moved)


def test_a_home_copied_while_it_was_killed_works_there(home, start, short_folder):
    first = start(home)
    write(first)
    for member in first.members:
        member.process.kill()
        member.process.wait()
    copy = short_folder / uuid.uuid4().hex[:8]
    shutil.copytree(home, copy, ignore=shutil.ignore_patterns("run"))
    assert_kept(start(copy))


def test_a_home_that_is_in_use_is_refused_naming_the_process(home, start):
    start(home)
    with pytest.raises(Conflict, match=f"in use by process {os.getpid()}; stop that one first"):
        Servers(home)
    assert holder(home) == os.getpid()


def test_the_lock_goes_with_its_holder_however_it_dies(home):
    code = f"import pathlib, time; from pacs.embedded.lock import HomeLock; l = HomeLock(pathlib.Path({str(home)!r}))"
    with subprocess.Popen([sys.executable, "-c", f"{code}; print(flush=True); time.sleep(60)"], stdout=-1) as process:
        process.stdout.readline()
        assert holder(home) == process.pid
        process.kill()
    assert holder(home) is None
    HomeLock(home).release()


def test_a_command_joins_the_servers_of_a_running_node(home, start):
    servers = start(home)
    write(servers)
    settings = Settings(filmroom_home=home)
    write_note(Settings(filmroom_home=home, http_port=12345))
    with connected(settings, start=False) as joined:
        assert joined.http_port == 12345
        assert (joined.database_url, joined.redis_url) == tuple(member.url for member in servers.members)


def test_a_command_brings_servers_of_its_own_when_no_node_runs(home):
    settings = Settings(filmroom_home=home)
    with connected(settings, start=True) as own_servers:
        assert psycopg.connect(own_servers.database_url).execute("SELECT 1").fetchone() == (1,)
    assert holder(home) is None
    with connected(settings, start=False) as none:
        assert none.database_url == ""


def test_given_urls_are_left_alone(tmp_path):
    home = tmp_path / "home"
    given_urls = Settings(filmroom_home=home, database_url="postgresql:///x", redis_url="redis://y")
    with connected(given_urls, start=True) as same:
        assert same is given_urls
    assert located(given_urls) == given_urls
    assert not home.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root must give up its rights")
def test_servers_of_root_run_as_nobody_and_below_a_closed_folder(tmp_path, start):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    servers = start(closed / "home")
    write(servers)
    for member in servers.members:
        status = psutil.Process(member.process.pid)
        assert status.username() == "nobody"
    assert closed.stat().st_mode & 0o777 == 0o700
    servers.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_change_hands_with_the_folder_last(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").touch()
    own(tmp_path / "a", service_account())
    assert {path.stat().st_uid for path in (tmp_path / "a").rglob("*")} == {service_account().uid}


def test_a_child_dies_with_its_parent(tmp_path):
    code = (
        "import sys, time; from pacs.embedded.process import spawn;"
        "print(spawn(['sleep', '60'], log=None).pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
        assert wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 10)


def test_a_child_gets_its_input_and_no_descriptor_of_ours(tmp_path):
    with (tmp_path / "out").open("wb") as out:
        assert spawn(["sh", "-c", "cat; ls /proc/self/fd | wc -l"], log=out, feed=b"fed\n").wait() == 0
    assert (tmp_path / "out").read_text().split() == ["fed", "4"]
