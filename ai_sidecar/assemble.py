"""From the instances of a series to a volume: read, decode, order, stack. Bounded: one copy of the pixels."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ai_sidecar import decode
from ai_sidecar.facts import attributes_of
from ai_sidecar.ports import SourceSeries, Unsuitable
from ai_sidecar.runtime import Halt
from ai_sidecar.volume import Attributes, Layout, Volume
from pacs.services.decoders import Decoders

THREADS = 2
HOUNSFIELD = ("HU", "HU_MOD", "US")  # US: not specified, but it is a CT
LayOut = Callable[[Sequence[Attributes]], Layout]


@dataclass(frozen=True, slots=True)
class Assembled:
    """A volume and the data sets of its slices (without pixels), in its order."""

    volume: Volume
    datasets: Sequence[Dataset]


def assemble(series: SourceSeries, lay_out: LayOut, halt: Halt, threads: int = THREADS) -> Assembled:
    """The volume of a series, laid out by `lay_out`. Raises Unsuitable, RunFailed, Interrupted."""

    def read(number: int) -> tuple[Dataset, NDArray[Any]]:
        halt.check()
        return decode.read(series.instances[number], decoders.decode)

    decoders = Decoders(threads, budget=decode.MOST_BYTES)  # their processes start when a code stream comes
    with closing(decoders), ThreadPoolExecutor(threads) as pool:
        slices = list(pool.map(read, range(len(series.instances))))
    datasets = [dataset for dataset, _ in slices]
    layout = lay_out([attributes_of(dataset) for dataset in datasets])
    ordered = [datasets[n] for n in layout.order]
    for dataset in ordered:
        _measurable(dataset)
    pixels: list[NDArray[Any] | None] = [array for _, array in slices]
    del slices
    volume = Volume(
        layout,
        _stack(pixels, layout.order),
        np.array([_number(dataset, "RescaleSlope", 1) for dataset in ordered], np.float32),
        np.array([_number(dataset, "RescaleIntercept", 0) for dataset in ordered], np.float32),
        _padding(ordered[0]),
        ordered[0].get("PhotometricInterpretation") == "MONOCHROME1",
    )
    return Assembled(volume, ordered)


def _stack(pixels: list[NDArray[Any] | None], order: Sequence[int]) -> NDArray[Any]:
    """The slices in order; each is let go as soon as it is copied."""
    present = [array for array in pixels if array is not None]
    stacked = np.empty((len(order), *present[0].shape), np.result_type(*{array.dtype for array in present}))
    del present
    for place, number in enumerate(order):
        stacked[place], pixels[number] = pixels[number], None
    return stacked


def _measurable(dataset: Dataset) -> None:
    """Values whose meaning is not known are not measured."""
    if dataset.get("ModalityLUTSequence"):
        raise Unsuitable("modality_lut", "The images come with a modality lookup table, which is not applied yet.")
    if dataset.get("Modality") == "CT":
        kind = str(dataset.get("RescaleType") or "HU").upper()
        if "RescaleIntercept" not in dataset or kind not in HOUNSFIELD:
            raise Unsuitable("not_hounsfield", "The CT images do not say how to come to Hounsfield units.")


def _number(dataset: Dataset, keyword: str, default: float) -> float:
    value = dataset.get(keyword)
    try:
        return default if value in (None, "") else float(value)
    except (TypeError, ValueError):
        raise Unsuitable("bad_rescale", f"An image states a {keyword} that is no number.") from None


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    """The stored values that mark where there is no image (PS3.3 C.7.5.1.1.2)."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = sorted((int(value), int(value if limit is None else limit)))
    if dataset.PixelRepresentation and ends[1] >= 1 << (dataset.BitsAllocated - 1):  # written as US all the same
        wrap = 1 << dataset.BitsAllocated
        ends = sorted(end - wrap if end >= wrap // 2 else end for end in ends)
    return ends[0], ends[1]
