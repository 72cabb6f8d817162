"""THE table of transfer syntaxes: how a data set is encoded, which media type its frames have, what we can do with it.

Media types and their default transfer syntaxes follow PS3.18 8.7.3.3 (Tables 8.7.3-2 to 8.7.3-5).
"""

from dataclasses import dataclass

IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
DEFLATED_LE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BE = "1.2.840.10008.1.2.2"
RLE = "1.2.840.10008.1.2.5"

OCTET_STREAM = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class TransferSyntax:
    """One row of the table.

    `lossy`: the syntax allows loss (the object may still be exact). `media_type`: of one frame as stored.
    `decodable`: `pacs.domain.pixels` can turn a frame into samples. `video`: frames cannot be cut out, the
    whole pixel data is one stream. `deflated`: the data set is one deflate stream.
    """

    uid: str
    name: str
    lossy: bool = False
    encapsulated: bool = False
    little_endian: bool = True
    explicit_vr: bool = True
    deflated: bool = False
    media_type: str = OCTET_STREAM
    decodable: bool = False
    video: bool = False


def _image(uid: str, name: str, media_type: str, *, lossy: bool = False, decodable: bool = True) -> TransferSyntax:
    return TransferSyntax(uid, name, lossy=lossy, encapsulated=True, media_type=media_type, decodable=decodable)


def _video(uid: str, name: str, media_type: str) -> TransferSyntax:
    return TransferSyntax(uid, name, lossy=True, encapsulated=True, media_type=media_type, video=True)


_JPEG = "1.2.840.10008.1.2.4."

