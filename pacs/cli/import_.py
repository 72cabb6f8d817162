"""`filmroom import PATH...`: files, folders, DICOMDIR trees and zip archives, with progress, resumable."""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

from pacs import node as nodes
from pacs.cli.progress import Progress
from pacs.services import importer
from pacs.settings import Settings

ACCEPTED = {"stored", "known", "replaced", "done"}
SHOWN_REASONS = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="file, folder, DICOMDIR or zip archive")
    parser.add_argument("--again", action="store_true", help="import files that an earlier run already imported")
    parser.add_argument("--json", action="store_true", help="one JSON object with the counts on standard output")
    parser.add_argument("--verbose", action="store_true", help="name each file that was skipped or refused")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Import all; exit code 0 only when nothing was refused."""
    try:
        candidates = list(importer.find(args.paths))
    except FileNotFoundError as missing:
        print(f"There is no file or folder {missing}: check the path.", file=sys.stderr)
        return 2
    started = time.monotonic()
    outcomes = _import(args, settings, candidates)
    counts = importer.summary(outcomes)
    if args.json:
        print(json.dumps({kind: dict(reasons) for kind, reasons in counts.items()}))
    else:
        _report(counts, time.monotonic() - started)
    return 0 if set(counts) <= ACCEPTED | {"skipped"} else 1


def _import(
    args: argparse.Namespace, settings: Settings, candidates: list[importer.Candidate]
) -> list[importer.Outcome]:
    node = nodes.build(settings, component="import")
    journal = importer.Journal(settings.home / "import", args.paths)
    outcomes = []
    try:
        with Progress("import", len(candidates), quiet=args.json) as progress:
            for outcome in importer.run(node.ingest, candidates, journal, again=args.again):
                outcomes.append(outcome)
                progress.step()
                if args.verbose and outcome.kind not in ACCEPTED:
                    progress.say(f"{outcome.kind}: {outcome.name}: {outcome.reason}")
    finally:
        journal.close()
        node.close()
    return outcomes


def _report(counts: dict[str, Counter[str]], seconds: float) -> None:
    total = sum(sum(reasons.values()) for reasons in counts.values())
    print(f"{total} files in {seconds:.1f} s")
    for kind, reasons in sorted(counts.items()):
        print(f"  {kind:<9}{sum(reasons.values()):>8}")
        for reason, count in reasons.most_common(SHOWN_REASONS):
            if reason and kind != "done":
                print(f"  {'':<9}{count:>8}  {reason}")
