"""One target under atheris: `python -m tests.fuzz.guided TARGET [libFuzzer options]`."""

import logging
import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-not-found]  # where it is installed

with atheris.instrument_imports(include=["pacs", "dicomweb"]):
    from tests.fuzz.findings import keep, tried
    from tests.fuzz.targets import TARGETS


def main(name: str, *options: str) -> None:
    """Fuzz until libFuzzer's options end it; a finding is kept in the corpus."""

    def run(data: bytes) -> None:
        try:
            tried(name, data)
        except BaseException:
            print(f"FOUND {name}: kept as {keep(name, data)}", file=sys.stderr)
            raise

    logging.disable()  # a library tells of each broken header
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(TARGETS[name].seeds()):
            Path(folder, str(number)).write_bytes(data)
        atheris.Setup([sys.argv[0], "-max_len=65536", *options, folder], run)
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
