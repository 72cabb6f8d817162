"""`filmroom doctor`: what is wrong with this node, and the command that cures it; `--fix` runs the safe ones."""

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pacs import node as nodes
from pacs.embedded.connect import connected
from pacs.embedded.lock import holder
from pacs.errors import BadRequest
from pacs.services.doctor.case import Case
from pacs.services.doctor.configuration import lenient
from pacs.services.doctor.finding import ERROR, Check, many
from pacs.services.doctor.rounds import CHECKS, Diagnosis, Report, examine, treat
from pacs.settings import Settings

WIDTH = 79
COLOURS = {"error": "\x1b[1;31m", "warning": "\x1b[1;33m", "cured": "\x1b[1;32m"}
PLAIN = "\x1b[0m"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("--fix", action="store_true", help="cure what is curable: moves things aside, deletes nothing")
    parser.add_argument("--deep", action="store_true", help="read every file and row, not a sample")
    parser.add_argument("--accept-loss", action="store_true", help="--fix: also where many objects would be given up")
    parser.add_argument(
        "--proxy", type=Path, metavar="FILE", help="the nginx.conf before this node, if not the shipped"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="CHECK", help="these checks only")
    parser.add_argument("--list", action="store_true", help="list all checks, and look at nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def load_settings() -> Settings:
    """What can be read of the settings: what cannot is a finding, not the end."""
    return lenient(os.environ)[0]


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Examine, cure if wanted, and show; exit code 0 only when nothing is wrong (any more)."""
    checks = _chosen(args.only)
    if args.list:
        print(json.dumps(_listed(checks)) if args.json else "\n".join(_table(checks)))
        return 0
    with _case(args, settings) as case, _Progress(len(checks), quiet=args.json) as progress:
        report = examine(case, checks, progress.tell)
        for one in treat(case, report) if args.fix else ():
            progress.tell(one.check.name)
    print(json.dumps(report.as_json()) if args.json else "\n".join(_screen(report, fixing=args.fix)))
    return 0 if report.well else 1


@contextmanager
def _case(args: argparse.Namespace, settings: Settings) -> Iterator[Case]:
    """The node as it runs. For one that does not run its embedded servers are started, if they were ever made."""
    asleep = not (settings.database_url or holder(settings.home))
    with connected(settings, start=asleep and (settings.home / "postgres").is_dir()) as reached:
        node = nodes.build(reached, component="doctor") if reached.database_url else None
        case = Case(
            reached,
            node,
            faults=lenient(os.environ)[1],
            deep=args.deep,
            accept_loss=args.accept_loss,
            proxy=args.proxy,
            asleep=asleep,
        )
        try:
            yield case
        finally:
            if node is not None:
                node.close()


def _chosen(names: list[str]) -> tuple[Check, ...]:
    known = {check.name: check for check in CHECKS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BadRequest(f"There is no check {unknown[0]!r}; see: filmroom doctor --list")
    return tuple(known[name] for name in names) or CHECKS


def _listed(checks: tuple[Check, ...]) -> list[dict[str, object]]:
    return [
        {"check": check.name, "kind": check.kind, "finds": check.finds, "cure": check.cure, "fixable": bool(check.fix)}
        for check in checks
    ]


def _table(checks: tuple[Check, ...]) -> Iterator[str]:
    for kind in dict.fromkeys(check.kind for check in checks):
        yield f"{kind} (* cured by --fix)"
        for check in (check for check in checks if check.kind == kind):
            yield from _wrapped(f" {'*' if check.fix else ' '} {check.name:<21}", check.finds)


# what is shown


def _screen(report: Report, *, fixing: bool) -> Iterator[str]:
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for one in sorted(report.found, key=lambda one: (bool(one.done), one.finding.severity != ERROR)):
        yield from _shown(one, colour=colour)
    for name, message in report.broken.items():
        yield from _wrapped(f"ERROR   {name}: ", message)
    for message in dict.fromkeys(report.skipped.values()):
        names = [name for name, why in report.skipped.items() if why == message]
        yield from _wrapped(f"skipped {many(len(names), 'check')}: ", message)
    yield _sum(report, fixing=fixing)


def _shown(one: Diagnosis, *, colour: bool) -> Iterator[str]:
    word = "cured" if one.done else one.finding.severity
    head = f"{word.upper():<8}"
    first, *more = _wrapped(f"{head}{one.check.name}: ", one.finding.what, indent=8)
    yield f"{COLOURS[word]}{head}{PLAIN}{first[len(head) :]}" if colour else first
    yield from more
    if one.finding.examples:
        yield from _wrapped("        e.g. ", ", ".join(one.finding.examples), indent=13)
    if one.failed:
        yield from _wrapped("        not cured: ", one.failed, indent=13)
    yield from _wrapped(
        "        " if one.done else "        cure: ", one.done or one.cure, indent=8 if one.done else 14
    )


def _wrapped(start: str, text: str, indent: int = 0) -> list[str]:
    """Lines of 79 columns; a path or a UID that is longer is not cut, so that it can be copied."""
    return textwrap.wrap(
        start + text,
        WIDTH,
        subsequent_indent=" " * (indent or len(start)),
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
        replace_whitespace=False,
    ) or [start]


def _sum(report: Report, *, fixing: bool) -> str:
    if report.well:
        cured = f", {len(report.found)} cured" if report.found else ""
        return (
            f"{many(report.looked, 'check')} looked: {'nothing is wrong' if not cured else 'all is well now'}{cured}."
        )
    errors = sum(one.finding.severity == ERROR for one in report.left) + len(report.broken)
    warnings = sum(one.finding.severity != ERROR for one in report.left)
    fixable = sum(one.check.fix is not None for one in report.left)
    hint = f" {fixable} can be cured by: filmroom doctor --fix" if fixable and not fixing else ""
    cured = f", {len(report.found) - len(report.left)} cured" if fixing else ""
    return f"{many(report.looked, 'check')} looked: {many(errors, 'error')}, {many(warnings, 'warning')}{cured}.{hint}"


class _Progress:
    """Which check is at work, on a terminal only: elsewhere the findings are all there is to say."""

    def __init__(self, total: int, *, quiet: bool) -> None:
        self.total, self.done = total, 0
        self.shown = sys.stderr.isatty() and not quiet

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def tell(self, name: str) -> None:
        """A check begins."""
        self.done += 1
        if self.shown:
            sys.stderr.write(f"\r\x1b[K{min(self.done, self.total)}/{self.total} {name}")
            sys.stderr.flush()
