"""Writes docs/conformance.md: services and syntaxes from the tables the code works by, and what became of real files.

    python -m tests.conformance.page [FOLDER OF REAL FILES] > docs/conformance.md

Each file goes by C-STORE into one fresh node and by STOW-RS into another, and is asked back by WADO-RS in the syntax
it is stored in; the data set must be the same bytes. The exit code is 1 when one was not.
"""

import csv
import http.client
import io
import json
import os
import sys
import tempfile
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pydicom

from dicomweb.app import ROUTES, Row
from pacs.dimse.services import catalogue
from pacs.domain.admission import admit
from pacs.domain.attributes import ATTRIBUTES, Shown
from pacs.domain.syntaxes import IMPLICIT_LE, SYNTAXES
from pacs.domain.uids import storage_classes
from tests.conformance import clauses
from tests.dimse.sender import Refusal, Sender
from tests.running import RunningNode

ERROR_COMMENT = "ErrorComment"
BOUNDARY = "conformance"
KEPT = "stored"


@dataclass(frozen=True, slots=True)
class RealFile:
    """One file of the folder and what its manifest says of it."""

    name: str
    content: bytes
    syntax: str

    def head(self) -> tuple[str, str, bytes]:
        """SOP class, SOP instance and data set, as a modality would send them; raises for what no modality could."""
        admitted = admit(memoryview(self.content), raw_syntax=None)
        data = self.content[admitted.data_offset :]
        named = pydicom.dcmread(io.BytesIO(self.content), force=True, specific_tags=["SOPClassUID", "SOPInstanceUID"])
        return str(named.get("SOPClassUID", "")), str(named.get("SOPInstanceUID", "")), data


def main() -> int:
    """Send everything through both doors and print the page."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ["FILMROOM_TEST_DATA"])
    files = read(folder)
    outcomes = {"C-STORE": through(by_c_store, files), "STOW-RS": through(by_stow, files)}
    print(page(files, outcomes))
    return int(any(word.startswith("DIFFERENT") for door in outcomes.values() for word in door.values()))


def read(folder: Path) -> list[RealFile]:
    """The files of the manifest, in its order."""
    with (folder / "manifest.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    return [RealFile(row["path"], (folder / row["path"]).read_bytes(), row["transfer_syntax"]) for row in rows]


def through(door: Callable[[RunningNode, RealFile], str], files: list[RealFile]) -> dict[str, str]:
    """What became of each file at one door of a fresh node: stored, or the reason of its refusal."""
    with tempfile.TemporaryDirectory(prefix="frc-", dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        node = RunningNode(Path(folder) / "home", {"AI_ENABLED": "false", "LOG_LEVEL": "warning"})
        node.start()
        try:
            return {file.name: door(node, file) for file in files}
        finally:
            node.stop()


def by_c_store(node: RunningNode, file: RealFile) -> str:
    """C-STORE of the data set as it is in the file, in the file's own transfer syntax."""
    try:
        sop_class, instance, data = file.head()
    except Exception as error:
        return f"not sent: {error}"
    if not sop_class or not instance:
        return "not sent: the file names no SOP class or instance"
    context = ((sop_class, (file.syntax if file.syntax.startswith("1.") else IMPLICIT_LE,)),)
    try:
        with Sender(("127.0.0.1", node.dicom_port), context) as sender:
            if 1 not in sender.accepted:
                return "presentation context refused: " + ("SOP class" if sender.results[1] == 3 else "transfer syntax")
            answer = sender.store(sop_class, instance, data)
    except Refusal as refusal:
        return f"association ended: {refusal}"
    if answer.status:
        return f"0x{answer.status:04X} {_reason(node, answer.command.text(ERROR_COMMENT))}"
    return _compare(node, instance, file, data)


