"""One pass over the labels on the source grid: what is where, how much of it, and its frames, packed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai_sidecar.manifest import Label
from ai_sidecar.postprocess import Segmentation, select
from ai_sidecar.volume import Volume


@dataclass(slots=True)
class Sums:
    """What one label adds up to, in modality values; only what `wanted` needs is added up."""

    wanted: frozenset[str]
    voxels: int = 0
    total: float = 0.0
    squares: float = 0.0
    least: float = float("inf")
    most: float = float("-inf")

    def add(self, stored: NDArray[Any], slope: float, intercept: float) -> None:
        """One slice's stored values; integers add up exactly."""
        count = len(stored)
        self.voxels += count
        if self.wanted & {"mean", "std"}:
            total = float(stored.sum(dtype=np.int64))
            self.total += slope * total + intercept * count
        if "std" in self.wanted:
            wide = stored.astype(np.float64)
            self.squares += slope**2 * float(wide @ wide) + 2 * slope * intercept * total + intercept**2 * count
        if self.wanted & {"min", "max"}:
            ends = [slope * float(end) + intercept for end in (stored.min(), stored.max())]
            self.least, self.most = min(self.least, *ends), max(self.most, *ends)

    @property
    def mean(self) -> float:
        return self.total / self.voxels

    @property
    def deviation(self) -> float:
        return float(max(0.0, self.squares / self.voxels - self.mean**2) ** 0.5)


@dataclass(frozen=True, slots=True)
class Found:
    """One label that is present. `frames`: (slice, mask packed to bits, lowest first) of the slices it is in."""

    label: Label
    sums: Sums
    voxel_ml: float
    frames: Sequence[tuple[int, bytes]]

    def measured(self, statistic: str) -> float:
        """One of the manifest's measurements: mL, or modality values."""
        sums = self.sums
        table: Mapping[str, float] = {
            "volume": sums.voxels * self.voxel_ml,
            "mean": sums.mean,
            "std": sums.deviation,
            "min": sums.least,
            "max": sums.most,
        }
        return table[statistic]


@dataclass(slots=True)
class _Tally:
    sums: Sums
    frames: list[tuple[int, bytes]] = field(default_factory=list)


def survey(segmentation: Segmentation, volume: Volume, labels: Sequence[Label], *, pack: bool = True) -> list[Found]:
    """The labels that are present, in the manifest's order; without `pack` their frames are empty."""
    tallies = {label.index: _Tally(Sums(frozenset(label.measurements))) for label in labels}
    for k in range(volume.grid.shape[0]):
        plane = segmentation.slice(k)
        values = volume.stored[k]
        slope, intercept = float(volume.slopes[k]), float(volume.intercepts[k])
        for index, tally in tallies.items():
            mask = select(plane, index)
            inside = values[mask]
            if len(inside):
                tally.sums.add(inside, slope, intercept)
                tally.frames.append((k, np.packbits(mask, bitorder="little").tobytes() if pack else b""))
    present = [label for label in labels if tallies[label.index].frames]
    ml = volume.grid.voxel_ml
    return [Found(label, tallies[label.index].sums, ml, tallies[label.index].frames) for label in present]
