"""The job streams on a real server."""

import threading

import pytest
import redis

from pacs.bus.stream import GROUP, KEYS, Stream, claimed_entries
from pacs.errors import Unavailable


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.flushdb()
        yield client


@pytest.fixture
def stream(client, redis_url):
    stream = Stream(redis_url)
    yield stream
    stream.close()


def test_entries_come_by_priority(stream):
    stream.publish([(1, "low"), (2, "normal"), (3, "urgent"), (4, "urgent")])
    assert [stream.take("a").job_id for _ in range(4)] == [3, 4, 2, 1]
    assert stream.take("a") is None


def test_the_oldest_class_comes_first_when_asked(stream, client):
    client.xadd(KEYS["low"], {"job": "1"}, id="1000-0")
    stream.publish([(2, "urgent")])
    assert stream.take("a", oldest_first=True).job_id == 1
    assert stream.take("a", oldest_first=True).job_id == 2


def test_an_entry_has_one_taker(stream):
    stream.publish((number, "normal") for number in range(50))
    taken: list[int] = []

    def work(name: str) -> None:
        while entry := stream.take(name):
            taken.append(entry.job_id)

    threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(50))


def test_waiting_ends_when_an_entry_comes_and_others_go_back(stream):
    stream.take("a")  # makes the group
    found: list[int] = []

    def wait(name: str) -> None:
        found.extend(entry.job_id for entry in [stream.wait(name, 10)] if entry)

    waiting = [threading.Thread(target=wait, args=(name,)) for name in "abc"]
    for thread in waiting:
        thread.start()
    stream.publish([(1, "low"), (2, "normal"), (3, "urgent")])
    for thread in waiting:
        thread.join()
    assert sorted(found) == [1, 2, 3]


def test_waiting_longer_than_the_clients_own_limit_is_no_error(stream):
    assert stream.wait("a", 0.2) is None


def test_a_flush_between_two_reads_is_survived(stream, client):
    stream.publish([(1, "normal")])
    held = stream.take("a")
    client.flushdb()
    stream.forget(held)
    stream.keep([held], "a")
    stream.publish([(2, "normal")])
    assert stream.take("a").job_id == 2
    assert stream.claim_idle("b", 0) is not None


def test_what_was_published_before_the_group_existed_counts(stream):
    stream.publish([(7, "normal")])
    assert stream.wait("a", 1).job_id == 7


def test_an_idle_entry_changes_hands_and_a_kept_one_does_not(stream):
    stream.publish([(1, "normal"), (2, "normal")])
    first, second = stream.take("a"), stream.take("a")
    threading.Event().wait(0.3)
    stream.keep([first], "a")
    claimed = stream.claim_idle("b", 0.25)
    assert claimed.job_id == second.job_id
    assert stream.claim_idle("b", 0.25) is None


def test_a_forgotten_entry_leaves_nothing(stream, client):
    stream.publish([(1, "normal")])
    stream.forget(stream.take("a"))
    assert client.xlen(KEYS["normal"]) == 0
    assert client.xpending(KEYS["normal"], GROUP)["pending"] == 0
    assert stream.present() == set()


def test_an_entry_given_back_goes_to_somebody_else(stream, client):
    stream.publish([(1, "low")])
    stream.give_back(stream.take("a"))
    assert client.xpending(KEYS["low"], GROUP)["pending"] == 0
    assert stream.take("b").job_id == 1


def test_present_names_waiting_and_held_entries(stream):
    stream.publish((number, "normal") for number in range(2500))
    stream.publish([(5000, "urgent")])
    stream.take("a")
    assert stream.present() == {*range(2500), 5000}


def test_tidying_drops_old_entries_and_no_others(stream, client):
    client.xadd(KEYS["normal"], {"job": "1"}, id="1000-0")
    stream.publish([(2, "normal"), (3, "urgent")])
    assert stream.take("holder").job_id == 3
    stream.tidy(3600)
    assert stream.present() == {2, 3}


def test_a_consumer_leaves_unless_it_holds_something(stream, client):
    stream.publish([(2, "normal"), (3, "urgent")])
    stream.take("a")
    stream.forget(stream.take("a"))
    stream.leave("a")
    assert client.xinfo_consumers(KEYS["normal"], GROUP) == []
    assert [row["name"] for row in client.xinfo_consumers(KEYS["urgent"], GROUP)] == ["a"]


def test_a_reply_of_redis_6_is_read_like_a_later_one():
    rows = [("5-0", {"job": "9"}), (None, None)]
    old, new = ["0-0", rows], ["0-0", rows[:1], ["4-0"]]
    assert [entry.job_id for entry in claimed_entries("k", old)] == [9]
    assert claimed_entries("k", old) == claimed_entries("k", new)


def test_redis_away_is_our_error():
    stream = Stream("redis://127.0.0.1:1/0")
    for act in (lambda: stream.take("a"), lambda: stream.publish([(1, "low")]), stream.epoch, stream.present):
        with pytest.raises(Unavailable):
            act()


def test_the_epoch_goes_with_a_flush(stream, client):
    stream.set_epoch("x")
    assert stream.epoch() == "x"
    client.flushdb()
    assert stream.epoch() is None
