"""`filmroom status`: what is stored, queued, running, and what is wrong, on one screen."""

import argparse
import json
import sys

from pacs import node as nodes
from pacs.errors import Unavailable
from pacs.services.status import Status
from pacs.settings import Settings

GIB = 1 << 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Show the status; exit code 0 only when nothing is wrong."""
    node = nodes.build(settings, component="status")
    try:
        status = node.status.now()
    except Unavailable as away:
        print(f"{away.message} Is the node running? Start it with: filmroom serve", file=sys.stderr)
        return 1
    finally:
        node.close()
    print(json.dumps(status.as_json()) if args.json else _screen(status, settings))
    return 1 if status.wrong else 0


def _screen(status: Status, settings: Settings) -> str:
    rows = (
        ("DICOM", f"{settings.dicom_ae_title} on {settings.dicom_host}:{settings.dicom_port}"),
        ("HTTP", f"http://{settings.http_host}:{settings.http_port}/console/"),
        ("stored", ", ".join(f"{count} {what}" for what, count in status.stored.items())),
        ("last hour", ", ".join(f"{count} {what}" for what, count in status.last_hour.items())),
        ("queued", ", ".join(f"{what.replace('_', ' ')} {count:.0f}" for what, count in status.queues.items())),
        ("AI jobs", ", ".join(f"{state.lower()} {count}" for state, count in status.jobs.items()) or "none"),
        ("disk", f"{status.disk['free_bytes'] / GIB:.0f} of {status.disk['total_bytes'] / GIB:.0f} GB free"),
    )
    lines = [f"{name:<10} {text}" for name, text in rows]
    lines += [f"{'WRONG':<10} {wrong.what}: {wrong.cure}" for wrong in status.wrong] or ["all is well"]
    return "\n".join(lines)
