"""Ten gigabytes in one chunked body through nginx: nothing is held in memory, and one byte too many is refused."""

import http.client
import json
import os
import secrets
import shutil
import threading
import time

import psutil
import pytest
from pydicom.uid import MultiFrameGrayscaleWordSecondaryCaptureImageStorage, generate_uid

from tests.deploy import names
from tests.deploy.proxied import Proxied
from tests.services.specimens import ct, part10

pytestmark = [
    pytest.mark.slow,
    pytest.mark.interop,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not shutil.which("nginx"), reason="nginx stands before the node"),
]
GIGABYTE = 1000**3
TOTAL = int(float(os.environ.get("FILMROOM_LARGE_BODY_GB", "10")) * GIGABYTE)  # within the 10 GiB of the default limit
ROWS, FRAMES = 5000, 10
PIXELS = ROWS * ROWS * 2 * FRAMES
LEAST_GROWTH = 64 << 20
HOST = "127.0.0.1"
BOUNDARY = "large"


@pytest.fixture(scope="module")
def proxied(settings, short_folder):
    """One web process behind nginx, with the limits that are shipped."""
    folder = short_folder / f"large-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o755)
    running = Proxied(folder, settings, hosts=(HOST,), limit_gb=10)
    with names.served({"backend": [HOST], "frontend": [HOST]}) as resolver:
        try:
            running.start(resolver)
            yield running
        finally:
            running.stop()


def head():
    """A multi-frame object up to the value of its pixel data, and the object's UID."""
    data = ct(Rows=ROWS, Columns=ROWS, NumberOfFrames=FRAMES)
    data.SOPClassUID, data.PixelData = MultiFrameGrayscaleWordSecondaryCaptureImageStorage, b""
    data.SOPInstanceUID = generate_uid()
    return data.SOPInstanceUID, part10(data)[:-4] + PIXELS.to_bytes(4, "little")


def body(uids, total):
    """The multipart body in pieces, made while it is sent; the UIDs of its objects go into `uids`."""
    block = secrets.token_bytes(1 << 20)
    for _ in range(total // PIXELS):
        uid, start = head()
        uids.append(uid)
        yield f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + start
        for at in range(0, PIXELS, len(block)):
            yield block[: PIXELS - at]
        yield b"\r\n"
    yield f"--{BOUNDARY}--\r\n".encode()


class Watched:
    """The memory of a process, sampled as long as the block lasts."""

    def __init__(self, pid):
        self.process, self.most, self._stop = psutil.Process(pid), 0, threading.Event()
        self.start = self.process.memory_info().rss

    def __enter__(self):
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self):
        while not self._stop.wait(0.1):
            self.most = max(self.most, self.process.memory_info().rss)


def test_ten_gigabytes_pass_through_flat_memory_and_are_found(proxied):
    connection = http.client.HTTPConnection("localhost", proxied.ports["http"], timeout=900)
    kind = {"Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'}
    connection.request("GET", "/dicom-web/studies?limit=1")
    connection.getresponse().read()
    uids, began = [], time.monotonic()
    with Watched(proxied.webs[HOST].pid) as memory:
        connection.request("POST", "/dicom-web/studies", body(uids, TOTAL), kind, encode_chunked=True)
        answer = connection.getresponse()
        report = json.loads(answer.read())
    assert answer.status == 200, report
    stored = {item["00081155"]["Value"][0] for item in report["00081199"]["Value"]}
    assert stored == set(uids)
    seconds = time.monotonic() - began
    print(f"{len(uids)} objects, {seconds:.0f} s, {TOTAL / seconds / 1e6:.0f} MB/s, ", end="")
    print(f"memory {memory.start >> 20} -> {memory.most >> 20} MiB")
    assert memory.most - memory.start < LEAST_GROWTH
    for uid in uids[:2]:
        connection.request("GET", f"/dicom-web/instances?SOPInstanceUID={uid}")
        assert len(json.loads(connection.getresponse().read())) == 1
    used = sum(file.stat().st_size for file in (proxied.settings.storage_dir / "objects").rglob("*") if file.is_file())
    assert used >= len(uids) * PIXELS


def test_one_byte_over_the_limit_is_refused_before_the_body_comes(proxied):
    for port in (proxied.ports["http"], proxied.ports["backend"]):
        connection = http.client.HTTPConnection(
            "localhost" if port == proxied.ports["http"] else HOST, port, timeout=30
        )
        connection.putrequest("POST", "/dicom-web/studies")
        connection.putheader("Content-Type", f'multipart/related; type="application/dicom"; boundary={BOUNDARY}')
        connection.putheader("Content-Length", str((10 << 30) + 1))
        connection.endheaders()
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["error"]) == (413, "too-large")
