"""`filmroom status`: what is stored, queued, running, and what is wrong, on one screen of 80 columns."""

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Iterator

from pacs import node as nodes
from pacs.errors import Unavailable
from pacs.services.status import Status
from pacs.settings import Settings

GIB = 1 << 30
WIDTH, LINES = 79, 24
RED, GREEN, PLAIN = "\x1b[1;31m", "\x1b[1;32m", "\x1b[0m"


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
    print(json.dumps(status.as_json()) if args.json else "\n".join(_screen(status, settings)))
    return 1 if status.wrong else 0


def _screen(status: Status, settings: Settings) -> Iterator[str]:
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    shown = [line for name, text in _rows(status, settings) for line in _wrapped(name, text)]
    yield from shown
    if not status.wrong:
        yield f"{GREEN}all is well{PLAIN}" if colour else "all is well"
        return
    left = LINES - len(shown) - 2
    for count, wrong in enumerate(status.wrong):
        lines = _wrapped("WRONG", f"{wrong.what}: {wrong.cure}")
        left -= len(lines)
        if left < 0:
            yield f"{'':<11}and {len(status.wrong) - count} more; all of them with --json"
            return
        yield f"{RED}{lines[0][:5]}{PLAIN}{lines[0][5:]}" if colour else lines[0]
        yield from lines[1:]


def _rows(status: Status, settings: Settings) -> Iterator[tuple[str, str]]:
    yield "DICOM", f"{settings.dicom_ae_title} on {settings.dicom_host}:{settings.dicom_port}"
    yield "HTTP", f"http://{settings.http_host}:{settings.http_port}/console/"
    yield "processes", ", ".join(status.processes) or "none: start them with filmroom serve"
    yield "stored", _counts(status.stored)
    yield "last hour", _counts(status.last_hour)
    yield "queues", _queues(status)
    yield "AI jobs", ", ".join(f"{count:,} {state.lower()}" for state, count in status.jobs.items()) or "none"
    yield "AI", _ai(status)
    yield "disk", _disk(status, settings)
    if status.quarantined:
        yield "quarantine", f"{_counts(status.quarantined)}, moved there by the doctor"
    yield "window", "maintenance is on" if status.maintenance else "no maintenance"


def _queues(status: Status) -> str:
    """What waits, and for how long."""
    queues = status.queues
    ages = {"events": queues["outbox_age_seconds"], "AI jobs": status.waiting_seconds}
    waiting = [f"{name} for {seconds:.0f} s" for name, seconds in ages.items() if seconds]
    counts = f"{queues['outbox']:.0f} events, {queues['to_unlink']:.0f} files to unlink"
    decisions = f"{queues['conflicts']:.0f} conflicts, {queues['patient_conflicts']:.0f} doubtful patients"
    return f"{counts}, {decisions}{'; waiting: ' if waiting else ''}{', '.join(waiting)}"


def _ai(status: Status) -> str:
    models = ", ".join(f"{count} {state}" for state, count in status.models.items()) or "none"
    ready = [one["provider"] or one["device"] for one in status.sidecars if one["ready"]]
    return f"models: {models}; sidecars: {len(ready)} ready{f' on {ready[0]}' if ready else ''}"


def _disk(status: Status, settings: Settings) -> str:
    free, total = (status.disk[name] / GIB for name in ("free_bytes", "total_bytes"))
    return f"{free:.0f} of {total:.0f} GB free, {settings.disk_reserve_gb:g} GB kept in reserve"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.items())


def _wrapped(name: str, text: str) -> list[str]:
    """A name in its column and text beside it. What is too long for a line (a path) is not cut."""
    indent = f"{name:<11}"
    return textwrap.wrap(indent + text, WIDTH, subsequent_indent=" " * 11, break_long_words=False,
                         break_on_hyphens=False) or [indent.rstrip()]  # fmt: skip
