"""Work done once for many."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dicomweb.once import Once


def test_many_who_ask_at_once_cost_one_call() -> None:
    once, calls, go = Once(1000), [], threading.Event()

    def make() -> bytes:
        calls.append(1)
        go.wait(10)
        return b"made"

    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(once.call, "key", make) for _ in range(20)]
        go.set()
        assert {answer.result() for answer in answers} == {b"made"}
    assert len(calls) == 1


def test_a_failure_is_told_to_all_and_forgotten() -> None:
    once = Once(1000)

    def fail() -> bytes:
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            once.call("key", fail)
    assert once.call("key", lambda: b"now") == b"now"


def test_the_oldest_goes_when_bytes_run_out() -> None:
    once = Once(100)
    for key in range(5):
        once.call(key, lambda: bytes(25))
    assert once.call(4, lambda: b"again") == bytes(25)
    assert once.call(0, lambda: b"again") == b"again"


def test_what_is_large_is_not_kept() -> None:
    once = Once(100)
    once.call("key", lambda: bytes(26))
    assert once.call("key", lambda: b"again") == b"again"
