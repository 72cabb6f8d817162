import json
from dataclasses import fields
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pacs.domain import uids
from pacs.domain.admission import Inadmissible, admit
from pacs.domain.attributes import STORED, Rule
from pacs.domain.header import COLUMN_MOST, Header, Memory, extract
from pacs.domain.jsonmodel import to_json
from pacs.domain.levels import Level
from tests.domain.makers import SYNTAXES, ct, data_sets, part10, real_files


def header(raw: bytes, **more: str) -> Header:
    return extract(admit(raw), raw, **more)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_attributes_and_columns_are_those_of_the_object(syntax: str) -> None:
    ds = ct()
    ds.SpecificCharacterSet, ds.PatientName = "ISO_IR 100", "Müller^Jörg"
    ds.StudyDescription, ds.ReferringPhysicianName = "Thorax", ""
    found = header(part10(ds, syntax))
    assert (found.sop_class_uid, found.sop_instance_uid) == (ds.SOPClassUID, ds.SOPInstanceUID)
    assert (found.study_uid, found.series_uid) == (ds.StudyInstanceUID, ds.SeriesInstanceUID)
    assert found.values["PatientName"] == ["Müller^Jörg"]
    assert found.columns[Level.PATIENT]["patient_name"] == "muller^jorg"
    assert found.columns[Level.STUDY]["study_date"] == "20240229"
    assert found.columns[Level.STUDY]["study_time"] == "120300.000000"
    assert found.columns[Level.STUDY]["referring_physician_name"] == ""
    assert found.attrs[Level.PATIENT]["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Müller^Jörg"}]}
    assert found.attrs[Level.STUDY]["00080090"] == {"vr": "PN"}
    assert found.attrs[Level.INSTANCE]["00280010"] == {"vr": "US", "Value": [4]}
    assert found.number_of_frames == 1
    assert found.original


def test_names_keep_their_component_groups() -> None:
    ds = ct()
    ds.SpecificCharacterSet, ds.PatientName = "ISO_IR 192", "Yamada^Tarou=山田^太郎=やまだ^たろう"
    found = header(part10(ds))
    assert found.values["PatientName"] == ["Yamada^Tarou=山田^太郎=やまだ^たろう"]
    assert found.columns[Level.PATIENT]["patient_name"].split("\\")[1] == "山田^太郎"


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_sequences_are_kept_as_json(syntax: str) -> None:
    item = Dataset()
    item.ScheduledProcedureStepID, item.RequestedProcedureID = "S1", "R1"
    found = header(part10(ct(RequestAttributesSequence=Sequence([item])), syntax))
    assert found.attrs[Level.SERIES]["00400275"]["Value"] == [
        {"00400009": {"vr": "SH", "Value": ["S1"]}, "00401001": {"vr": "SH", "Value": ["R1"]}}
    ]
    assert "RequestAttributesSequence" not in found.values


@pytest.mark.parametrize("path", real_files(), ids=lambda path: path.name)
def test_real_headers_agree_with_their_metadata_and_suit_a_database(path: Path) -> None:
    raw = path.read_bytes()
    try:
        admitted = admit(raw)
    except Inadmissible:
        pytest.skip("refused by admission")
    found, metadata = extract(admitted, raw), to_json(raw)
    for level, attrs in found.attrs.items():
        assert "\\u0000" not in json.dumps(attrs, allow_nan=False)
        for key, entry in attrs.items():
            if key.startswith("n"):  # normal forms, of what is there itself
                assert key[1:] in attrs
                assert all(isinstance(form, str) and form for form in entry)
            else:
                assert metadata[key] == entry, (level, key)
    for columns in found.columns.values():
        assert all(len(text) <= COLUMN_MOST and "\0" not in text for text in columns.values())


@given(ds=data_sets)
@settings(max_examples=30, deadline=None)
def test_texts_are_those_that_pydicom_reads(ds: Dataset) -> None:
    ds.SpecificCharacterSet = "ISO_IR 192"
    raw = part10(ds)
    found = header(raw)
    for attribute in STORED:
        if attribute.keyword not in found.values or attribute.rule is Rule.NUMBER:
            continue
        value = ds.get(attribute.keyword)
        many = value if isinstance(value, (list, pydicom.multival.MultiValue)) else [value]
        expected = [str(one if one is not None else "").strip(" ") for one in many]
        shown = [text.strip(" ") for text in found.values[attribute.keyword]]
        assert shown == ([] if not any(expected) and len(expected) < 2 else expected)


