"""Objects made to hurt, through the HTTP door: each gets its status, nothing is stored half, the next one is fine."""

import struct
import zlib
from collections.abc import Callable

import httpx
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from tests.conformance.conftest import path, value
from tests.dicomweb.objects import ct, multipart, part10

Store = Callable[..., httpx.Response]
NESTED, LONG = 200, 0xFFFFFFF0


def send(http: httpx.Client, content: bytes) -> httpx.Response:
    headers, body = multipart(content)
    return http.post("/studies", headers=headers, content=body)


def nested() -> bytes:
    """A sequence in a sequence, 200 deep, of undefined length each."""
    begin = b"\x40\x00\x30\xa7SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    whole = part10(ct())
    place = whole.rindex(b"\xe0\x7f\x10\x00")
    return whole[:place] + begin * NESTED + end * NESTED + whole[place:]


def claiming() -> bytes:
    """An element that claims 4 GB and holds a few bytes."""
    whole = part10(ct())
    place = whole.rindex(b"\xe0\x7f\x10\x00OW")
    return whole[: place + 8] + struct.pack("<I", LONG) + b"\0" * 40


def bomb() -> bytes:
    """300 MB of zeros in some hundred KB of deflate."""
    whole = part10(ct(syntax=DeflatedExplicitVRLittleEndian))
    start = 144 + int.from_bytes(whole[140:144], "little")
    plain = zlib.decompress(whole[start:], -15)
    place = plain.rindex(b"\xe0\x7f\x10\x00OW")
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = squeeze.compress(plain[: place + 8] + struct.pack("<I", 300 << 20))
    data += b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(300))
    return whole[:start] + data + squeeze.flush()


@pytest.mark.parametrize("make", [nested, claiming, bomb])
def test_hostile_structures_are_refused_as_unreadable(http: httpx.Client, make: Callable[[], bytes]) -> None:
    answer = send(http, make())
    assert answer.status_code == 409
    [item] = (answer.json().get("0008119A") or answer.json()["00081198"])["Value"]
    assert value(item, "00081197") == 0xC000
    assert value(item, "00091002") == "unreadable"
    assert send(http, part10(ct())).status_code == 200


def test_sizes_that_lie_are_kept_and_never_answered_with_a_crash(http: httpx.Client, store: Store) -> None:
    native = ct(Rows=65535, Columns=65535)
    packed = ct()
    packed.compress(RLELossless, generate_instance_uid=False)
    packed.Rows = packed.Columns = 65535
    for item in (native, packed):
        store(item)
        assert http.get(f"{path(item)}/metadata").status_code == 200
        alone = http.get(path(item), headers={"Accept": "application/dicom; transfer-syntax=*"})
        assert alone.content == part10(item)
        for accept in ("*/*", "multipart/related; type=application/octet-stream; transfer-syntax=*", "image/*"):
            assert http.get(f"{path(item)}/frames/1", headers={"Accept": accept}).status_code in {200, 404, 406}
        assert http.get(path(item), headers={"Accept": "application/dicom"}).status_code in {200, 406}


def test_a_preamble_that_is_a_program_is_emptied(http: httpx.Client) -> None:
    item = ct()
    whole = part10(item)
    assert send(http, b"MZ" + b"\x90" * 126 + whole[128:]).status_code == 200
    answer = http.get(path(item), headers={"Accept": "application/dicom; transfer-syntax=*"})
    assert answer.content == whole


def test_a_damaged_code_stream_is_served_as_it_is_or_honestly_not(http: httpx.Client, store: Store) -> None:
    item = ct(BitsAllocated=8, BitsStored=8, HighBit=7)
    item.PixelData = bytes(20)
    item.compress(RLELossless, generate_instance_uid=False)
    raw = bytearray(part10(item))
    raw[-12:-8] = b"\xff\xff\xff\xff"
    assert send(http, bytes(raw)).status_code in {200, 409}
    for accept in ("*/*", "image/dicom-rle", "application/octet-stream"):
        assert http.get(f"{path(item)}/frames/1", headers={"Accept": accept}).status_code in {200, 404, 406}


def test_names_made_to_break_pages_come_back_as_text(http: httpx.Client, store: Store) -> None:
    name = '<script>alert("x")</script>'
    item = ct(PatientName=name, StudyDescription="'; DROP TABLE study; --")
    store(item)
    row = http.get(f"/studies?StudyInstanceUID={item.StudyInstanceUID}&includefield=StudyDescription").json()[0]
    assert value(row, "00100010") == {"Alphabetic": name}
    assert http.get("/studies?StudyDescription=%27%3B%20DROP*&PatientName=%3Cscript*").json()[0] is not None
