"""`make bench`: the same work for Filmroom and for the rivals installed here, in one run; a table and JSON.

python -m tests.bench [--quick] [--only SERVER ...] [--markdown FILE]
"""

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pydicom import dcmread

from tests.bench import reads, retrieves, stores, web
from tests.bench.material import LARGE, PER_STUDY, SMALL, make
from tests.bench.servers import STARTERS, Server, free_port, installed

ROUNDS = 40
RETRIEVED = 200


@dataclass
class Row:
    """One kind of work: figures by server, and whether more is better."""

    work: str
    unit: str
    more_is_better: bool
    figures: dict[str, float] = field(default_factory=dict)

    def ratio(self, rival: str) -> float | None:
        """How many times better than the rival we are."""
        ours, theirs = self.figures.get("filmroom"), self.figures.get(rival)
        if ours is None or not theirs:
            return None
        return ours / theirs if self.more_is_better else theirs / ours


class Bench:
    """Collects rows; `scale` shortens everything for a quick look."""

    def __init__(self, folder: Path, scale: float) -> None:
        self.folder, self.scale = folder, scale
        self.rows: dict[str, Row] = {}
        self.sink_port = free_port()

    def note(self, server: Server, work: str, unit: str, figure: float) -> None:
        """Keep a figure and show it."""
        row = self.rows.setdefault(work, Row(work, unit, unit != "ms"))
        row.figures[server.name] = figure
        print(f"  {server.name:<9} {work:<52} {figure:9.1f} {unit}", file=sys.stderr, flush=True)

    def material(self, name: str, count: int, size: int) -> list[Path]:
        """Files nobody has seen yet."""
        return make(self.folder / "data" / name, max(PER_STUDY, int(count * self.scale)), size, name)

    def run(self, name: str) -> None:
        """All the work on one server."""
        folder = self.folder / name
        folder.mkdir()
        with STARTERS[name](folder, self.sink_port) as server, retrieves.sink(self.sink_port):
            self._stores(server)
            if name != "storescp":
                self._retrieves(server)
            if server.has_web():
                self._stow(server)
                self._reads(server)
                for work, unit, figure in reads.figures(server, folder, self.scale):
                    self.note(server, work, unit, figure)

    def _stores(self, server: Server) -> None:
        slow = 0.25 if server.name != "filmroom" else 1.0  # rivals wait 44 ms a message for this sender
        for size, count in ((SMALL, 800), (LARGE, 400)):
            files = self.material(f"dcmsend{size}-{server.name}", int(count * slow), size)
            rate = stores.dcmsend(server, files)
            self.note(server, f"C-STORE, dcmsend, 1 association, {size} x {size}", "objects/s", rate)
            for associations in (1, 4):
                files = self.material(f"sender{size}-{associations}-{server.name}", count, size)
                rate = stores.no_nagle(server, files, associations)
                work = f"C-STORE, no Nagle, {associations} association{'s' * (associations > 1)}, {size} x {size}"
                self.note(server, work, "objects/s", rate)

    def _retrieves(self, server: Server) -> None:
        """Of what was stored last: no more than 200 objects in studies of 50."""
        for size in (LARGE, SMALL):
            files = sorted((self.folder / "data" / f"sender{size}-4-{server.name}").glob("*.dcm"))[:RETRIEVED]
            studies = list(
                dict.fromkeys(str(dcmread(path, stop_before_pixels=True).StudyInstanceUID) for path in files)
            )
            for verb, work in (("C-GET", retrieves.get), ("C-MOVE", retrieves.move)):
                work(server, studies, len(files))
                rate = max(work(server, studies, len(files)) for _ in range(3))
                self.note(server, f"{verb}, {len(files)} objects, {size} x {size}", "objects/s", rate)
        one = retrieves.keys(QueryRetrieveLevel="STUDY", StudyInstanceUID=studies[0], PatientName="", StudyDate="")
        every = retrieves.keys(QueryRetrieveLevel="STUDY", StudyInstanceUID="", PatientName="", StudyDate="")
        for words, identifier in (("1 match", one), ("every study", every)):
            seconds = [retrieves.find(server, identifier)[0] for _ in range(ROUNDS)]
            self.note(server, f"C-FIND, {words}, p95", "ms", web.Timing(tuple(seconds)).p95_ms)

    def _stow(self, server: Server) -> None:
        client = web.Client(server)
        for size, count in ((SMALL, 600), (LARGE, 300)):
            files = self.material(f"stow{size}-{server.name}", count, size)
            batches = [files[i : i + PER_STUDY] for i in range(0, len(files), PER_STUDY)]
            seconds = sum(web.timed(partial(client.stow, batch), 1, warm=0).seconds[0] for batch in batches)
            self.note(server, f"STOW, {PER_STUDY} a request, {size} x {size}", "objects/s", len(files) / seconds)

    def _reads(self, server: Server) -> None:
        client = web.Client(server)
        seed = f"stow{LARGE}-{server.name}"
        study = json.loads(client.get(f"/studies?PatientID={seed}-00000"))[0]["0020000D"]["Value"][0]
        series = json.loads(client.get(f"/studies/{study}/series"))[0]["0020000E"]["Value"][0]
        instances = json.loads(client.get(f"/studies/{study}/series/{series}/instances"))
        instance = f"/studies/{study}/series/{series}/instances/{instances[0]['00080018']['Value'][0]}"
        jobs: tuple[tuple[str, Callable[[], object]], ...] = (
            ("QIDO study list as OHIF asks", lambda: client.get(web.OHIF_LIST)),
            ("QIDO by patient ID", lambda: client.get(f"/studies?PatientID={seed}-00000")),
            ("QIDO by study UID", lambda: client.get(f"/studies?StudyInstanceUID={study}")),
            ("QIDO *name*", lambda: client.get("/studies?PatientName=*ench3*&limit=101")),
            ("QIDO date range with modality", lambda: client.get(
                "/studies?StudyDate=20260301-20260601&ModalitiesInStudy=CT&limit=101")),
            ("QIDO instances of a series", lambda: client.get(f"/studies/{study}/series/{series}/instances")),
            (f"metadata of {len(instances)} slices", lambda: client.get(f"/studies/{study}/series/{series}/metadata")),
            ("one native frame as stored", lambda: client.get(f"{instance}/frames/1", web.OHIF_FRAME)),
        )  # fmt: skip
        rounds = max(20, int(ROUNDS * self.scale))
        for work, job in jobs:
            self.note(server, f"{work}, p95", "ms", web.timed(job, rounds).p95_ms)


