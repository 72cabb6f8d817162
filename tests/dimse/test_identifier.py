from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pynetdicom.dsutils import encode

from pacs.dimse.identifier import Identifier, Mismatch, parse
from pacs.domain.levels import Level
from pacs.domain.syntaxes import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, SYNTAXES
from pacs.errors import FilmroomError, Reason, Refused


def encoded(ds: Dataset, syntax: str = EXPLICIT_LE) -> bytes:
    """The data set as another library writes it."""
    data = encode(ds, not SYNTAXES[syntax].explicit_vr, SYNTAXES[syntax].little_endian)
    assert data is not None
    return data


def keys(level: str = "STUDY", **values: Any) -> Dataset:
    ds = Dataset()
    ds.QueryRetrieveLevel = level
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def asked(ds: Dataset, root: Level = Level.STUDY, syntax: str = EXPLICIT_LE) -> Identifier:
    return parse(encoded(ds, syntax), syntax, root)


def conditions(found: Identifier) -> dict[tuple[int, ...], tuple[str, ...]]:
    return {condition.path: condition.values for condition in found.query.conditions}


@pytest.mark.parametrize("syntax", [IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE])
def test_keys_become_conditions_in_every_syntax(syntax: str) -> None:
    ds = keys(PatientName="DOE*", StudyDate="20200101-", ModalitiesInStudy=["CT", "MR"], PatientSex="")
    found = asked(ds, syntax=syntax)
    assert found.query.level is Level.STUDY
    assert conditions(found) == {
        (0x00100010,): ("DOE*",),
        (0x00080020,): ("20200101-",),
        (0x00080061,): ("CT", "MR"),
        (0x00100040,): (),
    }
    assert not found.unsupported


@pytest.mark.parametrize(
    ("charset", "name"),
    [("ISO_IR 100", "Müller*"), ("ISO_IR 192", "山田^太郎"), (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎")],
)
def test_the_character_set_is_honoured(charset: Any, name: str) -> None:
    found = asked(keys(SpecificCharacterSet=charset, PatientName=name))
    assert conditions(found) == {(0x00100010,): (name,)}


def test_a_sequence_key_matches_by_its_item() -> None:
    item = Dataset()
    item.CodeValue = "X*"
    item.CodeMeaning = ""
    found = asked(keys(ProcedureCodeSequence=Sequence([item])))
    assert conditions(found) == {(0x00081032, 0x00080100): ("X*",), (0x00081032, 0x00080104): ()}
    assert found.wanted == (("00081032", "SQ", (("00080100", "SH", ()), ("00080104", "LO", ()))),)


def test_an_empty_sequence_key_is_universal() -> None:
    assert conditions(asked(keys(ProcedureCodeSequence=Sequence([])))) == {(0x00081032,): ()}


def test_a_key_that_we_do_not_know_comes_back_empty_above_the_instance() -> None:
    found = asked(keys(PatientReligiousPreference="y", StudyID=""))
    assert found.unsupported
    assert conditions(found) == {(0x00200010,): ()}
    assert {tag for tag, _, _ in found.wanted} == {"001021F0", "00200010"}


def test_a_key_of_a_lower_level_is_matched_and_comes_back_empty() -> None:
    found = asked(keys(SeriesDescription="x"))
    assert found.unsupported
    assert conditions(found) == {(0x0008103E,): ("x",)}


def test_an_instance_is_asked_for_what_the_index_does_not_know() -> None:
    found = asked(keys("IMAGE", StudyInstanceUID="1.2", SeriesInstanceUID="1.3", KVP=None))
    assert found.query.include == {(0x00180060,)}
    assert not found.unsupported
    assert asked(keys("IMAGE", StudyInstanceUID="1.2", SeriesInstanceUID="1.3", KVP="120")).unsupported


UPPER = {"PatientID": "P", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.3"}


@pytest.mark.parametrize(
    ("root", "level", "needed"),
    [
        (Level.PATIENT, "PATIENT", []),
        (Level.PATIENT, "STUDY", ["PatientID"]),
        (Level.PATIENT, "SERIES", ["PatientID", "StudyInstanceUID"]),
        (Level.PATIENT, "IMAGE", ["PatientID", "StudyInstanceUID", "SeriesInstanceUID"]),
        (Level.STUDY, "STUDY", []),
        (Level.STUDY, "SERIES", ["StudyInstanceUID"]),
        (Level.STUDY, "IMAGE", ["StudyInstanceUID", "SeriesInstanceUID"]),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value")
def test_each_upper_level_must_be_named_by_one_value(root: Level, level: str, needed: list[str]) -> None:
    full = {keyword: UPPER[keyword] for keyword in needed}
    asked(keys(level, **full), root)
    for keyword in needed:
        for wrong in ("", ["1.2", "1.3"], "1*"):
            if keyword == "PatientID" and wrong == ["1.2", "1.3"]:
                continue  # LO with a backslash: two values of an attribute that has one
            with pytest.raises(Mismatch):
                asked(keys(level, **{**full, keyword: wrong}), root)
        without = {key: value for key, value in full.items() if key != keyword}
        with pytest.raises(Mismatch) as caught:
            asked(keys(level, **without), root)
        assert caught.value.offending


@pytest.mark.parametrize("level", ["", "PATIENT", "FRAME", "study"])
@pytest.mark.filterwarnings("ignore:Invalid value")
def test_a_level_that_the_model_lacks_is_refused(level: str) -> None:
    with pytest.raises(Mismatch) as caught:
        asked(keys(level))
    assert caught.value.offending == (0x00080052,)


@given(st.binary(max_size=200))
def test_garbage_is_refused_and_raises_nothing_else(data: bytes) -> None:
    for syntax in (IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE):
        with suppress(FilmroomError):
            parse(data, syntax, Level.STUDY)


@given(st.data())
def test_a_damaged_identifier_raises_nothing_else(data: st.DataObject) -> None:
    item = Dataset()
    item.CodeValue = "X"
    whole = bytearray(encoded(keys(PatientName="DOE*", ProcedureCodeSequence=Sequence([item]), Rows=3)))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with suppress(FilmroomError):
        parse(bytes(whole), EXPLICIT_LE, Level.STUDY)


def test_two_hundred_nested_items_are_unreadable() -> None:
    head = b"\x08\0\x32\x10SQ\0\0\xff\xff\xff\xff"
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    with pytest.raises(Refused) as caught:
        parse((head + item) * 200, EXPLICIT_LE, Level.STUDY)
    assert caught.value.reason is Reason.UNREADABLE
