import signal
import subprocess
import threading
import time
from collections.abc import Iterator

import imagecodecs
import numpy as np
import pytest

from pacs.domain.encoders import Unencodable
from pacs.domain.frames import Description
from pacs.domain.pixels import Undecodable
from pacs.errors import Unavailable
from pacs.services.decoders import Decoders

JPEG_LS = "1.2.840.10008.1.2.4.80"


def described(rows: int, columns: int) -> Description:
    return Description(rows, columns, 1, 16, 16, 15, 0, 0, "MONOCHROME2")


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    made = Decoders(2)
    yield made
    made.close()


def process_of(decoders: Decoders) -> "subprocess.Popen[bytes]":
    """The process of an idle decoder."""
    with_process = [decoder for decoder in decoders._idle.queue if decoder is not None]
    return with_process[0]._process


def test_samples_come_back_through_the_process(decoders: Decoders) -> None:
    array = np.arange(300 * 200, dtype=np.uint16).reshape(300, 200)
    found = decoders.decode(imagecodecs.jpegls_encode(array), described(300, 200), JPEG_LS)
    assert np.array_equal(found.samples, array)
    assert found.photometric_interpretation == "MONOCHROME2"
    native = decoders.decode(array.tobytes(), described(300, 200), "")
    assert np.array_equal(native.samples, array)


def test_what_cannot_be_decoded_says_why(decoders: Decoders) -> None:
    with pytest.raises(Undecodable, match="cut short"):
        decoders.decode(b"\xff\xd8\xff", described(4, 4), JPEG_LS)
    with pytest.raises(Undecodable, match="larger than"):
        decoders.decode(b"", described(65535, 65535), JPEG_LS)


def test_a_decoder_that_died_is_one_error_and_then_replaced(decoders: Decoders) -> None:
    array = np.zeros((4, 4), np.uint16)
    stream = imagecodecs.jpegls_encode(array)
    decoders.decode(stream, described(4, 4), JPEG_LS)
    process = process_of(decoders)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(Undecodable, match="died"):
        decoders.decode(stream, described(4, 4), JPEG_LS)
    assert np.array_equal(decoders.decode(stream, described(4, 4), JPEG_LS).samples, array)


def test_a_decoder_that_takes_too_long_is_ended() -> None:
    slow = Decoders(1, seconds=3.0)
    try:
        array = np.zeros((4, 4), np.uint16)
        stream = imagecodecs.jpegls_encode(array)
        slow.decode(stream, described(4, 4), JPEG_LS)
        process_of(slow).send_signal(signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(Undecodable, match="too long"):
            slow.decode(stream, described(4, 4), JPEG_LS)
        assert time.monotonic() - began < 30
    finally:
        slow.close()


def test_memory_is_limited_in_the_process_not_in_ours() -> None:
    small = Decoders(1, memory=300 << 20)
    try:
        assert small.decode(bytes(32), described(4, 4), "").samples.shape == (4, 4)
        with pytest.raises(Undecodable):
            small.decode(bytes(300 << 20), described(15_000, 10_000), "")
    finally:
        small.close()


def test_many_threads_share_few_decoders(decoders: Decoders) -> None:
    arrays = [np.full((8, 8), number, np.uint16) for number in range(20)]
    found: dict[int, bool] = {}

    def ask(number: int) -> None:
        got = decoders.decode(imagecodecs.jpegls_encode(arrays[number]), described(8, 8), JPEG_LS)
        found[number] = bool((got.samples == number).all())

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == dict.fromkeys(range(20), True)


def test_no_process_is_left_after_closing() -> None:
    some = Decoders(1)
    some.decode(bytes(32), described(4, 4), "")
    process = process_of(some)
    some.close()
    some.close()
    assert process.poll() is not None
    with pytest.raises(Undecodable, match="stopping"):
        some.decode(bytes(32), described(4, 4), "")


def test_frames_are_coded_anew_in_the_process(decoders: Decoders) -> None:
    array = np.random.default_rng(1).integers(0, 4096, (40, 50)).astype(np.uint16)
    made = decoders.recode(array.tobytes(), described(40, 50), "", JPEG_LS, 90)
    assert np.array_equal(imagecodecs.jpegls_decode(made.stream), array)
    with pytest.raises(Unencodable, match="do not fit"):
        decoders.recode(array.tobytes(), described(40, 50), "", "1.2.840.10008.1.2.4.50", 90)
    assert np.array_equal(decoders.decode(made.stream, described(40, 50), JPEG_LS).samples, array)


def test_whoever_finds_no_decoder_with_time_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacs.services.decoders.WAIT_SECONDS", 0.05)
    with pytest.raises(Unavailable, match="ask again"):
        Decoders(0).decode(b"", described(1, 1), JPEG_LS)
