"""Three web and two DIMSE processes behind nginx; one of each is killed during a hundred uploads."""

import http.client
import json
import os
import secrets
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from pacs.embedded.process import spawn
from pacs.node import build
from pacs.services.phantom import ChestStudy, files
from tests.deploy import names
from tests.deploy.proxied import BACKENDS, Proxied, free_port, wait_for
from tests.torture.ledger import by_dimse, digest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.interop,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not shutil.which("nginx"), reason="nginx stands before the node"),
]
STUDIES, SLICES = 5, 20
AI_SECONDS = 300.0


class Scaled:
    """The processes of one node on one home: three web behind nginx, two DIMSE on one port, a clerk, a sidecar."""

    def __init__(self, proxied: Proxied) -> None:
        self.proxied, self.dicom_port = proxied, free_port()
        self.processes = {}

    def start(self, resolver: int) -> None:
        self.proxied.start(resolver)
        for name in ("dimse 1", "dimse 2", "clerk 1", "ai 1"):
            self.serve(name)
        for name in ("dimse 1", "dimse 2"):
            wait_for(lambda name=name: '"listening"' in (self.proxied.folder / f"{name}.log").read_text(), name)

    def serve(self, name: str) -> None:
        quiet = {"AI_SERIES_QUIET_SECONDS": "2", "AI_STUDY_QUIET_SECONDS": "25", "LOG_LEVEL": "info"}
        env = self.proxied.environment(DICOM_PORT=str(self.dicom_port), **quiet)
        with (self.proxied.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = spawn(
                [sys.executable, "-m", "pacs", "serve", name.partition(" ")[0]],
                log=log,
                env=env | {"PYTHONUNBUFFERED": "1"},
            )

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(60)
        self.proxied.stop()

    def get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("localhost", self.proxied.ports["http"], timeout=60)
        connection.request("GET", path, headers={"Accept": "application/dicom+json, application/json;q=0.9, */*;q=0.5"})
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, (path, answer.status, body[:200])
        return body


@pytest.fixture(scope="module")
def scaled(settings, short_folder):
    folder = short_folder / f"scaled-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o755)
    running = Scaled(Proxied(folder, settings))
    with names.served({"backend": list(BACKENDS), "frontend": ["127.0.0.1"]}) as resolver:
        try:
            running.start(resolver)
            yield running
        finally:
            running.stop()


def upload(port: int, data: bytes) -> bool:
    """One STOW of one object through nginx; whether it was acknowledged."""
    part = b"--b\r\nContent-Type: application/dicom\r\n\r\n"
    kind = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}
    connection = http.client.HTTPConnection("localhost", port, timeout=30)
    try:
        connection.request("POST", "/dicom-web/studies", part + data + b"\r\n--b--\r\n", kind)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@pytest.fixture(scope="module")
def uploaded(scaled):
    """Digests by UID of a hundred objects, each acknowledged at its first or a later try, and how many tries failed."""
    studies = [
        ChestStudy(secrets.token_hex(4), f"S{n}", "Scaled^Test", slices=SLICES, size=128) for n in range(STUDIES)
    ]
    objects = [(s.uid("instance", i), data) for s in studies for i, data in enumerate(files(s))]
    waiting, lock, done, failed = list(objects[::-1]), threading.Lock(), {}, Counter()
    port, by_association = scaled.proxied.ports["http"], by_dimse(scaled.dicom_port)

    def work(send, door):
        while True:
            with lock:
                if not waiting:
                    return
                uid, data = waiting.pop()
            while not send(data):
                failed[door] += 1
                time.sleep(0.2)
            with lock:
                done[uid] = digest(data)

    doors = [(lambda data: upload(port, data), "stow")] * 2 + [(lambda data: by_association([data]) != [], "dimse")] * 2
    workers = [threading.Thread(target=work, args=door) for door in doors]
    for worker in workers:
        worker.start()
    for count, kill in ((30, lambda: scaled.proxied.webs[BACKENDS[1]]), (60, lambda: scaled.processes["dimse 1"])):
        wait_for(lambda count=count: len(done) >= count, "uploads")
        os.kill(kill().pid, signal.SIGKILL)
        kill().wait(30)
    for worker in workers:
        worker.join(300)
    assert not waiting
    return done, {study.study_uid for study in studies}, failed


def test_nothing_acknowledged_is_missing_and_counts_are_exact(scaled, uploaded):
    done, studies, _failed = uploaded
    assert len(done) == STUDIES * SLICES
    rows = json.loads(scaled.get("/dicom-web/studies?limit=100"))
    assert {row["0020000D"]["Value"][0]: row["00201208"]["Value"] for row in rows} == {key: [SLICES] for key in studies}
    found = {}
    for study in studies:
        for row in json.loads(scaled.get(f"/dicom-web/studies/{study}/instances?limit=1000")):
            path = [row[tag]["Value"][0] for tag in ("0020000E", "00080018")]
            got = scaled.get(f"/dicom-web/studies/{study}/series/{path[0]}/instances/{path[1]}")
            found[path[1]] = got
    assert found.keys() == done.keys()


def test_every_object_is_whole(scaled, uploaded):
    node = build(scaled.proxied.settings, component="test")
    try:
        found = node.wholeness.check(lambda *_: nullcontext(SimpleNamespace(step=lambda count=1: None)))
    finally:
        node.close()
    assert (found.missing, found.changed) == ([], [])
    assert len(found.orphans) <= 4  # what the killed ones were writing: nobody was told that it is stored
    assert found.instances >= STUDIES * SLICES


def test_each_study_has_one_job_that_succeeds(scaled, uploaded):
    def jobs():
        return {
            study: [job["state"] for job in json.loads(scaled.get(f"/api/v1/ai/studies/{study}"))["jobs"]]
            for study in uploaded[1]
        }

    deadline = time.monotonic() + AI_SECONDS
    while (found := jobs()) != {key: ["SUCCEEDED"] for key in uploaded[1]} and time.monotonic() < deadline:
        time.sleep(1)
    assert found == {key: ["SUCCEEDED"] for key in uploaded[1]}
    for study in uploaded[1]:
        series = json.loads(scaled.get(f"/dicom-web/studies/{study}/series"))
        assert Counter(row["00080060"]["Value"][0] for row in series) == {"CT": 1, "SEG": 1, "SR": 1}


def test_a_process_that_comes_back_takes_its_share_again(scaled, uploaded):
    scaled.proxied.serve(BACKENDS[1])
    scaled.proxied.wait_served(BACKENDS[1])
    scaled.serve("dimse 1")

    def used():
        scaled.get("/dicom-web/studies?limit=1")
        return any(
            line["upstream"].startswith(BACKENDS[1]) and line["status"] == 200 for line in scaled.proxied.access()[-6:]
        )

    wait_for(used, "the killed backend in nginx's turns")
