"""What the verbs about accounts share: who does it, and how a password is given or made."""

import argparse
import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pacs import node as nodes
from pacs.domain.events import Source
from pacs.errors import BadRequest
from pacs.services.passwords import generated
from pacs.settings import Settings

OPERATOR = "operator"
SEEN = "filmroom: a password on the command line is seen in the process list and kept in the shell's history; "
LONGEST_LINE = 1024


@contextmanager
def opened(settings: Settings, component: str) -> Iterator[nodes.Node]:
    """A node for the time of one command."""
    node = nodes.build(settings, component=component)
    try:
        yield node
    finally:
        node.close()


def operator() -> Source:
    """Whoever may type commands on the node's own machine, by the name of their account there."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError, ImportError):  # an account that the machine does not know, as in a container
        name = OPERATOR
    return Source("cli", f"{OPERATOR}:{name}")


def add_password_arguments(parser: argparse.ArgumentParser) -> None:
    """How a password is given; without one it is made and printed once."""
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--password-stdin", action="store_true", help="read the password from standard input (one line)")
    given.add_argument("--password", help="the password itself: others can see it in the process list")


def password_from(args: argparse.Namespace) -> tuple[str, bool]:
    """The password, and whether it was made here and has to be shown. Raises BadRequest."""
    if args.password_stdin:
        text = sys.stdin.readline(LONGEST_LINE).rstrip("\r\n")
        if not text:
            raise BadRequest("No password came on standard input; write one line of it.")
        return text, False
    if args.password is not None:
        print(SEEN + "change it soon, and use --password-stdin.", file=sys.stderr)
        return args.password, False
    return generated(), True


def show_password(username: str, password: str) -> None:
    """Print a password that was made here, once."""
    print(f"The password of {username}, shown this once: {password}")
