"""Index against files, both ways: what is missing, cut, changed, left over (storage.md 5)."""

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pacs.domain.events import Source
from pacs.errors import Conflict
from pacs.services import audit
from pacs.services.books import Cursor, Row
from pacs.services.doctor.case import SQL, Case
from pacs.services.doctor.finding import DOCTOR_FIX, WARNING, Check, Finding, many, some
from pacs.services.findings import MISSING_FILE, WRONG_DIGEST
from pacs.services.lifecycle import GRACE_SECONDS
from pacs.services.lifecycle import SQL as LIFECYCLE
from pacs.store.base import Entry, Place
from pacs.store.digest import sha256_of
from pacs.store.holding import is_held

TOUCHED_SECONDS = 5.0  # a file is written before its row: one that changed later was changed by somebody else
SAMPLE = 200
AT_ONCE = 50
PAGE = 1000
SAMPLE_SECONDS = 5.0
MOST_LOST, LARGEST_PART_LOST = 10, 0.1  # more than both: the right disk is not mounted
BURY_LATE_SECONDS = GRACE_SECONDS * 2
SOURCE = Source("cli", "doctor")


@dataclass(slots=True)
class Survey:
    """Every row beside its file. `touched`: files that changed after their rows were written."""

    rows: int = 0
    missing: list[Row] = field(default_factory=list)
    cut: list[Row] = field(default_factory=list)
    touched: list[str] = field(default_factory=list)


def survey(case: Case) -> Survey:
    """Looks at all files once an examination."""
    made = case.kept.get("survey")
    if made is None:
        made = case.kept["survey"] = _survey(case)
    assert isinstance(made, Survey)
    return made


def _survey(case: Case) -> Survey:
    found = Survey()
    suspects: list[Row] = []
    for page in case.pages("objects"):
        for row in page:
            found.rows += 1
            entry = case.node.store.entry(row["object_name"])
            if entry is None or entry.size != row["size"]:
                suspects.append(row)
            elif entry.changed_at.timestamp() > row["stored_at"] + TOUCHED_SECONDS:
                found.touched.append(row["object_name"])
    for row in _still(case, suspects):
        entry = case.node.store.entry(row["object_name"])
        if entry is None:
            found.missing.append(row)
        elif entry.size != row["size"]:
            found.cut.append(row)
    return found


def _still(case: Case, rows: Sequence[Row]) -> list[Row]:
    """Those of the rows that still name their objects: others were deleted or replaced meanwhile."""
    names = [row["object_name"] for row in rows]
    parts = (names[start : start + PAGE] for start in range(0, len(names), PAGE))
    return [row for part in parts for row in case.rows("of_objects", names=part)]


def missing(case: Case) -> Iterator[Finding]:
    rows = survey(case).missing
    if rows:
        what = f"{many(len(rows), 'object is', 'objects are')} in the index, and the file is gone."
        yield Finding(what, len(rows), _uids(rows), items=tuple(rows))


def cut(case: Case) -> Iterator[Finding]:
    rows = survey(case).cut
    if rows:
        what = f"{many(len(rows), 'file is', 'files are')} not as long as what was stored."
        yield Finding(what, len(rows), _uids(rows), items=tuple(rows))


def changed(case: Case) -> Iterator[Finding]:
    names = itertools.chain(survey(case).touched, _more_to_hash(case))
    wrong: list[Row] = []
    until = time.monotonic() + SAMPLE_SECONDS
    while (part := list(itertools.islice(names, AT_ONCE))) and (case.deep or time.monotonic() < until):
        wrong += [row for row in case.rows("of_objects", names=part) if _differs(case, row)]
    wrong = [row for row in _still(case, wrong) if _differs(case, row)]
    if wrong:
        what = f"{many(len(wrong), 'file holds', 'files hold')} other bytes than were stored."
        yield Finding(what, len(wrong), _uids(wrong), items=tuple(wrong))


def _more_to_hash(case: Case) -> Iterator[str]:
    if case.deep:
        yield from (row["object_name"] for page in case.pages("objects") for row in page)
    else:
        yield from (row["object_name"] for row in case.rows("sample", limit=SAMPLE))


def _differs(case: Case, row: Row) -> bool:
    """Whether the file is there, as long as it should be, and not what was stored."""
    try:
        if case.node.store.size(row["object_name"]) != row["size"]:
            return False  # another check's
        with case.node.store.open(row["object_name"]) as file:
            return sha256_of(file) != bytes(row["sha256"])
    except FileNotFoundError:
        return False
    except OSError:  # the disk does not give it back
        return True


