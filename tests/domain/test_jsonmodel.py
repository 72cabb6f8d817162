import io
import json
import struct
from base64 import b64decode
from pathlib import Path
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pacs.domain.admission import Inadmissible
from pacs.domain.jsonmodel import is_always_bulk, to_dataset, to_json
from tests.domain.makers import SYNTAXES, ct, data_sets, part10, real_files

BEYOND_PYDICOM = {
    "chrGB2312.dcm",
    "badVR.dcm",
    "no_preamble_dicm_in_data",
}  # pydicom reads these wrongly or not at all


def strict(value: object) -> Any:
    """What a reader of strict JSON gets."""
    return json.loads(json.dumps(value, allow_nan=False))


def plain(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry without what two writers may do differently: padding, empty values, numbers as text."""
    vr = entry["vr"]
    values = [plain_value(vr, value) for value in entry.get("Value", [])]
    return {"vr": vr, "Value": [] if values == [None] else values, "InlineBinary": entry.get("InlineBinary", "")}


def plain_value(vr: str, value: object) -> object:
    if isinstance(value, dict):
        return {key: text.strip(" ^") for key, text in value.items() if text.strip(" ^")} or None
    if isinstance(value, str):
        text = value.strip(" \0")
        value = float(text) if text and vr in {"IS", "DS", "FD", "FL", "SV", "UV"} else text or None
    number = float(value) if isinstance(value, (int, float)) else value
    return None if number != number else number


def same(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    keys = {key for key in theirs if not key.endswith("0000") and key[:4] != "0002"}
    assert set(mine) == keys
    for key in keys - {"00080005"}:
        if mine[key]["vr"] == theirs[key]["vr"] == "SQ":
            items = theirs[key].get("Value", [])
            assert len(mine[key].get("Value", [])) == len(items)
            for ours, other in zip(mine[key].get("Value", []), items, strict=True):
                same(ours, other or {})
        elif "BulkDataURI" in mine[key] or is_always_bulk(int(key, 16)):
            assert mine[key]["vr"] == theirs[key]["vr"]
        else:
            assert plain(mine[key]) == plain(theirs[key]), key


@pytest.mark.parametrize("path", real_files(), ids=lambda path: path.name)
def test_real_objects_have_the_json_that_pydicom_makes(path: Path) -> None:
    try:
        mine = to_json(path.read_bytes(), bulk_threshold=1 << 40)
    except Inadmissible:
        pytest.skip("refused by admission")
    strict(mine)
    if path.name not in BEYOND_PYDICOM:
        same(strict(mine), json.loads(json.dumps(pydicom.dcmread(path, force=True).to_json_dict())))


@pytest.mark.parametrize("syntax", SYNTAXES)
@given(ds=data_sets)
@settings(max_examples=20, deadline=None)
def test_written_data_sets_have_the_json_that_pydicom_makes(syntax: str, ds: Dataset) -> None:
    ds.SpecificCharacterSet = "ISO_IR 192"
    if syntax == SYNTAXES[2]:  # pydicom leaves words in big endian: see the test below for ours
        ds = Dataset({tag: element for tag, element in ds.items() if element.VR != "OV" and element.VR != "SQ"})
    raw = part10(ds, syntax)
    theirs = pydicom.dcmread(io.BytesIO(raw)).to_json_dict()
    same(strict(to_json(raw, bulk_threshold=1 << 40)), json.loads(json.dumps(theirs)))


@given(ds=data_sets)
@settings(max_examples=40, deadline=None)
def test_json_to_data_set_and_back_is_the_same_json(ds: Dataset) -> None:
    ds.SpecificCharacterSet = "ISO_IR 192"
    once = strict(to_json(part10(ds)))
    assert strict(to_json(to_dataset(once))) == once


def entry(ds: Dataset, key: str, **more: int) -> Any:
    return strict(to_json(part10(ds), **more))[key]


def test_keys_ascend_and_vr_comes_first() -> None:
    found = to_json(part10(ct()))
    assert list(found) == sorted(found)
    assert all(next(iter(value)) == "vr" for value in found.values())
    assert not [key for key in found if key.startswith("0002") or key.endswith("0000")]


def test_the_character_set_shown_is_utf8_whatever_was_stored() -> None:
    ds = ct(SpecificCharacterSet="ISO_IR 100", PatientName="Jérôme")
    assert entry(ds, "00080005") == {"vr": "CS", "Value": ["ISO_IR 192"]}
    assert entry(ds, "00100010")["Value"] == [{"Alphabetic": "Jérôme"}]


def test_an_empty_value_among_several_is_null_and_an_empty_element_has_no_value() -> None:
    assert entry(ct(ImageType=["ORIGINAL", "", "AXIAL"]), "00080008")["Value"] == ["ORIGINAL", None, "AXIAL"]
    assert entry(ct(PatientSex=""), "00100040") == {"vr": "CS"}
    assert entry(ct(RequestAttributesSequence=Sequence([])), "00400275") == {"vr": "SQ"}
    assert entry(ct(RequestAttributesSequence=Sequence([Dataset()])), "00400275")["Value"] == [{}]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("0.703125", 0.703125), ("1", 1), ("+5", 5), ("1.10", 1.1), ("-.5", -0.5), ("1e2", 100.0),
     ("0.1234567890123", 0.1234567890123), ("1.00000000000001", 1.00000000000001), ("1E400", "1E400"),
     ("12345678901234567", "12345678901234567"), ("abc", "abc"), ("nan", "nan"), ("1_0", "1_0"), ("٣", "٣")],
)  # fmt: skip
def test_decimal_strings_are_numbers_when_exact_and_text_otherwise(text: str, shown: object) -> None:
    raw = part10(ct())
    value = text.encode()
    value += b" " * (len(value) % 2)
    element = struct.pack("<HH2sH", 0x0018, 0x0050, b"DS", len(value)) + value
    where = raw.index(struct.pack("<HH", 0x0020, 0x000D))
    assert strict(to_json(raw[:where] + element + raw[where:]))["00180050"]["Value"] == [shown]


def test_numbers_without_a_finite_value_are_words() -> None:
    ds = ct()
    ds.SelectorFDValue = [float("nan"), float("inf"), float("-inf"), 1.5]
    assert entry(ds, "00720074")["Value"] == ["NaN", "Infinity", "-Infinity", 1.5]


def test_integers_beyond_two_to_the_53_are_text() -> None:
    ds = ct()
    ds.SelectorSVValue, ds.SelectorUVValue = -(2**60), 2**53
    assert entry(ds, "00720082")["Value"] == [str(-(2**60))]
    assert entry(ds, "00720083")["Value"] == [2**53]


def test_tags_are_eight_digits_and_long_texts_are_one_value() -> None:
    ds = ct(FrameIncrementPointer=[0x00181063, 0x00181065], PatientComments="a\\b")
    assert entry(ds, "00280009")["Value"] == ["00181063", "00181065"]
    assert entry(ds, "00104000")["Value"] == ["a\\b"]


def test_pixel_data_is_named_not_shown() -> None:
    ds = ct()
    uri = entry(ds, "7FE00010")["BulkDataURI"]
    assert uri == (
        f"%BASE%/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}"
        f"/instances/{ds.SOPInstanceUID}/bulkdata/7FE00010"
    )


def test_binary_values_are_inline_up_to_the_threshold_and_named_beyond_also_in_items() -> None:
    item = Dataset()
    item.add_new(0x00282000, "OB", bytes(range(10)))
    ds = ct(OpticalPathSequence=Sequence([Dataset(), item]))
    shown = entry(ds, "00480105", bulk_threshold=10)["Value"][1]["00282000"]
    assert b64decode(shown["InlineBinary"]) == bytes(range(10))
    named = entry(ds, "00480105", bulk_threshold=9)["Value"][1]["00282000"]
    assert named["BulkDataURI"].endswith("/bulkdata/00480105/2/00282000")


def test_geometry_stays_inline_whatever_the_threshold() -> None:
    ds = ct(PixelSpacing=[0.5, 0.5])
    ds.DataPointRows = 3
    assert entry(ds, "00280030", bulk_threshold=0)["Value"] == [0.5, 0.5]


def test_binary_values_of_big_endian_objects_are_shown_little_endian() -> None:
    ds = ct()
    ds.add_new(0x00281201, "OW", struct.pack("<4H", 1, 2, 3, 4))
    ds.PixelData = b""
    big = Dataset(ds)
    big[0x00281201].value = struct.pack(">4H", 1, 2, 3, 4)
    found = to_json(part10(big, SYNTAXES[2]))["00281201"]
    assert b64decode(str(found["InlineBinary"])) == struct.pack("<4H", 1, 2, 3, 4)


def test_unknown_elements_of_known_tags_have_the_dictionarys_vr() -> None:
    raw = part10(ct(PatientSex="F")).replace(b"\x10\x00\x40\x00CS\x02\x00F ", b"\x10\x00\x40\x00UN\0\0\x02\0\0\0F ")
    assert to_json(raw)["00100040"] == {"vr": "CS", "Value": ["F"]}


def test_a_sequence_hidden_in_unknown_is_shown_and_nonsense_stays_binary() -> None:
    leaf = struct.pack("<HHI", 0x0008, 0x0100, 2) + b"AB"
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(leaf)) + leaf
    raw = part10(ct())
    where = raw.index(struct.pack("<HH", 0x0010, 0x0010))
    for value, shown in (
        (item, {"vr": "SQ", "Value": [{"00080100": {"vr": "SH", "Value": ["AB"]}}]}),
        (b"no", {"vr": "UN", "InlineBinary": "bm8="}),
    ):
        element = struct.pack("<HH2sHI", 0x0008, 0x1032, b"UN", 0, len(value)) + value
        assert to_json(raw[:where] + element + raw[where:])["00081032"] == shown


def test_a_data_set_of_an_answer_has_utf8_and_its_values() -> None:
    row = {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00080020": {"vr": "DA", "Value": ["20240101"]},
        "00080061": {"vr": "CS", "Value": ["CT", "SR"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "A^B", "Phonetic": "ア"}]},
        "00201208": {"vr": "IS", "Value": [12]},
        "00400275": {"vr": "SQ", "Value": [{"00400009": {"vr": "SH", "Value": ["S"]}}]},
    }
    ds = to_dataset(row)
    assert str(ds.PatientName) == "A^B==ア"
    assert list(ds.ModalitiesInStudy) == ["CT", "SR"]
    assert ds.NumberOfStudyRelatedInstances == 12
    assert ds.RequestAttributesSequence[0].ScheduledProcedureStepID == "S"
    assert strict(to_json(part10(ds))) == row


def test_values_that_pydicom_cannot_hold_are_written_all_the_same() -> None:
    row = {
        "00080018": {"vr": "UI", "Value": ["1.2.3"]},
        "00081032": {"vr": "UN", "InlineBinary": "bm8="},
        "00180050": {"vr": "DS", "Value": [1.5, "wide"]},
        "00200013": {"vr": "IS", "Value": ["1A"]},
    }
    assert strict(to_json(part10(to_dataset(row)))) == row


def test_private_sequences_hidden_in_one_another_do_not_exhaust_the_stack() -> None:
    def element(tag: int, value: bytes) -> bytes:
        return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value

    creator = element(0x20010010, b"Philips Imaging DD 001")
    inside = creator
    for _level in range(1000):
        inside = creator + element(0x2001105F, struct.pack("<HHI", 0xFFFE, 0xE000, len(inside)) + inside)
    uid = element(0x00080018, b"1.2.3\0")
    shown = to_json(uid + inside)
    depth = 0
    while "Value" in shown.get("2001105F", {}):
        shown, depth = shown["2001105F"]["Value"][0], depth + 1
    assert 10 < depth <= 65
    assert shown["2001105F"]["vr"] == "UN"


def test_pydicom_data_sets_have_json_too() -> None:
    ds = ct(PatientName="Müller^Jörg", SpecificCharacterSet="ISO_IR 100")
    assert to_json(ds) == to_json(part10(ds))
    assert to_json(Dataset()) == {}
