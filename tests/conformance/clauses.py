"""What the HTTP side promises, clause by clause, and which tests hold it to that.

A test names the promises it checks: `test_d17_...`, `test_d25_r05_...`. D numbers are acceptance checks; the other
letters are the contract: C common, Q search, M metadata, R retrieve, S store, U WADO-URI, X beyond the standard.
"""

import ast
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
_NAMED = re.compile(r"test((?:_[cdqmrsux]\d\d)+)_")

# number -> (clause of PS3.18, promise)
CLAUSES: Mapping[str, tuple[str, str]] = {
    "C01": ("8.1", "Paths are accepted with a slash at their end; a malformed UID is 400, an unknown one 404"),
    "C02": ("8.3.2", "Unknown query parameters are ignored"),
    "C03": ("8.3.1", "Query strings are percent-decoded before values are split; a plus is a space, but in offsets"),
    "C04": ("8.3.3", "The accept parameter outranks the header; charset is heard, and UTF-8 is all there is"),
    "C05": ("8.7.5", "Accept: lists, weights, ranges, quoting, browsers; else 406 with what is offered"),
    "C06": ("8.7", "No Accept is */*"),
    "C07": ("8.7.3", "Implicit VR and Big Endian are never sent unless named outright; they become Explicit VR LE"),
    "C08": ("8.7.3", "Without a transfer-syntax the default of the media type is sent, else 406"),
    "C09": ("8.7.3.3", "Compressed frames are bare code streams"),
    "C10": (
        "8.6.1.2",
        "multipart/related: bare type, token boundary, each part with its transfer-syntax, small heads",
    ),
    "C11": ("8.6", "Bodies stream; a client that goes stops the reading"),
    "C12": ("8.5", "The set of statuses; errors are JSON with a word, a sentence and an id"),
    "C13": ("8.8", "Answers are UTF-8 and say so"),
    "C14": ("8.9", "HEAD mirrors GET, OPTIONS tells capabilities, 405 has Allow"),
    "C15": ("8.1", "Absolute URLs follow trusted proxies, PUBLIC_URL, Host and the listening port"),
    "C16": ("8.4", "ETag and If-None-Match on metadata, frames and instances; answers are private"),
    "C17": ("8.4", "Byte ranges: 206 and 416"),
    "C18": ("8.4", "gzip for JSON only when asked for"),
    "C19": ("8.4", "CORS for configured origins, never a star"),
    "Q01": ("8.3.4.1", "Keys as keyword, tag of either case, dotted path; a repeated key narrows"),
    "Q02": ("10.6.1", "All required matching keys, and those that clients use"),
    "Q03": ("8.3.4.1", "Single value, UID list, universal, wildcard, range, sequence, several values"),
    "Q04": ("10.6.1", "ModalitiesInStudy by comma or backslash is one or the other"),
    "Q05": ("8.3.4.2", "Names without case, accents and padding, in every group; fuzzy by words in any order"),
    "Q06": ("8.3.4.1", "TimezoneOffsetFromUTC shifts dates and times, and is returned"),
    "Q07": ("8.3.4.3", "includefield: repeated, lists, dotted, private with its creator, all; nothing from below"),
    "Q08": ("8.3.4.5", "emptyvaluematching and multiplevaluematching"),
    "Q09": ("8.3.4.4", "Paging: stable order, bounds, 400 for what is no number, exact while studies arrive"),
    "Q10": ("10.6.3", "No match is 200 with an empty list"),
    "Q11": ("10.6.3.3", "Study rows have all required attributes, even when empty"),
    "Q12": ("10.6.3.3", "Series rows, with study attributes where the search is relational"),
    "Q13": ("10.6.3.3", "Instance rows, with their parents' attributes where the search is relational"),
    "Q14": ("10.6.3", "Counts are exact while objects arrive"),
    "Q15": ("10.6.3", "includefield never damages RetrieveURL"),
    "Q16": ("-", "Beyond the standard: /patients, X-Total-Count, count, orderby"),
    "M01": ("10.4.1.1.2", "Metadata of studies, series and instances, JSON and XML"),
    "M02": ("F.2", "DICOM JSON: ascending keys, vr first, nulls, names, exact numbers"),
    "M03": ("F.2", "Numbers that are none are strings, the JSON is strict"),
    "M04": ("10.4.3.3.2", "Bulk data by URI: pixels always, large values, nested too; geometry inline"),
    "M05": ("10.4.3.3.2", "BulkDataURIs are absolute, at the origin of the request, and can be fetched"),
    "M06": ("10.4.1.1.2", "Labels of pixels in metadata agree with the frames as stored"),
    "R01": ("10.4.1", "Studies, series, instances as multipart; one instance alone; zip"),
    "R02": ("10.4.1", "Bytes as stored for a star"),
    "R03": ("10.4.3", "All or a broken connection, never silent loss"),
    "R04": ("10.4.1.1.6", "Frame lists keep order and repeats; 400 for none, 404 beyond the last or without pixels"),
    "R05": ("8.7.3.3", "Frames in their own media type with their syntax, one frame alone too"),
    "R06": ("8.7.3.3", "Encapsulated frames whatever their fragments"),
    "R07": ("8.7.3.3", "Native frames: bits, odd lengths, twelve bits"),
    "R08": ("10.4.1.1.5", "bulkdata and pixeldata resources; documents as themselves"),
    "R09": ("10.4.1.1.3", "Rendered: types, parameters, pixels right"),
    "R10": ("10.4.1.1.4", "Thumbnails: small, never enlarged, at every level"),
    "R11": ("10.4.1.1.3", "Presentation states are not rendered, and that is said"),
    "S01": (
        "10.5.1",
        "Bodies: quoting, what stands before the first boundary, chunked, one object alone, JSON",
    ),
    "S02": ("10.5.3", "Answers in JSON and XML"),
    "S03": ("10.5.3", "200, 202, 400, 409, 413, 415, 503"),
    "S04": ("10.5.3.2", "The Store Instances Response Module: URLs, failures, other failures, absent when empty"),
    "S05": ("I.2.2", "Failure reasons and warning reasons"),
    "S06": ("10.5", "Duplicates succeed, other content under a known UID does not"),
    "S07": ("10.5", "Durable before the answer; a bad part loses no good one; found at once"),
    "S08": ("10.5", "Memory stays flat whatever the size"),
    "U01": ("9.4", "WADO-URI: parameters, 400, 404, 406"),
    "U02": ("9.4", "WADO-URI: defaults by kind of object"),
    "U03": ("9.4", "WADO-URI: thumbnails as Weasis asks"),
    "X01": ("-", "DELETE: 204, then 404"),
    "X02": ("11", "UPS-RS is not offered: 404"),
    "X03": ("-", "The change feed is gap-free"),
    "D01": ("10.6.3", "GET /studies: JSON with all required keys"),
    "D02": ("10.6.3", "No match: 200 and []"),
    "D03": ("10.6.1", "/series and /instances, relational, parents included"),
    "D04": ("8.3.4.1", "Keyword and tag ask the same"),
    "D05": ("8.3.4.1", "PatientID is exact and case-sensitive"),
    "D06": ("8.3.4.1", "Wildcards on PN, LO, SH"),
    "D07": ("8.3.4.1", "Date ranges are closed"),
    "D08": ("8.3.4.1", "UID list by comma"),
    "D09": ("10.6.1", "ModalitiesInStudy, one"),
    "D10": ("8.3.4.4", "limit and offset"),
    "D11": ("8.3.4.3", "includefield list, repeated, all"),
    "D12": ("8.3.2", "Unknown parameters are ignored"),
    "D13": ("8.3.4.2", "fuzzymatching=true is accepted"),
    "D14": ("10.4.1.1.2", "Metadata JSON of study, series, instance"),
    "D15": ("10.4.1.1.2", "Metadata as multipart XML"),
    "D16": ("10.4.3.3.2", "PixelData is a BulkDataURI that can be fetched"),
    "D17": ("8.8", "Names of ISO_IR 100 in UTF-8"),
    "D18": ("10.4.1", "An instance as multipart"),
    "D19": ("10.4.1", "An instance alone"),
    "D20": ("10.4.1", "A study as multipart"),
    "D21": ("8.7.3", "transfer-syntax=* is byte-exact"),
    "D22": ("8.7.3", "Default Explicit VR LE"),
    "D23": ("10.4.1.1.6", "frames/1, native"),
    "D24": ("10.4.1.1.6", "frames/1,2"),
    "D25": ("8.7.3.3", "JPEG as stored has an image/jpeg part with its transfer syntax"),
    "D26": ("8.7.5", "OHIF's Accept as it is sent"),
    "D27": ("10.4.1.1.6", "One frame alone as octets"),
    "D28": ("10.4.1.1.3", "/rendered as JPEG and PNG"),
    "D29": ("8.3.5", "window, viewport, quality"),
    "D30": ("10.4.1.1.4", "/thumbnail at three levels"),
    "D31": ("10.5", "Store of one and of several; the response module"),
    "D32": ("10.5", "Another study: 409"),
    "D33": ("10.5", "A duplicate is a success"),
    "D34": ("9", "WADO-URI: object and picture"),
    "D35": ("8.9", "OPTIONS: capabilities and CORS"),
    "D36": ("8.5", "404, 400, 406, 415"),
}


def named_in(function: str) -> tuple[str, ...]:
    """The promises that a test's name names."""
    found = _NAMED.match(function)
    return tuple(found[1].upper().removeprefix("_").split("_")) if found else ()


@cache
def functions() -> tuple[tuple[str, str], ...]:
    """File and name of every test of this folder."""
    return tuple(
        (file.name, node.name)
        for file in sorted(HERE.glob("test_*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


def tests() -> dict[str, list[tuple[str, str]]]:
    """The tests of each promise, as file and function."""
    found: dict[str, list[tuple[str, str]]] = {number: [] for number in CLAUSES}
    for file, function in functions():
        for number in named_in(function):
            found[number].append((file, function))
    return found


def table() -> list[str]:
    """The promises as lines of Markdown, each with its tests."""
    lines = ["| | PS3.18 | Promise | Tests |", "|---|---|---|---|"]
    for number, named in tests().items():
        clause, promise = CLAUSES[number]
        by_file: dict[str, int] = {}
        for file, _ in named:
            by_file[file] = by_file.get(file, 0) + 1
        listed = ", ".join(f"`{file}` ({count})" for file, count in by_file.items())
        lines.append(f"| {number} | {clause} | {promise} | {listed} |")
    return lines