_ROWS: tuple[TransferSyntax, ...] = (
    TransferSyntax(IMPLICIT_LE, "Implicit VR Little Endian", explicit_vr=False, decodable=True),
    TransferSyntax(EXPLICIT_LE, "Explicit VR Little Endian", decodable=True),
    TransferSyntax(DEFLATED_LE, "Deflated Explicit VR Little Endian", deflated=True, decodable=True),
    TransferSyntax(EXPLICIT_BE, "Explicit VR Big Endian (retired)", little_endian=False, decodable=True),
    _image("1.2.840.10008.1.2.1.98", "Encapsulated Uncompressed Explicit VR Little Endian", OCTET_STREAM),
    _image("1.2.840.10008.1.2.8.1", "Deflated Image Frame Compression", "application/x-deflate"),
    _image(RLE, "RLE Lossless", "image/dicom-rle"),
    _image(_JPEG + "50", "JPEG Baseline (Process 1)", "image/jpeg", lossy=True),
    _image(_JPEG + "51", "JPEG Extended (Process 2 and 4)", "image/jpeg", lossy=True),
    _image(_JPEG + "52", "JPEG Extended (Process 3 and 5) (retired)", "image/jpeg", lossy=True, decodable=False),
    _image(_JPEG + "53", "JPEG Spectral Selection (Process 6 and 8) (retired)", "image/jpeg", lossy=True),
    _image(
        _JPEG + "54", "JPEG Spectral Selection (Process 7 and 9) (retired)", "image/jpeg", lossy=True, decodable=False
    ),
    _image(_JPEG + "55", "JPEG Full Progression (Process 10 and 12) (retired)", "image/jpeg", lossy=True),
    _image(
        _JPEG + "56", "JPEG Full Progression (Process 11 and 13) (retired)", "image/jpeg", lossy=True, decodable=False
    ),
    _image(_JPEG + "57", "JPEG Lossless (Process 14)", "image/jpeg"),
    _image(_JPEG + "58", "JPEG Lossless (Process 15) (retired)", "image/jpeg", decodable=False),
    _image(
        _JPEG + "59", "JPEG Extended, Hierarchical (Process 16 and 18) (retired)", "image/jpeg",
        lossy=True, decodable=False,
    ),
    _image(
        _JPEG + "60", "JPEG Extended, Hierarchical (Process 17 and 19) (retired)", "image/jpeg",
        lossy=True, decodable=False,
    ),
    _image(
        _JPEG + "61", "JPEG Spectral Selection, Hierarchical (Process 20 and 22) (retired)", "image/jpeg",
        lossy=True, decodable=False,
    ),
    _image(
        _JPEG + "62", "JPEG Spectral Selection, Hierarchical (Process 21 and 23) (retired)", "image/jpeg",
        lossy=True, decodable=False,
    ),
    _image(
        _JPEG + "63", "JPEG Full Progression, Hierarchical (Process 24 and 26) (retired)", "image/jpeg",
        lossy=True, decodable=False,
    ),
    _image(
        _JPEG + "64", "JPEG Full Progression, Hierarchical (Process 25 and 27) (retired)", "image/jpeg",
        lossy=True, decodable=False,
    ),
    _image(_JPEG + "65", "JPEG Lossless, Hierarchical (Process 28) (retired)", "image/jpeg", decodable=False),
    _image(_JPEG + "66", "JPEG Lossless, Hierarchical (Process 29) (retired)", "image/jpeg", decodable=False),
    _image(_JPEG + "70", "JPEG Lossless (Process 14, Selection Value 1)", "image/jpeg"),
    _image(_JPEG + "80", "JPEG-LS Lossless", "image/jls"),
    _image(_JPEG + "81", "JPEG-LS Near-lossless", "image/jls", lossy=True),
    _image(_JPEG + "90", "JPEG 2000 (Lossless Only)", "image/jp2"),
    _image(_JPEG + "91", "JPEG 2000", "image/jp2", lossy=True),
    _image(_JPEG + "92", "JPEG 2000 Part 2 Multi-component (Lossless Only)", "image/jpx", decodable=False),
    _image(_JPEG + "93", "JPEG 2000 Part 2 Multi-component", "image/jpx", lossy=True, decodable=False),
    _video(_JPEG + "100", "MPEG2 Main Profile / Main Level", "video/mpeg"),
    _video(_JPEG + "100.1", "Fragmentable MPEG2 Main Profile / Main Level", "video/mpeg"),
    _video(_JPEG + "101", "MPEG2 Main Profile / High Level", "video/mpeg"),
    _video(_JPEG + "101.1", "Fragmentable MPEG2 Main Profile / High Level", "video/mpeg"),
    _video(_JPEG + "102", "MPEG-4 AVC/H.264 High Profile / Level 4.1", "video/mp4"),
    _video(_JPEG + "102.1", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.1", "video/mp4"),
    _video(_JPEG + "103", "MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1", "video/mp4"),
    _video(_JPEG + "103.1", "Fragmentable MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1", "video/mp4"),
    _video(_JPEG + "104", "MPEG-4 AVC/H.264 High Profile / Level 4.2 for 2D Video", "video/mp4"),
    _video(_JPEG + "104.1", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 for 2D Video", "video/mp4"),
    _video(_JPEG + "105", "MPEG-4 AVC/H.264 High Profile / Level 4.2 for 3D Video", "video/mp4"),
    _video(_JPEG + "105.1", "Fragmentable MPEG-4 AVC/H.264 High Profile / Level 4.2 for 3D Video", "video/mp4"),
    _video(_JPEG + "106", "MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2", "video/mp4"),
    _video(_JPEG + "106.1", "Fragmentable MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2", "video/mp4"),
    _video(_JPEG + "107", "HEVC/H.265 Main Profile / Level 5.1", "video/mp4"),
    _video(_JPEG + "108", "HEVC/H.265 Main 10 Profile / Level 5.1", "video/mp4"),
    _image(_JPEG + "110", "JPEG XL Lossless", "image/jxl"),
    _image(_JPEG + "111", "JPEG XL JPEG Recompression", "image/jxl", lossy=True),
    _image(_JPEG + "112", "JPEG XL", "image/jxl", lossy=True),
    _image(_JPEG + "201", "High-Throughput JPEG 2000 (Lossless Only)", "image/jphc"),
    _image(_JPEG + "202", "High-Throughput JPEG 2000 with RPCL Options (Lossless Only)", "image/jphc"),
    _image(_JPEG + "203", "High-Throughput JPEG 2000", "image/jphc", lossy=True),
)  # fmt: skip

SYNTAXES: dict[str, TransferSyntax] = {row.uid: row for row in _ROWS}

# what a media type means where the request names no transfer syntax
DEFAULT_SYNTAX: dict[str, str] = {
    "application/dicom": EXPLICIT_LE,
    OCTET_STREAM: EXPLICIT_LE,
    "image/jpeg": _JPEG + "70",
    "image/jls": _JPEG + "80",
    "image/jp2": _JPEG + "90",
    "image/jpx": _JPEG + "92",
    "image/dicom-rle": RLE,
    "image/x-dicom-rle": RLE,
    "image/jphc": _JPEG + "201",
    "image/jxl": _JPEG + "110",
    "video/mpeg": _JPEG + "100",
    "video/mp4": _JPEG + "102",
}


def is_keepable(uid: str) -> bool:
    """Whether we can at least keep objects of this transfer syntax: its structure can be walked."""
    return uid in SYNTAXES


def presentable() -> tuple[str, ...]:
    """The transfer syntaxes that the DIMSE door accepts, in the table's order (dimse.md 3)."""
    return tuple(SYNTAXES)
