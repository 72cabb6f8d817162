"""The door under siege, as a process of its own: honest callers are served, and afterwards everything is as before."""

import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pacs.dimse.pdu import RELEASE_RQ
from pacs.domain.syntaxes import IMPLICIT_LE
from pacs.domain.uids import new_uid
from pacs.settings import Settings
from tests.dimse.outside import OutsideDoor, Usage
from tests.dimse.sender import Sender
from tests.dimse.siege import CT, request
from tests.dimse.test_hostile import a_message
from tests.dimse.test_node import encoded, image
from tests.dimse.test_tls import calling

PEERS = {
    "HONEST": 'host = "127.0.0.1"',
    "STRICT": 'host = "127.0.0.1"\nrequire_identity = true',
}


@pytest.fixture(scope="module")
def besieged(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OutsideDoor]:
    with OutsideDoor(tmp_path_factory.mktemp("outside"), settings, PEERS) as door:
        yield door


def honest(door: OutsideDoor, seconds: float) -> list[float]:
    """Seconds that each store took, one after another, over plain and TLS in turn; all succeed."""
    taken = []
    ds, end = image(), time.monotonic() + seconds
    context = calling(door.authority, door.credential)
    while time.monotonic() < end:
        secure = len(taken) // 50 % 2 == 1
        address, tls = (door.tls_address, context) if secure else (door.address, None)
        with Sender(address, [(CT, [IMPLICIT_LE])], calling="HONEST", tls=tls) as sender:
            for _ in range(50):
                ds.SOPInstanceUID = new_uid()
                data = encoded(ds, IMPLICIT_LE)
                began = time.perf_counter()
                assert sender.store(CT, ds.SOPInstanceUID, data).status == 0
                taken.append(time.perf_counter() - began)
    return taken


def besiege(door: OutsideDoor, seconds: float, each: int) -> "subprocess.Popen[str]":
    keys = door.authority.file, door.credential.certificate, door.credential.key
    words = [door.address[1], door.tls_address[1], *keys, seconds, each]
    line = [sys.executable, "-m", "tests.dimse.siege", *map(str, words)]
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen(line, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def p99(taken: list[float]) -> float:
    return statistics.quantiles(taken, n=100)[98]


def under_siege(door: OutsideDoor, seconds: float, each: int) -> tuple[list[float], list[float], int]:
    """Quiet and besieged latencies of an honest sender, and the most memory that was seen."""
    quiet = honest(door, max(seconds / 3, 2.0))
    attackers = besiege(door, seconds, each)
    try:
        noisy, most = [], 0
        while attackers.poll() is None:
            noisy += honest(door, 1.0)
            most = max(most, door.usage().memory)
        assert attackers.returncode == 0, attackers.stdout and attackers.stdout.read()
    finally:
        attackers.kill()
        attackers.wait()
    return quiet, noisy, most


def test_a_short_siege_by_every_row_of_the_table_leaves_the_door_as_it_was(besieged: OutsideDoor) -> None:
    baselines: list[Usage] = []
    for _ in range(2):  # what is made once is made in the first
        attackers = besiege(besieged, 60.0, 2)
        try:
            honest(besieged, 1.5)
        finally:
            attackers.kill()
            attackers.wait()
        baselines.append(besieged.settles(baselines[0], megabytes=24) if baselines else besieged.settled())
    assert baselines[1].within(baselines[0], 24), baselines
    assert besieged.traces() == []


@pytest.mark.slow
def test_twenty_of_each_for_half_a_minute_slow_nobody(besieged: OutsideDoor) -> None:
    under_siege(besieged, 5.0, 20)
    baseline = besieged.settled()
    quiet, noisy, most = under_siege(besieged, 30.0, 20)
    print(f"quiet p99 {p99(quiet) * 1000:.1f} ms of {len(quiet)}, besieged {p99(noisy) * 1000:.1f} ms of {len(noisy)}")
    print(f"memory {baseline.memory >> 20} MB, at most {most >> 20} MB")
    assert p99(noisy) < 3 * p99(quiet)
    assert most - baseline.memory < 64 << 20
    now = besieged.settles(baseline, megabytes=16)
    assert now.within(baseline, 16), (baseline, now)
    assert besieged.traces() == []


@pytest.mark.slow
def test_five_thousand_associations_begun_and_ended_in_every_way_leave_nothing(besieged: OutsideDoor) -> None:
    endings = (
        b"",
        bytes([7, 0, 0, 0, 0, 4, 0, 0, 0, 0]),
        b"garbage, garbage",
        RELEASE_RQ,
    )

    def cycle(number: int) -> None:
        with suppress(ConnectionResetError), socket.create_connection(besieged.address, 10) as sock:
            sock.sendall(request(called="FILMROOM" if number % 3 else "OTHER"))
            sock.recv(65_536)
            sock.sendall(endings[number % len(endings)])

    for number in range(500):
        cycle(number)
    baseline = besieged.settled()
    for number in range(5_000):
        cycle(number)
    now = besieged.settles(baseline, megabytes=4)
    assert now.within(baseline, 4), (baseline, now)
    assert besieged.traces() == []


@pytest.mark.slow
def test_two_thousand_mutated_sessions_leave_nothing(besieged: OutsideDoor) -> None:
    def session(seed: int) -> None:
        chance = random.Random(seed)
        data = bytearray(request() + b"".join(a_message(chance) for _ in range(5)) + RELEASE_RQ)
        for _ in range(chance.choice((1, 1, 2, 5, 20))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.3:
            at = chance.randrange(len(data))
            data[at:at] = data[chance.randrange(len(data)) :][: chance.randrange(1, 200)]
        with suppress(OSError), socket.create_connection(besieged.address, 10) as sock:
            sock.sendall(data[: chance.choice((len(data), chance.randrange(len(data))))])
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65_536):
                pass

    for seed in range(100):
        session(seed)
    baseline = besieged.settled()
    for seed in range(2_000):
        session(seed)
    now = besieged.settles(baseline, megabytes=8)
    assert now.within(baseline, 8), (baseline, now)
    assert besieged.traces() == []


# several processes


def test_a_second_process_shares_both_ports_and_either_may_end(besieged: OutsideDoor) -> None:
    second = besieged.start()
    try:
        end = time.monotonic() + 60
        while besieged.log.read_text().count('"listening"') < 4 and time.monotonic() < end:
            assert second.poll() is None, besieged.log.read_text()[-2_000:]
            time.sleep(0.05)
        context = calling(besieged.authority, besieged.credential)
        for _ in range(20):
            for address, tls in ((besieged.address, None), (besieged.tls_address, context)):
                with Sender(address, calling="HONEST", tls=tls) as sender:
                    assert sender.echo() == 0
    finally:
        second.terminate()
        assert second.wait(40) == 0
    besieged.wait()
