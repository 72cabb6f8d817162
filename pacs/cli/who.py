"""Who typed a command, as the audit trail names them."""

import getpass
import os

from pacs.domain.events import Source


def local_user() -> Source:
    """The account of the operating system; its number where it has no name, as in a container."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return Source("cli", name)
