"""What only a real socket shows: ports, limits of a request's head, slow and broken clients, draining."""

import dataclasses
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from dicomweb import guard, protocol
from dicomweb.app import build
from dicomweb.server import listen
from dicomweb.stream import Streamed
from pacs.errors import SettingsError
from pacs.settings import Settings
from tests.dicomweb.fakes import FakeIngest
from tests.dicomweb.objects import ct, multipart, part10
from tests.dicomweb.wire import serving


def talk(port: int, *pieces: bytes, wait: float = 10.0) -> bytes:
    """Everything that the server says to these bytes until it closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as connection:
        for piece in pieces:
            connection.sendall(piece)
        said = b""
        while piece := connection.recv(65536):
            said += piece
        return said


def test_both_ports_answer(bare_node: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomweb.app._console", lambda _node: [])
    bare_node.health = SimpleNamespace(live=lambda: {"status": "healthy"})
    with serving(build(bare_node), bare_node.settings) as ports:
        assert [httpx.get(f"http://127.0.0.1:{port}/health").status_code for port in ports] == [200, 200]


def test_port_in_use_is_one_sentence_naming_the_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for name in ("http_port", "web_port"):
            settings = dataclasses.replace(Settings(), **{"http_port": 0, "web_port": 0, name: port})
            with pytest.raises(SettingsError, match=f"{name.upper()}: port {port}"):
                listen(settings)


def test_long_heads_are_refused(wire: int) -> None:
    for head in (b"GET /" + b"a" * 40_000, b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000):
        assert talk(wire, head + b"\r\n\r\n").startswith(b"HTTP/1.1 431 ")


def test_a_header_that_never_ends_is_refused_while_it_comes(wire: int) -> None:
    assert talk(wire, b"GET / HTTP/1.1\r\nX: ", *[b"a" * 8192] * 5).startswith(b"HTTP/1.1 431 ")


def test_a_head_within_the_limit_may_come_in_pieces(wire: int) -> None:
    head = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: " + b"a" * 30_000 + b"\r\n\r\n"
    pieces = [head[start : start + 1000] for start in range(0, len(head), 1000)]
    assert talk(wire, *pieces).startswith(b"HTTP/1.1 200 ")


def test_what_is_no_http_is_refused(wire: int) -> None:
    assert talk(wire, b"\x00\x01garbage\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_a_head_that_drips_is_cut_off(wire: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    assert talk(wire, b"GET /health HTTP/1.1\r\nHost: loc").startswith(b"HTTP/1.1 408 ")


def test_a_silent_connection_is_closed(wire: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    assert talk(wire) == b""


def test_connections_are_kept_for_the_next_request(wire: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{wire}") as client:
        for _ in range(3):
            assert client.get("/health").status_code == 200


def test_a_body_that_drips_is_cut_off(wire: int, bare_node: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_GRACE_SECONDS", 0.2)
    monkeypatch.setattr(guard, "LINGER_SECONDS", 0.1)
    bare_node.ingest = FakeIngest()
    head = (
        b"POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n"
        b"Content-Type: multipart/related; type=application/dicom; boundary=b\r\n\r\n--b\r\n\r\n"
    )
    assert talk(wire, head).startswith(b"HTTP/1.1 408 ")


def test_a_body_over_the_limit_is_told_so_before_it_is_read(wire: int, bare_node: SimpleNamespace) -> None:
    bare_node.ingest = FakeIngest()
    head = (
        b"POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000000000\r\n"
        b"Content-Type: multipart/related; type=application/dicom; boundary=b\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", wire), timeout=10) as connection:
        connection.sendall(head)
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_goes_in_the_middle_keeps_what_was_whole(wire: int, bare_node: SimpleNamespace) -> None:
    bare_node.ingest = FakeIngest()
    whole = ct()
    headers, body = multipart(part10(whole), part10(ct(PixelData=bytes(3 << 20))))
    head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", wire)) as connection:
        connection.sendall(head.encode() + f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode() + body[:-1000])
    wait_for(lambda: [incoming.aborted for incoming in bare_node.ingest.begun] == [False, True])
    assert set(bare_node.ingest.stored) == {whole.SOPInstanceUID}


def streaming(chunks: Iterator[bytes]) -> Starlette:
    async def endpoint(_request: Request) -> Streamed:
        return Streamed(chunks, media_type="application/octet-stream")

    return Starlette(routes=[Route("/", endpoint)])


def test_a_client_that_goes_stops_the_reading() -> None:
    made, closed = [], threading.Event()

    def endless() -> Iterator[bytes]:
        try:
            while True:
                made.append(1)
                yield bytes(1 << 20)
        finally:
            closed.set()

    with serving(streaming(endless()), Settings()) as (port, _):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(1000)
        assert closed.wait(10)
    assert len(made) < 100, "a client that does not read holds the reading back"


def test_an_answer_that_breaks_off_is_never_ended() -> None:
    def broken() -> Iterator[bytes]:
        yield bytes(1 << 20)
        raise OSError("disk")

    with serving(streaming(broken()), Settings()) as (port, _):
        said = talk(port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert len(said) > 1 << 20
    assert not said.endswith(b"0\r\n\r\n")


def test_stopping_finishes_what_runs(bare_node: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicomweb.app._console", lambda _node: [])
    begun, go = threading.Event(), threading.Event()

    def slow() -> object:
        begun.set()
        go.wait(10)
        return SimpleNamespace(ready=True, as_json=lambda: {"status": "ready"})

    bare_node.health = SimpleNamespace(ready=slow)
    answers: list[httpx.Response] = []
    with serving(build(bare_node), bare_node.settings) as (port, _):
        asking = threading.Thread(target=lambda: answers.append(httpx.get(f"http://127.0.0.1:{port}/ready")))
        asking.start()
        begun.wait(10)
        threading.Timer(0.3, go.set).start()
    asking.join(10)
    assert [answer.status_code for answer in answers] == [200]


def wait_for(what) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)
