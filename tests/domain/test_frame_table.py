"""Frames are found as pydicom finds them, without decoding; what cannot be told is not guessed."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from pacs.domain.admission import Inadmissible, admit
from pacs.domain.frames import FrameTable, NoSuchFrame, table
from pacs.domain.header import extract
from tests.domain.makers import SYNTAXES, ct, part10, real_files

JPEG_BASELINE, RLE, MPEG4 = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.102"


def found(raw: bytes) -> tuple[FrameTable, Callable[[int], bytes]]:
    """The table, having gone through its bytes, and a reader of its frames."""
    admitted = admit(raw)
    frames = FrameTable.decode(table(admitted, raw).encode())
    source = raw if admitted.data is None else admitted.data
    return frames, lambda number: frames.read(number, lambda offset, length: bytes(source[offset : offset + length]))


def encapsulated(
    fragments: list[bytes], frames: int, syntax: str = JPEG_BASELINE, bot: list[int] | None = None
) -> bytes:
    """An object of these fragments, put together by hand."""
    ds = ct(NumberOfFrames=str(frames))
    del ds.PixelData
    items = [struct.pack(f"<{len(bot or [])}I", *(bot or [])), *fragments]
    value = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
    raw = part10(ds).replace(b"1.2.840.10008.1.2.1\0", syntax.encode() + b"\0" * (len(syntax) % 2))
    meta_length = struct.pack("<HH2sH", 2, 0x10, b"UI", len(syntax) + len(syntax) % 2)
    raw = raw.replace(struct.pack("<HH2sH", 2, 0x10, b"UI", 20), meta_length)
    head = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
    return raw + head + value + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


@pytest.mark.parametrize("path", real_files(), ids=lambda path: path.name)
def test_frames_of_real_objects_are_those_pydicom_finds(path: Path) -> None:
    raw = path.read_bytes()
    try:
        admitted = admit(raw)
    except Inadmissible:
        pytest.skip("refused by admission")
    frames, read = found(raw)
    assert frames.number_of_frames == extract(admitted, raw).number_of_frames
    ds = pydicom.dcmread(path, force=True)
    if not frames.encapsulated or path.name == "badVR.dcm":
        return
    theirs = list(generate_frames(ds.PixelData, number_of_frames=frames.number_of_frames))
    for number, other in enumerate(theirs, 1):
        mine = read(number)
        assert other in {mine, mine + b"\0"}


@pytest.mark.parametrize("syntax", SYNTAXES)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_native_frames_are_cut_out_whatever_their_bits(syntax: str, data: st.DataObject) -> None:
    rows, columns, count = (data.draw(st.integers(1, 9)) for _ in range(3))
    bits = data.draw(st.sampled_from([1, 8, 16, 32]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    samples = rng.integers(0, 2**bits, (count, rows * columns), np.uint64)
    ds = ct(rows, columns, NumberOfFrames=str(count), BitsAllocated=bits, BitsStored=bits, HighBit=bits - 1)
    order = ">" if syntax == SYNTAXES[2] else "<"
    if bits == 1:
        value = np.packbits(samples.astype(np.uint8).reshape(-1), bitorder="little").tobytes()
    else:
        value = samples.astype(f"{order}u{bits // 8}").tobytes()
    vr = "OW" if bits > 8 else "OB"
    ds.add_new("PixelData", vr, value + b"\0" * (len(value) % 2))
    frames, read = found(part10(ds, syntax))
    assert frames.number_of_frames == count
    for number in range(1, count + 1):
        raw = read(number)
        if bits == 1:
            assert len(raw) == -(-rows * columns // 8)
            got = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
            assert not got[rows * columns :].any()
            assert np.array_equal(got[: rows * columns], samples[number - 1])
        else:
            assert np.array_equal(np.frombuffer(raw, f"<u{bits // 8}"), samples[number - 1])


def test_eight_bit_samples_in_big_endian_words_are_turned() -> None:
    ds = ct(1, 3, NumberOfFrames="2", BitsAllocated=8, BitsStored=8, HighBit=7)
    ds.add_new("PixelData", "OW", bytes([2, 1, 4, 3, 6, 5]))
    _frames, read = found(part10(ds, SYNTAXES[2]))
    assert [read(1), read(2)] == [bytes([1, 2, 3]), bytes([4, 5, 6])]


def test_float_frames_are_cut_by_their_width() -> None:
    ds = ct(2, 2, NumberOfFrames="2", BitsAllocated=32)
    del ds.PixelData
    ds.FloatPixelData = np.arange(8, dtype="<f4").tobytes()
    frames, read = found(part10(ds))
    assert frames.description.number_type == "float"
    assert np.frombuffer(read(2), "<f4").tolist() == [4, 5, 6, 7]


def jpeg(text: bytes) -> bytes:
    body = b"\xff\xd8\xff" + text + b"\xff\xd9"
    return body + b"\0" * (len(body) % 2)


@pytest.mark.parametrize(
    ("fragments", "frames", "bot"),
    [
        ([jpeg(b"a"), jpeg(b"bb"), jpeg(b"ccc")], [[0], [1], [2]], None),  # one each
        ([jpeg(b"a")[:4], jpeg(b"a")[4:], jpeg(b"bb")], [[0, 1], [2]], None),  # by how they begin
        ([b"ab", b"cd", b"ef", b"gh"], [[0, 1, 2, 3]], None),  # one frame takes all
        ([b"ab", b"cd", b"ef", b"gh"], [[0, 1, 2], [3]], [0, 30]),  # by the Basic Offset Table
    ],
)
def test_fragments_are_assigned_to_frames(
    fragments: list[bytes], frames: list[list[int]], bot: list[int] | None
) -> None:
    _table, read = found(encapsulated(fragments, len(frames), bot=bot))
    for number, members in enumerate(frames, 1):
        whole = b"".join(fragments[i] for i in members)
        assert read(number) == (whole[:-1] if whole.endswith(b"\xff\xd9\0") else whole)


def test_an_extended_offset_table_outranks_the_guess() -> None:
    fragments = [jpeg(b"x"), jpeg(b"y"), jpeg(b"z")]
    raw = encapsulated(fragments, 2)
    lengths = [len(fragment) + 8 for fragment in fragments]
    offsets = struct.pack("<2Q", 0, lengths[0] + lengths[1])
    element = struct.pack("<HH2sHI", 0x7FE0, 1, b"OV", 0, 16) + offsets
    where = raw.index(struct.pack("<HH2s", 0x7FE0, 0x10, b"OB"))
    _table, read = found(raw[:where] + element + raw[where:])
    assert read(1).startswith(fragments[0])
    assert read(2) == fragments[2].removesuffix(b"\0")


@pytest.mark.parametrize("bot", [[0, 4], [0, 10_000], [10, 0], [0, 0], None])
def test_frames_that_cannot_be_told_apart_are_refused_not_guessed(bot: list[int] | None) -> None:
    frames, read = found(encapsulated([b"ab", b"cd", b"ef"], 2, bot=bot))
    assert frames.number_of_frames == 2
    with pytest.raises(NoSuchFrame, match="told apart"):
        read(1)


def test_fewer_fragments_than_frames_leave_the_rest_out() -> None:
    frames, read = found(encapsulated([jpeg(b"a"), jpeg(b"b")], 5))
    assert frames.number_of_frames == 2
    assert read(2) == jpeg(b"b").removesuffix(b"\0")


def test_video_is_one_stream() -> None:
    frames, read = found(encapsulated([b"abcd", b"ef"], 300, MPEG4))
    assert frames.number_of_frames == 1
    assert read(1) == b"abcdef"


@pytest.mark.parametrize("number", [0, -1, 2, 10**9])
def test_frames_beyond_the_last_do_not_exist(number: int) -> None:
    _table, read = found(part10(ct()))
    with pytest.raises(NoSuchFrame):
        read(number)


def test_an_object_without_pixel_data_has_no_frames() -> None:
    ds = Dataset()
    ds.SOPInstanceUID = "1.2.3"
    frames, _read = found(part10(ds))
    assert frames.number_of_frames == 0


def test_one_frame_of_many_is_one_read() -> None:
    ds = ct(8, 8, NumberOfFrames="1000")
    ds.PixelData = bytes(8 * 8 * 2 * 1000)
    frames, _read = found(part10(ds))
    assert len(frames.ranges(999)) == 1
    assert frames.ranges(1000)[0][1] == 128


def test_native_pixels_under_a_compressed_syntax_are_told_as_what_they_are() -> None:
    ds = ct(2, 2)
    raw = part10(ds)
    meta = struct.pack("<HH2sH", 2, 0x10, b"UI", 20) + b"1.2.840.10008.1.2.1\0"
    lying = struct.pack("<HH2sH", 2, 0x10, b"UI", 22) + b"1.2.840.10008.1.2.4.50"
    frames, read = found(raw.replace(meta, lying))
    assert frames.transfer_syntax_uid == SYNTAXES[1]
    assert read(1) == ds.PixelData
