"""Admission: what real writers do passes, what lies is refused, and no bytes do anything else."""

import contextlib
import io
import mmap
import struct
import time
import tracemalloc
import zlib
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from pacs.domain import admission
from pacs.domain.admission import Admitted, Inadmissible, Limits, admit
from tests.domain.makers import SYNTAXES, ct, data_sets, nested, part10, real_files

TRUNCATED = {"rtplan_truncated.dcm", "MR_truncated.dcm", "DICOMDIR-nooffset"}
NOT_DICOM = {"no_meta.dcm"}  # begins with a stray byte: pydicom reads one nonsense element


def short(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def long(tag: int, vr: bytes, length: int, value: bytes = b"") -> bytes:
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, length) + value


UID = short(0x00080018, b"UI", b"1.2.3\0")
META = short(0x00020010, b"UI", b"1.2.840.10008.1.2.1\0")
HEAD = bytes(128) + b"DICM" + META


def file(*elements: bytes) -> bytes:
    return HEAD + UID + b"".join(elements)


def value_of(admitted: Admitted, raw: bytes, tag: int) -> bytes:
    element = admitted.elements[tag]
    return (admitted.data or raw)[element.value_offset : element.value_offset + element.length]


@pytest.mark.parametrize("path", real_files(), ids=lambda path: path.name)
def test_real_files_are_admitted_with_the_elements_pydicom_finds(path: Path) -> None:
    if path.name in TRUNCATED | NOT_DICOM:
        with pytest.raises(Inadmissible):
            admit(path.read_bytes())
        return
    admitted = admit(path.read_bytes())
    if path.name != "no_preamble_dicm_in_data":  # pydicom takes four letters inside a value for the prefix
        assert set(admitted.elements) == {int(tag) for tag in pydicom.dcmread(path, force=True).keys()}  # noqa: SIM118


@pytest.mark.parametrize("syntax", SYNTAXES)
@given(ds=data_sets)
@settings(max_examples=25, deadline=None)
def test_written_data_sets_are_admitted_with_their_values(syntax: str, ds: Dataset) -> None:
    ds.SOPInstanceUID = "1.2.3"
    raw = part10(ds, syntax)
    admitted = admit(raw)
    again = pydicom.dcmread(io.BytesIO(raw))
    assert admitted.transfer_syntax_uid == syntax
    assert list(admitted.elements) == [int(tag) for tag in again.keys()]  # noqa: SIM118
    for tag, element in admitted.elements.items():
        if element.vr != "SQ":
            assert value_of(admitted, raw, tag) == (again.get_item(tag).value or b"")


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_inadmissible_or_admitted_and_nothing_else(raw: bytes) -> None:
    for head in (b"", HEAD, HEAD.replace(b"1.2.1\0", b"1.2\0\0\0"), HEAD[:132] + UID):
        with contextlib.suppress(Inadmissible):
            admit(head + raw)


@given(st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_objects_never_raise_anything_else(data: st.DataObject) -> None:
    syntax = data.draw(st.sampled_from(SYNTAXES))
    raw = bytearray(part10(nested(3), syntax))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Inadmissible):
        admit(bytes(raw[: data.draw(st.integers(0, len(raw)))]), nested=True)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_no_truncation_of_an_image_is_admitted(syntax: str) -> None:
    raw = part10(ct(), syntax)
    whole = set(admit(raw).elements)
    end_of_content = len(raw) - (syntax == SYNTAXES[3] and raw.endswith(b"\0"))  # a deflate stream may be padded
    for end in range(132, end_of_content):
        try:
            kept = set(admit(raw[:end]).elements)
        except Inadmissible:
            continue
        # a cut between two elements cannot be told from a shorter object, but never shows half a value
        assert kept < whole
        assert 0x7FE00010 not in kept


def test_a_length_of_four_gigabytes_with_three_bytes_behind_it_is_refused_at_once() -> None:
    with pytest.raises(Inadmissible, match=r"\(0009,1001\) claims 4294967280 bytes where 3 are left"):
        admit(file(long(0x00091001, b"OB", 0xFFFFFFF0, b"abc")))


def test_truncated_pixel_data_is_refused() -> None:
    raw = part10(ct())
    with pytest.raises(Inadmissible, match=r"\(7FE0,0010\)"):
        admit(raw[:-2])


def test_depth_up_to_64_is_admitted_and_beyond_is_refused() -> None:
    assert admit(part10(nested(64))).elements
    with pytest.raises(Inadmissible, match="deeper than 64"):
        admit(part10(nested(65)))


