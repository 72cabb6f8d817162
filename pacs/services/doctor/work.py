"""What waits to be done: events, AI jobs and their results, model packages."""

import hashlib
import shutil
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from pacs.errors import Conflict, FilmroomError, Unavailable
from pacs.index.named import queries
from pacs.places import config_folder
from pacs.services.doctor.case import SQL, Case
from pacs.services.doctor.finding import DOCTOR_FIX, WARNING, Check, Finding, many, some

JOBS = queries("jobs")
OUTBOX_LATE_SECONDS = 120.0
LEASE_OVER_SECONDS = 15.0
UNHEARD_SECONDS = 60.0
MANIFEST = "manifest.toml"
CHUNK = 1 << 20


def outbox(case: Case) -> Iterator[Finding]:
    for row in case.rows("outbox", seconds=OUTBOX_LATE_SECONDS):
        what = f"{many(row['rows'], 'event')} ({row['topic']}) waiting for {row['seconds']:.0f} s to be passed on."
        yield Finding(what, row["rows"], (f"topic {row['topic']}",), items=(row["topic"],))


def pump(case: Case, finding: Finding) -> str:
    """Pass on what waits."""
    case.node.relay.pump()
    left = [row for row in case.rows("outbox", seconds=OUTBOX_LATE_SECONDS) if row["topic"] in finding.items]
    if left:
        raise Unavailable(f"{left[0]['rows']} of them still wait: nobody here takes the topic {left[0]['topic']}.")
    return f"{many(finding.count, 'event')} passed on."


def stuck_jobs(case: Case) -> Iterator[Finding]:
    rows = case.rows("stuck_jobs", seconds=LEASE_OVER_SECONDS)
    if rows:
        what = f"{many(len(rows), 'AI job is', 'AI jobs are')} in the hands of workers that are gone."
        yield Finding(what, len(rows), some(f"job {row['id']} of {row['study_uid']}" for row in rows))


def recover(case: Case, finding: Finding) -> str:
    """Queue them again, or bury those that took every worker with them."""
    queued = case.node.reconciler.recover()
    with suppress(Unavailable):  # the clerk's relay rings when Redis is back
        case.node.relay.publish()
    buried = max(0, finding.count - len(queued))
    return f"{many(len(queued), 'job')} queued again, {buried} without attempts left are dead."


def unheard_jobs(case: Case) -> Iterator[Finding]:
    present = sorted(case.node.stream.present())
    with case.node.books.transaction() as cursor:
        values = {"seconds": UNHEARD_SECONDS, "present": present}
        ids = [row["id"] for row in cursor.execute(JOBS["unpublished"], values).fetchall()]
    if ids:
        what = f"{many(len(ids), 'queued AI job')} of which no worker will hear."
        yield Finding(what, len(ids), some(f"job {id_}" for id_ in ids))


def ring(case: Case, finding: Finding) -> str:
    """Tell Redis again."""
    ids = case.node.reconciler.compare()
    case.node.relay.publish()
    return f"Redis told of {many(max(len(ids), finding.count), 'job')} again."


def missing_results(case: Case) -> Iterator[Finding]:
    rows = case.rows("missing_results")
    if rows:
        what = f"{many(len(rows), 'AI result is', 'AI results are')} noted as stored, and not there."
        wanted = sorted({(row["study_uid"], row["model"]) for row in rows})
        cure = f"filmroom ai run {wanted[0][0]} --model {wanted[0][1]}, or {DOCTOR_FIX} for all"
        yield Finding(what, len(rows), some(row["sop_instance_uid"] for row in rows), cure=cure, items=tuple(wanted))


def run_again(case: Case, finding: Finding) -> str:
    """Ask for the runs that make them again: the same inputs give the same results."""
    failed: list[FilmroomError] = []
    for study_uid, model in finding.items:
        try:
            case.node.jobs.run(study_uid, model, "low")
        except FilmroomError as error:
            failed.append(error)
    if failed:
        raise Conflict(f"{len(failed)} of {len(finding.items)} runs could not be asked for: {failed[0].message}")
    return f"{many(len(finding.items), 'run')} asked for; the results come when a sidecar has made them."