def recover(case: Case, finding: Finding) -> str:
    """Put right copies back; what has none leaves the index, its row and its bad file kept in quarantine."""
    rows = _still(case, finding.items)
    copies = {row["pk"]: copy for row in rows if (copy := _copy(case, row))}
    _refuse_mass_loss(case, len(rows) - len(copies))
    for row in rows:
        name, reason = row["object_name"], "damaged"
        path = case.settings.storage_dir / "objects" / name
        place = _taken(case, path, reason)
        if row["pk"] in copies:
            case.quarantine.put_back(copies[row["pk"]], path, reason)
        else:
            _give_up(case, row, place)
        case.node.findings.cure([name], MISSING_FILE, WRONG_DIGEST)
    lost = len(rows) - len(copies)
    back = f"{many(len(copies), 'right copy', 'right copies')} put back. " if copies else ""
    return f"{back}{many(lost, 'row')} moved to quarantine{_tell_lost(lost)}."


def _tell_lost(lost: int) -> str:
    return "; ask the senders for these objects again, or import them from a backup" if lost else ""


def _refuse_mass_loss(case: Case, lost: int) -> None:
    total = survey(case).rows
    if lost > MOST_LOST and lost > total * LARGEST_PART_LOST and not case.accept_loss:
        raise Conflict(
            f"{lost} of {total} objects would leave the index: is the right disk mounted at "
            f"{case.settings.storage_dir}? If they are really lost: {DOCTOR_FIX} --accept-loss"
        )


def _taken(case: Case, path: Path, reason: str) -> str:
    try:
        return str(case.quarantine.take(path, reason))
    except FileNotFoundError:
        return ""


def _copy(case: Case, row: Row) -> Path | None:
    """A file with the object's name and digest among what was set aside."""
    root = case.settings.storage_dir
    named = Path(row["object_name"]).name
    for place in ("quarantine", "lost+found"):
        for path in (root / place).rglob(named):
            with suppress(OSError), path.open("rb", buffering=0) as file:
                if sha256_of(file) == bytes(row["sha256"]):
                    return path
    return None


def _give_up(case: Case, row: Row, place: str) -> None:
    case.quarantine.note({"row": row["sop_instance_uid"], "object": row["object_name"], "kept_in": "quarantined"})
    values = {"pk": row["pk"], "name": row["object_name"], "reason": "damaged", "place": place}

    def remove(cursor: Cursor) -> None:
        if cursor.execute(SQL["keep_lost"], values).fetchone() is None:
            return
        gone = cursor.execute(SQL["remove_lost"], {"pk": row["pk"]}).fetchall()
        audit.record(cursor.connection, [audit.row(SOURCE, "quarantine", **one) for one in gone])

    case.change(remove)


# files that nothing names


def strays(case: Case) -> Iterator[Finding]:
    found = [entry for entry in _unnamed(case) if entry.size]
    if found:
        what = f"{many(len(found), 'file lies', 'files lie')} in the store, and no row of the index names it."
        yield Finding(what, len(found), some(e.name for e in found), items=tuple(found))


def blanks(case: Case) -> Iterator[Finding]:
    found = [entry for entry in _unnamed(case) if not entry.size]
    if found:
        what = f"{many(len(found), 'empty file')} made ahead by a process that is gone."
        yield Finding(what, len(found), some(e.name for e in found), WARNING, items=tuple(found))


def _unnamed(case: Case) -> list[Entry]:
    kept = case.kept.get("unnamed")
    if kept is None:
        kept = case.kept["unnamed"] = case.settled(
            lambda: list(_look_unnamed(case)), lambda entry: entry.name, lambda entry: entry.changed_at.timestamp()
        )
    assert isinstance(kept, list)
    return kept


def _look_unnamed(case: Case) -> Iterator[Entry]:
    """Files of the store that no row, no tombstone and no living process knows of."""
    for names in case.node.store.folders():
        for name in [row["name"] for row in case.rows("unnamed", names=names)]:
            with suppress(FileNotFoundError):
                entry = case.node.store.entry(name)
                if entry and not case.node.store.in_use(name) and case.rows("unnamed", names=[name]):
                    yield entry


def take_strays(case: Case, finding: Finding) -> str:
    """To quarantine, unless somebody has named it meanwhile."""
    moved = 0
    for entry in finding.items:
        path = case.settings.storage_dir / "objects" / entry.name
        with suppress(FileNotFoundError):
            if not is_held(path) and case.rows("unnamed", names=[entry.name]):
                _move(case, path, "unnamed")
                moved += 1
    return f"{many(moved, 'file')} moved to {case.quarantine.folder}; what is worth keeping: filmroom import PATH"


def drafts(case: Case) -> Iterator[Finding]:
    found = case.settled(lambda: list(_drafts(case)), str, changed_at)
    if found:
        what = f"{many(len(found), 'half received file')} left by a process that is gone."
        yield Finding(what, len(found), some(path.name for path in found), WARNING, items=tuple(found))


def _drafts(case: Case) -> Iterator[Path]:
    for path in (case.settings.storage_dir / "tmp").glob("*"):
        with suppress(OSError):
            if path.is_file() and not is_held(path):
                yield path


