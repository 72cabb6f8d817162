import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs.domain import uids


@pytest.mark.parametrize("text", ["1", "1.2.840.10008.1.1", "2.25." + "9" * 59, "1.02.3"])
def test_digits_and_dots_up_to_64_are_a_uid(text: str) -> None:
    assert uids.is_uid(text)


@pytest.mark.parametrize(
    "text", ["", ".", "1.", ".1", "1..2", "1.2a", " 1.2", "1.2\n", "1" * 65, "../../etc/x", "1.2\0", "1.٢"]
)
def test_anything_else_is_no_uid(text: str) -> None:
    assert not uids.is_uid(text)


def test_a_leading_zero_is_remarked_but_single_zeros_are_not() -> None:
    assert uids.has_leading_zero("1.02.3")
    assert uids.has_leading_zero("01.2")
    assert not uids.has_leading_zero("1.0.3")


@given(st.text())
def test_whatever_passes_is_safe_in_a_path(text: str) -> None:
    if uids.is_uid(text):
        assert set(text) <= set("0123456789.")
        assert ".." not in text


def test_storage_classes_hold_images_reports_and_trial_classes_but_no_commitment() -> None:
    classes = uids.storage_classes()
    assert {"1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.66.4"} <= classes
    assert "1.2.840.10008.1.20.1" not in classes
    assert "1.2.840.10008.1.1" not in classes
    assert all(uids.is_uid(uid) for uid in classes)


def test_new_uids_differ_and_are_uids() -> None:
    made = {uids.new_uid() for _ in range(100)}
    assert len(made) == 100
    assert all(map(uids.is_uid, [*made, uids.IMPLEMENTATION_CLASS_UID, uids.AI_DEVICE_UID]))
    assert len(uids.IMPLEMENTATION_VERSION_NAME) <= 16
