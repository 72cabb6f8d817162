"""Objects in compressed transfer syntaxes and back are bit for bit what they were; pydicom reads what we wrote."""

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian

from pacs.domain import encoders, frames, pixels
from pacs.domain.admission import Inadmissible, admit
from pacs.domain.encoders import ENCODERS, JPEG_BASELINE, Encoded, Unencodable
from pacs.domain.frames import Description
from pacs.domain.syntaxes import DEFLATED_LE, EXPLICIT_LE, RLE
from pacs.errors import NotAcceptable
from pacs.services.recode import recoded
from tests.domain.makers import ct, part10, real_files

LOSSLESS = [uid for uid, encoder in ENCODERS.items() if not encoder.lossy]
J2K = "1.2.840.10008.1.2.4.90"
# what describes the compressed form and not what it stands for
DESCRIPTION = {0x00280004, 0x00280006, 0x7FE00010, 0x7FE00001, 0x7FE00002}


@dataclass(frozen=True)
class Stored:
    sop_class_uid: str = "1.2.840.10008.5.1.4.1.1.2"
    sop_instance_uid: str = "1.2.3.4"


def recode(stream: bytes, about: Description, source: str, target: str, quality: int) -> Encoded:
    return encoders.recode(stream, about, source, target, quality=quality)


def converted(raw: bytes, target: str, quality: int = 90) -> bytes:
    """A file in another transfer syntax, by codecs of this process."""
    chunks = recoded(io.BytesIO(raw), Stored(), target, decode=pixels.decode, recode=recode, quality=quality)
    return b"".join(chunks)


def samples(raw: bytes) -> list[pixels.Decoded]:
    """The frames of a file, by our decoders."""
    admitted = admit(raw)
    return [
        pixels.frame(raw, number, admitted=admitted) for number in range(frames.table(admitted, raw).number_of_frames)
    ]


def same_samples(before: bytes, after: bytes) -> None:
    for one, other in zip(samples(before), samples(after), strict=True):
        assert one.photometric_interpretation == other.photometric_interpretation
        assert one.samples.dtype == other.samples.dtype
        assert np.array_equal(one.samples, other.samples)


def check_exact(path: Path, target: str) -> bool:
    """Whether the file has a form in this syntax; then it is exact, and the way back gives the same file as ours."""
    raw = path.read_bytes()
    try:
        found = converted(raw, target)
    except NotAcceptable:
        return False
    same_samples(raw, found)
    native, back = converted(raw, EXPLICIT_LE), converted(found, EXPLICIT_LE)
    same_samples(native, back)
    before, after = pydicom.dcmread(io.BytesIO(native)), pydicom.dcmread(io.BytesIO(back))
    if before.get("PlanarConfiguration", 0) == 0 and not before.PhotometricInterpretation.endswith("422"):
        assert before.PixelData == after.PixelData
    theirs, ours = pydicom.dcmread(io.BytesIO(native)), pydicom.dcmread(io.BytesIO(found))
    assert ours.file_meta.TransferSyntaxUID == target
    assert set(theirs.keys()) - DESCRIPTION == set(ours.keys()) - DESCRIPTION
    return True


# two of each kind: gray, palette, colour, compressed, big endian
SMALL = {
    "CT_small.dcm",
    "MR_small_RLE.dcm",
    "SC_rgb_rle_2frame.dcm",
    "OBXXXX1A.dcm",
    "693_J2KR.dcm",
    "ExplVR_BigEnd.dcm",
}


@pytest.mark.parametrize("target", LOSSLESS)
@pytest.mark.parametrize("path", [p for p in real_files() if p.name in SMALL], ids=lambda path: path.name)
def test_lossless_forms_are_exact(path: Path, target: str) -> None:
    assert check_exact(path, target)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("target", LOSSLESS)
def test_lossless_forms_of_every_real_file_are_exact(target: str, data_dir: Path) -> None:
    made = 0
    for path in sorted(path for path in data_dir.rglob("*") if path.is_file()):
        try:
            admitted = admit(path.read_bytes())
        except Inadmissible:
            continue
        if 0 < frames.table(admitted, path.read_bytes()).number_of_frames <= 20:
            made += check_exact(path, target)
    assert made > 250


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_random_samples_of_every_width_are_exact(data: st.DataObject) -> None:
    target = data.draw(st.sampled_from(LOSSLESS))
    bits = data.draw(st.integers(1, 16))
    signed, colour = data.draw(st.booleans()) and bits > 1, data.draw(st.booleans())
    rows, columns = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    allocated = 8 if bits <= 8 else 16
    low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
    shape = (rows, columns, 3) if colour else (rows, columns)
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    wanted = rng.integers(low, high, shape).astype(f"{'i' if signed else 'u'}{allocated // 8}")
    label = data.draw(st.sampled_from(["RGB", "YBR_FULL"])) if colour else "MONOCHROME1"
    about = Description(rows, columns, 3 if colour else 1, allocated, bits, bits - 1, int(signed), 0, label)
    try:
        made = encoders.recode(wanted.tobytes(), about, "", target)
    except Unencodable:
        assert min(rows, columns) < 4, "only codecs of wavelets and of very small images may refuse"
        return
    found = pixels.decode(
        made.stream, replace(about, photometric_interpretation=made.photometric_interpretation), target
    )
    assert found.photometric_interpretation == label
    assert np.array_equal(found.samples, wanted)


