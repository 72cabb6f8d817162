"""A name that database and file store share: where it differs they do not belong together."""

import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg.types.json import Jsonb

from pacs.errors import Conflict, Unavailable
from pacs.index.named import queries
from pacs.services.books import Books
from pacs.services.doctor.case import Case
from pacs.services.doctor.finding import DOCTOR_FIX, Check, Finding
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
    """Give both the same name where one has none and the other's objects are there. Whether they have the same then.

    Raises Unavailable.
    """
    ours, theirs = name_of(root), known(books)
    if ours and theirs:
        return ours == theirs
    if not (root / "objects").is_dir() or not _belongs(books, store):
        return not theirs
    name = ours or theirs or uuid.uuid4().hex
    with books.transaction() as cursor:
        cursor.execute(SQL["remember"], {"key": KEY, "value": Jsonb({"name": name})})
    name = known(books)  # another clerk may have been first
    if name_of(root) != name:
        _write(root, name)
    return True


def _belongs(books: Books, store: Store) -> bool:
    """Whether what the index named last is in this store."""
    with books.transaction() as cursor:
        names = [row["object_name"] for row in cursor.execute(SQL["newest_objects"], {"limit": PROOF}).fetchall()]
    return not names or any(store.size(name) is not None for name in names)


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
    if ours and theirs and ours != theirs:
        what = f"The database belongs to the file store {theirs[:8]}, and this is {ours[:8]}: one of them is another's."
        yield Finding(what, examples=(str(root),))
    elif theirs and not ours and (root / "objects").is_dir():
        yield Finding(
            "The file store has lost its name: is the right disk mounted?", examples=(str(root),), items=(root,)
        )
    elif theirs and not ours:
        yield Finding("The database knows a file store, and there is none: is its disk mounted?", examples=(str(root),))


def name_again(case: Case, finding: Finding) -> str:
    """Where the objects that the index named last are there, it is the right one."""
    if not finding.items:
        raise Conflict("Nobody but you can say which of them is the right one.")
    if not _belongs(case.node.books, case.node.store):
        raise Conflict("None of the objects that the index named last is there: this is not its file store.")
    agree(case.node.books, case.node.store, case.settings.storage_dir)
    return "Its objects are there: the name was written again."


CURE = f"mount the right disk, or correct DICOM_STORAGE_DIR or DATABASE_URL; {DOCTOR_FIX} names a store again whose objects are there"  # noqa: E501
CHECKS = (
    Check("strange-store", "configuration", "a database and a file store that do not belong together", CURE, strange,
          name_again, ("schema",)),
)  # fmt: skip
DUTIES = (Duty("name-store", PERIOD_SECONDS, mark),)
