"""A name that database and file store share: where it differs they do not belong together."""

import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg.types.json import Jsonb

from pacs.errors import Unavailable
from pacs.index.named import queries
from pacs.services.books import Books
from pacs.services.doctor.case import Case
from pacs.services.doctor.finding import Check, Finding
from pacs.services.duties import Duty
from pacs.store.base import Store
from pacs.store.folders import sync_folder

if TYPE_CHECKING:
    from pacs.node import Node

SQL = queries("doctor")
KEY, FILE = "store", "store-id"
PROOF = 20  # objects of the index that must be there before a store is taken for its own
PERIOD_SECONDS = 600.0


def name_of(root: Path) -> str:
    """The name that the store bears; empty when none."""
    try:
        return (root / FILE).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def known(books: Books) -> str:
    """The name that the database has written down; empty when none. Raises Unavailable."""
    with books.transaction() as cursor:
        row = cursor.execute(SQL["recall"], {"key": KEY}).fetchone()
        return str(row["value"].get("name", "")) if row else ""


def agree(books: Books, store: Store, root: Path) -> bool:
    """Give both the same name where they prove to belong together. Whether they have the same then.

    Raises Unavailable.
    """
    ours, theirs = name_of(root), known(books)
    if ours and ours == theirs:
        return True
    if not (root / "objects").is_dir() or not _belong(books, store, named=bool(ours)):
        return False
    name = theirs or ours or uuid.uuid4().hex
    with books.transaction() as cursor:
        cursor.execute(SQL["remember"], {"key": KEY, "value": Jsonb({"name": name})})
    name = known(books)  # another clerk may have been first
    if ours != name:
        _write(root, name)
    return True


def _belong(books: Books, store: Store, *, named: bool) -> bool:
    """Whether something of what the index named first and last is in the store.

    An empty index proves nothing to a store that bears a name and holds objects: somebody else's, most likely.
    """
    with books.transaction() as cursor:
        names = [row["object_name"] for row in cursor.execute(SQL["proof"], {"limit": PROOF}).fetchall()]
    if names:
        return any(store.size(name) is not None for name in names)
    return not (named and any(store.size(name) for names in store.folders() for name in names))


def _write(root: Path, name: str) -> None:
    part = root / f"{FILE}.{os.getpid()}.part"
    try:
        part.write_text(f"{name}\n", encoding="ascii")
        part.chmod(0o600)
        part.rename(root / FILE)
        sync_folder(root)
    except OSError as error:
        word = errno.errorcode.get(error.errno or 0, type(error).__name__)
        raise Unavailable(f"{root / FILE} cannot be written ({word}); look at DICOM_STORAGE_DIR.") from error


def mark(node: "Node") -> None:
    """Name the store, once there is one."""
    agree(node.books, node.store, node.settings.storage_dir)


def strange(case: Case) -> Iterator[Finding]:
    root = case.settings.storage_dir
    ours, theirs = name_of(root), known(case.node.books)
    where = (str(root),)
    if theirs and not (root / "objects").is_dir():
        yield Finding("The database knows a file store, and there is none: is its disk mounted?", examples=where)
    elif ours != theirs and not _belong(case.node.books, case.node.store, named=bool(ours)):
        named = f"the database names {theirs[:8] or 'none'}, this one is {ours[:8] or 'without a name'}"
        yield Finding(f"The file store holds nothing of what the index names, and is another: {named}.", examples=where)


CURE = "mount the right disk, or correct DICOM_STORAGE_DIR or DATABASE_URL"
CHECKS = (
    Check("strange-store", "configuration", "a database and a file store that do not belong together", CURE, strange,
          needs=("schema",)),
)  # fmt: skip
DUTIES = (Duty("name-store", PERIOD_SECONDS, mark),)
