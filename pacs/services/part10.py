"""The head of a DICOM file that we write: preamble, prefix and file meta information (PS3.10 7.1)."""

from struct import Struct

from pacs.domain.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

PREAMBLE_BYTES = 128
PREFIX = b"DICM"
LONGEST_AE_TITLE = 16
_SHORT = Struct("<HH2sH")
_LONG = Struct("<HH2sHI")
_VERSION = _LONG.pack(2, 1, b"OB", 0, 2) + b"\0\1"


def head(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_ae: str = "") -> bytes:
    """Everything before the data set. UIDs are padded with NUL, texts with a space (PS3.5 9.1, 6.2)."""
    elements = _VERSION + b"".join(
        _element(number, vr, text)
        for number, vr, text in (
            (0x0002, b"UI", sop_class_uid),
            (0x0003, b"UI", sop_instance_uid),
            (0x0010, b"UI", transfer_syntax_uid),
            (0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            (0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
            (0x0016, b"AE", source_ae[:LONGEST_AE_TITLE]),
        )
        if text
    )
    length = _SHORT.pack(2, 0, b"UL", 4) + len(elements).to_bytes(4, "little")
    return bytes(PREAMBLE_BYTES) + PREFIX + length + elements


def _element(number: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii", "replace")
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    return _SHORT.pack(2, number, vr, len(value)) + value
