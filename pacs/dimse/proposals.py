"""Which presentation contexts a delivery needs, and in how many associations they fit. Pure functions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pacs.dimse.associate import ProposedContext
from pacs.dimse.operation import Context
from pacs.services.outgoing import CONVERTIBLE, Candidate, choices

MOST_CONTEXTS = 128  # odd numbers in one byte (PS3.8 9.3.2.2)


@dataclass(frozen=True, slots=True)
class Voyage:
    """One association: what it proposes, and the instances that go by it, in their order."""

    proposed: tuple[ProposedContext, ...]
    candidates: tuple[Candidate, ...]


def voyages(candidates: Sequence[Candidate]) -> list[Voyage]:
    """As few associations as 128 contexts each allow; mostly one."""
    needed: dict[str, dict[str, None]] = {}
    for one in candidates:
        needed.setdefault(one.sop_class_uid, {})[one.transfer_syntax_uid] = None
    groups: list[list[tuple[str, tuple[str, ...]]]] = [[]]
    places: dict[str, int] = {}
    for sop_class, stored in needed.items():
        pairs = [(sop_class, (syntax,)) for syntax in stored] + [(sop_class, CONVERTIBLE)]
        if len(groups[-1]) + len(pairs) > MOST_CONTEXTS:
            groups.append([])
        groups[-1] += pairs
        places[sop_class] = len(groups) - 1
    return [
        Voyage(_numbered(group), tuple(one for one in candidates if places[one.sop_class_uid] == number))
        for number, group in enumerate(groups)
        if group
    ]


def _numbered(pairs: Iterable[tuple[str, tuple[str, ...]]]) -> tuple[ProposedContext, ...]:
    """A context for each stored syntax, so that nothing is rewritten needlessly, and one for all that must be."""
    return tuple(ProposedContext(2 * n + 1, sop_class, syntaxes) for n, (sop_class, syntaxes) in enumerate(pairs))


Routes = Mapping[str, Mapping[str, Context]]  # by SOP class, then transfer syntax


def routes(contexts: Iterable[Context]) -> Routes:
    """Accepted contexts by what they carry."""
    found: dict[str, dict[str, Context]] = {}
    for context in contexts:
        found.setdefault(context.abstract_syntax, {}).setdefault(context.transfer_syntax, context)
    return found


def route(accepted: Routes, candidate: Candidate) -> Context | None:
    """The context by which an instance is sent: as stored where that is accepted, else as it can be rewritten."""
    by_syntax = accepted.get(candidate.sop_class_uid, {})
    return next((by_syntax[uid] for uid in choices(candidate.transfer_syntax_uid) if uid in by_syntax), None)
