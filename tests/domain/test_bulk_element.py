import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pacs.domain.admission import admit
from pacs.domain.bulk import BulkElement, NoSuchElement, element_at
from pacs.domain.jsonmodel import to_json
from tests.domain.makers import SYNTAXES, ct, part10


def read(raw: bytes, path: str, **part: int) -> tuple[BulkElement, bytes]:
    admitted = admit(raw, nested=True)
    found = element_at(admitted, raw, path)
    source = raw if admitted.data is None else admitted.data
    return found, b"".join(found.parts(lambda offset, length: bytes(source[offset : offset + length]), **part))


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_uri_of_the_metadata_leads_to_its_value(syntax: str) -> None:
    item = Dataset()
    item.add_new(0x00282000, "OB", bytes(range(200)))
    ds = ct(OpticalPathSequence=Sequence([Dataset(), item]))
    words = struct.pack("<12H", *range(12))
    ds.add_new("PixelData", "OW", struct.pack(">12H", *range(12)) if syntax == SYNTAXES[2] else words)
    ds.Rows, ds.Columns = 3, 4
    raw = part10(ds, syntax)
    shown = to_json(raw, bulk_threshold=16)
    paths = [
        shown["7FE00010"]["BulkDataURI"].split("/bulkdata/")[1],
        shown["00480105"]["Value"][1]["00282000"]["BulkDataURI"].split("/bulkdata/")[1],
    ]
    assert read(raw, paths[0])[1] == words
    assert read(raw, paths[1])[1] == bytes(range(200))


@given(start=st.integers(0, 30), stop=st.integers(0, 40))
def test_a_part_of_a_value_is_what_slicing_gives(start: int, stop: int) -> None:
    ds = ct(3, 4)
    words = struct.pack("<12H", *range(12))
    ds.add_new("PixelData", "OW", struct.pack(">12H", *range(12)))
    found, part = read(part10(ds, SYNTAXES[2]), "7FE00010", start=start, stop=stop)
    assert found.size == 24
    assert part == words[start:stop]


def test_a_document_has_its_type_and_its_true_length() -> None:
    ds = ct(MIMETypeOfEncapsulatedDocument="application/pdf", EncapsulatedDocumentLength=5)
    ds.EncapsulatedDocument = b"%PDF-\0"
    found, value = read(part10(ds), "00420011")
    assert (found.media_type, value) == ("application/pdf", b"%PDF-")


def test_a_peer_cannot_make_a_browser_run_its_document() -> None:
    ds = ct(MIMETypeOfEncapsulatedDocument="text/html")
    ds.EncapsulatedDocument = b"<script>"
    assert read(part10(ds), "00420011")[0].media_type == "application/octet-stream"


@pytest.mark.parametrize(
    "path",
    ["", "/", "zz", "7FE00011", "00400275", "00400275/1", "00400275/0/00400009", "00400275/2/00400009",
     "00400275/x/00400009", "00080018/1/00080018", "../../etc/passwd", "00400275/99999999999999999999/00400009"],
)  # fmt: skip
def test_paths_that_lead_nowhere_are_refused(path: str) -> None:
    item = Dataset()
    item.ScheduledProcedureStepID = "S"
    with pytest.raises(NoSuchElement):
        read(part10(ct(RequestAttributesSequence=Sequence([item]))), path)


@given(st.text(max_size=40))
def test_no_path_raises_anything_else(path: str) -> None:
    raw = part10(ct())
    admitted = admit(raw, nested=True)
    try:
        assert element_at(admitted, raw, path).size >= 0
    except NoSuchElement:
        return
