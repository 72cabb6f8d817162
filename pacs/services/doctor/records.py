"""The index in itself: counters, parents, what was derived, the change feed, the audit trail."""

import time
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from pacs.domain.frames import FrameTable
from pacs.errors import FilmroomError, Unavailable
from pacs.index.named import queries
from pacs.index.pool import transaction
from pacs.services.books import Cursor, Row
from pacs.services.doctor.case import AT_ONCE, SQL, Case
from pacs.services.doctor.files import survey
from pacs.services.doctor.finding import DOCTOR_FIX, WARNING, Check, Finding, many, some
from pacs.services.findings import COUNTERS, MISSING_FILE, STRAY_FILE, WRONG_DIGEST
from pacs.services.instances import StoredInstance

RETRIEVE = queries("retrieve")
UNDERIVED_SECONDS = 10.0
UNDERIVED_BUSY_SECONDS = 600.0  # while senders are at work, or the clerk is: it goes after them
QUIET_SECONDS = 30.0
PROGRESS_SECONDS = 3.0
DERIVED_SAMPLE = 500
UNSEALED_SECONDS = 60.0
MOST_AUDITED = 200_000  # rows that are walked without --deep: a second


def wrong_counters(case: Case) -> Iterator[Finding]:
    rows = [row for page in case.pages("counters") for row in page if row["wrong"]]
    if rows:
        what = f"{many(len(rows), 'study has', 'studies have')} counters that are not what is stored."
        yield Finding(what, len(rows), _named(rows, "study_uid"), items=tuple(row["pk"] for row in rows))


def recount(case: Case, finding: Finding) -> str:
    """Count anew, some studies at a time, nobody storing into them meanwhile."""

    def count(pks: Sequence[int]) -> int:
        def work(cursor: Cursor) -> int:
            cursor.execute(SQL["lock_studies"], {"pks": [*pks]})
            return len(cursor.execute(SQL["recount"], {"pks": [*pks]}).fetchall())

        return case.change(work)

    total = sum(count(finding.items[start : start + 50]) for start in range(0, len(finding.items), 50))
    return f"{many(total, 'counter')} of studies and series corrected."


def empty_parents(case: Case) -> Iterator[Finding]:
    rows = case.rows("empty")
    if rows:
        levels = ", ".join(sorted({f"{row['level']}" for row in rows}))
        what = f"{many(len(rows), 'row')} without anything below ({levels})."
        yield Finding(what, len(rows), some(f"{r['level']} {r['uid']}" for r in rows), items=tuple(rows))


def take_empty(case: Case, finding: Finding) -> str:
    """Rows are kept as they are in the table `quarantined`, and leave the index."""
    studies = sorted({row["study_pk"] for row in finding.items if row["study_pk"] is not None})

    def work(cursor: Cursor) -> None:
        cursor.execute(SQL["lock_patients_of"], {"pks": studies})
        cursor.execute(SQL["lock_studies"], {"pks": studies})
        cursor.execute(SQL["keep_empty"], {"pks": studies})
        cursor.execute(SQL["prune"], {"pks": studies})
        cursor.execute(SQL["recount"], {"pks": studies})
        cursor.execute(SQL["keep_empty_patients"])

    case.change(work)
    return f"{many(len(finding.items), 'row')} moved to the table quarantined."


def misfiled(case: Case) -> Iterator[Finding]:
    rows = case.rows("misfiled")
    if rows:
        what = f"{many(len(rows), 'instance says', 'instances say')} another study than their series."
        yield Finding(what, len(rows), _named(rows, "sop_instance_uid"), items=tuple(rows))


def refile(case: Case, finding: Finding) -> str:
    """To the study of their series, which is what every query goes by."""
    studies = sorted({row[side] for row in finding.items for side in ("wrong", "right")})

    def work(cursor: Cursor) -> None:
        cursor.execute(SQL["lock_studies"], {"pks": studies})
        cursor.execute(SQL["refile"], {"pks": [row["pk"] for row in finding.items]})
        cursor.execute(SQL["recount"], {"pks": studies})

    case.change(work)
    return f"{many(len(finding.items), 'instance')} put into the study of their series."


# what is derived


def underived(case: Case) -> Iterator[Finding]:
    busy = case.rows("quiet_for")[0]["seconds"] < QUIET_SECONDS
    rows = _underived(case, UNDERIVED_BUSY_SECONDS if busy else UNDERIVED_SECONDS)
    if rows and not busy:  # left behind, or the clerk is still at it?
        time.sleep(PROGRESS_SECONDS)
        again = {row["pk"] for row in _underived(case, UNDERIVED_SECONDS)}
        working = len(again & {row["pk"] for row in rows}) < len(rows)
        rows = _underived(case, UNDERIVED_BUSY_SECONDS) if working else rows
    if rows:
        what = f"{many(len(rows), 'instance has', 'instances have')} no metadata and frame table yet."
        yield Finding(what, len(rows), _named(rows, "sop_instance_uid"), WARNING, items=tuple(r["pk"] for r in rows))


def _underived(case: Case, seconds: float) -> list[Row]:
    damaged = {row["object_name"] for found in (survey(case).missing, survey(case).cut) for row in found}
    return [row for row in case.rows("underived", seconds=seconds) if row["object_name"] not in damaged]


def broken_derived(case: Case) -> Iterator[Finding]:
    broken = [row["pk"] for rows in _derived(case) for row in rows if not _readable(row)]
    if broken:
        uids = [row["sop_instance_uid"] for row in case.rows("uids", pks=broken)]
        what = f"The metadata or frame table of {many(len(uids), 'instance')} cannot be read."
        yield Finding(what, len(uids), some(uids), items=tuple(broken))


