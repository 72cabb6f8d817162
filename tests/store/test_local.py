"""The file store on a real file system."""

import errno
import hashlib
import os
import subprocess
import sys
import threading
import time

import pytest

from pacs.store import draft as drafts
from pacs.store import folders
from pacs.store.base import StoreFailed, StoreFull
from pacs.store.draft import IN_MEMORY
from pacs.store.local import LocalStore


@pytest.fixture
def store(tmp_path):
    made = LocalStore(tmp_path)
    yield made
    made.close()


def keep(store, data, chunk=10_000):
    draft = store.draft()
    for start in range(0, len(data), chunk):
        draft.write(data[start : start + chunk])
    digests = draft.digests(100)
    name = draft.publish()
    draft.settle()
    draft.close()
    return name, digests


@pytest.mark.parametrize("size", [1, 8_900, IN_MEMORY, IN_MEMORY + 1, 3 * IN_MEMORY])
def test_what_was_written_is_read_back_with_its_digests(store, size):
    data = os.urandom(size)
    name, (whole, rest) = keep(store, data)
    with store.open(name) as file:
        assert file.read() == data
    assert store.size(name) == size
    assert (whole, rest) == (hashlib.sha256(data).digest(), hashlib.sha256(data[100:]).digest())
    assert store.made_here(name)


def test_files_are_for_their_owner_only(store, tmp_path):
    name, _ = keep(store, b"x" * 2 * IN_MEMORY)
    assert (tmp_path / "objects" / name).stat().st_mode & 0o777 == 0o600


def test_a_draft_is_seen_whole_before_it_is_published(store):
    for size in (500, IN_MEMORY * 2):
        data, draft = os.urandom(size), store.draft()
        draft.write(data)
        with draft.view() as view:
            assert view == data
        draft.discard()
        draft.discard()


def test_nothing_is_left_of_a_discarded_draft(store, tmp_path):
    for publish in (False, True):
        draft = store.draft()
        draft.write(bytes(IN_MEMORY * 2))
        name = draft.publish() if publish else ""
        draft.discard()
        assert not list((tmp_path / "tmp").iterdir())
        assert not name or store.size(name) is None


def test_file_and_folder_are_synced_before_settle_returns(store, monkeypatch, tmp_path):
    synced = []
    real = os.fsync

    def fsync(number):
        synced.append(os.readlink(f"/proc/self/fd/{number}"))
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    for size in (1000, 2 * IN_MEMORY):
        name, _ = keep(store, bytes(size))
        path = str(tmp_path / "objects" / name)
        assert path in synced
        assert os.path.dirname(path) in synced  # for a small one: when its blank was made


def test_a_failed_fsync_is_final_and_degrades_the_store_until_a_probe_passes(store, monkeypatch):
    real, broken = os.fsync, threading.Event()

    def fsync(number):
        if broken.is_set():
            raise OSError(errno.EIO, "simulated")
        real(number)

    keep(store, b"first")
    monkeypatch.setattr(os, "fsync", fsync)
    broken.set()
    draft = store.draft()
    draft.write(b"second")
    name = draft.publish()
    with pytest.raises(StoreFailed):
        draft.settle()
    assert store.size(name) is None
    assert not store.healthy()
    broken.clear()
    deadline = time.monotonic() + 10
    while not store.healthy():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_no_space_is_told_apart_from_other_failures(store, monkeypatch):
    keep(store, b"first")

    def write(_number, _data):
        raise OSError(errno.ENOSPC, "simulated")

    monkeypatch.setattr(drafts.os, "write", write)
    draft = store.draft()
    with pytest.raises(StoreFull):
        draft.write(bytes(2 * IN_MEMORY))
    draft.discard()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_file_system_refuses_and_recovers(tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", tmp_path], check=False)
    if mounted.returncode:
        pytest.skip("no mounts here")
    try:
        store = LocalStore(tmp_path)
        keep(store, b"small")
        draft = store.draft()
        with pytest.raises(StoreFull):
            draft.write(os.urandom(8 << 20))
        draft.discard()
        assert not store.healthy()
        deadline = time.monotonic() + 10
        while not store.healthy():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        keep(store, b"again")
        store.close()
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)


def test_one_fsync_serves_all_who_asked_before_it_began(monkeypatch, tmp_path):
    runs, gate = [], threading.Event()

    def slow(number):
        runs.append(number)
        gate.wait(10)

    monkeypatch.setattr(folders.os, "fsync", slow)
    shared = folders.SharedSync()
    threads = [threading.Thread(target=shared.sync, args=(tmp_path,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    while not runs:
        time.sleep(0.01)
    time.sleep(0.2)
    gate.set()
    for thread in threads:
        thread.join(10)
    assert len(runs) == 2  # the first asker's, and one for all who came while it ran


def test_a_failed_fsync_of_the_folder_reaches_all_who_share_it(monkeypatch, tmp_path):
    def broken(_number):
        raise OSError(errno.EIO, "simulated")

    monkeypatch.setattr(folders.os, "fsync", broken)
    with pytest.raises(OSError, match="simulated"):
        folders.SharedSync().sync(tmp_path)


def test_folders_stay_open_for_their_next_fsync_and_few_of_them(tmp_path):
    shared = folders.SharedSync()
    before = len(os.listdir("/proc/self/fd"))
    for number in range(3 * folders.OPEN_FOLDERS):
        (tmp_path / str(number)).mkdir()
        shared.sync(tmp_path / str(number))
        shared.sync(tmp_path / str(number))
    assert len(os.listdir("/proc/self/fd")) <= before + folders.OPEN_FOLDERS
    shared.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_drafts_of_a_killed_process_are_cleared_and_living_ones_are_not(store, tmp_path, monkeypatch):
    monkeypatch.setattr("pacs.store.local.JUST_MADE_SECONDS", 0.0)
    script = f"""
import os, sys, time
from pathlib import Path
from pacs.store.local import LocalStore
store = LocalStore(Path({str(tmp_path)!r}))
small = store.draft(); small.write(b"x"); small.publish()
draft = store.draft(); draft.write(bytes({2 * IN_MEMORY})); print("ready", flush=True); time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    mine = store.draft()
    mine.write(bytes(2 * IN_MEMORY))
    assert store.clear_drafts() == 0
    blanks = [name for names in store.folders() for name in names if store.size(name) == 0]
    assert blanks
    assert all(store.in_use(name) for name in blanks)
    process.kill()
    process.wait()
    assert store.clear_drafts() == 1
    assert not any(store.in_use(name) for name in blanks)
    mine.discard()


def test_names_never_lead_out_of_the_store(store):
    for name in ("../secret", "aa/../../secret", "/etc/passwd"):
        with pytest.raises(FileNotFoundError):
            store.open(name)


def test_objects_move_between_places_and_are_removed(store):
    name, _ = keep(store, b"content")
    store.move(name, "objects", "conflicts")
    assert store.size(name) is None
    with store.open(name, "conflicts") as file:
        assert file.read() == b"content"
    store.remove([name, "aa/bb/never"], "conflicts")
    assert store.size(name, "conflicts") is None


def test_a_process_fills_one_folder_before_the_next(store):
    names = {keep(store, b"x")[0].rpartition("/")[0] for _ in range(50)}
    assert len(names) == 1


def test_unused_blanks_go_when_the_store_is_closed(tmp_path):
    store = LocalStore(tmp_path)
    name, _ = keep(store, b"x")
    store.close()
    assert [found for names in store.folders() for found in names] == [name]
