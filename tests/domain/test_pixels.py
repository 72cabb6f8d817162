"""Decoding against pydicom's decoders where they can, and against arrays encoded here."""

import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.pixels.utils import pixel_array

from pacs.domain import codestreams
from pacs.domain.admission import Inadmissible, admit
from pacs.domain.frames import Description
from pacs.domain.pixels import Undecodable, decode, frame
from tests.domain.makers import real_files

RNG = np.random.default_rng(7)
JPEG, JPEG_12, JPEG_LOSSLESS, JPEG_LS = (f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 70, 80))
J2K, HTJ2K, JXL, RLE, DEFLATED = (
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.110",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.8.1",
)


def described(array: np.ndarray[Any, Any], **more: Any) -> Description:
    samples = array.shape[2] if array.ndim == 3 else 1
    bits = array.dtype.itemsize * 8
    facts = {
        "rows": array.shape[0],
        "columns": array.shape[1],
        "samples_per_pixel": samples,
        "bits_allocated": bits,
        "bits_stored": bits,
        "high_bit": bits - 1,
        "pixel_representation": int(array.dtype.kind == "i"),
        "planar_configuration": 0,
        "photometric_interpretation": "MONOCHROME2" if samples == 1 else "RGB",
    }
    return Description(**{**facts, **more})


@pytest.mark.parametrize("path", real_files(), ids=lambda path: path.name)
def test_real_frames_have_the_samples_pydicom_decodes(path: Path) -> None:
    raw = path.read_bytes()
    try:
        admitted = admit(raw)
        mine = frame(raw, 0, admitted=admitted).samples
    except (Inadmissible, Undecodable, LookupError):
        pytest.skip("nothing to decode here")
    ds = pydicom.dcmread(path, force=True)
    ds.file_meta.TransferSyntaxUID = pydicom.uid.UID(admitted.transfer_syntax_uid)
    try:
        theirs = pixel_array(ds, index=0, raw=True)
    except Exception:
        pytest.skip("pydicom cannot decode this one")
    assert mine.dtype == theirs.dtype or mine.dtype.itemsize == theirs.dtype.itemsize
    assert np.array_equal(mine, theirs, equal_nan=mine.dtype.kind == "f")


