"""Demo data: seeded twice it is there once, and a purge takes it and nothing else."""

import dataclasses

import pytest

from pacs.domain.events import Source
from pacs.domain.levels import Level, Scope
from pacs.domain.query import Query
from pacs.services import demo
from pacs.services.phantom import ChestStudy, files

SMALL = tuple(ChestStudy(f"demo-test-{i}", f"D-{i}", "Demo^Test", slices=3, size=32) for i in range(2))
OTHER = ChestStudy("not-demo", "N-1", "Other^Person", slices=2, size=32)


@pytest.fixture(autouse=True)
def empty_afterwards(node):
    """The archive is shared by the module: each test leaves it empty."""
    yield
    for study_uid in counts(node):
        node.lifecycle.delete(Scope(study_uid), demo.SOURCE)


def counts(node):
    rows = node.search.find(Query(Level.STUDY)).rows
    return {row["0020000D"]["Value"][0]: row["00201208"]["Value"][0] for row in rows}


def store(node, data, door="stow"):
    incoming = node.ingest.begin(Source(door, "tester", ""))
    incoming.write(data)
    return node.ingest.store(incoming)


def test_seeding_twice_stores_once(node):
    assert list(demo.seed(node.ingest, node.pool, SMALL))[-1] == 6
    assert list(demo.seed(node.ingest, node.pool, SMALL))[-1] == 6
    assert counts(node) == {study.study_uid: 3 for study in SMALL}


def test_purge_removes_what_was_seeded_and_nothing_else(node):
    list(demo.seed(node.ingest, node.pool, SMALL))
    for data in files(OTHER):
        store(node, data)
    assert [(s.seeded, s.foreign) for s in demo.planned(node.pool)] == [(3, 0), (3, 0)]
    assert demo.purge(node.lifecycle, node.pool) == 6
    assert counts(node) == {OTHER.study_uid: 2}
    assert demo.planned(node.pool) == []


def test_purge_keeps_what_somebody_added_to_a_demo_study(node):
    longer = ChestStudy(**{f: getattr(SMALL[0], f) for f in ("seed", "patient_id", "patient_name", "size")}, slices=4)
    list(demo.seed(node.ingest, node.pool, SMALL[:1]))
    added = list(files(longer))[3]
    store(node, added)
    assert demo.purge(node.lifecycle, node.pool) == 3
    assert counts(node) == {longer.study_uid: 1}


def test_node_with_demo_data_enabled_seeds_at_its_start_and_another_does_not(node, monkeypatch):
    monkeypatch.setattr(demo, "STUDIES", SMALL)
    monkeypatch.setattr(demo.seed, "__defaults__", (SMALL,))
    demo.seed_when_enabled(node)
    assert counts(node) == {}
    enabled = dataclasses.replace(node.settings, enable_demo_data=True)
    monkeypatch.setattr(node, "settings", enabled)
    demo.seed_when_enabled(node)
    assert counts(node) == {study.study_uid: 3 for study in SMALL}
