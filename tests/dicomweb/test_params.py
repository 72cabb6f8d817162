"""QIDO query strings (PS3.18 8.3.4, 10.6)."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomweb.params import first, pairs, query, tag_path, wants_count
from pacs.domain.levels import Level
from pacs.domain.query import Condition, Order, Query
from pacs.errors import BadRequest

PATIENT_NAME, STUDY_UID, MODALITIES, MODALITY = 0x00100010, 0x0020000D, 0x00080061, 0x00080060


def read(text: str) -> Query:
    return query(text.encode("ascii"), Level.STUDY)


def conditions(text: str) -> dict[int, tuple[str, ...]]:
    return {condition.path[-1]: condition.values for condition in read(text).conditions}


@pytest.mark.parametrize("name", ["PatientName", "00100010"])
def test_keyword_and_tag_name_the_same_attribute(name: str) -> None:
    assert read(f"{name}=DOE*").conditions == (Condition((PATIENT_NAME,), ("DOE*",)),)


def test_hexadecimal_digits_come_in_either_case() -> None:
    assert tag_path("0020000d") == tag_path("0020000D") == (STUDY_UID,)


def test_dotted_paths_mix_keywords_and_tags() -> None:
    assert tag_path("RequestAttributesSequence.00400009") == (0x00400275, 0x00400009)
    assert tag_path("00101002.00100020") == (0x00101002, 0x00100020)


@pytest.mark.parametrize("name", ["NoSuchKeyword", "1234", "", "PatientName.", ".", "0010001G", "٠٠١٠٠٠١٠"])
def test_what_names_no_attribute_has_no_path(name: str) -> None:
    assert tag_path(name) is None


def test_unknown_parameters_are_ignored() -> None:
    assert read("foo=bar&PatientNames=x&&=1&_=2&accept=application/json").conditions == ()


def test_value_is_decoded_before_it_is_split() -> None:
    assert conditions("ModalitiesInStudy=CT%2CMR")[MODALITIES] == ("CT", "MR")
    assert conditions("ModalitiesInStudy=CT%5CMR")[MODALITIES] == ("CT", "MR")


@pytest.mark.parametrize("separator", [",", "%2C", "%5C", "%5C%5C", "\\"])
def test_uid_lists_come_by_comma_or_backslash_and_empty_members_are_dropped(separator: str) -> None:
    assert conditions(f"StudyInstanceUID={separator}1.2{separator}1.3{separator}")[STUDY_UID] == ("1.2", "1.3")


def test_comma_belongs_to_a_name_and_backslash_separates() -> None:
    assert conditions("PatientName=Doe, John")[PATIENT_NAME] == ("Doe, John",)
    assert conditions("PatientName=A%5CB")[PATIENT_NAME] == ("A", "B")


def test_plus_is_a_space_but_in_times_with_an_offset() -> None:
    assert conditions("StudyDescription=CT+HEAD")[0x00081030] == ("CT HEAD",)
    assert conditions("StudyDescription=A%2BB")[0x00081030] == ("A+B",)
    assert conditions("TimezoneOffsetFromUTC=+0100")[0x00080201] == ("+0100",)
    assert conditions("FrameAcquisitionDateTime=20200101+0100")[0x00189074] == ("20200101+0100",)


def test_empty_value_is_universal_matching() -> None:
    assert conditions("PatientName=&StudyInstanceUID=") == {PATIENT_NAME: (), STUDY_UID: ()}


def test_repeated_key_narrows() -> None:
    assert read("PatientName=A*&PatientName=*B").conditions == (
        Condition((PATIENT_NAME,), ("A*",)),
        Condition((PATIENT_NAME,), ("*B",)),
    )
    assert len(read("ModalitiesInStudy=CT&ModalitiesInStudy=MR").conditions) == 2


def test_repeated_single_valued_uid_or_code_is_a_list() -> None:
    assert conditions("StudyInstanceUID=1.2&0020000D=1.3")[STUDY_UID] == ("1.2", "1.3")
    assert conditions("Modality=CT&Modality=MR")[MODALITY] == ("CT", "MR")


def test_what_the_path_fixes_is_never_widened_by_a_parameter() -> None:
    fixed = Condition((STUDY_UID,), ("1.2",))
    found = query(b"StudyInstanceUID=1.3", Level.SERIES, [fixed]).conditions
    assert found == (fixed, Condition((STUDY_UID,), ("1.3",)))


def test_includefield_is_a_list_and_repeats() -> None:
    found = read("includefield=00081030%2C00080060&includefield=PatientAge,Nonsense&includefield=")
    assert found.include == {(0x00081030,), (0x00080060,), (0x00101010,)}
    assert not found.include_all
    assert read("includefield=all").include_all


def test_paging() -> None:
    found = read("limit=101&offset=20")
    assert (found.limit, found.offset) == (101, 20)
    assert (read("").limit, read("").offset) == (None, 0)
    assert read("limit=0").limit == 0
    assert read(f"limit={'9' * 400}").limit == 2**53 - 1


@pytest.mark.parametrize("text", ["limit=-1", "limit=x", "limit=", "limit=1.5", "offset=-1", "offset=%D9%A1"])
def test_malformed_paging_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        read(text)


def test_fuzzymatching_is_true_or_false() -> None:
    assert read("fuzzymatching=TRUE").fuzzy
    assert not read("fuzzymatching=false").fuzzy
    with pytest.raises(BadRequest):
        read("fuzzymatching=perhaps")


@pytest.mark.parametrize("text", ["PatientName=%FF", "PatientName=%00", "PatientName=a%00b"])
def test_undecodable_values_are_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        read(text)


def test_ohif_study_list_as_captured() -> None:
    found = read("limit=101&offset=0&fuzzymatching=true&includefield=00081030%2C00080060%2C00080090%2C00100030")
    assert (found.limit, found.fuzzy, len(found.include), found.conditions) == (101, True, 4, ())


def test_first_takes_the_first_value() -> None:
    assert first(pairs(b"accept=a&accept=b"), "accept") == "a"
    assert first(pairs(b"x=1"), "accept") is None


@given(st.text().filter(lambda t: "\x00" not in t and "\\" not in t))
def test_any_text_comes_back_as_one_value(text: str) -> None:
    encoded = "PatientName=" + quote(text, safe="", errors="surrogatepass") if text.isprintable() else "PatientName=x"
    expected = (text,) if text.isprintable() and text else () if text.isprintable() else ("x",)
    assert conditions(encoded)[PATIENT_NAME] == expected


@given(st.binary(max_size=120))
def test_any_query_string_gives_a_query_or_a_refusal(raw: bytes) -> None:
    try:
        found = query(raw, Level.INSTANCE)
    except BadRequest:
        return
    assert found.offset >= 0


def test_empty_and_multiple_value_matching_are_on_unless_turned_off() -> None:
    assert (read("").empty_values, read("").multiple_values, read("").combined) == (True, True, True)
    assert not read("emptyvaluematching=false").empty_values
    assert not read("multiplevaluematching=FALSE").multiple_values
    for name in ("emptyvaluematching", "multiplevaluematching", "count"):
        with pytest.raises(BadRequest):
            read(f"{name}=x") if name != "count" else wants_count(b"count=x")


def test_without_multiple_values_only_uids_are_lists() -> None:
    assert conditions("multiplevaluematching=false&ModalitiesInStudy=CT%5CMR")[MODALITIES] == ("CT\\MR",)
    assert conditions("multiplevaluematching=false&StudyInstanceUID=1.2,1.3")[STUDY_UID] == ("1.2", "1.3")


def test_orders_name_attributes_and_directions() -> None:
    assert read("orderby=-StudyDate, 00100010").order == (Order(0x00080020, True), Order(PATIENT_NAME))
    assert read("orderby=").order == ()
    for text in ("orderby=Nonsense", "orderby=-", "orderby=RequestAttributesSequence.00400009"):
        with pytest.raises(BadRequest):
            read(text)


def test_the_number_of_matches_is_counted_where_it_is_asked_for() -> None:
    assert wants_count(b"count=true")
    assert not wants_count(b"limit=5")
