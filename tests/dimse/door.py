"""A reactor on a free port of loopback, in a thread, for as long as a test needs it."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacs.dimse.identity import Accounts, Verifier
from pacs.dimse.limits import Limits
from pacs.dimse.meters import Meters
from pacs.dimse.reactor import Reactor
from pacs.dimse.services import catalogue
from pacs.dimse.tls import TlsDoor, TlsKeys
from pacs.services.peers import PeerBook
from pacs.services.tls import TlsFiles
from tests.dimse.fakes import FakeNode


@dataclass
class Door:
    address: tuple[str, int]
    node: Any
    reactor: Reactor
    stop: threading.Event
    thread: threading.Thread
    tls_address: tuple[str, int] = ("", 0)

    def metric(self, name: str, **labels: str) -> float:
        """A sample of the door's metrics."""
        return self.node.metrics.registry.get_sample_value(name, labels) or 0.0


@contextmanager
def opened(
    folder: Path,
    node: Any = None,
    limits: Limits | None = None,
    peers: Mapping[str, str] = {},
    tls: TlsFiles | None = None,
    accounts: Accounts | None = None,
) -> Iterator[Door]:
    """A running door; `peers` are bodies of [peers.TITLE] tables; `tls` opens a second port."""
    file = folder / "peers.toml"
    file.write_text("\n".join(f"[peers.{title}]\n{body}" for title, body in (peers or {}).items()))
    node = node or FakeNode(folder)
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    secure = TlsDoor(socket.create_server(("127.0.0.1", 0), backlog=512), TlsKeys(tls)) if tls else None
    reactor = Reactor(
        listener,
        node,
        title="FILMROOM",
        peers=PeerBook(file),
        services=catalogue(),
        meters=Meters(node.metrics),
        limits=limits,
        tls=secure,
        identities=Verifier(accounts),
    )
    stop = threading.Event()
    thread = threading.Thread(target=reactor.run, args=(stop,), daemon=True)
    thread.start()
    try:
        at = secure.listener.getsockname() if secure else ("", 0)
        yield Door(listener.getsockname(), node, reactor, stop, thread, at)
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive(), "the reactor does not stop"
