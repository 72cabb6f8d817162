"""Forwarding by STOW-RS (PS3.18 10.5): stored files as they are, several in one request that streams from the disk."""

import http.client
import json
import ssl
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from pacs.errors import Unavailable
from pacs.services.forward_rules import Rule
from pacs.services.instances import Files, StoredInstance

SECONDS = 60.0  # for the connection, and for the answer
LONGEST_ANSWER = 16 << 20
CHUNK = 1 << 20
_REFERENCED, _FAILED = "00081199", "00081198"
_INSTANCE, _REASON = "00081155", "00081197"
_ACCEPTED = frozenset({200, 202, 409})  # what carries a report on each instance


@dataclass(frozen=True, slots=True)
class Report:
    """What the service said: the failure reason of each instance that it did not take; `None`: it is not mentioned."""

    status: int
    reasons: Mapping[str, int | None]

    def reason(self, sop_instance_uid: str) -> int | None:
        """0 for one that is stored."""
        return self.reasons.get(sop_instance_uid)


def post(rule: Rule, files: Files, instances: Sequence[StoredInstance]) -> Report:
    """Store instances at the rule's service.

    Raises Unavailable when the service cannot be reached, does not know us, or fails as such; Damaged and NotFound
    when a file of ours is not whole.
    """
    boundary = uuid.uuid4().hex
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    tail = f"--{boundary}--\r\n".encode()
    opened = [files.open(instance) for instance in instances]
    try:
        size = sum(len(head) + instance.size + 2 for instance in instances) + len(tail)
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Content-Length": str(size),
            "Accept": "application/dicom+json",
            **_authorization(rule),
        }
        return _exchange(rule, headers, _body(head, opened, tail))
    finally:
        for file in opened:
            file.close()


def _authorization(rule: Rule) -> dict[str, str]:
    if rule.token_file is None:
        return {}
    try:
        return {"Authorization": f"Bearer {rule.token_file.read_text(encoding='ascii').strip()}"}
    except (OSError, UnicodeDecodeError) as error:
        raise Unavailable(f"The token file of rule {rule.name} cannot be read; see rules.{rule.name}.") from error


def _body(head: bytes, files: Sequence[BinaryIO], tail: bytes) -> Iterator[bytes]:
    for file in files:
        yield head
        while chunk := file.read(CHUNK):
            yield chunk
        yield b"\r\n"
    yield tail


def _exchange(rule: Rule, headers: Mapping[str, str], body: Iterator[bytes]) -> Report:
    try:
        with closing(_connection(rule)) as connection:
            connection.request("POST", f"{urlsplit(rule.destination).path}/studies", body, dict(headers))
            answer = connection.getresponse()
            content = answer.read(LONGEST_ANSWER)
    except (OSError, http.client.HTTPException) as error:
        said = getattr(error, "strerror", None) or type(error).__name__
        raise Unavailable(f"{rule.destination} cannot be reached ({said}).") from error
    if answer.status not in _ACCEPTED:
        raise Unavailable(f"{rule.destination} answered {answer.status}; see its log, or the rule's token_file.")
    return Report(answer.status, dict(_reasons(rule, content)))


def _connection(rule: Rule) -> http.client.HTTPConnection:
    parts = urlsplit(rule.destination)
    assert parts.hostname is not None  # the rules file was checked
    if parts.scheme == "http":
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=SECONDS)
    context = ssl.create_default_context(cafile=rule.ca_file)
    return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=SECONDS, context=context)


def _reasons(rule: Rule, content: bytes) -> Iterator[tuple[str, int]]:
    """Of the store instances response (PS3.18 10.5.3), by SOP Instance UID."""
    try:
        report: Any = json.loads(content) if content else {}
        report = report[0] if isinstance(report, list) and report else report
        for item in report.get(_REFERENCED, {}).get("Value", []):
            yield item[_INSTANCE]["Value"][0], 0
        for item in report.get(_FAILED, {}).get("Value", []):
            yield item[_INSTANCE]["Value"][0], int(item.get(_REASON, {}).get("Value", [0x0110])[0])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise Unavailable(f"{rule.destination} answered a store by what is no report of it.") from error
