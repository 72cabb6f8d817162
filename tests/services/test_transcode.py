"""Explicit VR Little Endian out of everything: pydicom reads the same data set from our file as from the stored one."""

import io
import struct
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from pacs.domain import pixels
from pacs.domain.admission import Inadmissible, admit
from pacs.errors import Damaged, NotAcceptable
from pacs.services.transcode import explicit_le
from tests.domain.makers import SYNTAXES, ct, data_sets, part10, real_files

PIXEL_DATA = 0x7FE00010
JPEG, J2K, RLE, MPEG = (f"1.2.840.10008.1.2.{n}" for n in ("4.50", "4.90", "5", "4.102"))
# changes that decoding makes, and is told by the labels
DESCRIPTION = {0x00280004, 0x00280006, 0x00282110, 0x7FE00001, 0x7FE00002}
# a tile smaller than declared; a damaged stream
REFUSED = {"multiframe.dcm", "JPEG2000-embedded-sequence-delimiter.dcm"}


@dataclass(frozen=True)
class Stored:
    sop_class_uid: str = "1.2.840.10008.5.1.4.1.1.2"
    sop_instance_uid: str = "1.2.3.4"


def transcoded(raw: bytes) -> bytes:
    return b"".join(explicit_le(io.BytesIO(raw), Stored()))


def same(stored: Dataset, ours: Dataset, ignored: set[int]) -> None:
    """Every element but group lengths has the same VR and value, sequences and private elements included."""
    tags = {int(tag) for tag in stored.keys() if tag.element != 0}  # noqa: SIM118
    assert {int(tag) for tag in ours.keys() if tag.element != 0} - ignored == tags - ignored  # noqa: SIM118
    for tag in tags - ignored:
        before, after = stored[tag], ours[tag]
        assert before.VR == after.VR, before.tag
        if before.VR == "SQ":
            assert len(before.value) == len(after.value)
            for one, other in zip(before.value, after.value, strict=True):
                same(one, other, ignored)
        elif isinstance(before.value, bytes):
            assert after.value in {before.value, before.value + b"\0"}, before.tag
        else:
            assert str(before.value) == str(after.value), before.tag


@pytest.mark.parametrize("path", real_files(), ids=lambda path: path.name)
def test_real_objects_keep_their_data_set(path: Path) -> None:
    raw = path.read_bytes()
    try:
        admitted = admit(raw)
    except Inadmissible:
        pytest.skip("refused by admission")
    if path.name in REFUSED:
        with pytest.raises(NotAcceptable):
            explicit_le(io.BytesIO(raw), Stored())
        return
    if path.name == "no_preamble_dicm_in_data":
        pytest.skip("pydicom misreads this one")
    out = transcoded(raw)
    ours = pydicom.dcmread(io.BytesIO(out))
    assert ours.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    turned = {PIXEL_DATA} if not admitted.encoding.little else set()
    ignored = {PIXEL_DATA, *DESCRIPTION} if admitted.encapsulated else turned
    same(pydicom.dcmread(path, force=True), ours, ignored)
    if admitted.pixel_data is not None and (turned or admitted.encapsulated):
        before, after = pixels.frame(raw, 0), pixels.frame(out, 0)
        assert np.array_equal(before.samples, after.samples)
        assert before.photometric_interpretation == ours.PhotometricInterpretation


@pytest.mark.parametrize("syntax", SYNTAXES)
@given(ds=data_sets)
@settings(max_examples=20, deadline=None)
def test_written_data_sets_keep_every_value(syntax: str, ds: Dataset) -> None:
    ds.SpecificCharacterSet = "ISO_IR 192"
    if syntax == SYNTAXES[2]:  # pydicom does not turn the words of binary values
        ds = Dataset({tag: element for tag, element in ds.items() if element.VR not in {"OV", "SQ"}})
    raw = part10(ds, syntax)
    same(pydicom.dcmread(io.BytesIO(raw)), pydicom.dcmread(io.BytesIO(transcoded(raw))), set())


