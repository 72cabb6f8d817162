"""Who we know by AE title: `config/peers.toml` (operations.md 5), read again when it changes.

A calling AE title proves nothing; it counts only together with the network that it is bound to (security.md 1).
"""

import ipaddress
import re
import socket
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacs.errors import SettingsError
from pacs.services.tls import parse_fingerprint

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

SERVICES = frozenset({"echo", "store", "find", "move", "get", "commit", "worklist", "mpps"})
NAMES_AGE_SECONDS = 60.0  # host names are looked up again after


@dataclass(frozen=True, slots=True)
class Peer:
    """One table of the file. `networks` may be empty: a host name that nobody resolves, so nothing matches."""

    title: str
    host: str = ""
    port: int = 0
    networks: tuple[Network, ...] = ()
    services: frozenset[str] = SERVICES
    tls: bool = False
    fingerprint: str = ""  # of its certificate: it is believed only with that one, and that one only for its title
    require_identity: bool = False
    max_associations: int = 0  # 0: no cap of its own
    transfer_syntaxes: tuple[str, ...] = ()  # preferred, best first
    storage_classes: tuple[str, ...] = ()  # private SOP classes that we keep for this peer

    def is_at(self, address: str) -> bool:
        """True when `address` lies in one of the peer's networks."""
        place = ip_address(address)
        return place is not None and any(place in network for network in self.networks)


def ip_address(text: str) -> Address | None:
    """An address without its zone, an IPv4 one also where IPv6 wraps it; None when it is not numeric."""
    try:
        place = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = place.ipv4_mapped if isinstance(place, ipaddress.IPv6Address) else None
    return mapped or place


class PeerBook:
    """The file's present content. `refresh` may wait for the resolver: call it off an event loop."""

    def __init__(self, file: Path, *, required: bool = False) -> None:
        """Reads the file; a missing one is an empty one unless `required`. Raises SettingsError naming the key."""
        self._file = file
        self._required = required
        self._stamp: tuple[int, int] | None = None
        self._read_at = 0.0
        self._peers: Mapping[str, Peer] = {}
        self.refresh()

    def get(self, title: str) -> Peer | None:
        """The peer of that AE title."""
        return self._peers.get(title)

    def certified(self, title: str, certificate: str | None) -> bool:
        """Whether a caller of that title may come with this certificate's fingerprint; empty or None: with none.

        A title with a fingerprint needs that certificate; a certificate with a title of its own may claim no other.
        """
        peer = self._peers.get(title)
        if peer is not None and peer.fingerprint:
            return peer.fingerprint == certificate
        return not certificate or certificate not in {peer.fingerprint for peer in self._peers.values()}

    def all(self) -> tuple[Peer, ...]:
        """Every peer, in the file's order."""
        return tuple(self._peers.values())

    def refresh(self) -> bool:
        """Read the file again when it has changed or names are old; True when it was read.

        Raises SettingsError and keeps what was known.
        """
        stamp = self._look()
        age = time.monotonic() - self._read_at
        if stamp == self._stamp and not (self._has_names() and age > NAMES_AGE_SECONDS):
            return False
        self._stamp, self._read_at = stamp, time.monotonic()
        self._peers = read(self._file) if stamp else {}
        return True

    def _look(self) -> tuple[int, int] | None:
        try:
            status = self._file.stat()
        except FileNotFoundError:
            if self._required:
                raise SettingsError(f"There is no peers file {self._file}; correct DICOM_PEERS or unset it.") from None
            return None
        return status.st_mtime_ns, status.st_size

    def _has_names(self) -> bool:
        return any(peer.host and ip_address(peer.host) is None for peer in self._peers.values())


def read(file: Path) -> dict[str, Peer]:
    """The peers of a file by AE title. Raises SettingsError naming file and key."""
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{file} cannot be read as TOML: {error}.") from error
    for key in table:
        if key != "peers":
            raise SettingsError(f"{file} has an unknown key {key!r}; peers are tables named [peers.AE_TITLE].")
    peers = table.get("peers", {})
    if not isinstance(peers, dict):
        raise SettingsError(f"{file}: peers must be tables named [peers.AE_TITLE].")
    return {title: _peer(file, title, entry) for title, entry in peers.items()}


def _peer(file: Path, title: str, entry: object) -> Peer:
    where = f"{file}: peers.{title}"
    if not re.fullmatch(r"(?=.*\S)[\x20-\x5b\x5d-\x7e]{1,16}", title) or title != title.strip():
        raise SettingsError(f"{where} is not an AE title: 1 to 16 ASCII characters without backslash (PS3.5 6.2).")
    if not isinstance(entry, dict):
        raise SettingsError(f"{where} must be a table.")
    values: dict[str, Any] = {}
    for key, value in entry.items():
        if key not in _KEYS:
            raise SettingsError(f"{where}.{key} is unknown; the keys are {', '.join(_KEYS)}.")
        parse, wanted = _KEYS[key]
        try:
            values[key] = parse(value)
        except (ValueError, TypeError) as error:
            raise SettingsError(f"{where}.{key} must be {wanted}.") from error
    values.setdefault("networks", _host_networks(values.get("host", "")))
    return Peer(title, **values)


def _host_networks(host: str) -> tuple[Network, ...]:
    """The host itself; a name is looked up, and one that nobody knows gives nothing."""
    if not host:
        return ()
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    places = {ip_address(str(entry[4][0])) for entry in found}
    return tuple(ipaddress.ip_network(place) for place in sorted(map(str, filter(None, places))))


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError


def _text(value: Any) -> str:
    _require(isinstance(value, str) and bool(value.strip()))
    return str(value).strip()


def _boolean(value: Any) -> bool:
    _require(isinstance(value, bool))
    return bool(value)


def _whole(value: Any, low: int, high: int) -> int:
    _require(isinstance(value, int) and not isinstance(value, bool) and low <= value <= high)
    return int(value)


def _texts(value: Any) -> tuple[str, ...]:
    _require(isinstance(value, list))
    return tuple(_text(entry) for entry in value)


def _services(value: Any) -> frozenset[str]:
    words = frozenset(_texts(value))
    _require(words <= SERVICES)
    return words


def _networks(value: Any) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(entry) for entry in _texts(value))


def _uids(value: Any) -> tuple[str, ...]:
    uids = _texts(value)
    _require(all(re.fullmatch(r"[0-9.]{1,64}", uid) for uid in uids))
    return uids


_KEYS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "host": (_text, "a host name or address"),
    "port": (lambda value: _whole(value, 1, 65535), "a whole number from 1 to 65535"),
    "networks": (_networks, 'a list of networks, such as ["192.0.2.0/24"]'),
    "services": (_services, f"a list of {', '.join(sorted(SERVICES))}"),
    "tls": (_boolean, "true or false"),
    "fingerprint": (
        lambda value: parse_fingerprint(_text(value)),
        "the SHA-256 fingerprint of the peer's certificate, 64 hexadecimal digits",
    ),
    "require_identity": (_boolean, "true or false"),
    "max_associations": (lambda value: _whole(value, 1, 10_000), "a whole number from 1 to 10000"),
    "transfer_syntaxes": (_uids, "a list of transfer syntax UIDs, best first"),
    "storage_classes": (_uids, "a list of private SOP class UIDs"),
}
