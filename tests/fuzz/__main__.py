"""`make fuzz`: all targets in turn for so many seconds; what is found is made small and kept in the corpus.

By hypothesis, and by atheris too where it is installed, each target in a process of its own.
"""

import argparse
import logging
import random
import subprocess
import sys
import time
from importlib.util import find_spec

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings

from tests.fuzz.findings import keep, tried
from tests.fuzz.mutation import damaged
from tests.fuzz.targets import TARGETS

BATCH = 50  # examples between two looks at the clock
ROUND_SECONDS = 5.0  # of one target before the next has its turn
STYLE = settings(
    max_examples=BATCH,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.target, Phase.shrink),
    verbosity=Verbosity.quiet,
    print_blob=False,
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--target", choices=sorted(TARGETS), action="append", help="this one only; may be repeated")
    parser.add_argument("--engine", choices=("hypothesis", "atheris", "all"), default="all")
    args = parser.parse_args()
    logging.disable()  # a library tells of each broken header
    names = args.target or list(TARGETS)
    has_atheris = find_spec("atheris") is not None and args.engine != "hypothesis"
    share = args.seconds / 2 if has_atheris and args.engine == "all" else args.seconds
    found = 0
    if args.engine != "atheris":
        found += by_hypothesis(names, share)
    if has_atheris:
        found += by_atheris(names, share)
    elif args.engine == "atheris":
        parser.error("atheris is not installed here: pip install atheris")
    print(f"fuzz: {found} found" if found else "fuzz: nothing found")
    return 1 if found else 0


def by_hypothesis(names: list[str], seconds: float) -> int:
    """Rounds over the targets until the time is up."""
    end, counts, found = time.monotonic() + seconds, dict.fromkeys(names, 0), 0
    turn = min(ROUND_SECONDS, seconds / len(names))
    while time.monotonic() < end:
        for name in names:
            until = min(time.monotonic() + turn, end)
            while time.monotonic() < until:
                found += _batch(name)
                counts[name] += BATCH
    for name, count in counts.items():
        print(f"{name:14} {count} inputs")
    return found


def _batch(name: str) -> int:
    last = b""

    @seed(random.getrandbits(64))
    @STYLE
    @given(damaged(TARGETS[name].seeds()))
    def run(data: bytes) -> None:
        nonlocal last
        try:
            tried(name, data)
        except BaseException:
            last = data
            raise

    try:
        run()
    except Exception as error:  # whatever a parser raises beyond its own errors is a finding
        print(f"FOUND {name}: {type(error).__name__}: {error}\n  kept as {keep(name, last)}", file=sys.stderr)
        return 1
    return 0


def by_atheris(names: list[str], seconds: float) -> int:
    """Coverage-guided, one process a target: it ends at its first finding, or when its time is up."""
    found = 0
    for name in names:
        line = [sys.executable, "-m", "tests.fuzz.guided", name, f"-max_total_time={max(int(seconds / len(names)), 1)}"]
        found += subprocess.run(line, check=False).returncode != 0
    return found


if __name__ == "__main__":
    sys.exit(main())
