"""`filmroom ai`: models, jobs and results of the AI sidecar."""

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pacs import node as nodes
from pacs.cli.who import local_user
from pacs.domain.jobs import PRIORITIES, State
from pacs.errors import BadRequest, Unavailable
from pacs.node import Node
from pacs.settings import Settings

Row = dict[str, Any]
CHECK = "ai_sidecar.package:check"  # by name: doors do not import each other
LOOK_EVERY = 0.5
GOOD = (State.SUCCEEDED, State.SUPERSEDED)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own verbs."""
    verbs = parser.add_subparsers(dest="what", metavar="VERB", required=True)
    for name, text, arguments in VERBS:
        verb = verbs.add_parser(name, help=text, description=text)
        verb.add_argument("--json", action="store_true", help="JSON on standard output")
        for flags, given in arguments:
            verb.add_argument(*flags, **given)


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Do one of them. Exit code 0 only when all went well."""
    if args.what == "check":
        return _check(args)
    node = nodes.build(settings, component="ai-cli")
    try:
        return ACTS[args.what](node, args)
    except Unavailable as away:
        raise Unavailable(f"{away.message} Is the node running? Start it with: filmroom serve") from away
    finally:
        node.close()


def _check(args: argparse.Namespace) -> int:
    """Validate a package without a node: manifest, digests, golden test."""
    module, _, name = CHECK.partition(":")
    findings = getattr(importlib.import_module(module), name)(args.path)
    said = [{"reason": finding.reason, "message": finding.sentence} for finding in findings]
    lines = [f"{row['message']} [{row['reason']}]" for row in said]
    fine = f"{args.path} is well: its manifest, its files and its golden test."
    _say(args, {"ok": not said, "findings": said}, "\n".join(lines) or fine)
    return 1 if said else 0


def _models(node: Node, args: argparse.Namespace) -> int:
    rows = node.models.list()
    lines = _table(rows, ("name", "version", "state", "task", "licence", "allowed_use", "summary"))
    lines += [f"{row['name']} {row['version']}: {row['message']}" for row in rows if row["message"]]
    _say(args, rows, "\n".join(lines) if rows else "No model package has been found; see AI_MODELS_DIR.")
    return 0


def _switch(node: Node, args: argparse.Namespace) -> int:
    rows = node.models.enable(args.name) if args.what == "enable" else node.models.disable(args.name)
    _say(args, rows, "\n".join(f"{row['name']} {row['version']}: {row['state']}" for row in rows))
    return 0


def _run(node: Node, args: argparse.Namespace) -> int:
    _note(node, "ai-control", args, study_uid=args.study)
    asked = node.jobs.run(args.study, args.model, args.priority)
    if not args.wait:
        _say(args, asked, f"Asked for; see: filmroom ai show {args.study}")
        return 0
    deadline = time.monotonic() + args.timeout
    while node.jobs.pending(args.study):
        if time.monotonic() > deadline:
            print(f"Not done after {args.timeout:g} s{_nobody(node)}", file=sys.stderr)
            break
        time.sleep(LOOK_EVERY)
    return _study(node, args, args.study)


def _nobody(node: Node) -> str:
    if not node.models.sidecars():
        return ": no sidecar is running; start one with: filmroom serve ai"
    unready = node.models.readiness()
    return f": {unready[0]['message']}" if unready else "."


def _study(node: Node, args: argparse.Namespace, study_uid: str) -> int:
    timeline = node.jobs.timeline(study_uid)
    jobs = [job for job in timeline["jobs"] if not args.model or job["model"] == args.model]
    _say(args, timeline, "\n".join(_timeline(timeline)))
    return 0 if jobs and all(job["state"] in (*GOOD, State.CANCELLED) for job in jobs) else 1


def _timeline(timeline: Row) -> list[str]:
    complete = timeline["completeness"]
    lines = [f"study {timeline['study_uid']}", f"  {complete['state']} {json.dumps(complete['evidence'], default=str)}"]
    lines += [f"  missing: {text}" for text in complete["missing"]]
    lines += [f"  {_line(job)}" for job in timeline["jobs"]]
    lines += [f"  skipped {row['model']}: {row['message']} [{row['reason']}]" for row in timeline["skipped"]]
    lines += [f"  {row['role']} {row['state']} {row['sop_instance_uid']}" for row in timeline["results"]]
    return lines


