"""The Native DICOM Model (PS3.19 A.1)."""

from typing import Any
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from dicomweb.nativexml import NAMESPACE, native

NS = {"n": NAMESPACE}


def read(row: dict[str, Any]) -> ElementTree.Element:
    return ElementTree.fromstring(native(row))


def test_values_are_numbered_and_named() -> None:
    found = read({"00080008": {"vr": "CS", "Value": ["ORIGINAL", None, "AXIAL"]}})
    attribute = found[0]
    assert attribute.attrib == {"tag": "00080008", "vr": "CS", "keyword": "ImageType"}
    assert [(value.attrib["number"], value.text) for value in attribute] == [
        ("1", "ORIGINAL"),
        ("2", None),
        ("3", "AXIAL"),
    ]


def test_person_names_have_groups_and_components() -> None:
    value = {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎"}
    found = read({"00100010": {"vr": "PN", "Value": [value]}})
    assert found.findtext(".//n:Alphabetic/n:FamilyName", namespaces=NS) == "Yamada"
    assert found.findtext(".//n:Ideographic/n:GivenName", namespaces=NS) == "太郎"
    assert found.find(".//n:Phonetic", NS) is None


def test_sequences_nest() -> None:
    row = {"00081115": {"vr": "SQ", "Value": [{"0020000E": {"vr": "UI", "Value": ["1.2"]}}, {}]}}
    items = read(row).findall("n:DicomAttribute/n:Item", NS)
    assert [item.attrib["number"] for item in items] == ["1", "2"]
    assert items[0].findtext("n:DicomAttribute/n:Value", namespaces=NS) == "1.2"


def test_bulk_and_inline_binary() -> None:
    row = {
        "00091010": {"vr": "OB", "InlineBinary": "AAE="},
        "7FE00010": {"vr": "OW", "BulkDataURI": "http://h/a?b=1&c=2"},
    }
    found = read(row)
    assert found.findtext(".//n:InlineBinary", namespaces=NS) == "AAE="
    bulk = found.find(".//n:BulkData", NS)
    assert bulk is not None
    assert bulk.attrib == {"uri": "http://h/a?b=1&c=2"}


def test_private_attributes_name_their_creator() -> None:
    row = {"00090010": {"vr": "LO", "Value": ["ACME"]}, "00091001": {"vr": "DS", "Value": [1.5]}}
    assert read(row)[1].attrib["privateCreator"] == "ACME"
    assert "privateCreator" not in read(row)[0].attrib


@given(st.text())
def test_any_text_makes_a_readable_document(text: str) -> None:
    found = read({"00104000": {"vr": "LT", "Value": [text]}, "00100010": {"vr": "PN", "Value": [{"Alphabetic": text}]}})
    if text.isprintable():
        assert (found[0][0].text or "") == text
