"""Which slices form one even grid, and the reason when they do not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_sidecar.facts import attributes_of, from_json
from ai_sidecar.ports import Unsuitable
from ai_sidecar.volume import arrange, line_up
from tests.ai_sidecar.phantom import CORONAL, FEET_FIRST_PRONE, SAGITTAL, header


def slices(positions, cosines=(1, 0, 0, 0, 1, 0), **given):
    attributes = {"ImageOrientationPatient": tuple(map(float, cosines)), "PixelSpacing": (0.8, 0.7), "Rows": (40,),
                  "Columns": (50,), "FrameOfReferenceUID": ("1.2.3",), "SamplesPerPixel": (1,)}  # fmt: skip
    attributes.update(given)
    return [attributes | {"ImagePositionPatient": tuple(map(float, position))} for position in positions]


def axial(*heights, **given):
    return slices([(-10, -20, z) for z in heights], **given)


def reason(instances, **given):
    with pytest.raises(Unsuitable) as raised:
        arrange(instances, "1.2", **given)
    return raised.value


@given(
    st.permutations(range(9)), st.sampled_from([(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (0.6, 0.8, 0, -0.8, 0.6, 0)])
)
def test_any_order_of_arrival_gives_the_same_grid(order, cosines):
    row, column = np.array(cosines[:3]), np.array(cosines[3:])
    normal = np.cross(row, column)
    stack = slices([np.array([5, 6, 7]) + 2.5 * k * normal for k in range(9)], cosines)
    layout = arrange([stack[n] for n in order], "1.2")
    assert [order[n] for n in layout.order] == list(range(9))
    expected = np.column_stack([2.5 * normal, 0.8 * column, 0.7 * row, [5, 6, 7]])
    assert layout.grid.affine[:3] == pytest.approx(expected)
    assert layout.grid.voxel_ml == pytest.approx(2.5 * 0.8 * 0.7 / 1000)


@pytest.mark.parametrize("axes", [SAGITTAL, CORONAL, FEET_FIRST_PRONE])
def test_the_affine_takes_indices_to_the_patient(axes):
    row, column = map(np.array, axes)
    normal = np.cross(row, column)
    layout = arrange(slices([k * 3 * normal for k in range(4)], (*row, *column)), "1.2")
    point = layout.grid.affine @ [2, 10, 20, 1]
    assert point[:3] == pytest.approx(6 * normal + 10 * 0.8 * column + 20 * 0.7 * row)
    assert layout.grid.spacing == pytest.approx((3, 0.8, 0.7))


def test_positions_that_occur_twice_are_refused():
    raised = reason(axial(0, 1, 1, 2))
    assert raised.code == "duplicate_positions"
    assert raised.message.startswith("1 of 4 images share their position with another (at 1.0 mm along the normal)")


def test_missing_slices_are_named_with_their_positions_and_may_come():
    raised = reason(axial(-10, -7.5, -5, 2.5, 5))
    assert (raised.code, raised.may_come) == ("missing_slices", True)
    assert raised.message == "2 slices are missing: at -2.5, 0.0 mm along the normal."


def test_uneven_slices_are_refused_with_the_place():
    raised = reason(axial(0, 2, 4, 6, 9, 11))
    assert raised.code == "uneven_spacing"
    assert raised.message == "The slices are not evenly spaced: mostly 2 mm, but 3 mm at 6.0 mm."


def test_rounded_positions_are_even_enough():
    assert arrange(axial(0, 0.62, 1.25, 1.88, 2.5), "1.2").grid.spacing[0] == pytest.approx(0.625)


def test_a_gantry_tilt_is_found_and_refused_unless_allowed():
    tilted = slices([(0, 0.3 * k, 2 * k) for k in range(5)])
    assert reason(tilted).code == "gantry_tilt"
    layout = arrange(tilted, "1.2", ("uniform_spacing",))
    assert layout.grid.affine[:3, 0] == pytest.approx([0, 0.3, 2])
    assert layout.grid.voxel_ml == pytest.approx(2 * 0.8 * 0.7 / 1000)


def test_a_slice_beside_the_line_of_the_others_is_refused():
    shifted = slices([(0, 0, 0), (0, 5, 2), (0, 0, 4)])
    assert reason(shifted).code == "shifted_slices"


def test_several_orientations_are_refused():
    assert reason(axial(0, 1) + slices([(0, 0, 2)], (0, 1, 0, 0, 0, -1))).code == "several_orientations"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"Rows": (41,)}, "mixed_sizes"),
        ({"PixelSpacing": (0.8, 0.8)}, "mixed_sizes"),
        ({"ImagePositionPatient": ()}, "no_position"),
        ({"ImagePositionPatient": ("a", "b", "c")}, "no_position"),
        ({"ImagePositionPatient": (float("nan"), 0.0, 0.0)}, "no_position"),
        ({"PixelSpacing": (0.0, 0.7)}, "bad_geometry"),
        ({"ImageOrientationPatient": (0.0,) * 6}, "bad_geometry"),
        ({"NumberOfFrames": (10,)}, "multi_frame"),
        ({"SamplesPerPixel": (3,)}, "colour"),
    ],
)
def test_one_image_that_does_not_fit_makes_the_series_unsuitable(change, code):
    stack = axial(0, 1, 2)
    assert reason([*stack[:2], stack[2] | change]).code == code


def test_one_slice_is_as_thick_as_it_says():
    assert arrange(axial(4, SliceThickness=(3.5,)), "1.2").grid.spacing[0] == pytest.approx(3.5)


def test_frames_of_reference_are_taken_from_the_first_slice_or_derived():
    stack = [one | {"FrameOfReferenceUID": (f"1.9.{n}",)} for n, one in enumerate(axial(2, 1, 0))]
    layout = arrange(stack, "1.2")
    assert layout.frame_of_reference == "1.9.2"
    assert "3 frames of reference" in layout.evidence[0]
    none = arrange(axial(0, 1, FrameOfReferenceUID=()), "1.2")
    assert none.frame_of_reference == arrange(axial(1, 0, FrameOfReferenceUID=()), "1.2").frame_of_reference
    assert none.frame_of_reference.startswith("2.25.")
    assert len(none.evidence) == 1


def test_pictures_without_a_place_are_lined_up():
    layout = line_up([{"Rows": (3,), "Columns": (4,)}] * 2)
    assert layout.grid.shape == (2, 3, 4)
    with pytest.raises(Unsuitable):
        line_up([{"Rows": (3,), "Columns": (4,)}, {"Rows": (5,), "Columns": (4,)}])


def test_facts_of_a_data_set_and_of_its_json_agree():
    dataset = header(1, 1)
    dataset.ImagePositionPatient, dataset.PixelSpacing, dataset.Rows = ["1.5", "-2", "3"], ["0.5", "0.5"], 7
    row = dataset.to_json_dict()
    known = from_json(row, sop_class_uid="", sop_instance_uid="", transfer_syntax_uid="", data_sha256="")
    assert dict(known.attributes) == {key: value for key, value in attributes_of(dataset).items() if value}
