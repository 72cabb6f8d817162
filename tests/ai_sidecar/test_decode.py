"""Stored values from every syntax that we can make here."""

import io
from contextlib import closing

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from ai_sidecar import decode
from ai_sidecar.ports import RunFailed
from pacs.domain import pixels, syntaxes
from pacs.services.decoders import Decoders
from tests.ai_sidecar.phantom import Instance, header, instance

JPEG = "1.2.840.10008.1.2.4."
ENCODERS = {
    JPEG + "70": imagecodecs.ljpeg_encode,
    JPEG + "80": imagecodecs.jpegls_encode,
    JPEG + "90": lambda array: imagecodecs.jpeg2k_encode(array, level=0, codecformat="j2k", reversible=True),
    JPEG + "201": lambda array: imagecodecs.htj2k_encode(array, reversible=True),
}


def image(array, stored=16):
    dataset = header(3, 0)
    dataset.Rows, dataset.Columns = array.shape
    dataset.PixelRepresentation = int(array.dtype.kind == "i")
    dataset.BitsStored, dataset.HighBit = stored, stored - 1
    dataset.PixelData = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return dataset


def random_array(dtype, bits, shape=(33, 47)):
    low, high = (-(1 << (bits - 1)), 1 << (bits - 1)) if np.dtype(dtype).kind == "i" else (0, 1 << bits)
    return np.random.default_rng(bits).integers(low, high, shape).astype(dtype)


@pytest.mark.parametrize("uid", [syntaxes.EXPLICIT_LE, syntaxes.IMPLICIT_LE, syntaxes.DEFLATED_LE])
@pytest.mark.parametrize(("dtype", "bits"), [("uint16", 16), ("int16", 16), ("uint16", 12), ("int16", 12)])
def test_native_values_come_as_they_were_stored(uid, dtype, bits):
    array = random_array(dtype, bits)
    dataset = image(array, bits)
    dataset.file_meta.TransferSyntaxUID = UID(uid)
    found, values = decode.read(instance(dataset))
    assert np.array_equal(values, array)
    assert values.dtype.kind == array.dtype.kind
    assert "PixelData" not in found


def test_bits_above_those_stored_do_not_count():
    array = random_array("uint16", 16)
    _, values = decode.read(instance(image(array, 12)))
    assert np.array_equal(values, array & 0xFFF)
    signed = random_array("int16", 12)
    _, values = decode.read(instance(image(signed & 0xFFF, 12)))
    assert np.array_equal(values, signed)


@pytest.mark.parametrize("uid", ENCODERS)
@pytest.mark.parametrize(("dtype", "bits"), [("uint16", 16), ("uint16", 12), ("int16", 16)])
def test_compressed_values_come_as_they_were(uid, dtype, bits):
    array = random_array(dtype, bits)
    dataset = image(array, bits)
    try:
        frame = ENCODERS[uid](array.view("uint16"))
    except imagecodecs.DelayedImportError:
        pytest.skip("this build of imagecodecs lacks the encoder")
    dataset.PixelData = encapsulate([bytes(frame)])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = UID(uid)
    _, values = decode.read(instance(dataset))
    assert np.array_equal(values, array)


@pytest.mark.parametrize(
    "name",
    ["MR_small.dcm", "MR_small_bigendian.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "CT_small.dcm",
     "MR_small_jpeg_ls_lossless.dcm", "JPEG-LL.dcm", "J2K_pixelrep_mismatch.dcm", "explicit_VR-UN.dcm"],
)  # fmt: skip
def test_files_of_others_decode_as_pydicom_decodes_them(name):
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip("this pydicom has no such file")
    dataset = dcmread(path)
    try:
        expected = dataset.pixel_array
    except (RuntimeError, NotImplementedError):
        pytest.skip("pydicom cannot decode it here")
    with open(path, "rb") as file:
        _, values = decode.read(Instance(dataset, file.read()))
    assert np.array_equal(values, expected)


def damaged(array=None, **attributes):
    dataset = image(random_array("uint16", 16) if array is None else array)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return instance(dataset)


@pytest.mark.parametrize(
    "attributes",
    [{"Rows": 40}, {"BitsAllocated": 12}, {"Rows": 0}, {"Rows": 65535, "Columns": 65535}],
)
def test_what_cannot_be_decoded_fails_for_good(attributes):
    with pytest.raises(RunFailed) as raised:
        decode.read(damaged(**attributes))
    assert (raised.value.code, raised.value.permanent) == ("undecodable", True)


@pytest.mark.parametrize("uid", [*ENCODERS, syntaxes.RLE, JPEG + "50"])
def test_damaged_streams_fail_for_good(uid):
    dataset = image(random_array("uint16", 16))
    dataset.PixelData = encapsulate([b"\xff\xd8no image at all\xff\xd9" * 3])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = UID(uid)
    with pytest.raises(RunFailed) as raised:
        decode.read(instance(dataset))
    assert raised.value.permanent


def test_what_is_no_dicom_fails():
    broken = damaged()
    broken.content = io.BytesIO(b"nothing").read()
    with pytest.raises(RunFailed):
        decode.read(broken)


def test_code_streams_are_decoded_where_they_can_do_no_harm():
    array = random_array("uint16", 12)
    dataset = image(array, 12)
    stream = bytes(imagecodecs.jpeg2k_encode(array, level=0, codecformat="j2k", reversible=True, bitspersample=12))
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = UID(JPEG + "90")
    asked = []

    def elsewhere(stream, description, uid):
        asked.append(uid)
        return pixels.decode(stream, description, uid)

    _, found = decode.read(instance(dataset), elsewhere)
    assert np.array_equal(found, array)
    assert asked == [JPEG + "90"]
    with closing(Decoders(1)) as decoders:
        _, found = decode.read(instance(dataset), decoders.decode)
        assert np.array_equal(found, array)
