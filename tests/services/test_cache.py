"""What was made is kept whole, within its bounds, for a day; it is made once for all who wait."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pacs.services.cache import KEPT_SECONDS, Cache


def test_many_who_ask_at_once_get_what_was_made_once(tmp_path: Path) -> None:
    cache, made, all_ask = Cache(tmp_path / "c", 1 << 20), [], threading.Barrier(9)

    def make() -> Iterator[bytes]:
        made.append(1)
        yield b"ab"
        yield b"c"

    def ask() -> bytes:
        all_ask.wait(10)
        with cache.get("x", make) as file:
            return file.read()

    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask) for _ in range(8)]
        all_ask.wait(10)
        assert {answer.result(10) for answer in answers} == {b"abc"}
    assert made == [1]
    with cache.get("x", make) as file:
        assert file.read() == b"abc"
    assert made == [1]


def test_failure_is_told_to_all_and_keeps_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1 << 20)

    def broken() -> Iterator[bytes]:
        yield b"half"
        raise ValueError("damaged")

    for _ in range(2):
        with pytest.raises(ValueError, match="damaged"):
            cache.get("x", broken)
    assert list(tmp_path.iterdir()) == []


def test_bound_is_kept_by_dropping_what_was_read_longest_ago(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1000)
    for name in "abc":
        cache.get(name, lambda: iter([bytes(300)])).close()
        os.utime(tmp_path / name, (time.time() - 100 + ord(name), time.time()))
    cache.get("a", lambda: iter([])).close()  # read again: now b is the one
    cache.get("d", lambda: iter([bytes(300)])).close()
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c", "d"}


def test_nothing_outlives_a_day_however_often_it_is_read(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1000)
    cache.get("old", lambda: iter([b"1"])).close()
    os.utime(tmp_path / "old", (time.time(), time.time() - KEPT_SECONDS - 1))
    with cache.get("old", lambda: iter([b"2"])) as file:
        assert file.read() == b"2"
    os.utime(tmp_path / "old", (time.time(), time.time() - KEPT_SECONDS - 1))
    cache.trim()
    assert list(tmp_path.iterdir()) == []


def test_what_is_too_large_or_would_eat_the_reserve_has_no_place(tmp_path: Path) -> None:
    assert not Cache(tmp_path, 1000).takes(251)
    assert Cache(tmp_path, 1000).takes(250)
    assert not Cache(tmp_path, 0).takes(1)
    assert not Cache(tmp_path, 1000, reserve=1 << 60).takes(1)
    assert not Cache(Path("/proc/nowhere"), 1000).takes(1)
