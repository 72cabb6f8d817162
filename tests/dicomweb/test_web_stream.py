"""Blocks, ranges and validators (RFC 9110 13, 14)."""

import io
import threading

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomweb.bulkdata import cut
from dicomweb.metadata import array, wants_gzip
from dicomweb.stream import Workshop, begun, blocks, read, unchanged, wanted_range


@given(st.lists(st.binary(max_size=20)), st.integers(1, 30))
def test_blocks_are_the_same_bytes_and_never_small_but_the_last(chunks: list[bytes], size: int) -> None:
    found = list(blocks(chunks, size))
    assert b"".join(found) == b"".join(chunks)
    assert all(len(block) >= size for block in found[:-1])


@given(st.lists(st.binary(max_size=9)), st.integers(0, 30), st.integers(0, 30))
def test_a_cut_is_what_a_slice_would_be(chunks: list[bytes], start: int, stop: int) -> None:
    assert b"".join(cut(iter(chunks), range(start, max(start, stop)))) == b"".join(chunks)[start : max(start, stop)]


@given(st.integers(1, 100), st.integers(0, 120), st.integers(0, 120))
def test_a_range_that_can_be_met_is_within_the_whole(size: int, start: int, end: int) -> None:
    found = wanted_range({"range": f"bytes={start}-{end}"}, size, '"t"')
    if end < start:
        assert found is None
    elif start >= size:
        assert found == range(0)
    else:
        assert found == range(start, min(end + 1, size))


@pytest.mark.parametrize("given", ["", "bytes=-", "bytes=a-b", "bytes=1-2,3-4", "items=1-2", "bytes=" + "9" * 30 + "-"])
def test_other_ranges_ask_for_all(given: str) -> None:
    assert wanted_range({"range": given}, 10, '"t"') is None


def test_a_range_of_another_version_asks_for_all() -> None:
    assert wanted_range({"range": "bytes=0-1", "if-range": '"old"'}, 10, '"new"') is None
    assert wanted_range({"range": "bytes=0-1", "if-range": '"new"'}, 10, '"new"') == range(2)


@pytest.mark.parametrize(
    ("given", "same"), [('"t"', True), ('W/"t"', True), ('"a", W/"t"', True), ("*", True), ('"x"', False), ("", False)]
)
def test_validators_compare_weakly(given: str, same: bool) -> None:
    assert unchanged({"if-none-match": given}, '"t"') is same
    assert unchanged({"if-none-match": given}, 'W/"t"') is same


def test_a_file_shorter_than_it_should_be_is_an_error() -> None:
    assert b"".join(read(io.BytesIO(b"abcdef"), 2, 3, 2)) == b"cde"
    with pytest.raises(OSError, match="shorter"):
        list(read(io.BytesIO(b"abc"), 1, 3))


def test_begun_makes_the_first_and_keeps_all() -> None:
    made: list[int] = []
    found = begun(made.append(number) or number for number in range(3))  # type: ignore[func-returns-value]
    assert made == [0]
    assert list(found) == [0, 1, 2]


def test_arrays_are_json() -> None:
    assert b"".join(array([])) == b"[]"
    assert b"".join(array([b"1", b"2"])) == b"[1,2]"


@pytest.mark.parametrize(
    ("given", "wanted"), [("gzip", True), ("br, GZIP;q=0.5", True), ("gzip;q=0", False), ("*", False), ("", False)]
)
def test_gzip_is_given_when_it_is_named(given: str, wanted: bool) -> None:
    assert wants_gzip(given) is wanted


def test_costly_calls_wait_for_each_other_and_keep_nobody_from_reading() -> None:
    go, at_work, most = threading.Event(), [], []

    def costly() -> None:
        at_work.append(1)
        most.append(len(at_work))
        go.wait(10)
        at_work.pop()

    async def all_at_once() -> str:
        shop = Workshop(2)
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(shop.run, costly)
            read = await anyio.to_thread.run_sync(lambda: "read")
            go.set()
        return read

    assert anyio.run(all_at_once) == "read"
    assert (len(most), max(most)) == (50, 2)
