"""Which series a package takes, which it does not, and that the reason is always said."""

from dataclasses import replace
from pathlib import Path

import pytest

from ai_sidecar.package import load
from ai_sidecar.ports import SeriesFacts, job_key
from ai_sidecar.runtime import Runtime
from ai_sidecar.selection import fits_text, plan
from tests.ai_sidecar import packages
from tests.ai_sidecar.phantom import Stack, facts

MODEL = Path(__file__).parents[2] / "config" / "models" / "ct-lung-body" / "1.0.0"


@pytest.fixture(scope="module")
def chest():
    return load(MODEL, Runtime("cpu", threads=1))


def series(uid="1.2.3", slices=12, gap=14.0, **change):
    made = facts(Stack(slices=slices, size=(64, 64), spacing=(5.0, 5.0), gap=gap).series())
    instances = [
        replace(
            one,
            sop_class_uid=change.get("sop_class_uid", one.sop_class_uid),
            sop_instance_uid=f"{uid}.{n}",
            attributes={**one.attributes, **{key: value for key, value in change.items() if key[0].isupper()}},
        )
        for n, one in enumerate(made.instances)
    ]
    return SeriesFacts(uid, instances)


def test_a_chest_ct_becomes_a_job(chest):
    (decision,) = plan([chest], [series()])
    assert (decision.model, decision.version, decision.reason) == ("ct-lung-body", "1.0.0", "")
    assert decision.series_uids == ("1.2.3",)
    assert len(decision.inputs) == 12
    assert decision.digest == chest.digest
    assert decision.evidence["spacing_mm"] == [14.0, 5.0, 5.0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Modality": ("MR",)}, "modality"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.2.1"}, "sop_class"),
        ({"BodyPartExamined": ("HEAD",)}, "body_part"),
        ({"Rows": (32,)}, "rows"),
        ({"slices": 4}, "too_few_slices"),
        ({"NumberOfFrames": (3,)}, "multi_frame"),
        ({"ImagePositionPatient": (0.0, 0.0, 0.0)}, "duplicate_positions"),
        ({"ImagePositionPatient": ()}, "no_position"),
    ],
)
def test_what_does_not_fit_is_skipped_with_a_reason_and_a_sentence(change, reason, chest):
    (decision,) = plan([chest], [series(**change)])
    assert decision.reason == reason
    assert decision.message.endswith(".")
    assert decision.series_uids == ("1.2.3",)
    assert decision.job_key == ""


def test_a_missing_slice_may_still_come(chest):
    whole = series()
    (decision,) = plan([chest], [SeriesFacts("1.2.3", whole.instances[:5] + whole.instances[6:])])
    assert (decision.reason, decision.may_come) == ("missing_slices", True)


def test_an_absent_body_part_is_no_chest(chest):
    (decision,) = plan([chest], [series(BodyPartExamined=())])
    assert decision.reason == "body_part"


def test_an_absent_body_part_is_taken_where_the_manifest_says_so(tmp_path):
    either = 'min_slices = 2\nbody_part = ["*CHEST*", \'""\']'
    path = packages.write(tmp_path, packages.above(0.0), edit=lambda text: text.replace("min_slices = 2", either))
    package = load(path, Runtime("cpu", threads=1))
    for part, reason in ((), ""), (("CHEST",), ""), (("HEAD",), "body_part"):
        (decision,) = plan([package], [series(BodyPartExamined=part)])
        assert decision.reason == reason


def test_the_thinnest_series_is_chosen_and_the_others_say_why_not(chest):
    decisions = plan([chest], [series("1.1", 12, 14.0), series("1.2", 24, 7.0), series("1.3", 12, 10.0)])
    assert {one.series_uids[0]: one.reason for one in decisions} == {
        "1.1": "not_chosen",
        "1.2": "",
        "1.3": "not_chosen",
    }


def test_the_newest_series_is_chosen_by_its_acquisition(tmp_path):
    path = packages.write(
        tmp_path, packages.above(0.0), edit=lambda text: text.replace("min_slices = 2", 'choose = "newest"')
    )
    old, new = (series(uid, AcquisitionDate=(day,)) for uid, day in (("1.1", "20260101"), ("1.2", "20260102")))
    decisions = plan([load(path, Runtime("cpu"))], [new, old])
    assert {one.series_uids[0]: one.reason for one in decisions} == {"1.1": "not_chosen", "1.2": ""}


def test_our_own_kinds_of_result_are_not_looked_at(chest):
    (decision,) = plan([chest], [series(Modality=("SEG",)), series("1.9", Modality=("SR",))])
    assert (decision.reason, decision.series_uids) == ("no_images", ())


def test_every_model_answers_for_every_series(chest, tmp_path):
    other = load(packages.write(tmp_path, packages.above(0.0)), Runtime("cpu"))
    decisions = plan([chest, other], [series("1.1"), series("1.2", Modality=("MR",))])
    assert sorted((one.model, one.series_uids[0]) for one in decisions) == [
        ("ct-lung-body", "1.1"), ("ct-lung-body", "1.2"), ("tiny", "1.1"), ("tiny", "1.2"),
    ]  # fmt: skip


def test_the_job_key_names_model_inputs_and_parameters_in_any_order():
    inputs = [("1.1", "aa"), ("1.2", "bb")]
    key = job_key("m", "n", inputs, {"form": 1})
    assert key == job_key("m", "n", reversed(inputs), {"form": 1})
    others = [
        job_key("x", "n", inputs, {"form": 1}),
        job_key("m", "x", inputs, {"form": 1}),
        job_key("m", "n", [("1.1", "aa"), ("1.2", "cc")], {"form": 1}),
        job_key("m", "n", inputs, {"form": 2}),
    ]
    assert len({key, *others}) == 5


def test_a_job_has_the_same_key_whatever_the_order_of_arrival(chest):
    whole = series()
    turned = SeriesFacts("1.2.3", list(reversed(whole.instances)))
    assert plan([chest], [whole])[0].job_key == plan([chest], [turned])[0].job_key


@pytest.mark.parametrize(
    ("thickness", "reason"),
    [((2.0,), ""), ((20.0,), "slice_thickness"), ((), "slice_thickness"), (("x",), "slice_thickness")],
)
def test_a_range_is_kept_by_every_image_and_not_by_silence(thickness, reason, tmp_path):
    def limited(text):
        return text.replace("min_slices = 2", "slice_thickness = [1.0, 5.0]")

    package = load(packages.write(tmp_path, packages.above(0.0), edit=limited), Runtime("cpu"))
    assert plan([package], [series(SliceThickness=thickness)])[0].reason == reason


@pytest.mark.parametrize(
    ("patterns", "values", "fits"),
    [
        (["*chest*"], ["CT CHEST W/O"], True),
        (["CHE?T"], ["chest"], True),
        (["CHEST"], ["CHEST 2"], False),
        (["CHEST"], [], False),
        (["*"], [], True),
        (['""'], [], True),
        (['""'], ["X"], False),
        (["a", "b*"], ["bcd"], True),
    ],
)
def test_text_fits_as_queries_match(patterns, values, fits):
    assert fits_text(patterns, values) is fits
