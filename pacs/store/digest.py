"""The digest of a file."""

import hashlib
from typing import BinaryIO

CHUNK = 1 << 20


def sha256_of(file: BinaryIO) -> bytes:
    """sha256 of a file from where it stands to its end."""
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.digest()
