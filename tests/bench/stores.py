"""C-STORE work: DCMTK's sender, which waits with Nagle's algorithm on, and one that does not."""

import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom

from tests.bench.servers import Server
from tests.dimse.sender import Sender

EXPLICIT = "1.2.840.10008.1.2.1"


@dataclass(frozen=True, slots=True)
class Message:
    """What one C-STORE needs: class, instance UID, and the data set's bytes."""

    sop_class: str
    instance: str
    data: bytes


def read(paths: Sequence[Path]) -> list[Message]:
    """The files as messages, without preamble and file meta."""
    messages = []
    for path in paths:
        content = path.read_bytes()
        meta = pydicom.filereader.read_file_meta_info(path)
        start = 144 + meta.FileMetaInformationGroupLength
        messages.append(Message(meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, content[start:]))
    return messages


def dcmsend(server: Server, paths: Sequence[Path]) -> float:
    """Objects a second by DCMTK's dcmsend on one association. Raises RuntimeError unless all were accepted."""
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            shutil.copy(path, folder)
        command = ["dcmsend", "-aec", server.aet, "127.0.0.1", str(server.port), "--scan-directories", folder]
        started = time.perf_counter()
        done = subprocess.run([*command, "--no-halt"], capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"dcmsend to {server.name}: {done.stderr[-500:]}")
    return len(paths) / seconds


def no_nagle(server: Server, paths: Sequence[Path], associations: int = 1) -> float:
    """Objects a second by a sender without Nagle's algorithm. Raises RuntimeError unless all were accepted."""
    messages = read(paths)
    shares = [messages[number::associations] for number in range(associations)]
    statuses: list[int] = []
    threads = [threading.Thread(target=_send, args=(server, share, statuses)) for share in shares]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    if len(statuses) != len(messages) or any(statuses):
        raise RuntimeError(f"{server.name} accepted {statuses.count(0)} of {len(messages)}")
    return len(messages) / seconds


def _send(server: Server, messages: Sequence[Message], statuses: list[int]) -> None:
    contexts = ((messages[0].sop_class, (EXPLICIT,)),)
    with Sender(("127.0.0.1", server.port), contexts, called=server.aet, calling="BENCH") as sender:
        for message in messages:
            statuses.append(sender.store(message.sop_class, message.instance, message.data).status)
