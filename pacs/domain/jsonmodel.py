"""DICOM JSON (PS3.18 Annex F) of admitted objects, straight from the walk, and back to pydicom data sets.

Bulk data is named, not included: `BulkDataURI` is `%BASE%/studies/{s}/series/{e}/instances/{i}/bulkdata/{path}`, where
`path` is the tag, or "sequence tag/item number/.../tag" inside sequences, items counted from 1.
"""

import io
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import InvalidOperation
from typing import Any

from pydicom import config as pydicom_config
from pydicom.dataelem import DataElement, empty_value_for_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID
from pydicom.valuerep import PersonName

from pacs.domain import values
from pacs.domain.admission import Admitted, Bytes, admit
from pacs.domain.charsets import DEFAULT, Decoder, decoder
from pacs.domain.structure import IMPLICIT_LITTLE, LIMITS, Element, Encoding, Inadmissible, Item, Walk
from pacs.domain.syntaxes import EXPLICIT_LE
from pacs.domain.values import Context, Json

BASE = "%BASE%"
UTF8 = "ISO_IR 192"

CHARACTER_SET = 0x00080005
SOP_INSTANCE_UID, STUDY_UID, SERIES_UID = 0x00080018, 0x0020000D, 0x0020000E
PIXEL_REPRESENTATION, BITS_ALLOCATED, WAVEFORM_BITS = 0x00280103, 0x00280100, 0x54001004

NOT_SHOWN = frozenset({0x0000, 0x0002})  # command and file meta information
ALWAYS_BULK = frozenset({0x7FE00010, 0x7FE00008, 0x7FE00009, 0x00420011, 0x54001010, 0x56000020})
NUMBERS_INLINE = 64 << 10  # bytes of binary numbers that still stand inline: geometry, tables
TEXT_INLINE = 1 << 20


def is_always_bulk(tag: int) -> bool:
    """Whether the element is bulk data whatever its size; overlay planes repeat in groups 6000 to 60FF."""
    return tag in ALWAYS_BULK or (tag & 0xFF00FFFF == 0x60003000)


