"""What a background duty is: a row of the clerk's table."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pacs.node import Node


@dataclass(frozen=True, slots=True)
class Duty:
    """Work that one process at a time does every `period` seconds. It may be late, and run twice, without harm.

    `function` raises FilmroomError when something it needs is away; the clerk tries again at the next period.
    `woken_by` names a NOTIFY channel that makes it due at once.
    """

    name: str
    period: float
    function: "Callable[[Node], object]"
    woken_by: str = ""
