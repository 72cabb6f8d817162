"""What a client accepts and what we can make of it (PS3.18 8.7; RFC 9110 12.5.1): text in, ordered wants out.

A want is one of our offers together with the transfer syntax that the client named for it. The handler takes the first
want that it can satisfy for the object at hand, so that one list serves a series of mixed transfer syntaxes too.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pacs.errors import NotAcceptable

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'({_WORD})\s*=\s*("(?:[^"\\]|\\.)*"|[^;,"]*)')
_RANGE = re.compile(rf"({_WORD})\s*/\s*({_WORD})")
_QUOTED_PAIR = re.compile(r"\\(.)")
_MULTIPART = "multipart/related"
_MANY = 100  # ranges read; a longer list is an attack, not a preference


@dataclass(frozen=True, slots=True)
class MediaType:
    """A media type or range: lower-case names, parameters by lower-case name without `q`, and the weight."""

    name: str
    parameters: tuple[tuple[str, str], ...] = ()
    q: float = 1.0

    def parameter(self, name: str) -> str:
        """The first parameter of this name, or an empty text."""
        return next((value for key, value in self.parameters if key == name), "")


@dataclass(frozen=True, slots=True)
class Offer:
    """A representation that a resource can give: `media_type` alone, or in the parts of a multipart/related."""

    media_type: str
    multipart: bool = False

    def __str__(self) -> str:
        return f'{_MULTIPART}; type="{self.media_type}"' if self.multipart else self.media_type


@dataclass(frozen=True, slots=True)
class Want:
    """An offer that the client accepts; `transfer_syntax` is a UID, `*`, or empty where the client named none."""

    offer: Offer
    transfer_syntax: str = ""
    q: float = 1.0


def parse_media_type(text: str) -> MediaType | None:
    """One media type with its parameters, as `parse_accept` reads them; None where the text is no media type."""
    found = list(parse_accept(text))
    return found[0] if found else None


def parse_accept(text: str) -> Iterator[MediaType]:
    """The ranges of an Accept header in their order; whatever is no media range is skipped (PS3.18 8.7.5)."""
    for piece in _split(text, ",")[:_MANY]:
        head, *tail = _split(piece, ";")
        match = _RANGE.fullmatch(head.strip())
        if match is None:
            continue
        parameters = list(_parameters(tail))
        q = _weight(next((value for key, value in parameters if key == "q"), "1"))
        kept = tuple((key, value) for key, value in parameters if key != "q")
        yield MediaType(f"{match[1]}/{match[2]}".lower(), kept, q)


def choose(accept: str | None, offers: Sequence[Offer], *, parameter: str | None = None) -> tuple[Want, ...]:
    """What the client would take of `offers` (the first is the default), best first.

    `parameter` is the `accept` query parameter, which outranks the header (PS3.18 8.3.3.1). No Accept is `*/*`.
    Raises NotAcceptable with the list of what is offered.
    """
    source = parameter if parameter and parameter.strip() else accept
    ranges = [MediaType("*/*")] if source is None or not source.strip() else list(parse_accept(source))
    wants = [
        (-weight, -specific, place, order, Want(offer, media_range.parameter("transfer-syntax"), weight))
        for place, offer in enumerate(offers)
        for weight, specific, order, media_range in _matches(ranges, offer)
    ]
    if not wants:
        offered = tuple(str(offer) for offer in offers)
        raise NotAcceptable(f"None of the accepted media types can be given. Offered: {', '.join(offered)}.", offered)
    return tuple(dict.fromkeys(want for *_, want in sorted(wants, key=lambda row: row[:4])))


def _matches(ranges: Iterable[MediaType], offer: Offer) -> list[tuple[float, int, int, MediaType]]:
    """The ranges that take this offer, with weight, specificity and order; a vague one never outweighs a close one."""
    found = [(specific, order, r) for order, r in enumerate(ranges) if (specific := _specificity(r, offer))]
    if not found:
        return []
    closest = max(specific for specific, _, _ in found)
    ceiling = max(r.q for specific, _, r in found if specific == closest)
    weighed = [(min(r.q, ceiling), specific, order, r) for specific, order, r in found]
    return [row for row in weighed if row[0] > 0]


def _specificity(media_range: MediaType, offer: Offer) -> int:
    """0 where the range does not take the offer, else the more the closer it names it."""
    if not offer.multipart:
        return _closeness(media_range.name, offer.media_type)
    outer = _closeness(media_range.name, _MULTIPART)
    if outer < 3:
        return outer
    # a transfer syntax written inside the quoted type is a known client's mistake; its type is still meant
    inner = media_range.parameter("type").partition(";")[0].strip().lower() or "*/*"
    closeness = _closeness(inner, offer.media_type)
    return outer + closeness if closeness else 0


def _closeness(pattern: str, name: str) -> int:
    """3 the same, 2 `type/*`, 1 `*/*`, 0 another type."""
    if pattern == name:
        return 3
    if pattern == "*/*":
        return 1
    return 2 if pattern.endswith("/*") and name.startswith(pattern[:-1]) else 0


def _parameters(pieces: Iterable[str]) -> Iterator[tuple[str, str]]:
    for piece in pieces:
        match = _PARAMETER.fullmatch(piece.strip())
        if match is None:
            continue
        value = match[2].strip()
        if value.startswith('"'):
            value = _QUOTED_PAIR.sub(r"\1", value[1:-1])
        yield match[1].lower(), value
        if match[1].lower() == "type" and ";" in value:
            yield from _parameters(value.split(";")[1:])


def _weight(text: str) -> float:
    """A q value held within 0 and 1; what is no number counts as 1."""
    try:
        value = float(text)
    except ValueError:
        return 1.0
    return min(max(value, 0.0), 1.0) if value == value else 1.0  # noqa: PLR0124 - NaN


def _split(text: str, separator: str) -> list[str]:
    """Split at separators that stand outside quotation marks."""
    pieces, start, quoted, escaped = [], 0, False, False
    for place, char in enumerate(text):
        if escaped:
            escaped = False
        elif char == "\\" and quoted:
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif char == separator and not quoted:
            pieces.append(text[start:place])
            start = place + 1
    return [*pieces, text[start:]]
