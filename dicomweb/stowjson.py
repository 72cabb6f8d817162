"""DICOM JSON with its bulk data in, data sets out (PS3.18 10.5.1, 8.7.3.2): metadata first, then bulk data by location.

A data set is written in Explicit VR Little Endian, element by element; bulk data at its top level goes from its spool
file straight to the store, so that memory holds the JSON and one piece of bulk data at a time.
"""

import re
import struct
import tempfile
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from dicomweb.multipart import PartBegin, PartData, Reader
from dicomweb.negotiate import MediaType, parse_media_type
from pacs.domain.events import Expected
from pacs.domain.jsonmodel import CHARACTER_SET, UTF8, to_dataset
from pacs.domain.syntaxes import EXPLICIT_LE, OCTET_STREAM, SYNTAXES
from pacs.errors import BadRequest, Reason, Refused, TooLarge

MEDIA_TYPE = "application/dicom+json"
MOST_JSON = 64 << 20  # bytes of metadata of one request
MOST_NESTED = 64 << 20  # bytes of one piece of bulk data within a sequence
MOST_BULK = 0xFFFFFFFE
CHUNK = 1 << 20
LONG_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
PIXELS, FRAMES = "7FE00010", "00280008"
# the transfer syntax of a compressed stream whose part names none (Table 8.7.3-5)
SYNTAX_OF: Mapping[str, str] = {
    "image/jpeg": "1.2.840.10008.1.2.4.70",
    "image/jls": "1.2.840.10008.1.2.4.80",
    "image/jp2": "1.2.840.10008.1.2.4.90",
    "image/jpx": "1.2.840.10008.1.2.4.92",
    "image/jphc": "1.2.840.10008.1.2.4.201",
    "image/dicom-rle": "1.2.840.10008.1.2.5",
}

_TAG, _VR = re.compile("[0-9A-Fa-f]{8}"), re.compile("[A-Z]{2}")

Row = dict[str, Any]


@dataclass(slots=True)
class Bulk:
    """One part of bulk data; `file` is a spool file that nobody else sees."""

    kind: MediaType
    file: IO[bytes]
    size: int = 0


@dataclass(slots=True)
class Gathered:
    """The parts of one request: data sets as JSON, and bulk data by its location."""

    folder: Path
    texts: list[bytes] = field(default_factory=list)
    bulk: dict[str, Bulk] = field(default_factory=dict)
    size: int = 0

    def text(self, chunk: bytes | memoryview) -> None:
        """More of the metadata. Raises TooLarge."""
        self.size += len(chunk)
        if self.size > MOST_JSON:
            raise TooLarge(f"The metadata is larger than {MOST_JSON} bytes; send fewer objects in one request.")
        self.texts.append(bytes(chunk))

    def begin(self, location: str, kind: MediaType) -> Bulk:
        """A part of bulk data begins."""
        found = Bulk(kind, tempfile.TemporaryFile(dir=self.folder))  # noqa: SIM115 - closed with the request
        self.bulk[location] = found
        return found

    def rows(self) -> list[Row]:
        """The data sets. Raises BadRequest where the metadata is no DICOM JSON."""
        try:
            found = orjson.loads(b"".join(self.texts))
        except orjson.JSONDecodeError as error:
            raise BadRequest("The metadata is not JSON.") from error
        rows = found if isinstance(found, list) else [found]
        if not rows or not all(isinstance(row, dict) and _is_data_set(row) for row in rows):
            raise BadRequest("The metadata must be a DICOM JSON object, or an array of such.")
        return rows

    def close(self) -> None:
        """Give the spool files back."""
        for bulk in self.bulk.values():
            bulk.file.close()


def _is_data_set(row: Mapping[str, Any]) -> bool:
    return all(
        _TAG.fullmatch(tag) and isinstance(entry, dict) and _VR.fullmatch(str(entry.get("vr")))
        for tag, entry in row.items()
    )


async def gather(gathered: Gathered, content_type: MediaType, body: AsyncIterator[bytes]) -> None:
    """Read a body, one data set or array by itself or with bulk data in further parts. Raises BadRequest, TooLarge."""
    if content_type.name == MEDIA_TYPE:
        async for chunk in body:
            gathered.text(chunk)
        return
    reader = Reader(content_type.parameter("boundary"))
    bulk: Bulk | None = None
    async for chunk in body:
        for event in reader.feed(chunk):
            match event:
                case PartBegin(headers):
                    bulk = _part(gathered, headers)
                case PartData(data) if bulk is None:
                    gathered.text(data)
                case PartData(data) if bulk is not None:
                    bulk.size += bulk.file.write(data)
    reader.close()


def _part(gathered: Gathered, headers: Mapping[str, str]) -> Bulk | None:
    """Where the bytes of a part go: None for the metadata."""
    kind = parse_media_type(headers.get("content-type", MEDIA_TYPE))
    if kind is None:
        raise BadRequest("A part of the body has a Content-Type that cannot be read.")
    if kind.name in {MEDIA_TYPE, "application/json"}:
        return None
    location = headers.get("content-location", "").strip()
    if not location:
        raise BadRequest("A part with bulk data has no Content-Location, so that nothing can name it.")
    return gathered.begin(location, kind)


def expected(row: Row, bulk: Mapping[str, Bulk], study_uid: str) -> Expected:
    """What the data set will be: its class, instance and transfer syntax."""
    return Expected(_uid(row, "00080016"), _uid(row, "00080018"), study_uid, _syntax(row, bulk))