@dataclass(slots=True)
class Reader:
    """Reads the elements of one admitted object: their VR, values and DICOM JSON.

    `data` is what the places refer to, `encoding` how its headers are written. `base` begins BulkDataURIs,
    `bulk_threshold` is the largest inline binary value in bytes. One reader serves one object and one thread.
    """

    data: memoryview
    encoding: Encoding
    base: str = ""
    bulk_threshold: int = 1024
    depth: int = 0  # of the set that is being shown

    def raw(self, element: Element, most: int = -1) -> bytes:
        """The value's bytes, at most `most` of them."""
        end = element.value_offset + (element.length if most < 0 else min(element.length, most))
        return bytes(self.data[element.value_offset : end])

    def vr(self, element: Element, item: Item, context: Context) -> str:
        """The VR of an element: written, or that of the dictionary where none or UN is written (PS3.5 6.2.2)."""
        if element.vr and element.vr != "UN":
            return element.vr
        tag = element.tag
        if tag >> 16 & 1:
            creator = item.elements.get(tag & 0xFFFF0000 | (tag & 0xFF00) >> 8)
            named = DEFAULT(self.raw(creator, 64)).strip(" ") if creator is not None else ""
            return values.private_vr(tag, named)
        return values.resolve(values.public_vr(tag), element, context)

    def little(self, element: Element, item: Item) -> bool:
        """The byte order of the value: UN is what an implicit VR little endian peer once sent."""
        return item.little or element.vr == "UN"

    def items(self, element: Element) -> tuple[Item, ...] | None:
        """The items of a sequence; one inside UN of defined length is walked now. None when it is no sequence."""
        if element.items is not None:
            return element.items
        if self.depth > LIMITS.depth:  # hidden in one another, where the walk of admission does not look
            return None
        start, end = element.value_offset, element.value_offset + element.length
        for encoding in (IMPLICIT_LITTLE,) if element.vr == "UN" else (self.encoding, IMPLICIT_LITTLE):
            try:
                return Walk(self.data, nested=True).sequence(start, end, encoding)
            except Inadmissible:
                continue
        return None

    def context(self, item: Item, outer: Context) -> Context:
        """The context of the elements of this set."""
        found = item.elements
        if PIXEL_REPRESENTATION not in found and WAVEFORM_BITS not in found:
            return outer
        return Context(
            self.number(found.get(PIXEL_REPRESENTATION), item.little, int(outer.signed)) == 1,
            self.number(found.get(BITS_ALLOCATED), item.little, outer.bits_allocated),
            self.number(found.get(WAVEFORM_BITS), item.little, outer.waveform_bits),
        )

    def number(self, element: Element | None, little: bool, default: int) -> int:
        """The first unsigned short of an element."""
        if element is None or element.length < 2:
            return default
        return int.from_bytes(self.raw(element, 2), "little" if little else "big")

    def decoder(self, item: Item, outer: Decoder) -> Decoder:
        """How the texts of this set are decoded; an item may have a character set of its own."""
        element = item.elements.get(CHARACTER_SET)
        return outer if element is None else decoder(self.raw(element, 1024))

    def data_set(self, item: Item, path: str, decode: Decoder, outer: Context) -> dict[str, Json]:
        """The DICOM JSON of a data set or item, ascending, without group lengths and file meta information."""
        decode, context = self.decoder(item, decode), self.context(item, outer)
        shown: dict[str, Json] = {}
        self.depth += 1
        for tag in sorted(item.elements):
            if tag & 0xFFFF and tag >> 16 not in NOT_SHOWN:
                shown[f"{tag:08X}"] = self.element(item.elements[tag], item, path, decode, context)
        self.depth -= 1
        return shown

    def element(self, element: Element, item: Item, path: str, decode: Decoder, context: Context) -> dict[str, Json]:
        """One element: `vr`, then at most one of Value, BulkDataURI and InlineBinary."""
        vr = self.vr(element, item, context)
        if vr == "SQ":
            return self._sequence(element, path, decode, context)
        if element.length == 0:
            return {"vr": vr}
        if element.tag == CHARACTER_SET:
            return {"vr": "CS", "Value": [UTF8]}
        if self.is_bulk(element, vr):
            return {"vr": vr, "BulkDataURI": f"{self.base}{path}{element.tag:08X}"}
        raw, little = self.raw(element), self.little(element, item)
        if vr not in values.VALUED:
            return {"vr": vr, "InlineBinary": values.inline(raw, vr, little)}
        found = values.read(raw, vr, little, decode)
        return {"vr": vr, "Value": found} if found and found != [None] else {"vr": vr}

    def is_bulk(self, element: Element, vr: str) -> bool:
        """Whether the value is named by a URI rather than shown (PS3.18 10.4.3.3.2)."""
        if element.fragments is not None or is_always_bulk(element.tag):
            return True
        if vr not in values.VALUED:
            return element.length > self.bulk_threshold
        return element.length > (NUMBERS_INLINE if vr in values.WIDTHS else TEXT_INLINE)

    def _sequence(self, element: Element, path: str, decode: Decoder, context: Context) -> dict[str, Json]:
        items = self.items(element)
        if items is None:
            if element.length > self.bulk_threshold:
                return {"vr": "UN", "BulkDataURI": f"{self.base}{path}{element.tag:08X}"}
            return {"vr": "UN", "InlineBinary": values.inline(self.raw(element), "UN", True)}
        if not items:
            return {"vr": "SQ"}
        inner = f"{path}{element.tag:08X}/"
        return {
            "vr": "SQ",
            "Value": [
                self.data_set(item, f"{inner}{number}/", decode, context) for number, item in enumerate(items, 1)
            ],
        }


def uid_of(reader: Reader, item: Item, tag: int) -> str:
    """The UID at the top level of an object, or the empty string."""
    element = item.elements.get(tag)
    return "" if element is None else DEFAULT(reader.raw(element, 128)).strip(" ")


