"""`filmroom demo seed|purge`: invented studies to look at, and their removal (a dry run unless --apply)."""

import argparse
import sys

from pacs import node as nodes
from pacs.cli.progress import Progress
from pacs.services import demo
from pacs.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("action", choices=("seed", "purge"))
    parser.add_argument("--apply", action="store_true", help="purge: really delete (without it only counts are shown)")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Seed or purge; demo data is refused in production."""
    if args.action == "seed" and settings.environment == "production":
        print("Demo data is refused in production: unset ENVIRONMENT=production or use another node.", file=sys.stderr)
        return 2
    node = nodes.build(settings, component="demo")
    try:
        return _seed(node) if args.action == "seed" else _purge(node, apply=args.apply)
    finally:
        node.close()


def _seed(node: nodes.Node) -> int:
    total = sum(study.slices for study in demo.STUDIES)
    with Progress("seed", total) as progress:
        for _ in demo.seed(node.ingest, node.pool):
            progress.step()
    print(f"{len(demo.STUDIES)} demo studies, {total} slices. Remove them with: filmroom demo purge --apply")
    return 0


def _purge(node: nodes.Node, *, apply: bool) -> int:
    studies = demo.planned(node.pool)
    print(f"{len(studies)} demo studies with {sum(s.seeded for s in studies)} objects.")
    kept = sum(s.foreign for s in studies)
    if kept:
        print(f"{kept} objects in them came from elsewhere and are kept.")
    if not apply:
        print("Nothing was deleted. To delete them: filmroom demo purge --apply")
        return 0
    print(f"{demo.purge(node.lifecycle, node.pool)} objects deleted; their files go after the grace time.")
    return 0
