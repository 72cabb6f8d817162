"""Rows of a large archive without files: studies of plain values, by way of the index's own writing function.

python -m tests.large_archive DATABASE_URL STUDIES [SERIES OF EACH] [INSTANCES OF EACH SERIES]
"""

import random
import sys
from collections.abc import Iterator
from datetime import date, timedelta

import psycopg

from tests.services.search_shelf import Object, line

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
FAMILIES = ("Garcia", "Nguyen", "Bench", "Okafor", "Schmidt", "Ivanova", "Tanaka", "Silva", "Kowalski", "Haddad")
BATCH = 500  # objects of one transaction


def archive(studies: int, series: int = 2, instances: int = 50, seed: int = 1) -> Iterator[Object]:
    """The objects of this many studies, study by study; study N has patient ID `L<N>` and accession number `A<N>`."""
    rng = random.Random(seed)
    for study in range(studies):
        uid, modality = f"1.2.826.0.1.{seed}.{study}", rng.choice(("CT", "MR"))
        day = date(2015, 1, 1) + timedelta(days=rng.randrange(4000))
        of_study = {
            "StudyInstanceUID": [uid],
            "PatientID": [f"L{study:07}"],
            "PatientName": [f"{rng.choice(FAMILIES)}{study % 1000}^Test"],
            "PatientBirthDate": ["19700101"],
            "PatientSex": ["O"],
            "StudyDate": [f"{day:%Y%m%d}"],
            "StudyTime": [f"{rng.randrange(24):02}{rng.randrange(60):02}00"],
            "AccessionNumber": [f"A{study:07}"],
            "StudyID": [str(study)],
            "StudyDescription": [rng.choice(("Chest", "Abdomen", "Head")) + " routine"],
            "ReferringPhysicianName": ["Ref^Doc"],
            "Modality": [modality],
            "SOPClassUID": [CT if modality == "CT" else MR],
            "Rows": ["512"],
            "Columns": ["512"],
        }
        for number in range(series * instances):
            of_series = f"{uid}.{number // instances + 1}"
            yield Object(
                of_study
                | {
                    "SeriesInstanceUID": [of_series],
                    "SeriesNumber": [str(number // instances + 1)],
                    "SeriesDescription": ["axial"],
                    "SOPInstanceUID": [f"{of_series}.{number % instances + 1}"],
                    "InstanceNumber": [str(number % instances + 1)],
                }
            )


def load(database_url: str, objects: Iterator[Object]) -> int:
    """Put the objects into the index and bring its statistics up to date; how many there were."""
    count = 0
    with psycopg.connect(database_url) as connection:
        connection.execute("SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off")
        connection.execute("SET synchronous_commit = off")
        batch: list[bytes] = []
        for made in objects:
            batch.append(line(made))
            if len(batch) == BATCH:
                count += _store(connection, batch)
                batch = []
        count += _store(connection, batch)
        connection.execute("ANALYZE")
    return count


def _store(connection: psycopg.Connection, lines: list[bytes]) -> int:
    found = connection.execute("SELECT outcome FROM store_objects(%s)", (b"\n".join(lines).decode(),)).fetchall()
    connection.commit()
    return len(found)


if __name__ == "__main__":
    print(load(sys.argv[1], archive(*map(int, sys.argv[2:]))))