@pytest.mark.parametrize("target", [RLE, "1.2.840.10008.1.2.4.80", J2K])  # those that pydicom's plugins here decode
def test_pydicom_sees_the_same_pixels(target: str) -> None:
    item = ct(Rows=20, Columns=30, PixelData=np.arange(600, dtype="<u2").tobytes())
    found = pydicom.dcmread(io.BytesIO(converted(part10(item, ExplicitVRLittleEndian), target)))
    assert np.array_equal(found.pixel_array, np.arange(600).reshape(20, 30))


def test_rows_are_packed_one_by_one() -> None:
    about = Description(2, 4, 1, 8, 8, 7, 0, 0, "MONOCHROME2")
    made = encoders.recode(b"\7" * 8, about, "", RLE).stream
    assert made[64:] == b"\xfd\7\xfd\7"  # PS3.5 G.3.1: no run crosses the end of a row


def test_bits_above_bits_stored_are_not_lost_but_refused() -> None:
    item = ct(Rows=1, Columns=2, BitsStored=12, HighBit=11, PixelData=b"\xff\x1f\1\0")
    raw = part10(item, ExplicitVRLittleEndian)
    with pytest.raises(NotAcceptable, match="bits above Bits Stored"):
        converted(raw, J2K)
    there = pydicom.dcmread(io.BytesIO(converted(converted(raw, RLE), EXPLICIT_LE)))
    assert there.PixelData == item.PixelData


@pytest.mark.parametrize("target", ENCODERS)
def test_single_bits_and_real_numbers_are_refused(target: str) -> None:
    bits = ct(Rows=4, Columns=4, BitsAllocated=1, BitsStored=1, HighBit=0, PixelData=b"\x0f\xf0")
    real = ct(Rows=1, Columns=2, BitsAllocated=32)
    del real.PixelData
    real.FloatPixelData = bytes(8)
    for item in (bits, real):
        with pytest.raises(NotAcceptable, match="no form in this transfer syntax"):
            converted(part10(item, ExplicitVRLittleEndian), target)


def test_deflated_form_holds_the_same_data_set() -> None:
    raw = part10(ct(StudyDescription="x" * 60), ExplicitVRLittleEndian)
    found = pydicom.dcmread(io.BytesIO(converted(raw, DEFLATED_LE)))
    stored = pydicom.dcmread(io.BytesIO(raw))
    assert found.file_meta.TransferSyntaxUID == DEFLATED_LE
    assert found == stored


def test_lossy_form_says_that_it_is() -> None:
    rng = np.random.default_rng(3)
    colours = np.clip(np.cumsum(rng.integers(-3, 4, (32, 32, 3)), axis=1) + 128, 0, 255).astype(np.uint8)
    item = ct(Rows=32, Columns=32, SamplesPerPixel=3, PlanarConfiguration=0, PhotometricInterpretation="RGB",
              BitsAllocated=8, BitsStored=8, HighBit=7, PixelData=colours.tobytes())  # fmt: skip
    raw = part10(item, ExplicitVRLittleEndian)
    better, worse = converted(raw, JPEG_BASELINE, 95), converted(raw, JPEG_BASELINE, 20)
    assert len(worse) < len(better)
    found = pydicom.dcmread(io.BytesIO(better))
    assert (found.LossyImageCompression, found.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
    assert float(found.LossyImageCompressionRatio) > 1
    assert found.PhotometricInterpretation == "YBR_FULL_422"
    [seen] = samples(better)
    assert seen.photometric_interpretation == "YBR_FULL"


def test_what_was_lossy_stays_so_in_a_lossless_form() -> None:
    item = ct(Rows=16, Columns=16, BitsAllocated=8, BitsStored=8, HighBit=7, PixelData=bytes(range(256)))
    lossy = converted(part10(item, ExplicitVRLittleEndian), JPEG_BASELINE)
    found = pydicom.dcmread(io.BytesIO(lossy))
    del found.LossyImageCompression
    held = io.BytesIO()
    found.save_as(held, enforce_file_format=True)
    assert pydicom.dcmread(io.BytesIO(converted(held.getvalue(), J2K))).LossyImageCompression == "01"


def test_object_without_pixel_data_goes_over_without_being_compressed() -> None:
    item = ct()
    del item.PixelData
    found = pydicom.dcmread(io.BytesIO(converted(part10(item, ExplicitVRLittleEndian), DEFLATED_LE)))
    assert found.SOPInstanceUID == item.SOPInstanceUID
