"""Retrieve of frames (PS3.18 10.4.1.1.6): the acceptance checks D23 to D27 of the wire contract."""

import random
from collections.abc import Callable

import httpx
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

from tests.conformance.conftest import parts, path
from tests.dicomweb.objects import ct

Store = Callable[..., httpx.Response]
OCTETS = 'multipart/related; type="application/octet-stream"'
OHIF = "multipart/related; type=application/octet-stream; transfer-syntax=*"
FRAMES, SIZE = 5, 2 * 4 * 5
PLAIN = f"application/octet-stream; transfer-syntax={ExplicitVRLittleEndian}"


@pytest.fixture(scope="module")
def multi(store: Store) -> Dataset:
    """Five native frames."""
    found = ct(NumberOfFrames=FRAMES, PixelData=random.randbytes(FRAMES * SIZE))
    store(found)
    return found


def frame_of(item: Dataset, number: int) -> bytes:
    return bytes(item.PixelData[(number - 1) * SIZE : number * SIZE])


def get(http: httpx.Client, item: Dataset, frames: str, accept: str | None = None, **headers: str) -> httpx.Response:
    return http.get(f"{path(item)}/frames/{frames}", headers={**({"Accept": accept} if accept else {}), **headers})


@pytest.mark.parametrize("accept", [None, "*/*", OCTETS, OHIF, 'multipart/related; type="*/*"', "multipart/related"])
def test_d23_c06_r05_a_native_frame(http: httpx.Client, multi: Dataset, accept: str | None) -> None:
    answer = get(http, multi, "1", accept)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith('multipart/related; type="application/octet-stream"; boundary=')
    [(headers, content)] = parts(answer)
    assert content == frame_of(multi, 1)
    assert headers["content-type"] == PLAIN
    assert headers["content-location"] == str(http.base_url).rstrip("/") + path(multi) + "/frames/1"


@pytest.mark.parametrize("listed", ["1,2", "5,1", "2,2,4", "1,2,3,4,5", "3%2C1"])
def test_d24_r04_lists_keep_their_order_and_repeats(http: httpx.Client, multi: Dataset, listed: str) -> None:
    found = [content for _, content in parts(get(http, multi, listed))]
    assert found == [frame_of(multi, int(number)) for number in listed.replace("%2C", ",").split(",")]


@pytest.fixture(scope="module")
def jpeg(store: Store) -> Dataset:
    """Two frames that say they are JPEG; nobody decodes them here."""
    contents = [b"\xff\xd8\xff\xe0" + random.randbytes(size) + b"\xff\xd9" for size in (50, 61)]
    found = ct(BitsAllocated=8, BitsStored=8, HighBit=7, NumberOfFrames=2, PixelData=encapsulate(contents))
    found["PixelData"].VR = "OB"
    found.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    store(found)
    found.contents = contents
    return found


@pytest.mark.parametrize("accept", [OHIF, 'multipart/related; type="image/jpeg"', 'multipart/related; type="image/*"'])
def test_d25_d26_c09_r05_compressed_frames_come_as_stored_with_their_own_type(
    http: httpx.Client, jpeg: Dataset, accept: str
) -> None:
    answer = get(http, jpeg, "2,1", accept)
    assert answer.headers["content-type"].startswith('multipart/related; type="image/jpeg"; boundary=')
    found = parts(answer)
    assert [content.rstrip(b"\0") for _, content in found] == [jpeg.contents[1], jpeg.contents[0]]
    assert {headers["content-type"] for headers, _ in found} == {f"image/jpeg; transfer-syntax={JPEGBaseline8Bit}"}


def test_d25_r05_one_compressed_frame_by_itself(http: httpx.Client, jpeg: Dataset) -> None:
    answer = get(http, jpeg, "1", "image/jpeg")
    assert answer.headers["content-type"] == f"image/jpeg; transfer-syntax={JPEGBaseline8Bit}"
    assert answer.content.rstrip(b"\0") == jpeg.contents[0]


def test_d27_r05_one_native_frame_by_itself(http: httpx.Client, multi: Dataset) -> None:
    answer = get(http, multi, "3", "application/octet-stream")
    assert (answer.headers["content-type"], answer.content) == (PLAIN, frame_of(multi, 3))
    assert get(http, multi, "3,4", "application/octet-stream").status_code == 406


