"""Which URL answers name (dicomweb.md 2.1)."""

import dataclasses

import pytest
from starlette.requests import Request

from dicomweb.urls import client, root
from pacs.settings import Settings

PROXIED = Settings(trusted_proxies=("10.0.0.0/8",))


def request(*, peer: str = "127.0.0.1", port: int = 8000, **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "scheme": "http", "server": ("127.0.0.1", port), "client": (peer, 5), "headers": raw}
    return Request(scope)


def test_host_is_what_the_client_used() -> None:
    assert root(request(host="pacs.local:8000"), Settings()) == "http://pacs.local:8000/dicom-web"
    assert root(request(host="[::1]:8000"), Settings()) == "http://[::1]:8000/dicom-web"


def test_host_without_a_port_takes_the_listening_port() -> None:
    assert root(request(host="127.0.0.1", port=45678), Settings()) == "http://127.0.0.1:45678/dicom-web"
    assert root(request(host="localhost", port=80), Settings()) == "http://localhost/dicom-web"


@pytest.mark.parametrize("host", ["", "evil/path", "a b", 'x"y', "a:b:c", "user@host"])
def test_a_host_that_is_none_is_never_repeated(host: str) -> None:
    assert root(request(host=host), Settings()) == "http://127.0.0.1:8000/dicom-web"


def test_forwarded_headers_count_only_from_a_trusted_proxy() -> None:
    headers = {"host": "127.0.0.1:8000", "forwarded": "for=192.0.2.60;proto=https;host=example.org"}
    assert root(request(peer="10.1.2.3", **headers), PROXIED) == "https://example.org/dicom-web"
    assert root(request(peer="192.0.2.9", **headers), PROXIED) == "http://127.0.0.1:8000/dicom-web"


def test_nearest_proxy_is_believed() -> None:
    forwarded = 'for=1.2.3.4;host=evil.example, for="[2001:db8::1]";host="good.example:8443";proto=https'
    assert root(request(peer="10.0.0.1", forwarded=forwarded), PROXIED) == "https://good.example:8443/dicom-web"


def test_x_forwarded_headers_and_prefix() -> None:
    found = root(
        request(peer="10.0.0.1", x_forwarded_host="h.example", x_forwarded_proto="https", x_forwarded_prefix="/pacs/"),
        PROXIED,
    )
    assert found == "https://h.example/pacs/dicom-web"


@pytest.mark.parametrize("prefix", ["/../x?", "//", "/a b", "x"])
def test_crooked_forwarded_values_are_not_used(prefix: str) -> None:
    found = root(request(peer="10.0.0.1", host="own", x_forwarded_host="h", x_forwarded_prefix=prefix), PROXIED)
    assert found == ("http://h/dicom-web" if prefix == "//" else "http://own:8000/dicom-web")


def test_public_url_outranks_host() -> None:
    settings = dataclasses.replace(Settings(), public_url="https://pacs.example/")
    assert root(request(host="127.0.0.1:8000"), settings) == "https://pacs.example/dicom-web"


def test_a_trusted_proxy_tells_who_asks() -> None:
    for headers in ({"forwarded": 'for="[2001:db8::1]:4711"'}, {"x_forwarded_for": "9.9.9.9, 2001:db8::1"}):
        assert client(request(peer="10.0.0.1", **headers), PROXIED) == "2001:db8::1"
        assert client(request(peer="192.0.2.9", **headers), PROXIED) == "192.0.2.9"
    assert client(request(peer="10.0.0.1", forwarded="for=unknown"), PROXIED) == "10.0.0.1"
