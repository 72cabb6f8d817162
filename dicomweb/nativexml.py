"""DICOM JSON -> the Native DICOM Model in XML (PS3.19 A.1; PS3.18 8.7.3.2). Written, never read: no parser, no risk."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from pydicom.datadict import keyword_for_tag

from dicomweb.multipart import Writer, frame
from dicomweb.negotiate import Offer

MEDIA_TYPE = "application/dicom+xml"
NAMESPACE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
COMPONENTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
AS_PARTS = Offer(MEDIA_TYPE, multipart=True)
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Row = Mapping[str, Mapping[str, Any]]


def native(row: Row) -> bytes:
    """One data set as an XML document. Characters that XML cannot hold become U+FFFD."""
    body = "".join(_attributes(row))
    text = f'<?xml version="1.0" encoding="UTF-8"?><NativeDicomModel xmlns="{NAMESPACE}" xml:space="preserve">{body}'
    return f"{text}</NativeDicomModel>".encode()


def parts(rows: Iterable[Row], writer: Writer) -> Iterator[bytes]:
    """The body of a multipart of one document a data set."""
    return frame(writer, ((MEDIA_TYPE, "", iter((native(row),))) for row in rows))


def _attributes(row: Row) -> Iterator[str]:
    for tag, element in row.items():
        creator = _creator(row, tag)
        known = keyword_for_tag(int(tag, 16))
        more = f" keyword={quoteattr(known)}" if known else ""
        more += f" privateCreator={quoteattr(_clean(creator))}" if creator else ""
        content = "".join(_content(element))
        yield f'<DicomAttribute tag="{tag}" vr="{element["vr"]}"{more}>{content}</DicomAttribute>'


def _content(element: Mapping[str, Any]) -> Iterator[str]:
    if "BulkDataURI" in element:
        yield f"<BulkData uri={quoteattr(element['BulkDataURI'])}/>"
    elif "InlineBinary" in element:
        yield f"<InlineBinary>{element['InlineBinary']}</InlineBinary>"
    write = _WRITERS.get(element["vr"], _value)
    for number, value in enumerate(element.get("Value", ()), start=1):
        yield write(number, value)


def _value(number: int, value: object) -> str:
    """An empty value keeps its number, so that those after it keep theirs."""
    text = "" if value is None else _clean(str(value))
    return f'<Value number="{number}">{escape(text)}</Value>'


def _item(number: int, value: Row | None) -> str:
    return f'<Item number="{number}">{"".join(_attributes(value or {}))}</Item>'


def _name(number: int, value: Mapping[str, str] | None) -> str:
    groups = "".join(_group(group, (value or {})[group]) for group in GROUPS if (value or {}).get(group))
    return f'<PersonName number="{number}">{groups}</PersonName>'


def _group(group: str, text: str) -> str:
    pieces: Iterable[tuple[str, str]] = zip(COMPONENTS, text.split("^"), strict=False)
    components = "".join(f"<{name}>{escape(_clean(piece))}</{name}>" for name, piece in pieces if piece)
    return f"<{group}>{components}</{group}>"


_WRITERS: dict[str, Callable[[int, Any], str]] = {"SQ": _item, "PN": _name}


def _creator(row: Row, tag: str) -> str:
    """The private creator of an attribute of an odd group, where the data set names it (PS3.5 7.8.1)."""
    if int(tag[3], 16) % 2 == 0 or tag[4:6] == "00":
        return ""
    values = row.get(f"{tag[:4]}00{tag[4:6]}", {}).get("Value") or [""]
    return str(values[0] or "")


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
