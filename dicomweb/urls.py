"""The absolute URLs that answers name (PS3.18 8.1, dicomweb.md 2.1): which scheme, host and port the client used.

`Forwarded` and `X-Forwarded-*` count only when the peer is a trusted proxy; then PUBLIC_URL; then Host. A Host without
a port (dicomweb-client sends one) takes the port that we listen on.
"""

import ipaddress
import re
from collections.abc import Mapping
from functools import lru_cache

from starlette.requests import HTTPConnection

from pacs.settings import Settings

DICOMWEB = "/dicom-web"
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_PAIR = re.compile(r'\s*([A-Za-z]+)\s*=\s*"?([^";,]*)"?\s*')


def root(request: HTTPConnection, settings: Settings) -> str:
    """The DICOMweb root as this client reaches it, without a slash at its end."""
    return base(request, settings) + DICOMWEB


def base(request: HTTPConnection, settings: Settings) -> str:
    """Scheme, host, port and, behind a proxy, prefix of this node as the client reaches it."""
    told = _told(request.headers) if trusted(request, settings) else None
    return told or settings.public_url.rstrip("/") or _own(request)


def trusted(request: HTTPConnection, settings: Settings) -> bool:
    """Whether the peer is one of TRUSTED_PROXIES (addresses or networks)."""
    return bool(settings.trusted_proxies) and _within(_peer(request), settings.trusted_proxies)


@lru_cache(1024)  # every request asks, and peers are few
def _within(peer: str, networks: tuple[str, ...]) -> bool:
    try:
        address = ipaddress.ip_address(peer)
        return any(address in ipaddress.ip_network(network, strict=False) for network in networks)
    except ValueError:
        return False


def client(request: HTTPConnection, settings: Settings) -> str:
    """The address that asks; behind a trusted proxy the one that the proxy names, if it is an address."""
    peer = _peer(request)
    if not trusted(request, settings):
        return peer
    told = _pairs(request.headers).get("for", "") or _last(request.headers, "x-forwarded-for")
    bracketed = re.fullmatch(r"\[(.*)\](?::\d+)?", told)
    try:
        return str(ipaddress.ip_address(bracketed[1] if bracketed else told))
    except ValueError:
        return peer


def _peer(request: HTTPConnection) -> str:
    return request.client.host if request.client else ""


def split_host(host: str) -> tuple[str, int | None] | None:
    """Name and port of a Host header, or None where it is none."""
    match = _HOST.fullmatch(host)
    return (match[1].lower(), int(match[2]) if match[2] else None) if match else None


def _told(headers: Mapping[str, str]) -> str | None:
    """What the nearest proxy says; it writes the last element of each list."""
    pairs = _pairs(headers)
    host = pairs.get("host") or _last(headers, "x-forwarded-host")
    scheme = (pairs.get("proto") or _last(headers, "x-forwarded-proto") or "http").lower()
    prefix = _last(headers, "x-forwarded-prefix").rstrip("/")
    if split_host(host) is None or scheme not in _DEFAULT_PORTS or not _PREFIX.fullmatch(prefix):
        return None
    return f"{scheme}://{host}{prefix}"


def _pairs(headers: Mapping[str, str]) -> dict[str, str]:
    """The last element of `Forwarded` (RFC 7239)."""
    found = _PAIR.findall(headers.get("forwarded", "").rpartition(",")[2])
    return {name.lower(): value.strip() for name, value in found}


def _last(headers: Mapping[str, str], name: str) -> str:
    return headers.get(name, "").rpartition(",")[2].strip()


def _own(request: HTTPConnection) -> str:
    scheme = request.scope.get("scheme", "http")
    listening, port = request.scope.get("server") or ("localhost", None)
    named = split_host(request.headers.get("host", ""))
    name, named_port = named or (f"[{listening}]" if ":" in listening else listening, port)
    port = named_port or port
    return f"{scheme}://{name}" if port in {None, _DEFAULT_PORTS[scheme]} else f"{scheme}://{name}:{port}"
