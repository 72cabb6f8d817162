"""Values go to the model's grid and labels come back to the same millimetres."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_sidecar import components, window
from ai_sidecar.manifest import Input, Window
from ai_sidecar.operations import Op
from ai_sidecar.postprocess import Segmentation
from ai_sidecar.preprocess import mapping, operate, prepare
from ai_sidecar.runtime import Halt, Runtime
from ai_sidecar.volume import Grid, Layout, Volume

RUNTIME = Runtime("cpu", threads=1)
ORIENTATIONS = ["".join(letters) for order in permutations(("LR", "PA", "SI")) for letters in product(*order)]


def volume(array, affine=None, **given):
    affine = np.eye(4)[:, [2, 1, 0, 3]] if affine is None else affine
    slices = len(array)
    layout = Layout(tuple(range(slices)), Grid(array.shape, affine), "1.2", ())
    return Volume(layout, array, np.ones(slices, np.float32), np.zeros(slices, np.float32), **given)


def scaled_affine(k, j, i):
    affine = np.eye(4)[:, [2, 1, 0, 3]] * [k, j, i, 1]
    affine[:3, 3] = [5, 6, 7]
    return affine


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_shows_the_patient_the_asked_way(orientation):
    k, j, i = np.mgrid[0:3, 0:4, 0:5]
    letters = {"L": i, "R": -i, "P": j, "A": -j, "S": k, "I": -k}
    source = volume((100 * k + 10 * j + i).astype(np.int16))
    tensor = Input(layout="NCDHW", orientation=orientation)
    mapped = mapping(source.grid, tensor, Window())
    values = prepare(source, tensor, mapped, RUNTIME, Halt())
    ways = [letters[letter] for letter in reversed(orientation)]
    for axis, way in enumerate(ways):
        at = np.argsort([int(way.ravel()[np.flatnonzero(source.stored.ravel() == value)[0]])
                         for value in np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)[:, 0]])  # fmt: skip
        assert at.tolist() == sorted(at.tolist())


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "PSL", "ILA"])
def test_labels_come_back_to_the_voxels_they_were_made_of(orientation):
    array = np.random.default_rng(3).integers(0, 4, (5, 6, 7)).astype(np.int16)
    source = volume(array)
    tensor = Input(layout="NCDHW", orientation=orientation)
    mapped = mapping(source.grid, tensor, Window())
    labels = prepare(source, tensor, mapped, RUNTIME, Halt()).astype(np.uint8)
    back = Segmentation.of(labels, mapped, source.grid)
    assert np.array_equal(np.stack([back.slice(k) for k in range(5)]), array)


def test_resampling_keeps_the_centre_of_the_first_voxel():
    i = np.mgrid[0:4, 0:9, 0:33][2]
    source = volume((10 * i).astype(np.int16), scaled_affine(4, 2, 0.75))
    tensor = Input(layout="NCDHW", spacing_mm=(0.0, 2.0, 1.5))
    mapped = mapping(source.grid, tensor, Window())
    values = prepare(source, tensor, mapped, RUNTIME, Halt())
    assert values.shape == mapped.shape == (4, 9, 16)
    assert values[2, 3] == pytest.approx(20.0 * np.arange(16), abs=1e-3)
    assert mapped.spacing == pytest.approx((4, 2, 1.5))


def test_slices_are_resampled_too_where_a_spacing_is_given():
    k = np.mgrid[0:5, 0:6, 0:6][0]
    source = volume((100 * k).astype(np.int16), scaled_affine(5, 1, 1))
    mapped = mapping(source.grid, Input(layout="NCDHW", spacing_mm=(2.5, 0.0, 0.0)), Window())
    values = prepare(source, Input(layout="NCDHW", spacing_mm=(2.5, 0.0, 0.0)), mapped, RUNTIME, Halt())
    assert values[:, 0, 0].tolist() == [0, 50, 100, 150, 200, 250, 300, 350, 400, 400]


@pytest.mark.parametrize("size", [(5, 32, 48), (7, 7, 7), (3, 224, 224)])
def test_a_roi_gives_exactly_that_many_voxels(size):
    source = volume(np.zeros((6, 33, 51), np.int16))
    mapped = mapping(source.grid, Input(layout="NCDHW"), Window(roi=size))
    assert mapped.shape == size
    assert prepare(source, Input(layout="NCDHW"), mapped, RUNTIME, Halt()).shape == size


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 600), st.floats(0.2, 5), st.floats(0.2, 5))
def test_the_way_back_lands_on_the_nearest_voxel(length, spacing, wanted):
    grid = Grid((1, 1, length), scaled_affine(1, 1, spacing))
    mapped = mapping(grid, Input(layout="NCDHW", spacing_mm=(0.0, 0.0, wanted)), Window())
    back = mapped.back(2, length)
    assert back.min() >= 0
    assert back.max() < mapped.shape[2]
    inside = np.arange(length) * mapped.scales[2] <= mapped.shape[2] - 0.5
    off = np.abs(back - np.arange(length) * mapped.scales[2])[inside]
    assert off.max(initial=0) <= 0.5 + 1e-4


def test_rescale_is_by_slice_and_padding_is_replaced():
    array = np.arange(8).reshape(2, 2, 2).astype(np.int16)
    source = Volume(volume(array).layout, array, np.array([1, 2], np.float32), np.array([0, -10], np.float32), (3, 4))
    tensor = Input(layout="NCDHW", pad_value=-99.0)
    values = prepare(source, tensor, mapping(source.grid, tensor, Window()), RUNTIME, Halt())
    assert values.ravel().tolist() == [0, 1, 2, -99, -99, 0, 2, 4]


def test_dark_on_bright_is_inverted_where_asked():
    array = np.array([[[0, 100], [50, 4095]]], np.int16)
    tensor = Input(layout="NCDHW", photometric="invert_monochrome1")
    source = volume(array, inverted=True)
    values = prepare(source, tensor, mapping(source.grid, tensor, Window()), RUNTIME, Halt())
    assert values.ravel().tolist() == [4095, 3995, 4045, 0]


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (Op("clip", (0.0, 5.0)), [0, 0, 5, 5]),
        (Op("scale", (-10.0, 10.0, 0.0, 1.0)), [0, 0.5, 0.75, 1]),
        (Op("window", (0.0, 10.0)), [0, 0.5, 1, 1]),
        (Op("zscore", (1.0, 2.0)), [-5.5, -0.5, 2, 4.5]),
        (Op("percentile", (0.0, 100.0, 0.0, 1.0)), [0, 0.5, 0.75, 1]),
    ],
)
def test_operations_do_what_they_say(op, expected):
    assert operate(np.array([-10, 0, 5, 10], np.float32), [op]).tolist() == pytest.approx(expected)


def test_zscores_of_the_volume_have_mean_zero_and_deviation_one():
    values = np.random.default_rng(1).normal(50, 9, (4, 5, 6)).astype(np.float32)
    found = operate(values.copy(), [Op("zscore", (), "volume")])
    assert (float(found.mean()), float(found.std())) == pytest.approx((0, 1), abs=1e-4)
    values[0] = 0
    found = operate(values.copy(), [Op("zscore", (), "nonzero")])
    assert not found[0].any()
    assert float(found[1:].mean()) == pytest.approx(0, abs=1e-4)


# windows


def box_mean(batch):
    """A mean over 5 x 5 x 5 voxels, zeros around: what a convolution sees at the border of its window."""
    padded = np.pad(batch, [(0, 0), (0, 0), (2, 2), (2, 2), (2, 2)])
    sums = sum(padded[:, :, a : a + batch.shape[2], b : b + batch.shape[3], c : c + batch.shape[4]]
               for a in range(5) for b in range(5) for c in range(5))  # fmt: skip
    return (sums / 125).astype(np.float32)


def test_seams_of_evenly_spaced_windows_are_small():
    values = np.full((30, 45, 50), 1000, np.float32)
    given = Window(mode="sliding", roi=(24, 24, 24), overlap=0.5)
    found = window.sliding(values, box_mean, given, 0.0, batch=2, halt=Halt())[0, 0]
    worst = np.abs(found - box_mean(values[None, None])[0, 0])[4:-4, 4:-4, 4:-4].max()
    assert worst < 20


@pytest.mark.parametrize("blend", ["gaussian", "gaussian_monai"])
def test_windows_cover_everything_and_lie_inside(blend):
    for size, width in ((10, 20), (20, 20), (21, 20), (100, 32), (97, 13)):
        starts = window.places(size, width, Window(mode="sliding", roi=(width,) * 3, overlap=0.4, blend=blend))
        covered = np.zeros(max(size, width), int)
        for start in starts:
            covered[start : start + width] += 1
        assert covered.min() >= 1
        assert max(starts) + width <= max(size, width)


def test_windows_of_a_model_that_changes_nothing_give_the_volume_back():
    values = np.random.default_rng(2).normal(size=(9, 30, 20)).astype(np.float32)
    given = Window(mode="sliding", roi=(12, 16, 16), overlap=0.3)
    found = window.sliding(values, lambda batch: batch, given, -1.0, batch=3, halt=Halt())
    assert found.shape == (1, 1, 9, 30, 20)
    assert found[0, 0] == pytest.approx(values, abs=1e-5)


# connected components


def neighbours(mask):
    """Components by walking from voxel to voxel."""
    left, found = {tuple(point) for point in np.argwhere(mask)}, []
    while left:
        walk = [left.pop()]
        size = 0
        while walk:
            k, j, i = walk.pop()
            size += 1
            for step in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)):
                point = (k + step[0], j + step[1], i + step[2])
                if point in left:
                    left.remove(point)
                    walk.append(point)
        found.append(size)
    return sorted(found)


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 7), st.floats(0.1, 0.9), st.integers(0, 1000))
def test_components_are_those_that_a_walk_finds(slices, rows, columns, density, seed):
    mask = np.random.default_rng(seed).random((slices, rows, columns)) < density
    runs = components.runs(mask)
    assert sorted(runs.sizes.tolist()) == neighbours(mask)
    assert np.array_equal(runs.mask(np.ones(len(runs.sizes), bool)), mask)
    for n, size in enumerate(runs.sizes):
        one = runs.mask(np.arange(len(runs.sizes)) == n)
        assert neighbours(one) == [size]
