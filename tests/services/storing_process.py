"""A process that stores CT images until it is told to stop or killed: one line for each answer.

Arguments: home, database URL, study UID, series UID, how many. Run by the tests of the archive.
"""

import dataclasses
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from pacs.node import build
from pacs.settings import load
from pacs.telemetry import configure
from tests.services.specimens import ct, part10, put


def main() -> None:
    home, database_url, study, series, count = sys.argv[1:]
    settings = load({"FILMROOM_HOME": home, "FILMROOM_CONFIG": os.devnull})
    configure(settings, "storing")  # events go to standard error, answers to standard output
    node = build(dataclasses.replace(settings, database_url=database_url, disk_reserve_gb=0.0), component="storing")

    def store(number: int) -> None:
        stored = put(node, part10(ct(study, series, InstanceNumber=number)))
        os.write(1, f"{stored.outcome} {stored.sop_instance_uid}\n".encode())

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(store, range(int(count))))
    node.close()


if __name__ == "__main__":
    main()
