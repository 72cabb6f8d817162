"""The clerk: one holder, isolated duties, woken by the database."""

import threading
import time

from pacs.node import build
from pacs.services import clerk
from pacs.services.duties import Duty
from tests.services.specimens import ct, part10, put, query


def run(node, duties):
    stop = threading.Event()
    thread = threading.Thread(target=clerk.Clerk(node, tuple(duties)).run, args=(stop,))
    thread.start()
    return stop, thread


def eventually(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_only_one_clerk_works_and_another_takes_over(node, settings):
    ran = {"first": 0, "second": 0}

    def duty(name):
        def work(_node):
            ran[name] += 1

        return Duty(name, 0.05, work)

    other = build(settings, component="other")
    first = run(node, [duty("first")])
    eventually(lambda: ran["first"])
    second = run(other, [duty("second")])
    time.sleep(1.5)
    assert ran["second"] == 0
    first[0].set()
    first[1].join(10)
    eventually(lambda: ran["second"])
    done = ran["first"]
    second[0].set()
    second[1].join(10)
    assert ran["first"] == done
    other.close()


def test_a_duty_that_fails_or_is_slow_hinders_no_other(node):
    ran, gate = [], threading.Event()

    def fail(_node):
        raise ValueError("broken")

    def slow(_node):
        gate.wait(10)

    duties = [Duty("fail", 0.01, fail), Duty("slow", 0.01, slow), Duty("well", 0.01, lambda _node: ran.append(1))]
    stop, thread = run(node, duties)
    eventually(lambda: len(ran) > 20)
    gate.set()
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def test_a_store_wakes_a_duty_long_before_its_period(node):
    ran = []
    stop, thread = run(node, [Duty("woken", 3600.0, lambda _node: ran.append(1), woken_by="outbox")])
    eventually(lambda: len(ran) == 1)
    put(node, part10(ct()))
    eventually(lambda: len(ran) == 2)
    stop.set()
    thread.join(10)


def test_the_clerk_works_again_after_its_connection_was_cut(node):
    ran = []
    stop, thread = run(node, [Duty("often", 0.05, lambda _node: ran.append(1))])
    eventually(lambda: ran)
    query(
        node,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s",
        "filmroom clerk",
    )
    time.sleep(1.2)
    done = len(ran)
    eventually(lambda: len(ran) > done)
    stop.set()
    thread.join(10)


def test_every_duty_of_the_tables_runs_without_error(node):
    put(node, part10(ct()))
    for duty in clerk.duties():
        if duty.name != "scrub":
            duty.function(node)
    names = [duty.name for duty in clerk.duties()]
    assert len(set(names)) == len(names)
