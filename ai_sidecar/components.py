"""Connected components of a mask (6 neighbours), on runs along the last axis: few enough for plain numpy."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Runs:
    """Maximal runs of a mask: `line` (slice * rows + row), `start` and `stop` (column), and their component."""

    line: Index
    start: Index
    stop: Index
    component: Index  # 0 .. count - 1
    shape: tuple[int, ...]

    @property
    def sizes(self) -> Index:
        """Voxels of each component."""
        count = int(self.component.max()) + 1 if len(self.component) else 0
        return np.bincount(self.component, weights=self.stop - self.start, minlength=count).astype(np.int64)

    def mask(self, keep: NDArray[Any]) -> Mask:
        """The voxels of the components that are kept (one bool each)."""
        slices, rows, columns = self.shape
        steps = np.zeros(slices * rows * (columns + 1), np.int8)
        kept = np.asarray(keep, bool)[self.component] if len(self.component) else np.zeros(0, bool)
        base = self.line[kept] * (columns + 1)
        steps[base + self.start[kept]] = 1
        np.subtract.at(steps, base + self.stop[kept], 1)
        filled = np.cumsum(steps.reshape(slices, rows, columns + 1), axis=2, dtype=np.int8)
        return filled[:, :, :-1].astype(bool)


def runs(mask: Mask) -> Runs:
    """The runs of a mask (k, j, i) with their components."""
    slices, rows, columns = mask.shape
    padded = np.zeros((slices * rows, columns + 1), bool)
    padded[:, 1:] = mask.reshape(-1, columns)
    flat = np.append(padded.ravel(), False)
    edges = np.flatnonzero(flat[1:] != flat[:-1])  # a run begins, ends, the next begins: every line starts with a gap
    line, start = np.divmod(edges[::2], columns + 1)
    stop = start + edges[1::2] - edges[::2]
    pairs = [
        _touching(line, start, stop, step=1, columns=columns, wrap=rows),
        _touching(line, start, stop, step=rows, columns=columns, wrap=0),
    ]
    one, other = (np.concatenate([pair[n] for pair in pairs]) for n in (0, 1))
    return Runs(line, start, stop, _joined(len(line), one, other), mask.shape)


def _touching(line: Index, start: Index, stop: Index, *, step: int, columns: int, wrap: int) -> tuple[Index, Index]:
    """Pairs of runs that overlap and lie `step` lines apart; with `wrap`, not from one slice to the next."""
    width = columns + 1
    begins, ends = line * width + start, line * width + stop
    target = line + step
    first = np.searchsorted(ends, target * width + start, side="right")
    last = np.searchsorted(begins, target * width + stop, side="left")
    counts = np.maximum(last - first, 0)
    if wrap:
        counts[line % wrap == wrap - 1] = 0
    one = np.repeat(np.arange(len(line)), counts)
    offset = np.arange(len(one)) - np.repeat(np.cumsum(counts) - counts, counts)
    return one, np.repeat(first, counts) + offset


def _joined(count: int, one: Index, other: Index) -> Index:
    """Component numbers of nodes joined by pairs: hook the higher root to the lower, shorten the paths, repeat."""
    root = np.arange(count)
    while len(one):
        a, b = root[one], root[other]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while True:
            shorter = root[root]
            if np.array_equal(shorter, root):
                break
            root = shorter
        apart = root[one] != root[other]
        one, other = one[apart], other[apart]
    return np.unique(root, return_inverse=True)[1].astype(np.int64) if count else root
