"""Real studies in the viewer: compressed, in colour, moving, with a model's results, and reports. Pictures are kept."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pydicom
import pytest

from tests.running import RunningNode
from tests.viewer.browser import PATIENCE, Visit

pytestmark = [pytest.mark.interop, pytest.mark.data, pytest.mark.slow]
AI_PATIENCE = 300.0


def study_of(path: Path) -> str:
    """The Study Instance UID of a file."""
    return str(pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID)


@pytest.mark.parametrize(
    ("pattern", "pixels"),
    [
        ("encapsulated/CT1_UNC.fragmented_bot_jpeg_ls.80.dcm", "gray"),
        ("encapsulated/CT0012.fragmented_no_bot_jpeg_ls.80.dcm", "gray"),
        ("mr_codecs/generic-compressed_jpegls*", "gray"),
        ("codecs/CTImage.dcm_JPEG2000*", "gray"),
        ("colour/OBXXXX1A.dcm", "gray"),
        ("ct_chest/*", "gray"),
    ],
)
def test_study_is_drawn(visit: Visit, store: Callable[..., None], data_dir: Path, pattern: str, pixels: str) -> None:
    paths = sorted(data_dir.glob(pattern))
    store(*paths)
    visit.study(study_of(paths[0]))
    visit.drawn(pixels, 2000)
    visit.keep(paths[0].parent.name + "-" + paths[0].name)
    assert visit.was_clean()


def test_cine_moves(visit: Visit, store: Callable[..., None], data_dir: Path) -> None:
    path = data_dir / "colour" / "US-PAL-8-10x-echo"
    store(path)
    visit.study(study_of(path))
    visit.drawn("coloured", 500)
    visit.keep("cine-first")
    first = visit.page.locator("canvas.cornerstone-canvas").screenshot()
    visit.page.locator("canvas.cornerstone-canvas").hover()
    visit.page.mouse.wheel(0, 400)
    visit.page.wait_for_function("() => /\\((?!1\\/)\\d+\\/10\\)/.test(document.body.innerText)", timeout=PATIENCE)
    visit.keep("cine-later")
    assert visit.page.locator("canvas.cornerstone-canvas").screenshot() != first
    assert visit.was_clean()


def test_report_is_read(visit: Visit, store: Callable[..., None], data_dir: Path) -> None:
    path = data_dir / "sr" / "report_dfl"
    store(path)
    visit.study(study_of(path))
    visit.page.get_by_text("Consultation Report").first.wait_for(timeout=PATIENCE)
    visit.keep("report")
    assert visit.was_clean()


def test_segmentation_of_a_model_lies_over_its_ct(
    visit: Visit, store: Callable[..., None], data_dir: Path, origin: str, viewing: RunningNode
) -> None:
    paths = sorted((data_dir / "ct_chest").glob("*.dcm"))
    store(*paths)
    study = study_of(paths[0])

    def has_results() -> bool:
        found = httpx.get(f"{origin}/dicom-web/studies/{study}/series?Modality=SEG,SR", timeout=30).json()
        return {series["00080060"]["Value"][0] for series in found} == {"SEG", "SR"}

    viewing.wait(has_results, AI_PATIENCE)
    visit.study(study)
    visit.drawn("gray", 2000)
    visit.page.get_by_text("Lungs and body").first.dblclick()
    visit.page.get_by_role("button", name="Yes", exact=True).click(timeout=PATIENCE)
    visit.page.get_by_role("button", name="Yes", exact=True).wait_for(state="detached", timeout=PATIENCE)
    visit.page.locator("canvas.cornerstone-canvas").hover()
    for _ in range(12):
        visit.page.mouse.wheel(0, 100)
    visit.drawn("coloured", 2000)
    visit.keep("segmentation")
    assert visit.was_clean()