def _derived(case: Case) -> Iterator[list[Row]]:
    about = case.rows("derived_rows")[0]["rows"]
    if case.deep or about < DERIVED_SAMPLE * 4:
        yield from case.pages("derived")
    else:
        percent = min(100.0, 100.0 * DERIVED_SAMPLE / about)
        yield case.rows("derived_sample", percent=percent, limit=DERIVED_SAMPLE)


def _readable(row: Row) -> bool:
    try:
        orjson.loads(zlib.decompress(row["metadata"]))
        FrameTable.decode(zlib.decompress(row["frames"]))
    except (zlib.error, ValueError, TypeError, KeyError, IndexError):
        return False
    return True


def derive(case: Case, finding: Finding) -> str:
    """Once more from the files."""
    pks = list(finding.items)
    case.change(lambda cursor: cursor.execute(SQL["forget_derived"], {"pks": pks}))
    done, failed = 0, 0
    for instance in _instances(case, pks):
        try:
            done += sum(1 for _ in case.node.derive.ensure([instance]))
        except FilmroomError:
            failed += 1
    if failed:
        raise Unavailable(f"{failed} of {len(pks)} could not be derived: their files are damaged; see the log.")
    return f"Metadata and frame tables of {many(done, 'instance')} made anew."


def _instances(case: Case, pks: Sequence[int]) -> Iterator[StoredInstance]:
    for start in range(0, len(pks), AT_ONCE):
        with transaction(case.node.pool) as connection:
            rows = connection.execute(RETRIEVE["by_pk"], {"pks": pks[start : start + AT_ONCE]}).fetchall()
        yield from (StoredInstance(*row) for row in rows)


# what is told of changes, and of people


def unsealed(case: Case) -> Iterator[Finding]:
    count = case.rows("unsealed", seconds=UNSEALED_SECONDS)[0]["rows"]
    if count:
        what = f"{many(count, 'change waits', 'changes wait')} for a number in the change feed: no clerk is at work."
        yield Finding(what, count, severity=WARNING)


def seal(case: Case, finding: Finding) -> str:
    """Give numbers."""
    case.node.changes.seal()
    return f"{many(finding.count, 'change')} numbered."


def feed_gaps(case: Case) -> Iterator[Finding]:
    count = case.rows("feed_gaps")[0]["missing"]
    if count:
        what = f"{many(count, 'number is', 'numbers are')} missing in the change feed: rows were deleted."
        yield Finding(what, count)


def audit_chain(case: Case) -> Iterator[Finding]:
    about = case.rows("audit_rows")[0]["rows"]
    if about > MOST_AUDITED and not case.deep:
        return
    broken = case.node.chain.verify().broken
    if broken is not None:
        yield Finding(f"Audit row {broken.audit_id} {broken.message}.", examples=(f"audit row {broken.audit_id}",))


# what was written down and is no longer so


def stale_findings(case: Case) -> Iterator[Finding]:
    rows = [row for row in case.rows("findings") if _over(case, row)]
    if rows:
        what = f"{many(len(rows), 'finding')} of the sweep and of readers that are no longer so."
        yield Finding(what, len(rows), _named(rows, "object_name"), WARNING, items=tuple(rows))


def _over(case: Case, row: Row) -> bool:
    """Whether what was found is right by now, or was put in order when it was found."""
    if row["kind"] in {STRAY_FILE, COUNTERS}:
        return True
    if row["kind"] not in {MISSING_FILE, WRONG_DIGEST}:
        return False
    held = case.rows("of_objects", names=[row["object_name"]])
    return not held or case.node.store.size(row["object_name"]) == held[0]["size"]


def cure_findings(case: Case, finding: Finding) -> str:
    """Off the list."""
    for row in finding.items:
        case.node.findings.cure([row["object_name"]], row["kind"])
    return f"{many(len(finding.items), 'finding')} taken off the list."


def _named(rows: Sequence[Row], column: str) -> tuple[Any, ...]:
    return some(row[column] for row in rows)


CLERK = f"start a clerk: filmroom serve (or filmroom serve clerk); or {DOCTOR_FIX}"
TAMPERED = "filmroom audit verify; ask who could write to the database, and compare with a backup"
DERIVE_AGAIN = f"{DOCTOR_FIX} (makes them anew)"
NEEDS = ("schema",)
CHECKS = (
    Check("counters", "damage", "counters of studies and series that are not what is stored", DOCTOR_FIX,
          wrong_counters, recount, NEEDS),
    Check("empty-parents", "damage", "patients, studies and series without anything below",
          f"{DOCTOR_FIX} (moves the rows to the table quarantined)", empty_parents, take_empty, NEEDS),
    Check("misfiled", "damage", "instances of another study than their series", DOCTOR_FIX, misfiled, refile, NEEDS),
    Check("underived", "damage", "instances without metadata and frame table", CLERK, underived, derive,
          ("schema", "store", "clerk")),
    Check("broken-derived", "damage", "metadata and frame tables that cannot be read (a sample; all with --deep)",
          DERIVE_AGAIN, broken_derived, derive, ("schema", "store")),
    Check("unsealed-changes", "damage", "changes that wait for their number", CLERK, unsealed, seal,
          ("schema", "clerk")),
    Check("feed-gaps", "damage", "numbers that are missing in the change feed",
          "readers of /api/v1/changes must begin anew at 0", feed_gaps, needs=NEEDS),
    Check("audit-chain", "damage", "a row of the audit trail that was edited, inserted or deleted", TAMPERED,
          audit_chain, needs=NEEDS),
    Check("stale-finding", "damage", "findings of the sweep that are no longer so", DOCTOR_FIX, stale_findings,
          cure_findings, ("schema", "store")),
)  # fmt: skip
