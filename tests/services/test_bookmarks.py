"""Where readers of long lists stopped."""

import pytest

from pacs.domain.levels import Level
from pacs.domain.query import Query
from pacs.services import bookmarks
from pacs.services.bookmarks import Bookmarks

LIST = Query(Level.STUDY)


def test_a_place_is_found_by_reader_list_and_rows() -> None:
    kept = Bookmarks()
    kept.put("me", LIST, 10, ("20240101", "", 7))
    assert kept.find("me", LIST, 10) == ("20240101", "", 7)
    assert kept.find("you", LIST, 10) == ()
    assert kept.find("me", Query(Level.SERIES), 10) == ()
    assert kept.find("me", LIST, 11) == ()


def test_the_last_visit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Bookmarks()
    kept.put("me", LIST, 10, (1,))
    kept.put("me", LIST, 10, (2,))
    assert kept.find("me", LIST, 10) == (2,)
    monkeypatch.setattr(bookmarks, "SECONDS", -1.0)
    assert kept.find("me", LIST, 10) == ()


def test_no_more_are_kept_than_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bookmarks, "KEPT", 3)
    kept = Bookmarks()
    for rows in range(1, 6):
        kept.put("me", LIST, rows, (rows,))
    assert [kept.find("me", LIST, rows) for rows in range(1, 6)] == [(), (), (3,), (4,), (5,)]