def to_json(
    source: Bytes | Dataset, *, bulk_threshold: int = 1024, admitted: Admitted | None = None
) -> dict[str, Json]:
    """The DICOM JSON object of a stored file (bytes or mmap) or of a pydicom data set.

    `admitted`: the file's admission with `nested=True`, when it was made already. Raises Inadmissible.
    """
    if isinstance(source, Dataset):
        if len(source) == 0:
            return {}
        source = _bytes_of(source)
    if admitted is None:
        admitted = admit(source, nested=True)
    with memoryview(source if admitted.data is None else admitted.data) as view, view.cast("B") as data:
        reader = Reader(data, admitted.encoding, bulk_threshold=bulk_threshold)
        top = Item(admitted.elements, admitted.encoding.little)
        names = [uid_of(reader, top, tag) for tag in (STUDY_UID, SERIES_UID, SOP_INSTANCE_UID)]
        reader.base = "{}/studies/{}/series/{}/instances/{}/bulkdata/".format(BASE, *names)
        return reader.data_set(top, "", DEFAULT, Context())


def _bytes_of(dataset: Dataset) -> bytes:
    """A pydicom data set as a Part 10 file, so that one encoder serves all."""
    copy = Dataset({element.tag: element for element in dataset if element.tag.group > 2})
    copy.file_meta = FileMetaDataset()
    copy.file_meta.TransferSyntaxUID = UID(EXPLICIT_LE)
    out = io.BytesIO()
    copy.save_as(out, enforce_file_format=False, implicit_vr=False, little_endian=True)
    return out.getvalue()


def to_dataset(row: Mapping[str, Mapping[str, Any]]) -> Dataset:
    """The pydicom data set of a DICOM JSON object without bulk data (a query answer), texts in UTF-8.

    Bulk data is left out. Values are taken as they are: pydicom's validation is for writers, these are real objects;
    where it cannot even hold one (a number that is none, a sequence in UN), the element holds its text, to be written.
    """
    dataset = Dataset()
    for key, entry in sorted(row.items()):
        tag, vr = int(key, 16), str(entry["vr"])
        if "BulkDataURI" in entry:
            continue
        try:
            dataset[tag] = _data_element(tag, vr, entry)
        except (ValueError, TypeError, OverflowError, InvalidOperation):
            dataset[tag] = _unconverted(tag, vr, [str("" if value is None else value) for value in entry["Value"]])
    return dataset


def _data_element(tag: int, vr: str, entry: Mapping[str, Any]) -> DataElement:
    if vr == "SQ":
        items = Sequence([to_dataset(item or {}) for item in entry.get("Value", ())])
        return DataElement(tag, vr, items)
    if "InlineBinary" in entry and vr == "UN":
        return _unconverted(tag, vr, b64decode(entry["InlineBinary"]))
    if "InlineBinary" in entry:
        return DataElement(tag, vr, b64decode(entry["InlineBinary"]), validation_mode=pydicom_config.IGNORE)
    found = [_plain_value(vr, value) for value in entry.get("Value", ())]
    if not found:
        return DataElement(tag, vr, empty_value_for_VR(vr))
    return DataElement(tag, vr, found[0] if len(found) == 1 else found, validation_mode=pydicom_config.IGNORE)


def _unconverted(tag: int, vr: str, value: object) -> DataElement:
    """An element that holds its value as it is: pydicom's own constructor would convert it, and fail."""
    element = DataElement(tag, "OB", b"")
    element.VR, element._value = vr, value
    return element


def _plain_value(vr: str, value: Any) -> Any:
    """One value of the JSON form as pydicom takes it."""
    if vr == "PN":
        groups = value or {}
        joined = "=".join(groups.get(key, "") for key in ("Alphabetic", "Ideographic", "Phonetic"))
        return PersonName(joined.rstrip("="))
    if value is None:
        return ""
    if vr == "AT":
        return int(value, 16)
    if vr in {"FL", "FD"}:
        return float(value)
    if vr in {"SV", "UV"}:
        return int(value)
    return str(value) if vr in {"IS", "DS"} else value
