"""A zip of files, written while it is sent: nothing is held but one chunk (PS3.18 8.7.3.1 allows application/zip)."""

import io
import zipfile
from collections.abc import Iterable, Iterator

MEDIA_TYPE = "application/zip"


class _Sink(io.RawIOBase):
    """Takes what the zip writer writes until somebody asks for it. It cannot be sought: the writer looks ahead only."""

    def __init__(self) -> None:
        self.held: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        self.held.append(bytes(data))
        return len(data)

    def take(self) -> Iterator[bytes]:
        held, self.held = self.held, []
        return iter(held)


def archive(files: Iterable[tuple[str, Iterable[bytes]]]) -> Iterator[bytes]:
    """The zip of these names and contents, stored without compression: pixel data hardly shrinks."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED, allowZip64=True) as packing:
        for name, chunks in files:
            with packing.open(zipfile.ZipInfo(name), "w", force_zip64=True) as file:
                for chunk in chunks:
                    file.write(chunk)
                    yield from sink.take()
            yield from sink.take()
    yield from sink.take()