def test_what_is_explicit_already_is_sent_as_it_is() -> None:
    raw = part10(ct())
    assert transcoded(raw) == raw


def test_a_deflated_data_set_is_sent_inflated_byte_for_byte() -> None:
    ds = ct()
    plain, deflated = part10(ds), part10(ds, SYNTAXES[3])
    out = transcoded(deflated)
    assert out[admit(out).data_offset :] == plain[admit(plain).data_offset :]


def test_the_file_meta_information_is_ours_and_right() -> None:
    ours = pydicom.dcmread(io.BytesIO(transcoded(part10(ct(), SYNTAXES[0]))))
    meta = ours.file_meta
    assert meta.MediaStorageSOPInstanceUID == "1.2.3.4"
    assert meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert meta.ImplementationVersionName.startswith("FILMROOM")


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_big_endian_samples_are_turned(bits: int) -> None:
    samples = np.arange(24, dtype=f"<u{bits // 8}").reshape(4, 6) * 3
    ds = ct(BitsAllocated=bits, BitsStored=bits, HighBit=bits - 1)
    ds.add_new("PixelData", "OB" if bits == 8 else "OW", samples.astype(samples.dtype.newbyteorder(">")).tobytes())
    ours = pydicom.dcmread(io.BytesIO(transcoded(part10(ds, SYNTAXES[2]))))
    assert np.array_equal(ours.pixel_array, samples)


def test_private_elements_of_implicit_objects_stay_bytes() -> None:
    ds = ct()
    block = ds.private_block(0x0099, "NOBODY KNOWS", create=True)
    block.add_new(1, "DS", "1.25")
    out = transcoded(part10(ds, SYNTAXES[0]))
    ours = pydicom.dcmread(io.BytesIO(out))
    assert ours[0x00990010].VR == "LO"
    assert (ours[0x00991001].VR, ours[0x00991001].value) == ("UN", b"1.25")


def test_a_text_too_long_for_its_vr_becomes_unknown() -> None:
    raw = part10(ct(StudyDescription="x" * 70_000), SYNTAXES[0])
    ours = pydicom.dcmread(io.BytesIO(transcoded(raw)))
    assert (ours["StudyDescription"].VR, ours.StudyDescription) == ("UN", b"x" * 70_000)


def compressed(frames: list[bytes], syntax: str, **more: object) -> bytes:
    ds = ct(**more)
    ds.PixelData = encapsulate(frames)
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return part10(ds, syntax)


def test_all_frames_are_decoded_in_order() -> None:
    arrays = np.random.default_rng(1).integers(0, 60_000, (5, 4, 6), np.uint16)
    streams = [imagecodecs.jpeg2k_encode(array, level=0, codecformat="J2K", reversible=True) for array in arrays]
    ours = pydicom.dcmread(io.BytesIO(transcoded(compressed(streams, J2K, NumberOfFrames="5"))))
    assert np.array_equal(ours.pixel_array, arrays)
    assert ours["PixelData"].VR == "OW"
    assert "LossyImageCompression" not in ours


def test_colour_is_labelled_as_its_bytes_are_and_loss_is_told() -> None:
    array = np.full((4, 6, 3), (200, 30, 30), np.uint8)
    stream = imagecodecs.jpeg8_encode(array, level=95, colorspace="RGB", outcolorspace="YCBCR")
    facts = {
        "SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "YBR_FULL_422",
        "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7,
    }  # fmt: skip
    ours = pydicom.dcmread(io.BytesIO(transcoded(compressed([stream], JPEG, **facts))))
    assert ours.PhotometricInterpretation == "YBR_FULL"
    assert ours.LossyImageCompression == "01"
    assert len(ours.PixelData) == 4 * 6 * 3
    assert abs(int(ours.pixel_array[0, 0, 0]) - 200) < 8  # pydicom makes RGB of what the label says


