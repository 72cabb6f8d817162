"""`filmroom restore DIR`: a backup into an empty system, every digest checked before and after."""

import argparse
import dataclasses
import json
import os
import sys
from functools import partial
from pathlib import Path

from pacs import node as nodes
from pacs.cli import verify
from pacs.cli.progress import Progress
from pacs.cli.who import local_user
from pacs.services.backup_manifest import named
from pacs.services.wholeness import Meter
from pacs.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder that `filmroom backup` has filled")
    parser.add_argument(
        "--damaged",
        action="store_true",
        help="put back only objects that this node, which may run, has lost or that changed in its store",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object with the counts on standard output")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Restore and verify; exit code 0 only when all is whole afterwards."""
    meter = partial(Progress, quiet=args.json)
    mask = os.umask(0o077)  # what is written is for its owner alone
    node = nodes.build(settings, component="restore")
    try:
        if args.damaged:
            return _mend(args, node, meter)
        report = node.restore.run(args.folder, meter)
        node.audit.note(local_user(), "restore", detail={"folder": report.folder, "objects": report.objects})
        found = node.wholeness.check(meter)
    finally:
        node.close()
        os.umask(mask)
    if args.json:
        print(json.dumps({"restored": dataclasses.asdict(report), "verified": verify.as_json(found)}))
    else:
        print(f"{report.objects} objects and {report.others} other files restored from {report.folder}.")
        if report.gone:
            print(f"{report.gone} instances that were deleted while the backup ran were left out.")
        for line in verify.lines(found):
            print(line)
    if report.left:
        print(
            f"{len(report.left)} files were there already and differ, or could not be written: {named(report.left)}. "
            "They are as they were; compare them with the backup.",
            file=sys.stderr,
        )
    return 0 if found.whole else 1


def _mend(args: argparse.Namespace, node: nodes.Node, meter: Meter) -> int:
    """Put back what is missing or changed; exit code 0 only when the store is whole then."""
    found = node.wholeness.check(meter)
    faults = [*found.missing, *found.changed]
    absent = node.restore.mend(args.folder, faults, node.store, node.findings, meter)
    mended = len(faults) - len(absent)
    node.audit.note(local_user(), "restore", detail={"folder": str(args.folder.absolute()), "objects": mended})
    print(json.dumps({"mended": mended, "absent": absent}) if args.json else f"{mended} objects put back.")
    if absent:
        print(f"{len(absent)} are not whole in this backup either: {named(absent)}.", file=sys.stderr)
    return 1 if absent else 0
