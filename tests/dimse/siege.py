"""Attackers: each row of the attack table (dimse.md 2) by raw sockets, again and again, `each` of them at once.

A program of its own, so that the honest sender beside it has an interpreter to itself:
`python -m tests.dimse.siege PORT TLS_PORT AUTHORITY CERTIFICATE KEY SECONDS EACH`.
"""

import os
import random
import socket
import ssl
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pacs.dimse import command, pdu
from pacs.dimse.associate import AssociateRequest, Identity, ProposedContext, UserInformation, encode_request
from pacs.dimse.command import Field
from pacs.dimse.pdu import HEADER, PDV_HEADER, PduType
from pacs.domain.syntaxes import DEFLATED_LE
from pacs.services.tls import TlsFiles, client_context
from tests.dimse.sender import LITTLE, find_request, store_request

VERIFICATION, CT = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.2"
FIND, MOVE = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.2"
PAUSE = 0.25  # between two attacks of one attacker
PATIENCE = 8.0  # no answer takes longer than the first PDU's deadline


@dataclass(frozen=True)
class Target:
    """The door's two ports, and a caller's context that its TLS port takes."""

    plain: tuple[str, int]
    tls: tuple[str, int]
    context: ssl.SSLContext

    def connect(self) -> socket.socket:
        return socket.create_connection(self.plain, PATIENCE)


def request(called: str = "FILMROOM", calling: str = "ATTACKER", identity: Identity | None = None) -> bytes:
    contexts = (
        ProposedContext(1, VERIFICATION, LITTLE),
        ProposedContext(3, CT, LITTLE),
        ProposedContext(5, CT, (DEFLATED_LE,)),
        ProposedContext(7, FIND, LITTLE),
        ProposedContext(9, MOVE, LITTLE),
    )
    return encode_request(AssociateRequest(called, calling, contexts, UserInformation(16_384, identity=identity)))


def rest(sock: socket.socket) -> bytes:
    """What is answered until the door closes, 1 MB at most."""
    data = b""
    with suppress(ConnectionResetError):
        while len(data) < 1 << 20 and (piece := sock.recv(65_536)):
            data += piece
    return data


def says(opening: Callable[[], bytes]) -> Callable[[Target], None]:
    """Sends this at once and reads until the end."""

    def attack(target: Target) -> None:
        with target.connect() as sock:
            sock.sendall(opening())
            rest(sock)

    return attack


def associated(target: Target) -> socket.socket:
    sock = target.connect()
    sock.sendall(request())
    kind, length = HEADER.unpack(sock.recv(6, socket.MSG_WAITALL))
    sock.recv(length, socket.MSG_WAITALL)
    if kind != PduType.ASSOCIATE_AC:
        sock.close()
        raise ConnectionRefusedError
    return sock


def then(message: Callable[[], bytes]) -> Callable[[Target], None]:
    """Associates, sends this and an abort-worthy byte behind it, and reads until the end."""

    def attack(target: Target) -> None:
        with associated(target) as sock:
            sock.sendall(message())
            sock.settimeout(PATIENCE)
            sock.recv(65_536)
            sock.sendall(b"\xff")
            rest(sock)

    return attack