def test_single_bit_frames_share_bytes_again() -> None:
    frames = np.random.default_rng(2).integers(0, 2, (3, 5, 7), np.uint8)
    streams = []
    for frame in frames:
        packed = np.packbits(frame.reshape(-1), bitorder="little").tobytes()
        streams.append(struct.pack("<16I", 1, 64, *[0] * 14) + bytes([len(packed) - 1]) + packed)
    facts = {"Rows": 5, "Columns": 7, "BitsAllocated": 1, "BitsStored": 1, "HighBit": 0, "NumberOfFrames": "3"}
    ours = pydicom.dcmread(io.BytesIO(transcoded(compressed(streams, RLE, **facts))))
    assert np.array_equal(ours.pixel_array, frames)


def test_a_compressed_icon_is_decoded_too() -> None:
    array = np.random.default_rng(3).integers(0, 60_000, (4, 6), np.uint16)
    stream = imagecodecs.jpeg2k_encode(array, level=0, codecformat="J2K", reversible=True)
    icon = Dataset()
    for keyword in ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored",
                    "HighBit", "PixelRepresentation"):  # fmt: skip
        setattr(icon, keyword, getattr(ct(), keyword))
    icon.PixelData = encapsulate([stream])
    icon["PixelData"].VR = "OB"
    icon["PixelData"].is_undefined_length = True
    ours = pydicom.dcmread(io.BytesIO(transcoded(compressed([stream], J2K, IconImageSequence=Sequence([icon])))))
    assert ours.IconImageSequence[0].PixelData == ours.PixelData == array.tobytes()


@pytest.mark.parametrize("syntax", [MPEG, "1.2.840.10008.1.2.4.92", "1.2.840.10008.1.2.4.52"])
def test_what_no_decoder_reads_is_not_acceptable_at_once(syntax: str) -> None:
    with pytest.raises(NotAcceptable):
        explicit_le(io.BytesIO(compressed([b"ab"], syntax)), Stored())


def test_a_decoded_value_beyond_four_gigabytes_is_not_acceptable() -> None:
    array = np.zeros((1024, 1024), np.uint16)
    stream = imagecodecs.jpeg2k_encode(array, level=0, codecformat="J2K", reversible=True)
    raw = compressed([stream] * 2100, J2K, Rows=1024, Columns=1024, NumberOfFrames="2100")
    with pytest.raises(NotAcceptable, match="too long"):
        explicit_le(io.BytesIO(raw), Stored())


def test_a_frame_of_another_size_is_found_before_the_answer_begins() -> None:
    streams = [
        imagecodecs.jpeg2k_encode(np.zeros(shape, np.uint16), level=0, codecformat="J2K", reversible=True)
        for shape in ((4, 6), (4, 6), (3, 6))
    ]
    with pytest.raises(NotAcceptable, match="3 x 6"):
        explicit_le(io.BytesIO(compressed(streams, J2K, NumberOfFrames="3")), Stored())


def test_a_frame_that_breaks_later_breaks_the_answer() -> None:
    good = imagecodecs.jpeg2k_encode(np.zeros((4, 6), np.uint16), level=0, codecformat="J2K", reversible=True)
    parts = explicit_le(io.BytesIO(compressed([good, good[:60]], J2K, NumberOfFrames="2")), Stored())
    with pytest.raises(Damaged, match="Frame 2"):
        list(parts)


def test_a_file_that_is_no_longer_whole_is_damaged() -> None:
    with pytest.raises(Damaged):
        explicit_le(io.BytesIO(part10(ct())[:-10]), Stored())


def test_a_large_native_object_streams_from_its_file(tmp_path: Path) -> None:
    ds = ct(4096, 4096, NumberOfFrames="2")
    ds.PixelData = bytes(4096 * 4096 * 2 * 2)
    path = tmp_path / "large"
    path.write_bytes(part10(ds, SYNTAXES[0]))
    with path.open("rb") as file:
        tracemalloc.start()
        total = sum(map(len, explicit_le(file, Stored())))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert total > 4096 * 4096 * 4
    assert peak < 16 << 20
