"""Answers read back by pydicom, the second truth."""

from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from pacs.dimse.answer import AnswerWriter, Wanted
from pacs.domain.syntaxes import DEFLATED_LE, EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, SYNTAXES

PLAIN = (IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE)
ROW: dict[str, dict[str, Any]] = {
    "00080020": {"vr": "DA", "Value": ["20240229"]},
    "00080061": {"vr": "CS", "Value": ["CT", "SR"]},
    "00080062": {"vr": "UI", "Value": ["1.2.3", "1.2.34"]},
    "00081032": {"vr": "SQ", "Value": [{"00080100": {"vr": "SH", "Value": ["X"]}, "00080104": {"vr": "LO"}}]},
    "00081110": {"vr": "SQ"},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎"}]},
    "00100020": {"vr": "LO"},
    "00180050": {"vr": "DS", "Value": [0.1, 1.23456789012345678]},
    "00201208": {"vr": "IS", "Value": [12]},
    "00280010": {"vr": "US", "Value": [512]},
    "00280009": {"vr": "AT", "Value": ["00181063"]},
    "0040A161": {"vr": "FD", "Value": [0.5]},
    "00420011": {"vr": "OB", "InlineBinary": "AQID"},
}


def encode(row: dict[str, dict[str, Any]], syntax: str) -> bytes:
    """The answer to somebody who asks for all that the row holds."""
    return AnswerWriter(syntax, [(tag, element["vr"], ()) for tag, element in row.items()], {}).write(row)


def read(data: bytes, syntax: str) -> Dataset:
    facts = SYNTAXES[syntax]
    return read_dataset(BytesIO(data), not facts.explicit_vr, facts.little_endian)


@pytest.mark.parametrize("syntax", PLAIN)
def test_a_row_comes_back_in_another_library(syntax: str) -> None:
    ds = read(encode(ROW, syntax), syntax)
    assert ds.SpecificCharacterSet == "ISO_IR 192"
    assert [element.tag for element in ds] == sorted(element.tag for element in ds)
    assert str(ds.PatientName) == "Yamada^Tarou=山田^太郎"
    assert (ds.StudyDate, list(ds.ModalitiesInStudy), list(ds.SOPClassesInStudy)) == (
        "20240229", ["CT", "SR"], ["1.2.3", "1.2.34"],
    )  # fmt: skip
    assert (ds.PatientID, ds.Rows, ds[0x00201208].value) == ("", 512, 12)
    assert [float(value) for value in ds.SliceThickness] == [0.1, 1.23456789]
    assert ds.FrameIncrementPointer == 0x00181063
    assert ds[0x0040A161].value == 0.5
    assert ds[0x00420011].value == b"\1\2\3\0"
    assert ds.ProcedureCodeSequence[0].CodeValue == "X"
    assert ds.ProcedureCodeSequence[0].CodeMeaning == ""
    assert len(ds[0x00081110].value) == 0


def test_a_deflated_row_inflates_to_the_same() -> None:
    import zlib

    assert zlib.decompress(encode(ROW, DEFLATED_LE), wbits=-15) == encode(ROW, EXPLICIT_LE)


def test_ascii_needs_no_character_set() -> None:
    assert "SpecificCharacterSet" not in read(encode({"00100020": ROW["00080061"]}, EXPLICIT_LE), EXPLICIT_LE)


@given(
    st.lists(st.text(st.characters(blacklist_categories=["Cc", "Cs", "Zs"], blacklist_characters="\\"), max_size=20))
)
def test_any_text_comes_back(values: list[str]) -> None:
    data = encode({"00081030": {"vr": "LO", "Value": values}}, EXPLICIT_LE)
    found = read(data, EXPLICIT_LE).StudyDescription
    assert ([found] if isinstance(found, str) else list(found or [])) == (values or [""])


def test_a_value_too_long_for_its_vr_is_still_readable() -> None:
    long = {"00104000": {"vr": "LT", "Value": ["x" * 70_000]}, "00200010": {"vr": "SH", "Value": ["behind"]}}
    assert read(encode(long, EXPLICIT_LE), EXPLICIT_LE).StudyID == "behind"


def test_what_is_not_held_is_there_and_empty_and_what_is_not_wanted_is_not() -> None:
    inner: tuple[Wanted, ...] = (("00080100", "SH", ()), ("00080102", "SH", ()))
    wanted: list[Wanted] = [("00100040", "CS", ()), ("00081032", "SQ", inner), ("00081110", "SQ", inner)]
    ds = read(AnswerWriter(EXPLICIT_LE, wanted, {}).write(ROW), EXPLICIT_LE)
    assert [element.tag for element in ds] == [0x00081032, 0x00081110, 0x00100040]
    assert ds.PatientSex == ""
    assert [(element.tag, element.value) for element in ds.ProcedureCodeSequence[0]] == [
        (0x00080100, "X"),
        (0x00080102, ""),
    ]


def test_what_all_answers_hold_wins_over_the_row() -> None:
    constant = {"00080054": {"vr": "AE", "Value": ["US"]}, "00100020": {"vr": "LO", "Value": ["ours"]}}
    writer = AnswerWriter(EXPLICIT_LE, [("00100020", "LO", ()), ("00100040", "CS", ())], constant)
    ds = read(writer.write({"00100020": {"vr": "LO", "Value": ["theirs"]}}), EXPLICIT_LE)
    assert (ds.RetrieveAETitle, ds.PatientID, ds.PatientSex) == ("US", "ours", "")


def test_one_answer_beyond_ascii_does_not_mark_the_next() -> None:
    writer = AnswerWriter(EXPLICIT_LE, [("00081030", "LO", ())], {})
    marked = [
        "SpecificCharacterSet" in read(writer.write({"00081030": {"vr": "LO", "Value": [text]}}), EXPLICIT_LE)
        for text in ("ü", "u", "ü")
    ]
    assert marked == [True, False, True]
