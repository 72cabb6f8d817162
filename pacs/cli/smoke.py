"""`filmroom smoke`: one invented study through every door of a running node, then gone again.

It stores by C-STORE and by STOW-RS, finds by C-FIND and QIDO-RS, retrieves by WADO-RS, compares bytes, and deletes.
"""

import argparse
import io
import json
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

import pydicom
from pydicom.dataset import Dataset
from pynetdicom import AE

from pacs.cli.greeting import bracketed, reachable
from pacs.domain.uids import VERIFICATION
from pacs.services.keys import Keys
from pacs.services.phantom import ChestStudy, files
from pacs.settings import Settings

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
SLICES = 4
TIMEOUT_SECONDS = 30
PENDING = (0xFF00, 0xFF01)


class Failed(Exception):
    """A step did not do what it must; the text says which and what came instead."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the node is, and the study it gets."""

    url: str
    aet: str
    host: str
    port: int
    study: ChestStudy
    token: str = ""

    @property
    def slices(self) -> list[bytes]:
        """The study as Part 10 files: the first half goes by C-STORE, the rest by STOW-RS."""
        return list(files(self.study))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments; defaults come from the settings."""
    parser.add_argument("--url", help="root of the HTTP service, such as http://127.0.0.1:8000")
    parser.add_argument("--aet", help="AE title of the node")
    parser.add_argument("--host", help="host of the DICOM port")
    parser.add_argument("--port", type=int, help="DICOM port")
    parser.add_argument("--token-stdin", action="store_true", help="read a bearer token from standard input")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Walk the steps, print one line each; exit code 0 only when all held and nothing was left behind."""
    seed = f"smoke-{uuid.uuid4()}"
    target = Target(
        url=(args.url or f"http://{bracketed(settings.http_host)}:{settings.http_port}").rstrip("/"),
        aet=args.aet or settings.dicom_ae_title,
        host=args.host or reachable(settings.dicom_host),
        port=args.port or settings.dicom_port,
        study=ChestStudy(seed, "SMOKE", "Smoke^Test", description="Smoke test", slices=SLICES, size=64),
    )
    target = replace(target, token=_token(args, settings, target))
    failures = sum(not _passes(name, step, target) for name, step in STEPS)
    print("smoke: all doors work" if not failures else f"smoke: {failures} of {len(STEPS)} steps failed")
    return 1 if failures else 0


def _token(args: argparse.Namespace, settings: Settings, target: Target) -> str:
    """What opens the door where a login is required: the token given, else one made of the key of this home."""
    if args.token_stdin:
        return sys.stdin.readline().strip()
    try:
        _http(target, "/api/v1/auth/me")
    except Failed:
        return Keys(settings).for_node("smoke", ["admin"]) if settings.secret_key else ""
    except OSError:
        pass  # the first step tells
    return ""


def _passes(name: str, step: Callable[[Target], None], target: Target) -> bool:
    try:
        step(target)
    except (Failed, OSError, urllib.error.URLError) as error:
        print(f"FAILED  {name}: {error}", file=sys.stderr)
        return False
    print(f"ok      {name}")
    return True


def _ready(target: Target) -> None:
    answer = json.loads(_http(target, "/ready"))
    _expect("the node is", answer.get("status"), "ready")


def _echo(target: Target) -> None:
    with _Association(target, VERIFICATION) as association:
        _expect("C-ECHO status", association.send_c_echo().Status, 0)


def _c_store(target: Target) -> None:
    instances = [pydicom.dcmread(io.BytesIO(data)) for data in target.slices[: SLICES // 2]]
    with _Association(target, instances[0].SOPClassUID) as association:
        for instance in instances:
            _expect("C-STORE status", association.send_c_store(instance).Status, 0)


def _stow(target: Target) -> None:
    boundary = uuid.uuid4().hex
    part = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = b"".join(part + data + b"\r\n" for data in target.slices[SLICES // 2 :]) + f"--{boundary}--\r\n".encode()
    kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
    answer = json.loads(_http(target, "/dicom-web/studies", body, {"Content-Type": kind}))
    _expect("instances stored by STOW-RS", len(answer["00081199"]["Value"]), SLICES - SLICES // 2)


def _find(target: Target) -> None:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = target.study.study_uid
    identifier.NumberOfStudyRelatedInstances = ""
    with _Association(target, STUDY_ROOT_FIND) as association:
        answers = list(association.send_c_find(identifier, STUDY_ROOT_FIND))
    found = [answer for status, answer in answers if status.Status in PENDING]
    _expect("studies by C-FIND", len(found), 1)
    _expect("instances by C-FIND", int(found[0].NumberOfStudyRelatedInstances), SLICES)


def _qido(target: Target) -> None:
    rows = json.loads(_http(target, f"/dicom-web/studies?StudyInstanceUID={target.study.study_uid}"))
    _expect("studies by QIDO-RS", len(rows), 1)
    _expect("instances by QIDO-RS", rows[0]["00201208"]["Value"], [SLICES])


def _wado(target: Target) -> None:
    series = f"/dicom-web/studies/{target.study.study_uid}/series/{target.study.uid('series')}"
    for index, sent in enumerate(target.slices):
        path = f"{series}/instances/{target.study.uid('instance', index)}"
        received = _http(target, path, headers={"Accept": "application/dicom; transfer-syntax=*"})
        if pydicom.dcmread(io.BytesIO(received)) != pydicom.dcmread(io.BytesIO(sent)):
            raise Failed(f"slice {index + 1} came back different")


def _delete(target: Target) -> None:
    path = f"/dicom-web/studies/{target.study.study_uid}"
    _http(target, path, method="DELETE")
    rows = json.loads(_http(target, f"/dicom-web/studies?StudyInstanceUID={target.study.study_uid}"))
    _expect("studies left behind", len(rows), 0)


STEPS: tuple[tuple[str, Callable[[Target], None]], ...] = (
    ("ready", _ready),
    ("C-ECHO", _echo),
    ("C-STORE", _c_store),
    ("STOW-RS", _stow),
    ("C-FIND", _find),
    ("QIDO-RS", _qido),
    ("WADO-RS", _wado),
    ("DELETE", _delete),
)


def _expect(what: str, got: object, wanted: object) -> None:
    if got != wanted:
        raise Failed(f"{what}: {got}, expected {wanted}")


def _http(
    target: Target, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, method: str = ""
) -> bytes:
    request = urllib.request.Request(  # noqa: S310  the URL is the operator's own
        target.url + path,
        data=body,
        headers=_with_token(target, headers or {}),
        method=method or ("GET" if body is None else "POST"),
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as error:
        raise Failed(f"{request.method} {path.split('?', maxsplit=1)[0]} answered {error.code}") from error


def _with_token(target: Target, headers: dict[str, str]) -> dict[str, str]:
    return {**headers, "Authorization": f"Bearer {target.token}"} if target.token else headers


class _Association:
    """One association with one presentation context, released at the end."""

    def __init__(self, target: Target, abstract_syntax: str) -> None:
        client = AE(ae_title="SMOKE")
        client.add_requested_context(abstract_syntax)
        client.acse_timeout = client.dimse_timeout = client.network_timeout = TIMEOUT_SECONDS
        self.association = client.associate(target.host, target.port, ae_title=target.aet)

    def __enter__(self):  # type: ignore[no-untyped-def]  # pynetdicom's Association
        if not self.association.is_established:
            raise Failed("the association was not accepted; check host, port and AE title")
        return self.association

    def __exit__(self, *_: object) -> None:
        self.association.release()
