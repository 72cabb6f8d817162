"""Lookup tables of images: descriptor and entries, plain or in segments (PS3.3 C.11.1.1, C.7.6.3.1.5, C.7.9.2)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Descriptor = tuple[int, int, int]  # number of entries, first stored value mapped, bits of an entry
MOST_ENTRIES = 65536
DISCRETE, LINE, INDIRECT = 0, 1, 2


@dataclass(frozen=True, slots=True, eq=False)
class Lut:
    """`entries[k]` belongs to `first + k`; smaller values have the first entry, larger ones the last. `bits` of one."""

    first: int
    entries: NDArray[np.uint16]
    bits: int

    def at(self, stored: NDArray[Any]) -> NDArray[np.uint16]:
        """The entries of these values, which are rounded to whole ones."""
        places = np.clip(np.rint(stored) - self.first, 0, self.entries.size - 1).astype(np.int32)
        found: NDArray[np.uint16] = self.entries[places]
        return found

    def levels(self, stored: NDArray[Any]) -> NDArray[np.float64]:
        """The entries of these values from 0 to 1."""
        return self.at(stored) / float((1 << self.bits) - 1)


def table(descriptor: Descriptor, raw: NDArray[np.uint8]) -> Lut | None:
    """The table of these bytes: 16-bit words, or bytes where there are no more of them than entries; None if empty."""
    number, _first, _bits = descriptor
    entries = raw[:number].astype(np.uint16) if raw.size <= number + number % 2 else raw.view("<u2")[:number]
    return _lut(descriptor, entries)


def segmented(descriptor: Descriptor, raw: NDArray[np.uint8]) -> Lut | None:
    """The table that these segments stand for (PS3.3 C.7.9.2); None where they are malformed."""
    words = raw.view("<u2") if descriptor[2] > 8 else raw
    return _lut(descriptor, np.array(_expanded(words.tolist(), descriptor[0]), np.uint16))


def _lut(descriptor: Descriptor, entries: NDArray[np.uint16]) -> Lut | None:
    _number, first, bits = descriptor
    if entries.size == 0:
        return None
    needed = max(int(entries.max()).bit_length(), 1)
    if bits == 16 and needed <= 8:  # bytes in the low half of words, whatever the descriptor says
        bits = 8
    return Lut(first, entries, max(min(bits, 16), needed))


def _expanded(words: list[int], number: int) -> list[int]:
    found: list[int] = []
    place = 0
    while place + 1 < len(words) and len(found) < number:
        kind, length = words[place], words[place + 1]
        if kind == DISCRETE:
            found += words[place + 2 : place + 2 + length]
            place += 2 + length
        elif kind == LINE and place + 2 < len(words):
            found += _line(found, words[place + 2], length)
            place += 3
        elif kind == INDIRECT and place + 3 < len(words):
            start = words[place + 2] | words[place + 3] << 16
            found += _copied(words, start, length, found, number)
            place += 4
        else:
            return []
    return found[: min(number, MOST_ENTRIES)]


def _line(found: list[int], end: int, length: int) -> list[int]:
    begin = found[-1] if found else end
    return [round(float(value)) for value in np.linspace(begin, end, length + 1)[1:]]


def _copied(words: list[int], start: int, count: int, found: list[int], number: int) -> list[int]:
    """`count` earlier segments, discrete or linear, again."""
    again = list(found)
    place = start
    for _segment in range(count):
        if place + 2 >= len(words) or words[place] not in {DISCRETE, LINE} or len(again) > number:
            break
        length = words[place + 1]
        if words[place] == DISCRETE:
            again += words[place + 2 : place + 2 + length]
            place += 2 + length
        else:
            again += _line(again, words[place + 2], length)
            place += 3
    return again[len(found) :]