def table(rows: dict[str, Row], servers: list[str]) -> str:
    """The figures as a Markdown table with our ratio to each rival: above 1 we are better."""
    rivals = [name for name in servers if name != "filmroom"]
    head = ["work", "unit", *servers, *(f"ratio to {name}" for name in rivals)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows.values():
        cells = [row.work, row.unit, *(_figure(row.figures.get(name)) for name in servers)]
        cells += [_figure(row.ratio(name), digits=2) for name in rivals]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _figure(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def main() -> int:
    """Run all of it and print JSON and the table; `--markdown` keeps the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="an eighth of the work, for a look")
    parser.add_argument("--only", nargs="+", choices=STARTERS, help="measure these servers only")
    parser.add_argument("--markdown", type=Path, help="write the table here, with machine and date")
    args = parser.parse_args()
    servers = args.only or ["filmroom", *installed()]
    with tempfile.TemporaryDirectory(prefix="fb-", dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        bench = Bench(Path(folder), 0.125 if args.quick else 1.0)
        for name in servers:
            bench.run(name)
    figures = {row.work: asdict(row) | {"ratios": {s: row.ratio(s) for s in servers}} for row in bench.rows.values()}
    print(json.dumps(figures, indent=1))
    print(table(bench.rows, servers))
    if args.markdown:
        args.markdown.write_text(_page(table(bench.rows, servers)))
    return 0


def _page(rows: str) -> str:
    machine = f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {platform.platform()}"
    return (
        "# Benchmarks\n\nWritten by `make bench`: every server did the same work in one run on one machine, one after "
        "another. A ratio above 1 means that Filmroom is better. Filmroom answers after fsync and commit; Orthanc and "
        "storescp do not.\n\n"
        f"{datetime.now(UTC):%Y-%m-%d}, {machine}\n\n{rows}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
