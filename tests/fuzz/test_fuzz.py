"""Every found case once more, every seed, and a short fuzz of each target; `make fuzz` takes its time."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.findings import kept, tried
from tests.fuzz.mutation import damaged
from tests.fuzz.targets import TARGETS

SHORT = settings(
    max_examples=25, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize(("name", "file"), list(kept()))
def test_a_found_case_stays_cured(name: str, file: Path) -> None:
    tried(name, file.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_taken(name: str) -> None:
    for seed in TARGETS[name].seeds():
        tried(name, seed)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs_are_answered(name: str) -> None:
    @SHORT
    @given(st.data())
    def run(data: st.DataObject) -> None:
        tried(name, data.draw(damaged(TARGETS[name].seeds())))

    run()
