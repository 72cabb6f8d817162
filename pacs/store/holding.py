"""Files that a living process holds: the kernel lets go of them when it dies, so what nobody holds is left over."""

import fcntl
import os
from pathlib import Path


def create_held(path: Path) -> int:
    """Make a file that must not exist yet and hold it until its file number is closed. Raises OSError."""
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(number)
        raise
    return number


def is_held(path: Path) -> bool:
    """Whether some process, this one too, holds the file. Raises FileNotFoundError."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(number)
    return False