def test_c16_c17_ranges_and_validators_of_one_frame(http: httpx.Client, multi: Dataset) -> None:
    part = get(http, multi, "3", "application/octet-stream", Range="bytes=4-7")
    assert (part.status_code, part.content) == (206, frame_of(multi, 3)[4:8])
    assert part.headers["content-range"] == f"bytes 4-7/{SIZE}"
    tag = part.headers["etag"]
    assert get(http, multi, "3", "application/octet-stream", **{"If-None-Match": tag}).status_code == 304
    assert get(http, multi, "2", "application/octet-stream", **{"If-None-Match": tag}).status_code == 200


def test_c08_compressed_frames_are_decoded_by_default(http: httpx.Client, store: Store) -> None:
    item = ct(NumberOfFrames=2, PixelData=random.randbytes(2 * SIZE))
    plain = bytes(item.PixelData)
    item.compress(RLELossless, generate_instance_uid=False)
    store(item)
    for accept in (None, OCTETS, 'multipart/related; type="*/*"'):
        found = parts(get(http, item, "1,2", accept))
        assert b"".join(content for _, content in found) == plain
        assert {headers["content-type"] for headers, _ in found} == {PLAIN}
    [(headers, _)] = parts(get(http, item, "1", OHIF))
    assert headers["content-type"] == f"image/dicom-rle; transfer-syntax={RLELossless}"


def test_c07_big_endian_frames_come_little(http: httpx.Client, store: Store) -> None:
    samples = np.frombuffer(random.randbytes(SIZE), "<u2")
    item = ct(syntax=ExplicitVRBigEndian, PixelData=samples.astype(">u2").tobytes())
    store(item)
    for accept in (OCTETS, OHIF):
        [(headers, content)] = parts(get(http, item, "1", accept))
        assert (headers["content-type"], content) == (PLAIN, samples.tobytes())


def test_r07_frames_of_single_bits_are_packed_anew(http: httpx.Client, store: Store) -> None:
    bits = np.random.default_rng(1).integers(0, 2, (3, 20), dtype=np.uint8)
    packed = np.packbits(bits.ravel(), bitorder="little").tobytes()
    item = ct(BitsAllocated=1, BitsStored=1, HighBit=0, NumberOfFrames=3, PixelData=packed)
    store(item)
    for number, (_, content) in enumerate(parts(get(http, item, "1,2,3"))):
        assert np.array_equal(np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")[:20], bits[number])


@pytest.mark.parametrize("listed", ["0", "-1", "x", "1,", ",", "1,0", "1.5", "1;2", "99999999999", "%20"])
def test_r04_what_is_no_list_is_400(http: httpx.Client, multi: Dataset, listed: str) -> None:
    assert get(http, multi, listed).status_code == 400


@pytest.mark.parametrize("listed", ["6", "1,6"])
def test_r04_beyond_the_last_is_404(http: httpx.Client, multi: Dataset, listed: str) -> None:
    assert get(http, multi, listed).status_code == 404


def test_r04_without_pixel_data_is_404(http: httpx.Client, store: Store) -> None:
    item = ct()
    del item.PixelData
    store(item)
    assert get(http, item, "1").status_code == 404


def test_c01_unknown_instance_is_404(http: httpx.Client) -> None:
    assert get(http, ct(), "1").status_code == 404


@pytest.mark.parametrize("accept", ["text/html", 'multipart/related; type="image/jxl"', "application/dicom"])
def test_c05_other_types_are_406(http: httpx.Client, multi: Dataset, accept: str) -> None:
    assert get(http, multi, "1", accept).status_code == 406


@pytest.mark.parametrize("table", [True, False])
def test_r06_frames_of_several_fragments_are_joined(http: httpx.Client, store: Store, table: bool) -> None:
    streams = [b"\xff\xd8\xff\xe0" + bytes([number]) * 101 + b"\xff\xd9" for number in range(1, 4)]
    item = ct(syntax=JPEGBaseline8Bit, NumberOfFrames=3, BitsAllocated=8, BitsStored=8, HighBit=7)
    item.PixelData = encapsulate(streams, fragments_per_frame=3, has_bot=table)
    item["PixelData"].is_undefined_length = True
    store(item)
    for number, stream in enumerate(streams, 1):
        [(headers, content)] = parts(get(http, item, str(number), OHIF))
        assert headers["content-type"].startswith("image/jpeg")
        assert content.rstrip(b"\0") == stream
