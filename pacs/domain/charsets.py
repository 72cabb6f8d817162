"""Specific Character Set (0008,0005): bytes of an object to text (PS3.3 C.12.1.1.2, PS3.5 6.1.2).

Decoding never raises and never yields NUL, a lone surrogate or an escape character: what comes out may go into
any database. Wrong, misspelt and missing character sets are common in the field.
"""

import re
from collections.abc import Callable
from functools import lru_cache

Decoder = Callable[[bytes], str]

# defined term without its prefix -> codec
_CODECS: dict[str, str] = {
    "6": "ascii",
    "13": "shift_jis",  # a superset of JIS X 0201
    "58": "gb2312",
    "87": "iso2022_jp",
    "100": "latin_1",
    "101": "iso8859_2",
    "109": "iso8859_3",
    "110": "iso8859_4",
    "126": "iso8859_7",
    "127": "iso8859_6",
    "138": "iso8859_8",
    "144": "iso8859_5",
    "148": "iso8859_9",
    "149": "euc_kr",
    "159": "iso2022_jp_2",
    "166": "tis_620",
    "192": "utf_8",
    "203": "iso8859_15",
    "GB18030": "gb18030",
    "GBK": "gbk",
}

# escape sequence -> codec, and whether the codec wants to see the escape itself (Tables C.12-3 and C.12-4)
_ESCAPES: dict[bytes, tuple[str, bool]] = {
    b"(B": ("ascii", False),
    b"(J": ("shift_jis", False),
    b")I": ("shift_jis", False),
    b"-A": ("latin_1", False),
    b"-B": ("iso8859_2", False),
    b"-C": ("iso8859_3", False),
    b"-D": ("iso8859_4", False),
    b"-F": ("iso8859_7", False),
    b"-G": ("iso8859_6", False),
    b"-H": ("iso8859_8", False),
    b"-L": ("iso8859_5", False),
    b"-M": ("iso8859_9", False),
    b"-T": ("tis_620", False),
    b"-b": ("iso8859_15", False),
    b"$B": ("iso2022_jp", True),
    b"$@": ("iso2022_jp", True),
    b"$(D": ("iso2022_jp_2", True),
    b"$)A": ("gb2312", False),
    b"$)C": ("euc_kr", False),
}
_ESCAPE = re.compile(rb"\x1b(\$[()]?.|[()\-].)", re.DOTALL)
_DELIMITER = re.compile(rb"[\\^=\r\n\f\t]")
# C0 and C1 controls that text never needs; tab, line feed, form feed and carriage return stay (PS3.5 6.1.3)
_CONTROLS = dict.fromkeys([*range(9), 11, *range(14, 32), *range(0x7F, 0xA0)])


def _clean(text: str) -> str:
    return text if text.isprintable() else text.translate(_CONTROLS)


def _undeclared(raw: bytes) -> str:
    """The default repertoire is ASCII; what is not ASCII all the same is UTF-8 when it can be, else Latin-1."""
    try:
        return _clean(raw.decode("utf-8"))
    except UnicodeDecodeError:
        return _clean(raw.decode("latin-1"))


def _codec(term: str) -> str:
    """The codec of one defined term, spelt in any of the ways that are seen; the empty string when unknown."""
    words = term.upper().replace("_", " ").replace("-", " ").split()
    return _CODECS.get(words[-1].removeprefix("IR"), "") if words else "ascii"


def _plain(codec: str) -> Decoder:
    if codec in {"", "ascii"}:
        return _undeclared

    def decode(raw: bytes) -> str:
        return _clean(raw.decode(codec, "replace"))

    return decode


def _extended(first: Decoder) -> Decoder:
    """Code extensions: each escape sequence selects a codec until the next one or a delimiter (PS3.5 6.1.2.5.3)."""

    def decode(raw: bytes) -> str:
        if b"\x1b" not in raw:
            return first(raw)
        pieces = _ESCAPE.split(raw)
        text = [first(pieces[0])]
        for escape, piece in zip(pieces[1::2], pieces[2::2], strict=True):
            codec, keep = _ESCAPES.get(escape, ("", False))
            if keep:
                text.append((b"\x1b" + escape + piece).decode(codec, "replace"))
                continue
            end = _DELIMITER.search(piece)
            cut = end.start() if end else len(piece)
            text += (_plain(codec)(piece[:cut]), first(piece[cut:]))
        return _clean("".join(text))

    return decode


@lru_cache(maxsize=256)
def decoder(raw: bytes) -> Decoder:
    """How the texts of a data set are decoded, by the value of its Specific Character Set as it stands in the file."""
    terms = raw.decode("latin-1").strip(" \0").split("\\")
    codecs = [_codec(term.strip(" \0")) for term in terms]
    first = _plain(codecs[0])
    alone = codecs[0] in {"utf_8", "gb18030", "gbk"}
    return first if alone else _extended(first)


DEFAULT: Decoder = _undeclared
