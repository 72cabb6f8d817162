"""PS3.18 10.4.1.1.5: bulk data at any depth, pixel data frame by frame, films with ranges."""

import os
from typing import Any

import httpx
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import MPEG4HP41, RLELossless

from pacs.domain import encoders
from pacs.domain.frames import Description
from pacs.domain.syntaxes import RLE
from tests.conformance.conftest import Store, parts, path
from tests.dicomweb.objects import ct

ABOUT = Description(8, 8, 1, 16, 16, 15, 0, 0, "MONOCHROME2")


@pytest.fixture(scope="module")
def compressed(store: Store) -> tuple[Dataset, list[bytes]]:
    """Three RLE frames, and their streams."""
    frames = [np.random.default_rng(n).integers(0, 65535, (8, 8)).astype("<u2").tobytes() for n in range(3)]
    streams = [encoders.recode(frame, ABOUT, "", RLE).stream for frame in frames]
    item = ct(Rows=8, Columns=8, NumberOfFrames=3, PixelData=encapsulate(streams))
    item["PixelData"].VR = "OB"
    item.file_meta.TransferSyntaxUID = RLELossless
    store(item)
    return item, streams


@pytest.fixture(scope="module")
def moving(store: Store) -> tuple[Dataset, bytes]:
    """A film, whose stream nobody here looks into."""
    stream = b"\0\0\0\x18ftypmp42" + os.urandom(5000)
    item = ct(SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.1.1", Rows=16, Columns=16, NumberOfFrames=25,
              SamplesPerPixel=3, PlanarConfiguration=0, PhotometricInterpretation="YBR_PARTIAL_420", BitsAllocated=8,
              BitsStored=8, HighBit=7, PixelData=encapsulate([stream]))  # fmt: skip
    item["PixelData"].VR = "OB"
    item.file_meta.TransferSyntaxUID = MPEG4HP41
    store(item)
    return item, stream


@pytest.mark.parametrize("place", ["bulkdata/7FE00010", "pixeldata"])
def test_compressed_pixel_data_comes_frame_by_frame(
    http: httpx.Client, compressed: tuple[Dataset, list[bytes]], place: str
) -> None:
    item, streams = compressed
    answer = http.get(f"{path(item)}/{place}")
    found = parts(answer)
    assert [body for _, body in found] == streams
    for number, (headers, _) in enumerate(found, 1):
        assert headers["content-type"] == f"image/dicom-rle; transfer-syntax={RLE}"
        assert headers["content-location"].endswith(f"{path(item)}/frames/{number}")


def test_compressed_pixel_data_as_octets_is_all_of_it(
    http: httpx.Client, compressed: tuple[Dataset, list[bytes]]
) -> None:
    item, streams = compressed
    answer = http.get(f"{path(item)}/bulkdata/7FE00010", headers={"Accept": "application/octet-stream"})
    assert (answer.headers["content-type"], answer.content) == ("application/octet-stream", b"".join(streams))


@pytest.mark.parametrize("place", ["bulkdata/7FE00010", "pixeldata", "pixeldata?accept=video/mp4", "rendered",
                                   "rendered?accept=video/mp4"])  # fmt: skip
def test_film_is_one_stream_with_ranges(http: httpx.Client, moving: tuple[Dataset, bytes], place: str) -> None:
    item, stream = moving
    whole = http.get(f"{path(item)}/{place}")
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.content.rstrip(b"\0") == stream.rstrip(b"\0")
    part = http.get(f"{path(item)}/{place}", headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, stream[100:200])
    assert http.get(f"{path(item)}/{place}", headers={"If-None-Match": whole.headers["etag"]}).status_code == 304


def test_film_is_no_picture_and_no_frames(http: httpx.Client, moving: tuple[Dataset, bytes]) -> None:
    item, _ = moving
    assert http.get(f"{path(item)}/rendered", headers={"Accept": "image/jpeg"}).status_code == 406
    assert http.get(f"{path(item)}/thumbnail").status_code in {404, 406}


def test_bulk_data_inside_sequences_and_private_elements_is_found_by_its_path(http: httpx.Client, store: Store) -> None:
    secrets = [os.urandom(4000), os.urandom(3001), os.urandom(5000)]
    inner = Dataset()
    inner.add_new(0x00091010, "OB", secrets[0])
    inner.add_new(0x00090010, "LO", "SOMEBODY")
    outer = Dataset()
    outer.add_new(0x00420011, "OB", secrets[1])
    outer.ReferencedSeriesSequence = Sequence([Dataset(), inner])
    item = ct(ReferencedStudySequence=Sequence([outer]))
    item.add_new(0x00111001, "UN", secrets[2])
    item.add_new(0x00110010, "LO", "SOMEBODY")
    store(item)
    [row] = http.get(f"{path(item)}/metadata").json()

    def uris(row: dict[str, Any]) -> list[str]:
        found = [element["BulkDataURI"] for element in row.values() if "BulkDataURI" in element]
        inside = [uris(one) for e in row.values() if e["vr"] == "SQ" for one in e.get("Value", ())]
        return [*found, *(uri for more in inside for uri in more)]

    contents = [http.get(uri).content for uri in uris(row)]
    for secret in secrets:
        assert secret in contents or secret + b"\0" in contents
    everything = [body for _, body in parts(http.get(f"{path(item)}/bulkdata"))]
    assert sorted(everything) == sorted(contents)
