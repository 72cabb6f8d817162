import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs.domain.render import Region, Viewport
from pacs.domain.scaling import NothingSeen, cut, fit, scaled

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8)
sides = st.integers(1, 90)


@given(sides, sides, sides, sides, st.sampled_from([(), (3,)]))
def test_one_colour_stays_that_colour_at_any_size(rows: int, columns: int, down: int, across: int, more) -> None:
    found = scaled(np.full((rows, columns, *more), 77, np.uint8), down, across)
    assert found.shape == (down, across, *more)
    assert (found == 77).all()


@given(sides, sides, sides, sides)
def test_a_picture_fits_its_viewport_and_keeps_its_aspect(rows: int, columns: int, height: int, width: int) -> None:
    found = fit(np.zeros((rows, columns), np.uint8), Viewport(width, height))
    assert found.shape[0] <= height
    assert found.shape[1] <= width
    assert found.shape[0] == height or found.shape[1] == width
    ratio = min(height / rows, width / columns)
    assert abs(found.shape[0] - max(rows * ratio, 1)) <= 0.5
    assert abs(found.shape[1] - max(columns * ratio, 1)) <= 0.5


def test_shrinking_by_a_whole_number_averages() -> None:
    squares = np.kron(np.array([[0, 200], [100, 40]], np.uint8), np.ones((16, 16), np.uint8))
    found = scaled(squares, 4, 4).astype(int)
    assert np.abs(found[[0, 0, 3, 3], [0, 3, 0, 3]] - [0, 200, 100, 40]).max() <= 1
    noise = np.random.default_rng(1).integers(0, 255, (400, 300), dtype=np.uint8)
    assert abs(scaled(noise, 10, 10).mean() - noise.mean()) < 3


def test_growing_passes_evenly_from_one_pixel_to_the_next() -> None:
    found = scaled(np.array([[0, 100]], np.uint8), 1, 20)[0].astype(int)
    assert (np.diff(found) >= 0).all()
    assert (found[0], found[-1]) == (0, 100)
    assert np.diff(found).max() <= 11


def test_nothing_is_enlarged_that_must_not_be() -> None:
    assert fit(RAMP, Viewport(100, 100, enlarge=False)).shape == (6, 8)
    assert fit(RAMP, Viewport(4, None)).shape == (3, 4)
    assert fit(RAMP, Viewport()) is RAMP


def test_a_region_is_cut_and_mirrored_by_its_signs() -> None:
    assert np.array_equal(cut(RAMP, Region(2, 1, 3, 4)), RAMP[1:5, 2:5])
    assert np.array_equal(cut(RAMP, Region(2, 1, -3, 4)), RAMP[1:5, 2:5][:, ::-1])
    assert np.array_equal(cut(RAMP, Region(2, 1, 3, -4)), RAMP[1:5, 2:5][::-1])
    assert np.array_equal(cut(RAMP, Region(4, 3)), RAMP[3:, 4:])
    assert np.array_equal(cut(RAMP, Region(0.5, 0.5, 0.5, 0.5, relative=True)), RAMP[3:, 4:])


def test_a_region_partly_outside_is_what_is_inside_of_it() -> None:
    assert np.array_equal(cut(RAMP, Region(6, 4, 100, 100)), RAMP[4:, 6:])
    with pytest.raises(NothingSeen):
        cut(RAMP, Region(8, 0, 1, 1))
