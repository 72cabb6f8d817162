"""A door on fakes for tests of the protocol side alone; the real node is `node` of the tree's conftest."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.dimse.door import Door, opened

# a busy machine is no finding
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

OpenDoor = Callable[..., Door]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def open_door(tmp_path: Path) -> Iterator[OpenDoor]:
    """Opens doors that close with the test."""
    with ExitStack() as stack:

        def open_one(**options: Any) -> Door:
            return stack.enter_context(opened(tmp_path, **options))

        yield open_one


@pytest.fixture
def door(open_door: OpenDoor) -> Door:
    """A door on fakes with the usual limits."""
    return open_door()
