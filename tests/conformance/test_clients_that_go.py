"""Clients that leave in the middle: reading stops, and nothing of theirs stays behind."""

import gc
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import psutil
import pytest
from pydicom.dataset import Dataset

from tests.conformance.conftest import path
from tests.dicomweb.objects import ct

Store = Callable[..., httpx.Response]
CLIENTS, TAKEN = 50, 1 << 20
PATIENCE = 30.0


@pytest.fixture(scope="module")
def large(store: Store) -> Dataset:
    """A study of 16 MB in two objects."""
    first = ct(Rows=2048, Columns=2048, PixelData=bytes(2048 * 2048 * 2))
    store(first, ct(study=first.StudyInstanceUID, Rows=2048, Columns=2048, PixelData=bytes(2048 * 2048 * 2)))
    return first


def leave(port: int, place: str, taken: int) -> None:
    """Ask, read so many bytes, and go without a word."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
        line.sendall(f"GET /dicom-web{place} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\r\n".encode())
        while taken > 0 and (chunk := line.recv(min(taken, 65536))):
            taken -= len(chunk)


def open_files(process: psutil.Process, home: str) -> int:
    return sum(home in file.path for file in process.open_files())


def settled(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def test_c11_clients_that_drop_a_study_leave_nothing_behind(port: int, large: Dataset, node: Any) -> None:
    process = psutil.Process()
    for _ in range(2):  # threads and connections that are kept for the next ones are there by then
        many(port, large)
    assert settled(lambda: open_files(process, str(node.settings.storage_dir)) == 0)
    gc.collect()
    before = process.num_fds(), threading.active_count(), process.memory_info().rss
    for _ in range(2):
        many(port, large)
    assert settled(lambda: process.num_fds() <= before[0] + 2), (process.num_fds(), before)
    assert settled(lambda: threading.active_count() <= before[1] + 2)
    assert open_files(process, str(node.settings.storage_dir)) == 0
    gc.collect()
    assert process.memory_info().rss - before[2] < 64 << 20
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/dicom-web") as client:
        assert len(client.get(path(large, "study"), timeout=60).content) > 16 << 20


def many(port: int, large: Dataset) -> None:
    threads = [threading.Thread(target=leave, args=(port, path(large, "study"), TAKEN)) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_r03_what_breaks_in_the_middle_breaks_the_connection(port: int, store: Store, node: Any) -> None:
    first = ct()
    items = [first, ct(study=first.StudyInstanceUID, InstanceNumber=2)]
    store(*items)
    for item in items:
        [found] = node.retrieve.locate(_scope(item))
        if item is items[1]:
            node.store.remove([found.object_name])
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/dicom-web") as client:
        try:
            answer = client.get(path(first, "study"), timeout=60)
        except httpx.RemoteProtocolError:
            return
    assert answer.status_code >= 400, "an answer that ended well must be whole"


def _scope(item: Dataset) -> Any:
    from pacs.domain.levels import Scope

    return Scope(item.StudyInstanceUID, item.SeriesInstanceUID, item.SOPInstanceUID)
