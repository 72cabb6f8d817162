"""A client that keeps a ledger: what it sent, and what was acknowledged."""

import contextlib
import hashlib
import http.client
import io
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pydicom
from pynetdicom import AE

from pacs.services.phantom import ChestStudy, files

CT = "1.2.840.10008.5.1.4.1.1.2"
SLICES = 20
PAUSE_SECONDS = 1.5  # between studies: every one of them gets its results before the campaign is over


@dataclass
class Ledger:
    """Data set digests by SOP Instance UID: of everything sent, and of what got a success."""

    sent: dict[str, str] = field(default_factory=dict)
    accepted: set[str] = field(default_factory=set)
    studies: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note_sent(self, uid: str, study_uid: str, digest: str) -> None:
        """An object is about to be sent."""
        with self.lock:
            self.sent[uid] = digest
            self.studies.add(study_uid)

    def note_accepted(self, uid: str) -> None:
        """The node said success."""
        with self.lock:
            self.accepted.add(uid)


def digest(part10: bytes) -> str:
    """The digest of the data set's bytes, without preamble and file meta, which differ between doors."""
    length = int.from_bytes(part10[140:144], "little")
    return hashlib.sha256(part10[144 + length :]).hexdigest()


class Sender(threading.Thread):
    """Sends study after study until told to stop; an object without a success is sent again, as modalities do."""

    def __init__(self, ledger: Ledger, name: str, stop: threading.Event, send: Callable[[list[bytes]], list[str]]):
        super().__init__(name=name, daemon=True)
        self.ledger, self.stop, self.send = ledger, stop, send

    def run(self) -> None:
        """Study after study."""
        number = 0
        while not self.stop.is_set():
            study = ChestStudy(f"{self.name}-{number}", f"T-{self.name}", "Torture^Test", slices=SLICES, size=64)
            self._deliver(study)
            self.stop.wait(PAUSE_SECONDS)
            number += 1

    def _deliver(self, study: ChestStudy) -> None:
        waiting = {study.uid("instance", i): data for i, data in enumerate(files(study))}
        for uid, data in waiting.items():
            self.ledger.note_sent(uid, study.study_uid, digest(data))
        while waiting and not self.stop.is_set():
            for uid in self.send(list(waiting.values())):
                self.ledger.note_accepted(uid)
                waiting.pop(uid, None)
            if waiting:
                time.sleep(0.2)


def by_dimse(port: int) -> Callable[[list[bytes]], list[str]]:
    """A sender over one association for each call; returns the UIDs that got 0x0000."""

    def send(objects: list[bytes]) -> list[str]:
        client = AE("TORTURE")
        client.add_requested_context(CT, "1.2.840.10008.1.2.1")
        client.acse_timeout = client.dimse_timeout = client.network_timeout = 10
        accepted = []
        association = client.associate("127.0.0.1", port, ae_title="FILMROOM")
        try:
            for data in objects if association.is_established else []:
                instance = pydicom.dcmread(io.BytesIO(data))
                status = association.send_c_store(instance)
                if status and status.Status == 0:
                    accepted.append(str(instance.SOPInstanceUID))
        except (RuntimeError, ValueError, OSError):
            pass  # the peer died in the middle: what was acknowledged counts
        finally:
            if association.is_established:
                association.release()
        return accepted

    return send


def by_stow(port: int) -> Callable[[list[bytes]], list[str]]:
    """A sender of all objects in one request; returns the UIDs in ReferencedSOPSequence."""

    def send(objects: list[bytes]) -> list[str]:
        part = b"--torture\r\nContent-Type: application/dicom\r\n\r\n"
        body = b"".join(part + data + b"\r\n" for data in objects) + b"--torture--\r\n"
        headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=torture'}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            connection.request("POST", "/dicom-web/studies", body, headers)
            answer = json.loads(connection.getresponse().read())
            return [item["00081155"]["Value"][0] for item in answer.get("00081199", {}).get("Value", [])]
        return []

    return send
