"""The query value object: C-FIND, QIDO and model selection all end here (PS3.4 C.2.2.2, PS3.18 8.3.4)."""

from dataclasses import dataclass, field

from pacs.domain.levels import Level
from pacs.domain.roles import Visible

TagPath = tuple[int, ...]  # (0x00400275, 0x00400009): the last is the attribute, those before it are sequences


@dataclass(frozen=True, slots=True)
class Condition:
    """One matching key as it was given: `values` are the decoded strings, split where the door's syntax splits them.

    An empty tuple, or only empty strings, is universal matching: the attribute is returned and filters nothing.
    """

    path: TagPath
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """An attribute by which answers are sorted before the order of their level decides."""

    tag: int
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for at one level; conditions are joined by AND, values of one condition by OR."""

    level: Level
    conditions: tuple[Condition, ...] = ()
    include: frozenset[TagPath] = frozenset()
    include_all: bool = False
    fuzzy: bool = False
    empty_values: bool = True  # a key of two quotation marks finds what is absent or empty (PS3.4 C.2.2.2.7)
    multiple_values: bool = True  # a key of several values finds what has any of them (C.2.2.2.8)
    combined: bool = False  # ranges of a date and of its time are one interval (C.2.2.2.5)
    order: tuple[Order, ...] = ()
    limit: int | None = None
    offset: int = 0
    parents: bool = True  # answers carry the attributes of the levels above
    show_hidden: bool = False  # rejected and superseded results too
    added: frozenset[TagPath] = frozenset()  # attributes that the configuration adds to the index
    visible: Visible | None = None  # the part of the archive that the caller may see; None: all of it


@dataclass(frozen=True, slots=True)
class Page:
    """Rows in DICOM JSON form, in the index's stable order.

    `truncated` says that the server's own maximum cut the list; `warnings` are sentences for Warning headers. `total`
    is the number of all matches, where it was asked for.
    """

    rows: tuple[dict[str, dict[str, object]], ...]
    truncated: bool = False
    warnings: tuple[str, ...] = field(default=())
    total: int | None = None