# model packages


def broken_models(case: Case) -> Iterator[Finding]:
    said = {Path(row["path"]): row["message"] for row in _quarantined(case) if Path(row["path"]).is_dir()}
    wrong = {path: fault for path in packages(case) if (fault := fault_of(path))}
    for path, fault in {**said, **wrong}.items():
        name = f"{path.parent.name} {path.name}"
        cure = f"filmroom ai check {path}; put a whole package there, or {DOCTOR_FIX} (moves it away)"
        what = f"Model package {name} cannot be used: {fault}"
        yield Finding(what, examples=(str(path),), cure=cure, items=(path,))


def _quarantined(case: Case) -> Sequence[dict[str, str]]:
    return case.rows("models") if "schema" not in case.troubles else []


def packages(case: Case) -> list[Path]:
    """The folders of all packages, as the sidecar finds them."""
    return [file.parent for folder in case.settings.models_dirs for file in sorted(folder.glob(f"*/*/{MANIFEST}"))]


def fault_of(package: Path) -> str:
    """Why the package's files are not what its manifest says; empty when they are."""
    try:
        files = tomllib.loads((package / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, digest in files.items():
            if _sha256(package / name) != digest:
                return f"{name} is not the file that [files] of the manifest describes."
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing."
    except KeyError:
        return f"{MANIFEST} has no table [files]."
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read ({type(error).__name__})."
    return ""


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def move_model(case: Case, finding: Finding) -> str:
    """Into a hidden folder beside the others, where no sidecar looks."""
    (path,) = finding.items
    folder = path.parent.parent
    if folder.resolve() == (config_folder() / "models").resolve():
        raise Conflict(f"{path} came with Filmroom: install it again, or check it out.")
    target = folder / ".quarantine" / datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ") / path.parent.name / path.name
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.move(path, target)
    except OSError as error:
        raise Unavailable(f"{path} could not be moved ({error.strerror}).") from error
    if "schema" not in case.troubles:
        values = {"what": "file", "name": str(path), "reason": "broken-model", "place": str(target)}
        case.change(lambda cursor: cursor.execute(SQL["moved"], values))
        case.change(lambda cursor: cursor.execute(SQL["retire_model"], {"path": str(path)}))
    return f"Moved to {target}."


def no_models(case: Case) -> Iterator[Finding]:
    if not case.settings.ai_enabled:
        return
    named = [folder for folder in case.settings.ai_models_dir if not folder.is_dir()]
    if named:
        what = f"{many(len(named), 'folder')} of AI_MODELS_DIR not there."
        yield Finding(what, len(named), some(named), cure="make the folder, or correct AI_MODELS_DIR")
    elif not packages(case):
        folders = ", ".join(map(str, case.settings.models_dirs))
        yield Finding("There is no model package: no study will be looked at.", examples=(folders,), severity=WARNING)


CLERK = f"start a clerk: filmroom serve (or filmroom serve clerk); or {DOCTOR_FIX}"
QUEUE = ("schema", "redis", "clerk")
CHECKS = (
    Check("stuck-outbox", "damage", "events that nobody passes on", CLERK, outbox, pump, ("schema", "clerk")),
    Check("stuck-job", "damage", "AI jobs whose worker is gone", CLERK, stuck_jobs, recover, ("schema",)),
    Check("unheard-job", "damage", "queued AI jobs of which Redis knows nothing", CLERK, unheard_jobs, ring, QUEUE),
    Check("missing-result", "damage", "AI results that are noted and not there", DOCTOR_FIX, missing_results, run_again,
          ("schema",)),
    Check("broken-model", "damage", "model packages whose files are not what their manifest says", DOCTOR_FIX,
          broken_models, move_model),
    Check("no-models", "configuration", "folders of models that are missing or empty",
          "put a package into a folder of AI_MODELS_DIR: docs/models.md", no_models),
)  # fmt: skip