def smooth(dtype: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Random samples over the whole range of the type."""
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("shape", [(7, 9), (6, 8, 3)])
@pytest.mark.parametrize(
    ("syntax", "encode", "dtypes"),
    [
        (J2K, lambda a: imagecodecs.jpeg2k_encode(a, level=0, codecformat="J2K", reversible=True), "u1 u2"),
        (JPEG_LS, imagecodecs.jpegls_encode, "u1 u2"),
        (HTJ2K, imagecodecs.htj2k_encode, "u1 u2"),
        (JXL, lambda a: imagecodecs.jpegxl_encode(a, lossless=True), "u1 u2"),
    ],
)
def test_lossless_codecs_give_back_what_was_encoded(
    syntax: str, encode: Any, dtypes: str, shape: tuple[int, ...]
) -> None:
    for dtype in dtypes.split():
        array = smooth(dtype, shape)
        got = decode(encode(array), described(array), syntax)
        assert np.array_equal(got.samples, array)
        assert got.samples.dtype == array.dtype


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_lossless_jpeg_gives_back_what_was_encoded(dtype: str) -> None:
    array = smooth(dtype, (7, 9))
    assert np.array_equal(decode(imagecodecs.ljpeg_encode(array), described(array), JPEG_LOSSLESS).samples, array)


def test_signed_samples_come_back_signed_from_unsigned_streams() -> None:
    array = smooth("i2", (7, 9))
    for encoded, syntax in (
        (imagecodecs.jpegls_encode(array.view("u2")), JPEG_LS),
        (imagecodecs.ljpeg_encode(array.view("u2")), JPEG_LOSSLESS),
    ):
        assert np.array_equal(decode(encoded, described(array), syntax).samples, array)


def test_a_sign_within_fewer_stored_bits_is_carried() -> None:
    array = np.array([[-2048, -1, 0, 2047]], "i2")
    raw = (array & 0x0FFF).astype("<u2")
    description = described(array, bits_stored=12, high_bit=11)
    assert np.array_equal(decode(raw.tobytes(), description, "").samples, array)
    assert np.array_equal(decode(imagecodecs.jpegls_encode(raw), description, JPEG_LS).samples, array)


def test_bits_beyond_the_stored_ones_are_no_samples() -> None:
    raw = np.array([[0xF123, 0x0FFF]], "<u2")
    got = decode(raw.tobytes(), described(raw, bits_stored=12, high_bit=11), "")
    assert got.samples.tolist() == [[0x0123, 0x0FFF]]


@given(st.integers(1, 6), st.integers(1, 40), st.sampled_from(["u1", "u2", "i2"]), st.sampled_from([1, 3]))
@settings(max_examples=30, deadline=None)
def test_rle_of_pydicoms_encoder_is_decoded(rows: int, columns: int, dtype: str, samples: int) -> None:
    if samples > 1:
        dtype = dtype.replace("i", "u")  # colour has no sign
    array = smooth(dtype, (rows, columns, samples) if samples > 1 else (rows, columns))
    array[array > array.mean()] = 5
    description = described(array)
    encoded = RLELosslessEncoder.encode(
        np.ascontiguousarray(array),
        rows=rows, columns=columns, samples_per_pixel=samples, bits_allocated=description.bits_allocated,
        bits_stored=description.bits_stored, pixel_representation=description.pixel_representation,
        photometric_interpretation=description.photometric_interpretation, number_of_frames=1, planar_configuration=0,
    )  # fmt: skip
    assert np.array_equal(decode(encoded, description, RLE).samples, array)


def test_colour_of_jpeg_is_labelled_as_its_components_are() -> None:
    array = np.full((16, 16, 3), (200, 30, 30), np.uint8)
    transformed = imagecodecs.jpeg8_encode(array, level=100, colorspace="RGB", outcolorspace="YCBCR")
    plain = imagecodecs.jpeg8_encode(array, level=100, colorspace="RGB", outcolorspace="RGB")
    ybr = decode(transformed, described(array, photometric_interpretation="YBR_FULL_422"), JPEG)
    assert ybr.photometric_interpretation == "YBR_FULL"
    assert abs(int(ybr.samples[0, 0, 0]) - 81) < 4  # luma of that red
    rgb = decode(plain, described(array, photometric_interpretation="RGB"), JPEG)
    assert rgb.photometric_interpretation == "RGB"
    assert abs(int(rgb.samples[0, 0, 0]) - 200) < 4
    lying = decode(transformed, described(array, photometric_interpretation="RGB"), JPEG)
    assert lying.photometric_interpretation == "YBR_FULL"  # JFIF says so


def test_the_transforms_of_jpeg_2000_are_undone_and_the_label_says_so() -> None:
    array = smooth("u1", (8, 8, 3))
    encoded = imagecodecs.jpeg2k_encode(array, level=0, codecformat="J2K", reversible=True, mct=True)
    got = decode(encoded, described(array, photometric_interpretation="YBR_RCT"), J2K)
    assert got.photometric_interpretation == "RGB"
    assert np.array_equal(got.samples, array)


def test_planes_are_interleaved_and_shared_chroma_is_spread() -> None:
    array = smooth("u1", (2, 4, 3))
    planar = described(array, planar_configuration=1)
    assert np.array_equal(decode(array.transpose(2, 0, 1).tobytes(), planar, "").samples, array)
    shared = described(array, photometric_interpretation="YBR_FULL_422")
    got = decode(bytes(range(16)), shared, "")
    assert got.photometric_interpretation == "YBR_FULL"
    assert got.samples[0].tolist() == [[0, 2, 3], [1, 2, 3], [4, 6, 7], [5, 6, 7]]


@pytest.mark.parametrize("syntax", ["", RLE, DEFLATED])
def test_single_bits_are_samples_of_zero_and_one(syntax: str) -> None:
    array = RNG.integers(0, 2, (5, 7), np.uint8)
    packed = np.packbits(array.reshape(-1), bitorder="little").tobytes()
    description = described(array, bits_allocated=1, bits_stored=1, high_bit=0)
    if syntax == RLE:
        packed = struct.pack("<16I", 1, 64, *[0] * 14) + bytes([len(packed) - 1]) + packed
    elif syntax == DEFLATED:
        packed = imagecodecs.deflate_encode(packed, raw=True)
    assert np.array_equal(decode(packed, description, syntax).samples, array)


@pytest.mark.parametrize("syntax", [JPEG, JPEG_LOSSLESS, JPEG_LS, J2K, HTJ2K, JXL, RLE, DEFLATED, ""])
@given(raw=st.binary(max_size=200))
@settings(max_examples=20, deadline=None)
def test_arbitrary_streams_are_undecodable_and_nothing_else(syntax: str, raw: bytes) -> None:
    array = np.zeros((16, 16), np.uint16)
    with pytest.raises(Undecodable):
        decode(raw, described(array), syntax)


def test_sizes_are_refused_before_anything_is_allocated() -> None:
    array = np.zeros((4, 4), np.uint8)
    with pytest.raises(Undecodable, match="larger than"):
        decode(b"", described(array, rows=65535, columns=65535), "")
    with pytest.raises(Undecodable, match="shorter"):
        decode(b"", described(array, rows=10_000, columns=10_000), "")
    small = imagecodecs.jpeg2k_encode(array, level=0, codecformat="J2K")
    huge = bytearray(small)
    huge[8:16] = struct.pack(">II", 60_000, 60_000)
    with pytest.raises(Undecodable, match="60000 x 60000"):
        decode(bytes(huge), described(array), J2K)


@pytest.mark.parametrize("part", [0.99, 0.5, 0.2])
@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (JPEG, imagecodecs.jpeg8_encode),
        (JPEG_LS, imagecodecs.jpegls_encode),
        (JPEG_LOSSLESS, imagecodecs.ljpeg_encode),
        (J2K, lambda a: imagecodecs.jpeg2k_encode(a, level=0, codecformat="J2K", reversible=True)),
        (HTJ2K, imagecodecs.htj2k_encode),
        (JXL, lambda a: imagecodecs.jpegxl_encode(a, lossless=True)),
    ],
)
def test_a_stream_cut_short_is_never_shown_as_an_image(syntax: str, encode: Any, part: float) -> None:
    array = smooth("u1", (64, 64))
    stream = encode(array)
    with pytest.raises(Undecodable):
        decode(stream[: int(len(stream) * part)], described(array), syntax)


@pytest.mark.parametrize(
    ("encode", "parse"),
    [
        (imagecodecs.jpeg8_encode, codestreams.jpeg),
        (imagecodecs.jpegls_encode, codestreams.jpeg),
        (imagecodecs.ljpeg_encode, codestreams.jpeg),
        (lambda a: imagecodecs.jpeg2k_encode(a, codecformat="J2K"), codestreams.jpeg_2000),
        (lambda a: imagecodecs.jpeg2k_encode(a, codecformat="JP2"), codestreams.jpeg_2000),
        (imagecodecs.htj2k_encode, codestreams.jpeg_2000),
        (imagecodecs.jpegxl_encode, codestreams.jpeg_xl),
        (lambda a: imagecodecs.jpegxl_encode(a, usecontainer=True), codestreams.jpeg_xl),
    ],
)
@pytest.mark.parametrize("size", [(16, 16), (24, 40), (13, 301), (300, 400)])
def test_declared_sizes_are_read_from_code_streams(encode: Any, parse: Any, size: tuple[int, int]) -> None:
    found = parse(encode(np.zeros(size, np.uint8)))
    assert found is not None
    assert (found.rows, found.columns) == size


@given(st.binary(max_size=120))
def test_no_bytes_upset_the_parsers(raw: bytes) -> None:
    for head in (b"", b"\xff\xd8", b"\xff\x4f\xff\x51", b"\xff\x0a"):
        for parse in (codestreams.jpeg, codestreams.jpeg_2000, codestreams.jpeg_xl):
            parse(head + raw)
