"""What viewers read: metadata, frames, pictures and whole series, of objects made for it."""

import http.client
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, generate_uid

from pacs.services.phantom import ChestStudy, files
from tests.bench import web
from tests.bench.servers import Server

SLICES, SERIES, FRAMES = 600, 400, 500  # for metadata, for whole series, of one multi-frame object
SIDE = 512
AT_ONCE = 50  # objects of one STOW request
BUFFER = 1 << 20
CLIENTS = 4
J2K_FRAMES = 60  # more than are asked for: none comes out of a cache
DECODED = {"Accept": 'multipart/related; type="application/octet-stream"'}
PICTURE = {"Accept": "image/jpeg"}
PARTS = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}


@dataclass(frozen=True, slots=True)
class Shelf:
    """The paths of what was stored: series, a multi-frame object and its frames, a JPEG 2000 object, a plain slice."""

    slices: str
    series: str
    multi: str
    j2k: str
    plain: str


def figures(server: Server, folder: Path, scale: float) -> Iterator[tuple[str, str, float]]:
    """Work, unit and figure of each kind of reading, after storing what is read."""
    client = web.Client(server)
    slices, series = max(AT_ONCE, int(SLICES * scale)), max(AT_ONCE, int(SERIES * scale))
    shelf = _stored(client, folder, (slices, series, max(20, int(FRAMES * scale))))
    cold = web.timed(lambda: client.get(f"{shelf.slices}/metadata"), 1, warm=0)
    yield f"metadata of {slices} slices, cold", "ms", cold.median_ms
    rounds = max(20, int(40 * scale))
    for work, job in _jobs(client, shelf, slices, max(20, int(FRAMES * scale))):
        with suppress(RuntimeError):  # a rival that does not answer this kind of question has no figure
            yield f"{work}, p95", "ms", web.timed(job, rounds).p95_ms
    size = series * SIDE * SIDE * 2 / 1e6
    for clients in (1, CLIENTS):
        seconds = min(_together(server, shelf.series, clients) for _ in range(3))
        yield f"series of {series} x 512 KB, {clients} client{'s' * (clients > 1)}", "MB/s", clients * size / seconds


def _jobs(client: web.Client, shelf: Shelf, slices: int, frames: int) -> Iterator[tuple[str, Callable[[], object]]]:
    get = client.get
    yield f"metadata of {slices} slices, warm", partial(get, f"{shelf.slices}/metadata")
    yield "frame of a large multi-frame, first", partial(get, f"{shelf.multi}/frames/1", web.OHIF_FRAME)
    yield "frame of a large multi-frame, last", partial(get, f"{shelf.multi}/frames/{frames}", web.OHIF_FRAME)
    yield "JPEG 2000 frame decoded", partial(_uncached, client, shelf.j2k)
    yield "rendered 512 x 512 JPEG", partial(_unseen, client, shelf.plain)


_turn = iter(range(1 << 30))


def _uncached(client: web.Client, path: str) -> None:
    """Frames of one object in turn, none of them twice."""
    client.get(f"{path}/frames/{next(_turn) % J2K_FRAMES + 1}", DECODED)


def _unseen(client: web.Client, path: str) -> None:
    """A window nobody has asked for."""
    client.get(f"{path}/rendered?window={40 + next(_turn) % 1000},400,linear", PICTURE)


def _stored(client: web.Client, folder: Path, counts: tuple[int, int, int]) -> Shelf:
    slices, series, frames = counts
    template = pydicom.dcmread(io.BytesIO(next(files(ChestStudy("reads", "R", "Reads^Model", slices=40, size=SIDE)))))
    small = pydicom.dcmread(io.BytesIO(next(files(ChestStudy("meta", "M", "Meta^Model", slices=40, size=64)))))
    places = [_series(client, folder / "s", small, slices), _series(client, folder / "l", template, series)]
    multi = _one(client, folder, _multi(template, frames))
    j2k = _one(client, folder, _compressed(template))
    plain = json.loads(client.get(f"{places[1]}/instances"))[0]["00080018"]["Value"][0]
    return Shelf(places[0], places[1], multi, j2k, f"{places[1]}/instances/{plain}")


def _series(client: web.Client, folder: Path, template: pydicom.Dataset, count: int) -> str:
    folder.mkdir()
    template.StudyInstanceUID, template.SeriesInstanceUID = generate_uid(), generate_uid()
    paths = []
    for number in range(count):
        template.SOPInstanceUID = template.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        template.InstanceNumber, template.ImagePositionPatient[2] = number + 1, f"{number:.1f}"
        paths.append(folder / f"{number}.dcm")
        template.save_as(paths[-1], enforce_file_format=True)
    for start in range(0, count, AT_ONCE):
        client.stow(paths[start : start + AT_ONCE])
    return f"/studies/{template.StudyInstanceUID}/series/{template.SeriesInstanceUID}"


def _multi(template: pydicom.Dataset, frames: int) -> pydicom.Dataset:
    found = _copy(template)
    found.NumberOfFrames, found.PixelData = frames, template.PixelData * frames
    return found


def _compressed(template: pydicom.Dataset) -> pydicom.Dataset:
    found = _copy(template)
    pixels = np.frombuffer(template.PixelData, "<i2").reshape(SIDE, SIDE)
    noise = np.random.default_rng(0)
    streams = [
        bytes(imagecodecs.jpeg2k_encode(pixels + noise.integers(-8, 8, pixels.shape, "i2"), level=0, codecformat="j2k",
                                        reversible=True))
        for _ in range(J2K_FRAMES)
    ]  # fmt: skip
    found.NumberOfFrames, found.PixelData = J2K_FRAMES, encapsulate(streams)
    found["PixelData"].VR = "OB"
    found.file_meta.TransferSyntaxUID = JPEG2000Lossless
    return found


def _copy(template: pydicom.Dataset) -> pydicom.Dataset:
    out = io.BytesIO()
    template.save_as(out, enforce_file_format=True)
    found = pydicom.dcmread(io.BytesIO(out.getvalue()))
    found.StudyInstanceUID, found.SeriesInstanceUID, found.SOPInstanceUID = (generate_uid() for _ in range(3))
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID
    return found


def _one(client: web.Client, folder: Path, item: pydicom.Dataset) -> str:
    path = folder / f"{item.SOPInstanceUID}.dcm"
    item.save_as(path, enforce_file_format=True)
    client.stow([path])
    path.unlink()
    return f"/studies/{item.StudyInstanceUID}/series/{item.SeriesInstanceUID}/instances/{item.SOPInstanceUID}"


def _together(server: Server, path: str, clients: int) -> float:
    """Seconds until each of these clients has the whole series."""
    threads = [threading.Thread(target=_drain, args=(server, path)) for _ in range(clients)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begun


def _drain(server: Server, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.web_port, timeout=120)
    connection.request("GET", "/dicom-web" + path, headers=PARTS)
    answer, room = connection.getresponse(), bytearray(BUFFER)
    while answer.readinto(room):
        pass
    connection.close()