def store(context: int, data: bytes, sop_class: str = CT, instance: str = "1.2.3") -> bytes:
    head = command.encode({"MessageID": 1, "CommandDataSetType": 1, **store_request(sop_class, instance)})
    return pdu.message(context, head, data, 16_384)


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def nested() -> bytes:
    """Sequences in sequences, ten thousand deep (implicit VR)."""
    opening = struct.pack("<HHL", 0x0040, 0xA730, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return opening * 10_000


def inflated() -> bytes:
    """A data set of a gigabyte in a megabyte."""
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    zeros = bytes(1 << 20)
    return b"".join(packer.compress(zeros) for _ in range(200)) + packer.flush()


INFLATED = inflated()


def lying() -> bytes:
    return element(0x00080016, b"UI", CT.encode() + b"\0") + struct.pack("<HH2s2xL", 0x7FE0, 0x10, b"OW", 0xFFFFFF00)


def silent(target: Target) -> None:
    with target.connect() as sock:
        rest(sock)


def half_request(target: Target) -> None:
    with target.connect() as sock:
        sock.sendall(request()[:100])
        rest(sock)


def drip(target: Target) -> None:
    with associated(target) as sock:
        sock.settimeout(0.1)
        end = time.monotonic() + PATIENCE
        for byte in HEADER.pack(PduType.DATA, 1_000) + PDV_HEADER.pack(996, 1, 1) + bytes(990):
            sock.sendall(bytes([byte]))
            with suppress(TimeoutError):
                if not sock.recv(100):
                    return
            if time.monotonic() > end:
                return


def unread(target: Target) -> None:
    """Asks for every study many times over and reads nothing."""
    with associated(target) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        keys = struct.pack("<HHL6sHHL", 8, 0x52, 6, b"STUDY ", 0x20, 0xD, 0)
        head = command.encode({"MessageID": 1, "CommandDataSetType": 1, **find_request(FIND)})
        with suppress(OSError):
            for _ in range(100):
                sock.sendall(pdu.message(7, head, keys, 16_384))
        time.sleep(2)


def move() -> bytes:
    values = {"CommandField": Field.C_MOVE_RQ, "AffectedSOPClassUID": MOVE, "Priority": 0, "MoveDestination": "NOWHERE"}
    keys = struct.pack("<HHL6s", 8, 0x52, 6, b"STUDY ") + struct.pack("<HHL6s", 0x20, 0xD, 6, b"1.2.3\0")
    return pdu.message(9, command.encode({"MessageID": 1, "CommandDataSetType": 1, **values}), keys, 16_384)


def half_handshake(target: Target) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        target.context.wrap_bio(incoming, outgoing).do_handshake()
    hello = outgoing.read()
    with socket.create_connection(target.tls, PATIENCE) as sock:
        sock.sendall(hello[: len(hello) // 2])
        rest(sock)


def tls_drip(target: Target) -> None:
    with socket.create_connection(target.tls, PATIENCE) as sock:
        sock.settimeout(0.1)
        for byte in b"\x16\x03\x01\x02\x00" + bytes(500):
            sock.sendall(bytes([byte]))
            with suppress(TimeoutError):
                if not sock.recv(100):
                    return


def on_tls(opening: bytes) -> Callable[[Target], None]:
    def attack(target: Target) -> None:
        with socket.create_connection(target.tls, PATIENCE) as sock:
            sock.sendall(opening)
            rest(sock)

    return attack


def secured(data: Callable[[], bytes]) -> Callable[[Target], None]:
    """A whole handshake, then this."""

    def attack(target: Target) -> None:
        with socket.create_connection(target.tls, PATIENCE) as sock, target.context.wrap_socket(sock) as secure:
            secure.sendall(data())
            rest(secure)

    return attack


def secured_silent(target: Target) -> None:
    with socket.create_connection(target.tls, PATIENCE) as sock, target.context.wrap_socket(sock) as secure:
        rest(secure)


ATTACKS: dict[str, Callable[[Target], None]] = {
    "garbage": says(lambda: os.urandom(2_000).replace(b"\x01", b"\x09")),
    "http": says(lambda: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    "tls on the plain port": says(lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)),
    "four gigabytes at once": says(lambda: HEADER.pack(PduType.ASSOCIATE_RQ, 0xFFFF_FFFF) + bytes(60_000)),
    "unknown type": says(lambda: b"\x0b" + bytes(100)),
    "wrong called title": says(lambda: request(called="OTHER")),
    "no identity": says(lambda: request(calling="STRICT")),
    "wrong identity": says(lambda: request(calling="STRICT", identity=Identity(2, True, b"root", b"hunter2"))),
    "longer than announced": then(lambda: HEADER.pack(PduType.DATA, 0xFFFF_FFFF) + bytes(60_000)),
    "class of another context": then(lambda: store(3, lying(), sop_class="1.2.840.10008.5.1.4.1.1.4")),
    "a path as uid": then(lambda: store(3, lying(), instance="../../../../etc/passwd")),
    "a truncated data set": then(lambda: store(3, lying())),
    "a nested data set": then(lambda: store(3, nested())),
    "an inflated data set": then(lambda: store(5, INFLATED)),
    "a move to nowhere": then(move),
    "silence": silent,
    "half a request": half_request,
    "a dripping pdu": drip,
    "a reader that does not read": unread,
    "half a handshake": half_handshake,
    "a dripping handshake": tls_drip,
    "plain dicom on the tls port": on_tls(request()),
    "http on the tls port": on_tls(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    "garbage within tls": secured(lambda: bytes([9]) * 1_000),
    "silence within tls": secured_silent,
}


class Siege:
    """`each` attackers for every row, until `stop`; counts how often each came to its end."""

    def __init__(self, target: Target, each: int, names: Sequence[str] = tuple(ATTACKS)) -> None:
        self.stop = threading.Event()
        self.done: Counter[str] = Counter()
        self.threads = [
            threading.Thread(target=self._attack, args=(target, name), daemon=True)
            for name in names
            for _ in range(each)
        ]

    def _attack(self, target: Target, name: str) -> None:
        time.sleep(random.random())
        while not self.stop.is_set():
            with suppress(OSError):  # cut, refused, or crowded out: what attackers deserve
                ATTACKS[name](target)
            self.done[name] += 1
            self.stop.wait(PAUSE)

    def run(self, seconds: float) -> None:
        for thread in self.threads:
            thread.start()
        time.sleep(seconds)
        self.stop.set()
        for thread in self.threads:
            thread.join(PATIENCE + 4)


def main(port: str, tls_port: str, authority: str, certificate: str, key: str, seconds: str, each: str) -> None:
    context = client_context(TlsFiles(Path(certificate), Path(key)), Path(authority), pinned=False)
    siege = Siege(Target(("127.0.0.1", int(port)), ("127.0.0.1", int(tls_port)), context), int(each))
    siege.run(float(seconds))
    missing = sorted(set(ATTACKS) - set(siege.done))
    print(dict(siege.done), flush=True)
    sys.exit(f"never came to their end: {missing}" if missing else 0)


if __name__ == "__main__":
    threading.stack_size(512 << 10)
    main(*sys.argv[1:])