def frames_of(**more: object) -> Header:
    return header(part10(ct(**more)))


def test_frames_are_counted_only_where_their_bytes_are() -> None:
    assert frames_of(rows=4, columns=4, NumberOfFrames="1").number_of_frames == 1
    short = frames_of(NumberOfFrames="2147483647")
    assert short.number_of_frames == 1
    assert short.warnings
    huge = ct()
    huge.Rows = huge.Columns = 65535
    found = header(part10(huge))
    assert found.number_of_frames == 0
    assert found.warnings


@pytest.mark.parametrize("declared", ["0", "-3", "1A", "", "99999999999999999999"])
def test_a_nonsense_number_of_frames_counts_as_one(declared: str) -> None:
    raw = part10(ct(NumberOfFrames="2")).replace(
        b"IS\x02\x002 ", b"IS" + len(declared).to_bytes(2, "little") + b"?" * 2
    )
    raw = raw.replace(b"??", declared.encode())
    assert header(raw).number_of_frames == 1


def test_no_pixel_data_means_no_frames() -> None:
    ds = ct()
    del ds.PixelData
    assert header(part10(ds)).number_of_frames == 0


@pytest.mark.parametrize(
    ("sop_class", "original"),
    [
        ("1.2.840.10008.5.1.4.1.1.2", True),
        ("1.2.840.10008.5.1.4.1.1.104.1", True),
        ("1.2.840.10008.5.1.4.1.1.66.4", False),
        ("1.2.840.10008.5.1.4.1.1.88.34", False),
        ("1.2.840.10008.5.1.4.1.1.88.59", False),
        ("1.2.840.10008.5.1.4.1.1.11.1", False),
        ("1.2.840.10008.5.1.4.1.1.481.3", False),
    ],
)
def test_results_and_annotations_are_no_originals(sop_class: str, original: bool) -> None:
    assert header(part10(ct(SOPClassUID=sop_class))).original is original


def test_our_own_devices_make_no_originals() -> None:
    assert not header(part10(ct()), door="ai").original
    assert not header(part10(ct(DeviceUID=uids.AI_DEVICE_UID))).original
    assert header(part10(ct(DeviceUID="1.2.3"))).original


def test_a_value_too_long_for_an_index_is_cut_with_a_remark() -> None:
    raw = part10(ct(StudyDescription="x" * 3000, PatientComments="y" * 100_000), SYNTAXES[0])
    found = header(raw)
    assert len(found.columns[Level.STUDY]["study_description"]) == COLUMN_MOST
    assert found.warnings
    assert len(json.dumps(found.attrs[Level.PATIENT])) < 70_000


def test_missing_uids_are_empty_for_the_caller_to_refuse() -> None:
    ds = ct()
    del ds.StudyInstanceUID
    assert header(part10(ds)).study_uid == ""


def test_what_is_remembered_of_a_series_changes_no_header() -> None:
    memory = Memory()
    same = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.4"}
    series = [ct(InstanceNumber=str(number), ContentTime=f"1200{number:02}", **same) for number in range(3)]
    other = ct(PatientName="Other^One", TimezoneOffsetFromUTC="+0200", **same)
    for data in (*series, other, *series):
        raw = part10(data)
        assert said(extract(admit(raw), raw, memory=memory)) == said(extract(admit(raw), raw))
    raws = [part10(data) for data in series]
    assert len({id(extract(admit(raw), raw, memory=memory).parents) for raw in raws}) == 1


def test_the_oldest_series_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacs.domain.header.REMEMBERED_SERIES", 2)
    memory, raws = Memory(), [part10(ct(SeriesNumber=str(number))) for number in range(3)]
    first = extract(admit(raws[0]), raws[0], memory=memory)
    for raw in raws:
        extract(admit(raw), raw, memory=memory)
    again = extract(admit(raws[0]), raws[0], memory=memory)
    assert said(again) == said(first)
    assert again.parents is not first.parents


def said(header: Header) -> dict[str, object]:
    """All that a header says, without the part that may be shared."""
    return {field.name: getattr(header, field.name) for field in fields(header) if field.name != "parents"}


@pytest.mark.data
def test_what_is_remembered_of_one_real_object_changes_no_header_of_another() -> None:
    memory, looked_at = Memory(), 0
    for path in (*real_files(), *real_files()):
        raw = path.read_bytes()
        try:
            admitted = admit(raw)
        except Inadmissible:
            continue
        looked_at += 1
        assert said(extract(admitted, raw, memory=memory)) == said(extract(admitted, raw)), path.name
    assert looked_at > 500
