"""Demo studies: invented chests, marked as demo, removed without touching anything else."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg_pool import ConnectionPool

from pacs.domain.events import Source
from pacs.domain.levels import Scope
from pacs.index.named import queries
from pacs.services import phantom
from pacs.services.duties import Duty
from pacs.services.ingest import Ingest
from pacs.services.lifecycle import Lifecycle

if TYPE_CHECKING:
    from pacs.node import Node

SOURCE = Source("demo", "demo", "")
STUDIES = (
    phantom.ChestStudy("demo-1", "DEMO-0001", "Demo^Anna", "F", "19610417", "20260112", "081500", "DEMO-A1"),
    phantom.ChestStudy("demo-2", "DEMO-0002", "Demo^Jürgen", "M", "19550930", "20260113", "101000", "DEMO-A2"),
    phantom.ChestStudy(
        "demo-3", "DEMO-0003", "Demo^Tarou=出茂^太郎=でも^たろう", "M", "19480201", "20260114", "143000", "DEMO-A3"
    ),
)
SQL = queries("demo")
A_YEAR = 365.0 * 24 * 3600  # once at the start; a node that runs for a year may check again


@dataclass(frozen=True, slots=True)
class DemoStudy:
    """A study that holds demo objects: how many, and how many objects in it came from elsewhere."""

    study_uid: str
    seeded: int
    foreign: int


def seed(ingest: Ingest, pool: ConnectionPool, studies: tuple[phantom.ChestStudy, ...] = STUDIES) -> Iterator[int]:
    """Store the demo studies and mark them; yields the count so far. Seeding twice changes nothing."""
    count = 0
    for study in studies:
        futures = []
        for data in phantom.files(study):
            incoming = ingest.begin(SOURCE)
            incoming.write(data)
            futures.append(ingest.submit(incoming))
        for future in futures:
            future.result()
            count += 1
            yield count
        with pool.connection() as connection:
            connection.execute(SQL["mark_demo_study"], {"study_uid": study.study_uid})


def planned(pool: ConnectionPool) -> list[DemoStudy]:
    """The studies that a purge would touch."""
    with pool.connection() as connection:
        rows = connection.execute(SQL["demo_studies"]).fetchall()
    return [DemoStudy(*row) for row in rows]


def purge(lifecycle: Lifecycle, pool: ConnectionPool) -> int:
    """Delete what `seed` stored, with the results made from it, and nothing else; returns the number of instances.

    A demo study into which somebody stored objects of their own keeps those objects.
    """
    count = 0
    for study in planned(pool):
        if study.foreign:
            count += sum(lifecycle.delete(scope, SOURCE) for scope in _own_instances(pool, study.study_uid))
        else:
            count += lifecycle.delete(Scope(study.study_uid), SOURCE)
    return count


def _own_instances(pool: ConnectionPool, study_uid: str) -> list[Scope]:
    with pool.connection() as connection:
        rows = connection.execute(SQL["demo_instances"], {"study_uid": study_uid}).fetchall()
        connection.execute(SQL["unmark_demo_study"], {"study_uid": study_uid})
    return [Scope(*row) for row in rows]


def seed_when_enabled(node: "Node") -> None:
    """Seed at the start of a node that has ENABLE_DEMO_DATA set; what is there already is known, not stored again."""
    if node.settings.enable_demo_data:
        for _ in seed(node.ingest, node.pool):
            pass


DUTIES = (Duty("demo", A_YEAR, seed_when_enabled),)
