"""The normal form of values for matching: what search columns hold and what query values are compared with.

Two values are equal for a rule exactly when their normal forms are equal, and the normal forms of dates, times and
date-times sort as the moments do. A value that is malformed for its rule has no normal form: it matches only where
everything does. Nothing here raises; patients' scanners write what they like.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation

from pacs.domain.attributes import Rule

SEPARATOR = "\\"  # between the values of one attribute (PS3.5 6.4)
PADDING = " \t\r\n\f\0"

_DATE = re.compile(r"(\d{4})([.\-/]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])", re.ASCII)
_TIME = re.compile(r"([01]\d|2[0-3])(?::?([0-5]\d)(?::?([0-5]\d|60)(?:[.,](\d{1,9}))?)?)?", re.ASCII)
OFFSET = re.compile(r"([+-])(0\d|1[0-4])([0-5]\d)$", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
_PLAIN_DIGITS = 40  # numbers beyond are written with an exponent

_ACCENTS = re.compile("[\u0300-\u036f]")  # accents only: the marks of Kana, Thai or Devanagari make another letter
_STROKES = str.maketrans("øłđħŧı", "oldhti")  # letters whose stroke or dot Unicode does not take apart


def normalise(rule: Rule, values: Sequence[str]) -> str:
    """The text of a search column: the normal forms of all values joined by a backslash; empty for none.

    Never holds NUL or a surrogate, which Postgres would not take.
    """
    return SEPARATOR.join(normal_values(rule, values))


def normal_values(rule: Rule, values: Iterable[str]) -> list[str]:
    """The normal forms of the values that have one, in their order; one for each component group of a name."""
    form = _FORMS[rule]
    return [normal for value in values for normal in form(storable(value)) if normal]


def storable(text: str) -> str:
    """The text without what a database cannot hold: NUL and lone surrogates."""
    text = text.replace("\0", "")
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def fold(text: str) -> str:
    """The text without case, accents and variants of width (PS3.18 8.3.4.2), composed, so that `?` is one letter."""
    if text.isascii():
        return text.lower()
    apart = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return unicodedata.normalize("NFKC", _ACCENTS.sub("", apart).translate(_STROKES)).replace(SEPARATOR, " ")


def name_group(group: str) -> str:
    """One component group of a person name, folded, without padding around components and without empty ones last."""
    components = [" ".join(component.split()) for component in fold(group).split("^")]
    return "^".join(components).rstrip("^")


def date(text: str) -> str:
    """YYYYMMDD of a date, also of YYYY.MM.DD (before 1993) and YYYY-MM-DD; else empty."""
    found = _DATE.match(text.strip(PADDING))
    return found[1] + found[3] + found[4] if found else ""


def time(text: str) -> str:
    """HHMMSS.FFFFFF of a time, also of HH:MM:SS (before 1993); what is missing counts as zero; else empty."""
    found = _TIME.fullmatch(text.strip(PADDING))
    if not found:
        return ""
    hour, minute, second, fraction = found.groups()
    return f"{hour}{minute or '00'}{second or '00'}.{(fraction or '')[:6]:0<6}"


def moment(text: str) -> str:
    """YYYYMMDDHHMMSS.FFFFFF of a date-time, in UTC where it has an offset; missing parts are the first; else empty."""
    text = text.strip(PADDING)
    offset = OFFSET.search(text)
    bare = text[: offset.start()] if offset else text
    padded = bare + "0101"[len(bare) - 4 :] if len(bare) in (4, 6) else bare
    day, clock = date(padded[:8]), time(padded[8:] or "00")
    if not day or not clock:
        return ""
    return _to_utc(day, clock, offset) if offset else day + clock


def _to_utc(day: str, clock: str, offset: re.Match[str]) -> str:
    away = timedelta(hours=int(offset[2]), minutes=int(offset[3])) * (1 if offset[1] == "+" else -1)
    try:
        local = datetime.strptime(day + clock, "%Y%m%d%H%M%S.%f").replace(tzinfo=timezone(away))
        at = local.astimezone(UTC)
    except (ValueError, OverflowError):  # the 31st of February, or the edge of the calendar
        return ""
    return f"{at.year:04}{at:%m%d%H%M%S.%f}"


def number(text: str) -> str:
    """A number without sign, zeros or exponent that change nothing; else empty."""
    text = text.strip(PADDING)
    if not _NUMBER.fullmatch(text):
        return ""
    try:
        value = Decimal(text).normalize()
    except InvalidOperation:
        return ""
    if not value:
        return "0"
    return format(value, "f") if abs(value.adjusted()) < _PLAIN_DIGITS else str(value)


def _text(value: str) -> list[str]:
    return [value.strip(PADDING)]


def _name(value: str) -> list[str]:
    return [name_group(group) for group in value.split("=")]


def _one(form: Callable[[str], str]) -> Callable[[str], list[str]]:
    return lambda value: [form(value)]


_FORMS: dict[Rule, Callable[[str], list[str]]] = {
    Rule.UID: _text,
    Rule.TEXT: _text,
    Rule.NARRATIVE: _text,
    Rule.EXACT: _text,
    Rule.NAME: _name,
    Rule.DATE: _one(date),
    Rule.TIME: _one(time),
    Rule.MOMENT: _one(moment),
    Rule.NUMBER: _one(number),
    Rule.SEQUENCE: lambda _: [],
}