def _line(job: Row) -> str:
    said = f": {job['message']} [{job['reason']}]" if job["reason"] else ""
    return f"job {job['id']} {job['model']} {job['version']} {job['state']}{said}"


def _jobs(node: Node, args: argparse.Namespace) -> int:
    rows = node.jobs.list(args.state and args.state.upper(), args.limit)
    columns = ("id", "state", "model", "version", "priority", "attempts", "reason", "created_at", "study_uid")
    _say(args, rows, "\n".join(_table(rows, columns)) if rows else "No jobs.")
    return 0


def _show(node: Node, args: argparse.Namespace) -> int:
    if not args.job.isdigit():  # a study's UID has dots
        args.model = None
        _note(node, "ai", args, study_uid=args.job)
        _study(node, args, args.job)
        return 0
    row = node.jobs.get(int(args.job))
    _note(node, "ai", args, study_uid=row["study_uid"])
    _say(args, row, "\n".join(f"{name:<14} {_plain(value)}" for name, value in row.items()))
    return 0


def _press(node: Node, args: argparse.Namespace) -> int:
    """One of the buttons on a job."""
    if not args.job.isdigit():
        raise BadRequest(f"A job's number is wanted, not {args.job!r}; see: filmroom ai jobs")
    press: Callable[[int], Row] = getattr(node.jobs, args.what)
    row = press(int(args.job))
    _note(node, "ai-control", args, study_uid=row["study_uid"])
    _say(args, row, _line(row))
    return 0


def _note(node: Node, action: str, args: argparse.Namespace, *, study_uid: str) -> None:
    """For the audit trail: who looked at a study's results, or set models to work on it."""
    node.audit.note(local_user(), action, study_uid=study_uid, detail={"command": f"ai {args.what}"})


def _say(args: argparse.Namespace, value: object, text: str) -> None:
    print(json.dumps(value, default=str) if args.json else text)


def _table(rows: Sequence[Row], columns: Iterable[str]) -> list[str]:
    """Columns as wide as they need; the last as long as it likes."""
    cells = [[name.replace("_", " ").upper() for name in columns]]
    cells += [[_plain(row[name]) for name in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _plain(value: object) -> str:
    return json.dumps(value, default=str) if isinstance(value, dict | list) else "" if value is None else str(value)


Argument = tuple[tuple[str, ...], dict[str, Any]]
JOB: Argument = (("job",), {"help": "the job's number"})
NAME: Argument = (("name",), {"help": "the model's name"})
VERBS: tuple[tuple[str, str, tuple[Argument, ...]], ...] = (
    ("models", "model packages and their states", ()),
    ("check", "validate a model package", ((("path",), {"type": Path, "help": "folder of the package"}),)),
    ("enable", "let a model run again", (NAME,)),
    ("disable", "keep a model from running", (NAME,)),
    (
        "run",
        "run models on a study now",
        (
            (("study",), {"help": "Study Instance UID"}),
            (("--model",), {"help": "one model (default: all that suit)"}),
            (("--priority",), {"choices": PRIORITIES, "default": "normal"}),
            (("--wait",), {"action": "store_true", "help": "until all is done"}),
            (("--timeout",), {"type": float, "default": 600.0, "help": "seconds to wait (600)"}),
        ),
    ),
    (
        "jobs",
        "jobs, newest first",
        (
            (("--state",), {"help": f"only those: {', '.join(State)}"}),
            (("--limit",), {"type": int, "default": 50, "help": "so many (50)"}),
        ),
    ),
    ("show", "everything about a job, or about a study", ((("job",), {"help": "a job's number or a study's UID"}),)),
    ("retry", "queue a dead, cancelled or skipped job again", (JOB,)),
    ("cancel", "stop a job that waits or runs", (JOB,)),
    ("drop", "take a dead job off the list", (JOB,)),
)
ACTS: dict[str, Callable[[Node, argparse.Namespace], int]] = {
    "models": _models,
    "enable": _switch,
    "disable": _switch,
    "run": _run,
    "jobs": _jobs,
    "show": _show,
    "retry": _press,
    "cancel": _press,
    "drop": _press,
}
