"""Accept parsing and choice (PS3.18 8.7.5 to 8.7.8)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomweb.negotiate import MediaType, Offer, Want, choose, parse_accept, parse_media_type
from pacs.errors import NotAcceptable

DICOM = Offer("application/dicom", multipart=True)
SINGLE = Offer("application/dicom")
OCTETS = Offer("application/octet-stream", multipart=True)
JPEG = Offer("image/jpeg", multipart=True)
JSON = Offer("application/dicom+json")
PLAIN_JSON = Offer("application/json")


def first(accept: str | None, *offers: Offer, parameter: str | None = None) -> Want:
    return choose(accept, offers, parameter=parameter)[0]


@pytest.mark.parametrize(
    "accept", [None, "", "*/*", "application/*", "application/dicom+json", "Application/DICOM+json"]
)
def test_default_is_given_where_nothing_else_is_named(accept: str | None) -> None:
    assert first(accept, JSON, PLAIN_JSON).offer == JSON


def test_a_browser_gets_the_default() -> None:
    accept = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
    assert first(accept, JSON, PLAIN_JSON).offer == JSON


@pytest.mark.parametrize(
    "accept",
    [
        'multipart/related; type="application/dicom"; transfer-syntax=*',
        "multipart/related;type=application/dicom;transfer-syntax=*",
        'multipart/related; transfer-syntax="*"; type="application/dicom"',
        'multipart/related ; TYPE = "application/dicom" ; Transfer-Syntax = *',
        'MULTIPART/RELATED;q=0.5;type="Application/Dicom";transfer-syntax=*',
        'multipart/related; type="application/dicom; transfer-syntax=*"',
        'text/html, multipart/related; type="application/dicom"; transfer-syntax=*, nonsense',
    ],
)
def test_parameters_are_read_quoted_or_not_in_any_order_and_case(accept: str) -> None:
    want = first(accept, DICOM, SINGLE)
    assert (want.offer, want.transfer_syntax) == (DICOM, "*")


def test_wildcard_type_inside_multipart_takes_the_default_part_type() -> None:
    assert first('multipart/related; type="*/*"', OCTETS, JPEG).offer == OCTETS
    assert first('multipart/related; type="image/*"', OCTETS, JPEG).offer == JPEG
    assert first("multipart/related", OCTETS, JPEG).offer == OCTETS
    assert first("multipart/*", SINGLE, DICOM).offer == DICOM


def test_higher_weight_wins_and_equal_weights_follow_our_order() -> None:
    assert first("application/json;q=0.9, application/dicom+json;q=0.8", JSON, PLAIN_JSON).offer == PLAIN_JSON
    assert first("application/json, application/dicom+json", JSON, PLAIN_JSON).offer == JSON


def test_a_vague_range_never_lifts_what_a_close_range_lowered() -> None:
    assert first("*/*, application/dicom+json;q=0.2", JSON, PLAIN_JSON).offer == PLAIN_JSON


def test_weight_zero_excludes() -> None:
    assert first("*/*, application/dicom+json;q=0", JSON, PLAIN_JSON).offer == PLAIN_JSON
    with pytest.raises(NotAcceptable):
        choose("application/dicom+json;q=0", [JSON])


def test_several_syntaxes_for_one_type_are_all_kept() -> None:
    kind = 'multipart/related; type="application/dicom"; transfer-syntax='
    wants = choose(f"{kind}1.2.840.10008.1.2.4.90, {kind}1.2.840.10008.1.2.1;q=0.5", [DICOM])
    assert [want.transfer_syntax for want in wants] == ["1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.1"]


def test_accept_parameter_outranks_the_header() -> None:
    assert first("application/dicom+json", JSON, PLAIN_JSON, parameter="application/json").offer == PLAIN_JSON
    assert first("application/json", JSON, PLAIN_JSON, parameter="").offer == PLAIN_JSON


def test_refusal_lists_what_is_offered() -> None:
    with pytest.raises(NotAcceptable) as caught:
        choose("text/html", [DICOM, SINGLE])
    assert caught.value.offered == ('multipart/related; type="application/dicom"', "application/dicom")
    assert "application/dicom" in caught.value.message


def test_json_is_not_given_where_only_multipart_xml_is_wanted() -> None:
    with pytest.raises(NotAcceptable):
        choose('multipart/related; type="application/dicom+xml"', [JSON, PLAIN_JSON])


def test_single_media_type_is_read_with_its_parameters() -> None:
    parsed = parse_media_type('multipart/related; boundary="a b;c,d"; type="application/dicom"')
    assert parsed is not None
    assert parsed.parameter("boundary") == "a b;c,d"
    assert parse_media_type("nonsense") is None


names = st.from_regex(r"[a-z][a-z0-9.+-]{0,8}", fullmatch=True)
values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
ranges = st.builds(
    MediaType,
    st.builds("{}/{}".format, names, names),
    st.lists(st.tuples(names.filter(lambda n: n not in {"q", "type"}), values), max_size=3).map(tuple),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)


def written(media_range: MediaType) -> str:
    quoted = [(key, value.replace("\\", "\\\\").replace('"', '\\"')) for key, value in media_range.parameters]
    return ";".join([media_range.name, *(f' {k} = "{v}"' for k, v in quoted), f"q={media_range.q}"])


@given(st.lists(ranges, max_size=5))
def test_what_is_written_is_read_back(wanted: list[MediaType]) -> None:
    assert list(parse_accept(", ".join(map(written, wanted)))) == wanted


@given(st.text(max_size=200))
def test_any_text_gives_wants_or_a_refusal(text: str) -> None:
    try:
        wants = choose(text, [DICOM, SINGLE])
    except NotAcceptable:
        return
    assert wants
    assert [want.q for want in wants] == sorted((want.q for want in wants), reverse=True)
