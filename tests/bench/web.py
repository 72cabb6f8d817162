"""DICOMweb work over one kept connection: what is asked, and how long each answer takes."""

import http.client
import json
import statistics
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.servers import Server

TIMEOUT = 120
PATIENCE, FEWEST = 15.0, 3  # seconds for one figure, and rounds however long they take
JSON = {"Accept": "application/dicom+json"}
OHIF_LIST = "/studies?limit=101&offset=0&fuzzymatching=false&includefield=00081030%2C00080060%2C00080090%2C00100030"
OHIF_FRAME = {"Accept": "multipart/related; type=application/octet-stream; transfer-syntax=*"}


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of a number of equal requests."""

    seconds: tuple[float, ...]

    @property
    def p95_ms(self) -> float:
        """The 95th percentile in milliseconds."""
        return 1000 * (statistics.quantiles(self.seconds, n=20)[-1] if len(self.seconds) > 1 else self.seconds[0])

    @property
    def median_ms(self) -> float:
        """The median in milliseconds."""
        return 1000 * statistics.median(self.seconds)


class Client:
    """A plain HTTP client on one kept connection without Nagle's delay."""

    def __init__(self, server: Server) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", server.web_port, timeout=TIMEOUT)

    def get(self, path: str, headers: dict[str, str] = JSON) -> bytes:
        """The body of an answer; raises RuntimeError for another status than 200."""
        self.connection.request("GET", "/dicom-web" + path, headers=headers)
        answer = self.connection.getresponse()
        body = answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(f"{path.split('?', maxsplit=1)[0]} answered {answer.status}")
        return body

    def stow(self, paths: list[Path]) -> None:
        """Store files by one request; raises RuntimeError unless all are stored."""
        boundary = uuid.uuid4().hex
        part = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = b"".join(part + path.read_bytes() + b"\r\n" for path in paths) + f"--{boundary}--\r\n".encode()
        headers = JSON | {"Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}'}
        self.connection.close()  # Orthanc ends a kept connection when a large body follows
        self.connection.request("POST", "/dicom-web/studies", body, headers)
        answer = self.connection.getresponse()
        stored = json.loads(answer.read()).get("00081199", {}).get("Value", [])
        if len(stored) != len(paths):
            raise RuntimeError(f"STOW answered {answer.status} with {len(stored)} of {len(paths)} stored")


def timed(work: Callable[[], object], rounds: int, warm: int = 2) -> Timing:
    """Run `work` `warm` times uncounted, then `rounds` times, or a few times where that takes too long."""
    for _ in range(warm):
        work()
    seconds: list[float] = []
    while len(seconds) < rounds and (len(seconds) < FEWEST or sum(seconds) < PATIENCE):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return Timing(tuple(seconds))
