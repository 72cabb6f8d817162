"""A name server as small as can be: it answers every A query with the addresses it was given for the name."""

import socket
import socketserver
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

ANSWER = 0x8180  # a standard answer, recursion available (RFC 1035 4.1.1)
A, IN, SECONDS = 1, 1, 1
POINTER = 0xC00C  # the name of the question


@contextmanager
def served(addresses: Mapping[str, list[str]]) -> Iterator[int]:
    """The UDP port of 127.0.0.1 where these names are answered."""

    class Answer(socketserver.DatagramRequestHandler):
        def handle(self) -> None:
            query = self.rfile.read()
            end = query.index(b"\0", 12) + 5  # labels, then kind and class
            found = addresses.get(_name(query), [])
            head = query[:2] + struct.pack("!HHHHH", ANSWER, 1, len(found), 0, 0)
            record = struct.pack("!HHHIH", POINTER, A, IN, SECONDS, 4)
            self.wfile.write(head + query[12:end] + b"".join(record + socket.inet_aton(one) for one in found))

    with socketserver.ThreadingUDPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def _name(query: bytes) -> str:
    labels, at = [], 12
    while size := query[at]:
        labels.append(query[at + 1 : at + 1 + size].decode("ascii"))
        at += 1 + size
    return ".".join(labels)
