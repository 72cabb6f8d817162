"""The viewer in a real browser shows what is stored, and speaks to nobody else."""

from collections.abc import Callable

import pytest

from pacs.services.phantom import ChestStudy, files
from tests.viewer.browser import PATIENCE, Visit

pytestmark = pytest.mark.interop


def test_study_is_found_in_the_list_and_its_ct_is_drawn(visit: Visit, store: Callable[..., None]) -> None:
    study = ChestStudy("viewed", "VIEW-1", "Viewed^Vera", slices=3, size=64, accession="V17")
    other = ChestStudy("unseen", "VIEW-2", "Other^Otto", slices=1, size=32, accession="V18")
    store(*files(study), *files(other))
    visit.open("/")
    visit.page.get_by_text("Viewed, Vera").wait_for(timeout=PATIENCE)
    visit.page.get_by_role("textbox").first.fill("vera")
    visit.page.get_by_text("Other, Otto").wait_for(state="detached", timeout=PATIENCE)
    visit.keep("list")
    visit.study(study.study_uid)
    visit.drawn("gray", 5000)
    visit.keep("ct")
    assert any("/frames/1" in url for url in visit.asked)
    assert visit.was_clean()
