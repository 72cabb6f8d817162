"""Deriving lets senders go first, but not for ever, and one odd object does not stop the others."""

import pytest

from pacs.domain.events import Source
from pacs.errors import Damaged
from pacs.services import derive
from pacs.services.phantom import ChestStudy, files


@pytest.fixture
def stored(node, request):
    """Three slices, stored just now."""
    for data in files(ChestStudy(request.node.name, "D-1", "Derive^Test", slices=3, size=32)):
        incoming = node.ingest.begin(Source("stow", "tester", ""))
        incoming.write(data)
        node.ingest.store(incoming)


def derived(node):
    with node.pool.connection() as connection:
        return connection.execute("SELECT count(*) FROM instance_derived").fetchone()[0]


def test_it_gives_way_to_senders_and_stops_giving_way_after_a_while(node, stored, monkeypatch):
    before = derived(node)
    derive.derive(node)
    assert derived(node) == before
    monkeypatch.setattr(derive, "GIVES_WAY_SECONDS", 0.0)
    derive.derive(node)
    assert derived(node) == before + 3


def test_an_object_that_cannot_be_read_does_not_stop_the_others(node, stored, monkeypatch):
    before, real, seen = derived(node), node.derive.make, []

    def make(instance):
        seen.append(instance)
        if len(seen) == 1:
            raise Damaged("The file of this object is not there.")
        return real(instance)

    monkeypatch.setattr(node.derive, "make", make)
    assert node.derive.catch_up() == 2
    assert derived(node) == before + 2
