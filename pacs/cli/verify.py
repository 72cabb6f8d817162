"""`filmroom verify`: index and store compared, every byte against its digest; or the same of a backup."""

import argparse
import dataclasses
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pacs import node as nodes
from pacs.cli.progress import Progress
from pacs.index import schema
from pacs.services import backup_manifest, restore
from pacs.services.backup_manifest import SHOWN
from pacs.services.wholeness import Fault, Report
from pacs.settings import Settings

KINDS = {
    "missing": "put back what a backup has: filmroom restore DIR --damaged",
    "changed": "put back what a backup has: filmroom restore DIR --damaged",
    "orphans": "no row names them: a store was cut off; the clerk moves them to lost+found when they are an hour old",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("--sample", type=_positive, default=0, metavar="N", help="so many instances, by chance")
    parser.add_argument("--backup", type=Path, metavar="DIR", help="check this backup instead of the store")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Check; exit code 0 only when everything is as it was stored."""
    meter = partial(Progress, quiet=args.json)
    if args.backup:
        manifest = backup_manifest.read(args.backup.absolute())
        restore.check(manifest, meter)
        about = manifest.about()
        facts = {"folder": str(manifest.root), "files": len(manifest.sums), "instances": about.instances,
                 "started_at": about.started_at, "damaged": 0}  # fmt: skip
        print(json.dumps(facts) if args.json else
              f"{len(manifest.sums)} files of {about.instances} instances, saved {about.started_at}: "
              "all digests are equal.")  # fmt: skip
        return 0
    schema.require_head(schema.current(settings.database_url))
    node = nodes.build(settings, component="verify")
    try:
        report = node.wholeness.check(meter, args.sample)
    finally:
        node.close()
    if args.json:
        print(json.dumps(as_json(report)))
    else:
        for line in lines(report):
            print(line)
    return 0 if report.whole else 1


def lines(report: Report) -> Iterator[str]:
    """What was found, for people."""
    part = "" if report.checked == report.instances else f" of {report.instances}"
    yield f"{report.checked}{part} instances, {len(report.missing)} missing, {len(report.orphans)} orphans, " + (
        "digests equal" if not report.changed else f"{len(report.changed)} changed"
    )
    for kind, cure in KINDS.items():
        faults: list[Fault] = getattr(report, kind)
        for fault in faults[:SHOWN]:
            yield f"  {kind}: {fault.path}{f' of instance {fault.sop_instance_uid}' if fault.sop_instance_uid else ''}"
        if len(faults) > SHOWN:
            yield f"  {kind}: and {len(faults) - SHOWN} more; all of them with --json"
        if faults:
            yield f"  {kind}: {cure}"


def as_json(report: Report) -> dict[str, Any]:
    """The same for programs: counts, then each fault."""
    facts = dataclasses.asdict(report)
    counts: dict[str, Any] = {kind: len(getattr(report, kind)) for kind in KINDS}
    return {**facts, **counts, "faults": {kind: facts[kind] for kind in KINDS}, "whole": report.whole}


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