def by_stow(node: RunningNode, file: RealFile) -> str:
    """STOW-RS of the file as it is."""
    start = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    headers = {"Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'}
    connection = http.client.HTTPConnection("127.0.0.1", node.settings.http_port, timeout=60)
    body = start + file.content + f"\r\n--{BOUNDARY}--\r\n".encode()
    connection.request("POST", "/dicom-web/studies", body, headers)
    response = connection.getresponse()
    answer = json.loads(response.read())
    if "00081199" in answer:
        instance = answer["00081199"]["Value"][0]["00081155"]["Value"][0]
        return _compare(node, instance, file, None)
    [item] = (answer.get("00081198") or answer["0008119A"])["Value"]
    code = item["00081197"]["Value"][0]
    return f"{response.status}, {code} {item.get('00091002', {}).get('Value', [''])[0]}"


def _compare(node: RunningNode, instance: str, file: RealFile, data: bytes | None) -> str:
    """`stored` when the data set comes back as the same bytes."""
    row = json.loads(_get(node, f"/dicom-web/instances?SOPInstanceUID={instance}&includefield=00083002"))[0]
    study, series, syntax = (row[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00083002"))
    path = f"/dicom-web/studies/{study}/series/{series}/instances/{instance}"
    try:
        received = _get(node, path, f"application/dicom; transfer-syntax={syntax}")
    except urllib.error.HTTPError as error:
        return f"DIFFERENT: {error.code}"
    sent = data if data is not None else file.head()[2]
    return KEPT if received.endswith(sent) else "DIFFERENT"


def _get(node: RunningNode, path: str, accept: str = "application/dicom+json") -> bytes:
    request = urllib.request.Request(node.http_url + path, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=60) as answer:
        body: bytes = answer.read()
        return body


def _reason(node: RunningNode, comment: str) -> str:
    """The machine word of a refusal, looked up by the id at the end of the Error Comment."""
    for word in reversed(comment.replace(".", " ").split()):
        try:
            return str(json.loads(_get(node, f"/api/v1/refusals/{word}", "application/json"))["reason"])
        except urllib.error.HTTPError:
            continue
    return comment


def page(files: list[RealFile], outcomes: dict[str, dict[str, str]]) -> str:
    """The page as Markdown."""
    return "\n".join(
        [*_services(), *_syntaxes(), *_dicomweb(), *_attributes(), *_promises(), *_real_files(files, outcomes)]
    )


def _services() -> list[str]:
    others = sorted(uid for uid in catalogue() if uid not in storage_classes())
    return [
        "# Conformance",
        "",
        "Written by `python -m tests.conformance.page` from the tables that the code works by.",
        "",
        "## DICOM services",
        "",
        f"C-STORE as SCP for {len(storage_classes())} storage SOP classes: every one of the current dictionary, and "
        "private ones named in `peers.toml`.",
        "",
        "| Abstract syntax | Service |",
        "|---|---|",
        *(f"| {uid} | {catalogue()[uid].name} |" for uid in others),
        "",
        "## Transfer syntaxes",
        "",
    ]


def _syntaxes() -> list[str]:
    rows = [f"| {s.uid} | {s.name} | {s.media_type} | {'yes' if s.decodable else 'kept'} |" for s in SYNTAXES.values()]
    return ["| UID | Name | Frames as | Decoded |", "|---|---|---|---|", *rows, ""]


def _dicomweb() -> list[str]:
    """The resources of HTTP, from THE list of routes."""
    by_path: dict[str, list[Row]] = {}
    for row in ROUTES:
        by_path.setdefault(row.path.replace(":path", ""), []).append(row)
    lines = ["## DICOMweb and admin API", "", "| Path | Methods | Permission |", "|---|---|---|"]
    for path, rows in by_path.items():
        methods = ", ".join(row.method for row in rows)
        lines.append(f"| `{path}` | {methods} | {', '.join(sorted({row.permission for row in rows}))} |")
    return [*lines, "", *SEARCHES, ""]


SEARCHES = (
    "Searches take `limit`, `offset`, `includefield`, `fuzzymatching`, `emptyvaluematching`, `multiplevaluematching`",
    "and, not of the standard, `orderby` and `count`. Empty and multiple value matching are done unless turned off.",
    "",
    "- A repeated key narrows; repeats of a UID or code that an object can have but one of are a list.",
    "- Wildcards in names: case, accents and width do not count, in every component group.",
    "- Fuzzy matching: each word of the key begins a word of the name, in any order; no phonetics.",
    "- Numbers (IS, DS) are equal as numbers: `+7`, `007` and `7` are the same.",
    "- Ranges of a date and of its time of one form are one interval; other keys of them stand for themselves.",
    "- TimezoneOffsetFromUTC in a query says in which zone its dates and times are. Those kept are moved into it from",
    "  the zone of their object, or from this node's where the object names none.",
    "- Attributes that no column and no added index knows are ignored with a Warning; INDEX_ATTRIBUTES adds some.",
    "- A reader's page goes on behind the last row of the page before it: nothing slips while objects arrive.",
)


def _attributes() -> list[str]:
    """The attributes that searches match and return."""
    lines = ["## Attributes of searches", "", "| Level | Attribute | Matching | Returned |", "|---|---|---|---|"]
    shown = {Shown.ALWAYS: "always", Shown.KNOWN: "when known", Shown.ASKED: "when asked for"}
    for a in ATTRIBUTES:
        lines.append(f"| {a.level.name.lower()} | {a.keyword} | {a.rule.name.lower()} | {shown[a.shown]} |")
    return [*lines, ""]


def _promises() -> list[str]:
    """Every clause of the wire contract with its tests."""
    return ["## Clauses and their tests", "", *clauses.table(), ""]


def _real_files(files: list[RealFile], outcomes: dict[str, dict[str, str]]) -> list[str]:
    lines = [
        "## Real files",
        "",
        f"{len(files)} files from public repositories, each through both doors of a fresh node:",
        "",
    ]
    lines += ["| Door | Stored, given back bit for bit | Refused |", "|---|---|---|"]
    for door, outcome in outcomes.items():
        counts = Counter(word == KEPT for word in outcome.values())
        lines.append(f"| {door} | {counts[True]} | {counts[False]} |")
    lines += ["", "Not stored, and why:", "", "| File | C-STORE | STOW-RS |", "|---|---|---|"]
    for file in files:
        words = [outcome[file.name] for outcome in outcomes.values()]
        if any(word != KEPT for word in words):
            lines.append(f"| {file.name} | {words[0]} | {words[1]} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