def test_ten_thousand_levels_are_refused_without_recursion() -> None:
    levels = long(0x00400275, b"SQ", 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    with pytest.raises(Inadmissible, match="deeper"):
        admit(file(levels * 10_000))


def test_elements_are_counted_wherever_they_stand() -> None:
    empty = short(0x00400009, b"SH", b"")
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(empty)) + empty
    sequence = long(0x00400275, b"SQ", len(item) * 40, item * 40)
    with pytest.raises(Inadmissible, match="more than 50 elements"):
        admit(file(sequence), limits=Limits(elements=50))
    fragments = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 60 + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    with pytest.raises(Inadmissible, match="more than 50 elements"):
        admit(file(long(0x7FE00010, b"OB", 0xFFFFFFFF, fragments)), limits=Limits(elements=50))


def deflated(data_set: bytes) -> bytes:
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    meta = short(0x00020010, b"UI", b"1.2.840.10008.1.2.1.99")
    return bytes(128) + b"DICM" + meta + engine.compress(data_set) + engine.flush()


def test_a_deflate_bomb_stops_early_with_flat_memory() -> None:
    bomb = deflated(UID + long(0x00420011, b"OB", 300 << 20, bytes(300 << 20)))
    limits = Limits(inflated_freely=8 << 20)
    tracemalloc.start()
    with pytest.raises(Inadmissible, match="inflates to more than"):
        admit(bomb, limits=limits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80 << 20


def test_an_empty_mask_that_deflates_a_thousandfold_is_admitted() -> None:
    raw = deflated(UID + long(0x7FE00010, b"OB", 20 << 20, bytes(20 << 20)))
    assert len(raw) < 40_000
    assert admit(raw).elements[0x7FE00010].length == 20 << 20


@pytest.mark.parametrize("cut", [3, 10, 30])
def test_a_deflated_object_cut_short_is_refused(cut: int) -> None:
    raw = part10(ct(), "1.2.840.10008.1.2.1.99")
    with pytest.raises(Inadmissible):
        admit(raw[:-cut])


def test_fragments_are_found_without_reading_them() -> None:
    fragments = b"".join(
        struct.pack("<HHI", 0xFFFE, 0xE000, len(part)) + part for part in (b"", b"abcd", b"efghij")
    ) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    raw = file(long(0x7FE00010, b"OB", 0xFFFFFFFF, fragments), short(0xFFFCFFFC, b"LO", b"after "))
    pixels = admit(raw).pixel_data
    assert pixels is not None
    assert pixels.fragments is not None
    places = list(zip(pixels.fragments[::2], pixels.fragments[1::2], strict=True))
    assert [raw[offset : offset + length] for offset, length in places] == [b"", b"abcd", b"efghij"]


@pytest.mark.parametrize("missing", [1, 8, 9])
def test_fragments_without_their_end_are_refused(missing: int) -> None:
    body = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, 2) + b"ab"
    raw = file(long(0x7FE00010, b"OB", 0xFFFFFFFF, body + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)))
    with pytest.raises(Inadmissible):
        admit(raw[:-missing])


@pytest.mark.parametrize(
    ("elements", "remark"),
    [
        (short(0x00100020, b"LO", b"odd"), None),
        (short(0x00100020, b"ZZ", b"ab"), "VR that the standard does not know"),
        (struct.pack("<HHI", 0x0010, 0x0020, 2) + b"ab", "mixed"),
        (short(0x00100020, b"LO", b"ab") + short(0x00100020, b"LO", b"cd"), "twice"),
        (short(0x00100020, b"LO", b"ab") + short(0x00080050, b"SH", b"cd"), "ascending"),
        (short(0x00100020, b"LO", b"ab") + bytes(100), "padding"),
        (short(0xFFFCFFFC, b"OB"[:2], b"")[:8] + bytes(4), None),
        (struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) + short(0x00100020, b"LO", b"ab"), "delimiter"),
    ],
)
def test_sloppy_writers_are_tolerated_with_a_remark(elements: bytes, remark: str | None) -> None:
    admitted = admit(file(elements))
    assert (remark is None) == (not admitted.warnings)
    if remark is not None:
        assert any(remark in warning for warning in admitted.warnings)