def take_paths(case: Case, finding: Finding) -> str:
    """To quarantine."""
    moved = 0
    for path in finding.items:
        with suppress(FileNotFoundError):
            if not is_held(path):
                _move(case, path, "left-over")
                moved += 1
    return f"{many(moved, 'file')} moved to {case.quarantine.folder}."


def _move(case: Case, path: Path, reason: str) -> None:
    place = case.quarantine.take(path, reason)
    values = {"what": "file", "name": str(path), "reason": reason, "place": str(place)}
    case.change(lambda cursor: cursor.execute(SQL["moved"], values))


def changed_at(path: Path) -> float:
    """When a file was last written; now, where it has gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


# deletes that were not ended


def unburied(case: Case) -> Iterator[Finding]:
    with case.node.books.transaction() as cursor:
        values = {"seconds": BURY_LATE_SECONDS, "limit": 5000}
        graves = cursor.execute(LIFECYCLE["graves"], values).fetchall()
    found = [grave for grave in graves if case.node.store.size(grave["object_name"]) is not None]
    if found:
        what = f"{many(len(found), 'object was', 'objects were')} deleted long ago, and the file is still there."
        yield Finding(what, len(found), some(grave["object_name"] for grave in found), items=tuple(found))


def end_deletes(case: Case, finding: Finding) -> str:
    """The file to quarantine; the clerk then drops the tombstone."""
    for grave in finding.items:
        with suppress(FileNotFoundError):
            case.quarantine.take(case.settings.storage_dir / "objects" / grave["object_name"], "deleted")
    pks = [grave["pk"] for grave in finding.items]
    case.change(lambda cursor: cursor.execute(LIFECYCLE["close_graves"], {"pks": pks}))
    return f"{many(len(pks), 'file')} moved to {case.quarantine.folder}; they were to be deleted: remove them there."


# newcomers that were set aside


def conflicts_without_file(case: Case) -> Iterator[Finding]:
    place: Place = "conflicts"
    rows = case.rows("open_conflicts")
    found = [row for row in rows if case.node.store.size(row["object_name"], place) is None]
    if found:
        what = f"{many(len(found), 'open conflict')} whose newcomer is gone."
        yield Finding(what, len(found), _uids(found), items=tuple(found))


def close_conflicts(case: Case, finding: Finding) -> str:
    """What is stored stays; there is nothing left to decide on."""

    def close(cursor: Cursor) -> None:
        for row in finding.items:
            values = {"what": "conflict", "name": row["sop_instance_uid"], "reason": "conflict-file", "place": ""}
            cursor.execute(SQL["close_conflict"], {"id": row["id"]})
            cursor.execute(SQL["moved"], values)

    case.change(close)
    return f"{many(len(finding.items), 'conflict')} closed: what is stored stays."


def conflict_files(case: Case) -> Iterator[Finding]:
    found = case.settled(lambda: _undecided(case), str, changed_at)
    if found:
        what = f"{many(len(found), 'file was', 'files were')} set aside as a conflict, and no open conflict names it."
        yield Finding(what, len(found), some(path.name for path in found), WARNING, items=tuple(found))


def _undecided(case: Case) -> list[Path]:
    place: Place = "conflicts"
    open_ = {row["object_name"] for row in case.rows("open_conflicts")}
    names = (name for names in case.node.store.folders(place) for name in names)
    return [case.settings.storage_dir / place / name for name in names if name not in open_]


def _uids(rows: Iterable[Row]) -> tuple[str, ...]:
    return some(row["sop_instance_uid"] for row in rows)


BACKUP = "filmroom restore DIR --damaged puts back what a backup has; or ask their senders again. {} puts right copies "
LOST = BACKUP.format(DOCTOR_FIX) + "back and moves the rows of the others to quarantine"
MOVE = f"{DOCTOR_FIX} (moves to quarantine)"
NEEDS = ("schema", "store")
CHECKS = (
    Check("missing-file", "damage", "rows whose file is gone", LOST, missing, recover, NEEDS),
    Check("wrong-size", "damage", "files of another length than was stored", LOST, cut, recover, NEEDS),
    Check("wrong-digest", "damage", "files with other bytes than were stored (a sample; all with --deep)", LOST,
          changed, recover, NEEDS),
    Check("stray-file", "damage", "files that no row names", MOVE, strays, take_strays, NEEDS),
    Check("empty-file", "damage", "empty files made ahead by a dead process", MOVE, blanks, take_strays, NEEDS),
    Check("staging-file", "damage", "half received files of a dead process", MOVE, drafts, take_paths, NEEDS),
    Check("unburied-file", "damage", "files of objects deleted long ago", "start a clerk: filmroom serve; or "
          f"{MOVE}", unburied, end_deletes, NEEDS),
    Check("conflict-row", "damage", "open conflicts whose newcomer is gone", f"{DOCTOR_FIX} (closes them)",
          conflicts_without_file, close_conflicts, NEEDS),
    Check("conflict-file", "damage", "files set aside that no open conflict names", MOVE, conflict_files, take_paths,
          NEEDS),
)  # fmt: skip
