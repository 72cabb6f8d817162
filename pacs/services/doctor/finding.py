"""What a check is, and what it finds: the doctor is a table of these (operations.md 6.2)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pacs.services.doctor.case import Case

Severity = Literal["error", "warning"]
Kind = Literal["damage", "configuration"]
ERROR: Severity = "error"
WARNING: Severity = "warning"
DOCTOR_FIX = "filmroom doctor --fix"
EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. `what` is a sentence that says how many; `examples` are UIDs, paths, names of settings.

    `cure` stands in place of its check's where it is given. `items` is what the check's `fix` wants to know.
    """

    what: str
    count: int = 1
    examples: tuple[str, ...] = ()
    severity: Severity = ERROR
    cure: str = ""
    items: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the table. `look` changes nothing, and may run beside stores, deletes and jobs.

    `fix` cures one finding and says in a sentence what it did; it raises FilmroomError where it cannot. What it needs:
    `database`, `schema` (at head), `redis`, `store` (the file store has been used), `clerk` (a node that runs).
    """

    name: str
    kind: Kind
    finds: str
    cure: str
    look: "Callable[[Case], Iterable[Finding]]"
    fix: "Callable[[Case, Finding], str] | None" = None
    needs: tuple[str, ...] = ()


def some(examples: Iterable[object]) -> tuple[str, ...]:
    """The first few, as they are shown."""
    return tuple(str(example) for example, _ in zip(examples, range(EXAMPLES), strict=False))


def many(count: int, one: str, more: str = "") -> str:
    """`1 object`, `3 objects`."""
    return f"{count} {one if count == 1 else more or f'{one}s'}"
