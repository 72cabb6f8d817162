"""Every promise of the wire contract has a test that carries its name."""

import pytest

from tests.conformance import clauses


@pytest.mark.parametrize("number", clauses.CLAUSES)
def test_every_promise_has_its_test(number: str) -> None:
    assert clauses.tests()[number], f"{number}: {clauses.CLAUSES[number][1]}"


def test_every_name_in_a_test_is_a_promise() -> None:
    assert {number for _, name in clauses.functions() for number in clauses.named_in(name)} <= set(clauses.CLAUSES)