def test_the_last_of_two_equal_tags_counts_as_it_does_for_pydicom() -> None:
    raw = file(short(0x00100020, b"LO", b"ab"), short(0x00100020, b"LO", b"cd"))
    assert value_of(admit(raw), raw, 0x00100020) == b"cd"
    assert pydicom.dcmread(io.BytesIO(raw)).PatientID == "cd"


def test_items_of_implicit_vr_inside_unknown_are_walked() -> None:
    leaf = struct.pack("<HHI", 0x0008, 0x0100, 2) + b"AB"
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(leaf)) + leaf + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    raw = file(long(0x00081032, b"UN", 0xFFFFFFFF, item))
    items = admit(raw, nested=True).elements[0x00081032].items
    assert items is not None
    element = items[0].elements[0x00080100]
    assert raw[element.value_offset :][: element.length] == b"AB"


@pytest.mark.parametrize(
    "inside",
    [
        struct.pack("<HHI", 0xFFFE, 0xE000, 100) + b"ab",
        struct.pack("<HHI", 0x0008, 0x0018, 0),
        struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + UID,
        b"abc",
    ],
)
def test_lying_items_are_refused(inside: bytes) -> None:
    with pytest.raises(Inadmissible):
        admit(file(long(0x00400275, b"SQ", len(inside), inside)))


@pytest.mark.parametrize("syntax", SYNTAXES[:3])
def test_a_bare_data_set_is_read_by_its_syntax_and_by_guess(syntax: str) -> None:
    whole = part10(ct(), syntax)
    bare = whole[admit(whole).data_offset :]
    declared, guessed = admit(bare, raw_syntax=syntax), admit(bare)
    assert declared.transfer_syntax_uid == guessed.transfer_syntax_uid == syntax
    assert declared.elements == guessed.elements
    assert declared.data_offset == guessed.data_offset == 0
    assert admission.NO_META in guessed.warnings


def test_a_preamble_is_not_needed_and_an_active_one_is_remarked() -> None:
    raw = part10(ct())
    assert admit(raw[128:]).elements.keys() == admit(raw[132:]).elements.keys() == admit(raw).elements.keys()
    assert admission.ACTIVE_PREAMBLE in admit(b"MZ" + raw[2:]).warnings


def test_a_wrong_transfer_syntax_is_found_out() -> None:
    implicit = part10(ct(), SYNTAXES[0])
    lying = implicit.replace(b"1.2.840.10008.1.2\0", b"1.2.840.10008.1.2\0", 1)
    meta = short(0x00020010, b"UI", b"1.2.840.10008.1.2.1\0")
    admitted = admit(bytes(128) + b"DICM" + meta + lying[admit(lying).data_offset :])
    assert admitted.transfer_syntax_uid == SYNTAXES[0]
    assert admission.WRONG_SYNTAX in admitted.warnings


@pytest.mark.parametrize("raw", [b"", b"DICM", b"GET / HTTP/1.1\r\n\r\n" * 20, bytes(1000), HEAD, b"\xff" * 1000])
def test_what_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(Inadmissible):
        admit(raw)


def test_messages_hold_no_values() -> None:
    with pytest.raises(Inadmissible) as caught:
        admit(file(short(0x00100010, b"PN", b"CANARY^NAME ")) + short(0x00100020, b"LO", b"CANARY")[:-3])
    assert "CANARY" not in caught.value.message


def test_a_mapped_file_can_be_closed_after_admission(tmp_path: Path) -> None:
    path = tmp_path / "object"
    path.write_bytes(part10(ct()))
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert admit(mapped).pixel_data is not None


def test_a_million_zero_elements_are_not_looked_at_again_and_again() -> None:
    began = time.monotonic()
    with pytest.raises(Inadmissible):
        admit(file(bytes(8 << 20) + b"x"))
    assert time.monotonic() - began < 20  # quadratic work would take hours


def test_an_inflated_data_set_takes_its_memory_once() -> None:
    size = 32 << 20
    raw = deflated(UID + long(0x7FE00010, b"OB", size, bytes(size)))
    tracemalloc.start()
    admitted = admit(raw)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert admitted.data is not None
    assert peak < size + (8 << 20)


def test_whoever_admits_is_told_before_anything_is_inflated() -> None:
    told: list[str] = []
    admit(bytes(128) + b"DICM" + short(0x00020010, b"UI", b"1.2.840.10008.1.2.1\0") + UID, before_inflating=told.clear)
    with pytest.raises(Inadmissible):
        admit(deflated(UID)[:-3], before_inflating=lambda: told.append("now"))
    assert told == ["now"]
