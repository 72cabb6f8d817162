"""multipart/related framing (PS3.18 8.6.1.2; RFC 2046)."""

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomweb.multipart import MAX_PART_HEADERS, MAX_PREAMBLE, PartBegin, PartData, PartEnd, Reader, Writer, frame
from pacs.errors import BadRequest

Part = tuple[dict[str, str], bytes]


def read(body: bytes, boundary: str = "b", cuts: list[int] | None = None) -> list[Part]:
    """All whole parts of a body fed in the given pieces."""
    reader, parts, headers, data = Reader(boundary), [], {}, b""
    edges = [0, *sorted(cuts or []), len(body)]
    for start, end in itertools.pairwise(edges):
        for event in reader.feed(body[start:end]):
            match event:
                case PartBegin(headers):
                    data = b""
                case PartData(piece):
                    data += piece
                case PartEnd():
                    parts.append((headers, data))
    reader.close()
    return parts


def body(*contents: bytes, boundary: str = "b") -> bytes:
    parts = [b"--%s\r\nContent-Type: application/dicom\r\n\r\n%s\r\n" % (boundary.encode(), c) for c in contents]
    return b"".join(parts) + b"--%s--\r\n" % boundary.encode()


HEADERS = {"content-type": "application/dicom"}

boundaries = st.text("0123456789abcdefABCDEF'()+_,-./:=?", min_size=1, max_size=70)
# content that looks like framing on purpose
pieces = st.sampled_from([b"\r\n", b"\r", b"\n", b"--", b"-", b"b", b"\r\n--", b"\r\n--b", b"--b", b"x", b"\x00", b" "])
contents = st.one_of(st.binary(max_size=40), st.lists(pieces, max_size=12).map(b"".join))


@given(st.lists(contents, min_size=1, max_size=4), boundaries, st.data())
def test_parts_come_out_as_they_went_in_however_the_body_is_cut(parts: list[bytes], boundary: str, data: st.DataObject):
    delimiter = b"\r\n--" + boundary.encode()
    whole = body(*parts, boundary=boundary)
    # what holds the delimiter itself is another message
    parts = [part if delimiter not in b"\r\n" + part + b"\r\n--" else b"" for part in parts]
    whole = body(*parts, boundary=boundary)
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=8))
    assert read(whole, boundary, cuts) == [(HEADERS, part) for part in parts]


def test_every_single_byte_feed_gives_the_same() -> None:
    whole = body(b"\r\n--", b"\r\n--a\r\n", b"")
    assert read(whole, "b", list(range(len(whole)))) == [
        (HEADERS, b"\r\n--"),
        (HEADERS, b"\r\n--a\r\n"),
        (HEADERS, b""),
    ]


@pytest.mark.parametrize("before", [b"\r\n", b"\n", b"A note for people.\r\n", b"--\r\n", b"\r\n\r\n"])
def test_what_stands_before_the_first_boundary_is_skipped(before: bytes) -> None:
    whole = before + body(b"data")
    assert read(whole, "b", list(range(len(whole)))) == [(HEADERS, b"data")]


def test_what_stands_after_the_last_boundary_is_ignored() -> None:
    assert read(body(b"data") + b"epilogue --b\r\n") == [(HEADERS, b"data")]


def test_header_names_come_in_lower_case_and_values_stripped() -> None:
    whole = b"--b\r\nCONTENT-TYPE:  application/dicom \r\nX-A: 1\r\nx-a: 2\r\n\r\nd\r\n--b--"
    assert read(whole) == [({"content-type": "application/dicom", "x-a": "1"}, b"d")]


def test_part_without_headers_is_read() -> None:
    assert read(b"--b\r\n\r\ndata\r\n--b--") == [({}, b"data")]


@pytest.mark.parametrize("cut", [1, 2, 5, 30])
def test_missing_closing_boundary_is_an_error_and_the_last_part_never_ends(cut: int) -> None:
    whole = body(b"first", b"second")[: -len(b"--b--\r\n") - cut]
    reader = Reader("b")
    ends = [event for event in reader.feed(whole) if isinstance(event, PartEnd)]
    assert len(ends) == 1
    with pytest.raises(BadRequest, match="closing boundary"):
        reader.close()


@pytest.mark.parametrize("whole", [b"", b"\r\n", b"no boundary at all"])
def test_body_without_any_boundary_is_an_error(whole: bytes) -> None:
    with pytest.raises(BadRequest):
        read(whole)


def test_body_of_no_parts_gives_none() -> None:
    assert read(b"--b--\r\n") == []


@pytest.mark.parametrize("boundary", ["", "x" * 71, "ä", "a\nb"])
def test_bad_boundary_is_refused(boundary: str) -> None:
    with pytest.raises(BadRequest):
        Reader(boundary)


def test_long_part_headers_are_refused_in_one_line_or_many() -> None:
    one = b"--b\r\nX: " + b"a" * (MAX_PART_HEADERS + 1) + b"\r\n\r\n"
    many = b"--b\r\n" + b"X: aaaaaaaaaaaaaaaaaaaaaaaa\r\n" * (MAX_PART_HEADERS // 20) + b"\r\n"
    for headers in (one, many):
        with pytest.raises(BadRequest):
            Reader("b").feed(headers)


def test_what_was_whole_before_the_framing_breaks_is_given_first() -> None:
    reader = Reader("b")
    events = reader.feed(b"--b\r\n\r\nwhole\r\n--b\r\nbad header\r\n\r\nrest\r\n--b--")
    assert [type(event) for event in events] == [PartBegin, PartData, PartEnd]
    for again in (lambda: reader.feed(b"more"), reader.close):
        with pytest.raises(BadRequest, match="framing"):
            again()


def test_endless_preamble_is_refused() -> None:
    with pytest.raises(BadRequest):
        Reader("b").feed(b"x" * (MAX_PREAMBLE + 1))


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_any_bytes_give_parts_or_a_refusal(whole: bytes, cuts: list[int]) -> None:
    with contextlib.suppress(BadRequest):
        read(b"--b\r\n" + whole, "b", [cut for cut in cuts if cut <= len(whole)])


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=3))
def test_what_the_writer_frames_the_reader_reads(parts: list[bytes]) -> None:
    writer = Writer("application/dicom")
    whole = b"".join(frame(writer, (("application/dicom", "", iter([part])) for part in parts)))
    assert read(whole, writer.boundary) == [(HEADERS, part) for part in parts]


def test_response_framing_is_what_simple_readers_expect() -> None:
    writer = Writer("image/jpeg", "token")
    assert writer.content_type == 'multipart/related; type="image/jpeg"; boundary=token'
    whole = b"".join(frame(writer, iter([("image/jpeg; transfer-syntax=1.2", "http://h/1", iter([b"x"]))])))
    assert whole == (
        b"--token\r\nContent-Type: image/jpeg; transfer-syntax=1.2\r\nContent-Location: http://h/1\r\n\r\nx\r\n--token--\r\n"
    )


def test_boundaries_are_random_tokens() -> None:
    first, second = Writer("a/b").boundary, Writer("a/b").boundary
    assert first != second
    assert first.isalnum()