def _uid(row: Row, tag: str) -> str:
    values = row.get(tag, {}).get("Value")
    return values[0].strip() if isinstance(values, list) and values and isinstance(values[0], str) else ""


def _syntax(row: Row, bulk: Mapping[str, Bulk]) -> str:
    pixels = bulk.get(str(row.get(PIXELS, {}).get("BulkDataURI")))
    if pixels is None or pixels.kind.name == OCTET_STREAM:
        return EXPLICIT_LE
    return pixels.kind.parameter("transfer-syntax") or SYNTAX_OF.get(pixels.kind.name, "")


def discards(row: Row) -> bool:
    """Whether elements of the data set have no place in one: file meta information, group lengths."""
    return any(tag.startswith("0002") or tag.endswith("0000") for tag in row)


def encoded(row: Row, bulk: Mapping[str, Bulk]) -> Iterator[bytes]:
    """The data set in Explicit VR Little Endian, piece by piece. Raises Refused for what cannot be one."""
    row = {**row, f"{CHARACTER_SET:08X}": {"vr": "CS", "Value": [UTF8]}}
    for tag in sorted(row, key=str.upper):
        if not (tag.startswith("0002") or tag.endswith("0000")):
            yield from _element(tag.upper(), row[tag], bulk)


def _element(tag: str, entry: Row, bulk: Mapping[str, Bulk]) -> Iterator[bytes]:
    if "BulkDataURI" in entry:
        found = _named(entry, bulk)
        compressed = tag == PIXELS and found.kind.name != OCTET_STREAM
        yield from _encapsulated(found) if compressed else _plain(tag, str(entry["vr"]), found)
        return
    out = DicomBytesIO()
    out.is_little_endian, out.is_implicit_VR = True, False
    try:
        write_dataset(out, to_dataset({tag: _inlined(entry, bulk)}), parent_encoding=UTF8)
    except Refused:
        raise
    except Exception as error:  # whatever stands there is not what its VR says
        raise Refused(Reason.UNREADABLE, f"The element {tag} is not what its VR says.") from error
    yield out.getvalue()


def _inlined(entry: Row, bulk: Mapping[str, Bulk]) -> Row:
    """The element with bulk data of the items of a sequence in its place. Raises ValueError for broken base64."""
    if "InlineBinary" in entry:
        b64decode(entry["InlineBinary"], validate=True)
    if entry["vr"] != "SQ":
        return entry
    items = [
        {tag: _inlined(_loaded(inner, bulk), bulk) for tag, inner in (item or {}).items()}
        for item in entry.get("Value", ())
    ]
    return {**entry, "Value": items}


def _loaded(entry: Row, bulk: Mapping[str, Bulk]) -> Row:
    if "BulkDataURI" not in entry:
        return entry
    found = _named(entry, bulk)
    if found.size > MOST_NESTED:
        raise Refused(Reason.TOO_LARGE, f"Bulk data within a sequence is larger than {MOST_NESTED} bytes.")
    return {"vr": entry["vr"], "InlineBinary": b64encode(b"".join(_read(found))).decode()}


def _named(entry: Row, bulk: Mapping[str, Bulk]) -> Bulk:
    found = bulk.get(str(entry["BulkDataURI"]))
    if found is None:
        raise Refused(Reason.UNREADABLE, "The metadata names bulk data that is in no part of the body.")
    if found.size > MOST_BULK:
        raise Refused(Reason.TOO_LARGE, "One element holds 4 GB at most.")
    return found


def _plain(tag: str, vr: str, found: Bulk) -> Iterator[bytes]:
    if vr not in LONG_VRS and found.size > 0xFFFE:
        vr = "UN"
    length = found.size + found.size % 2
    yield struct.pack("<HH", int(tag[:4], 16), int(tag[4:], 16))
    yield struct.pack("<2sHI", vr.encode(), 0, length) if vr in LONG_VRS else struct.pack("<2sH", vr.encode(), length)
    yield from _read(found)
    yield bytes(found.size % 2)


def _encapsulated(found: Bulk) -> Iterator[bytes]:
    """One frame as one fragment behind an empty offset table (PS3.5 A.4)."""
    yield struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    yield struct.pack("<HHI", 0xFFFE, 0xE000, found.size + found.size % 2)
    yield from _read(found)
    yield bytes(found.size % 2) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def _read(found: Bulk) -> Iterator[bytes]:
    found.file.seek(0)
    while chunk := found.file.read(CHUNK):
        yield chunk


def check(row: Row, bulk: Mapping[str, Bulk]) -> None:
    """Raise Refused for what this node cannot put together: several compressed frames, streams it does not know."""
    pixels = bulk.get(str(row.get(PIXELS, {}).get("BulkDataURI")))
    if pixels is None or pixels.kind.name == OCTET_STREAM:
        return
    syntax = SYNTAXES.get(_syntax(row, bulk))
    if syntax is None or not syntax.encapsulated or syntax.media_type != pixels.kind.name:
        raise Refused(Reason.SYNTAX, "The compressed pixel data is of no type and transfer syntax known here.")
    frames: Iterable[Any] = row.get(FRAMES, {}).get("Value") or [1]
    if str(next(iter(frames))) not in {"1", "1.0"}:
        raise Refused(Reason.UNREADABLE, "Compressed frames cannot be told apart in one part; send application/dicom.")
