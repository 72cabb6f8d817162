"""`filmroom backup DIR`: database, objects, models, working files and configuration, while the node runs."""

import argparse
import dataclasses
import json
import os
import sys
from functools import partial
from pathlib import Path

from pacs import node as nodes
from pacs.cli.progress import Progress
from pacs.cli.who import local_user
from pacs.services.backup_manifest import named
from pacs.settings import Settings

GIB = 1 << 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="an empty folder, or one with an earlier backup")
    parser.add_argument("--json", action="store_true", help="one JSON object with the counts on standard output")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Make a backup; exit code 0 only when it holds every object that the index names."""
    mask = os.umask(0o077)  # what is written is for its owner alone
    node = nodes.build(settings, component="backup")
    try:
        report = node.backup.run(args.folder, partial(Progress, quiet=args.json))
        node.audit.note(local_user(), "backup", detail={"folder": report.folder, "instances": report.instances})
    finally:
        node.close()
        os.umask(mask)
    if args.json:
        print(json.dumps(dataclasses.asdict(report)))
    else:
        print(
            f"{report.instances} instances in {report.folder}: {report.copied} objects copied, {report.kept} were "
            f"there already, {report.bytes / GIB:.2f} GiB. Check it with: filmroom verify --backup {report.folder}"
        )
        if report.gone:
            print(f"{len(report.gone)} objects were deleted while it ran; a restore leaves them out.")
    if report.damaged:
        print(
            f"{len(report.damaged)} objects are missing or changed in the store and are not in this backup: "
            f"{named(report.damaged)}. See: filmroom verify",
            file=sys.stderr,
        )
    return 1 if report.damaged else 0
