"""A worker in a process of its own, to be killed: it says `held` when it is at the place named, and stays there."""

import dataclasses
import os
import sys
import time

from ai_sidecar.heartbeat import Pace
from ai_sidecar.worker import Worker
from pacs import telemetry
from pacs.node import build
from pacs.settings import load
from tests.ai_sidecar.benches import FakeBench


def stay(*_: object) -> None:
    print("held", flush=True)
    time.sleep(600)


def main(place: str, database_url: str, redis_url: str, home: str) -> None:
    settings = load({"FILMROOM_HOME": home, "FILMROOM_CONFIG": os.devnull})
    node = build(dataclasses.replace(settings, database_url=database_url, redis_url=redis_url), component="doomed")
    telemetry.configure(settings, "doomed")
    node.jobs.leases.seconds = 1.5
    bench = FakeBench(stay if place == "RUNNING" else None)
    if place == "STORING":
        bench.before_store = stay
    Worker(node, bench, owner=f"doomed:{os.getpid()}", pace=Pace(beat=0.3, tick=0.1, block=0.2)).start()
    time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])
