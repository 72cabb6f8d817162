"""How a volume is cut into what one inference takes, and put together again (ai.md 5).

Windows are evenly spaced and the Gaussian is not clamped, which keeps seams small; `gaussian_monai` does as MONAI does,
for models whose results must agree with it: the last window is shifted, weights are clamped at a thousandth.
"""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ai_sidecar.manifest import Window
from ai_sidecar.runtime import Halt

Floats = NDArray[np.float32]
Infer = Callable[[Floats], Floats]  # (n, 1, ...) to (n, channel, ...)
SIGMA = 0.125  # of the window
CLAMP = 1e-3


def whole(values: Floats, infer: Infer) -> Floats:
    """One inference on everything: (1, channel, D, H, W)."""
    return infer(values[None, None])


def by_slice(values: Floats, infer: Infer, batch: int, halt: Halt) -> Floats:
    """Slices in batches: (D, channel, ...)."""
    parts = []
    for start in range(0, len(values), batch):
        halt.check()
        parts.append(infer(values[start : start + batch, None]))
    return np.concatenate(parts)


def sliding(values: Floats, infer: Infer, window: Window, pad_value: float, *, batch: int, halt: Halt) -> Floats:
    """Overlapping windows, blended: (1, channel, D, H, W)."""
    roi = window.roi
    padded = _padded(values, roi, pad_value)
    weights = importance(roi, window.blend)
    starts = [places(size, width, window) for size, width in zip(padded.shape, roi, strict=True)]
    corners = list(product(*starts))
    total: Floats | None = None
    norm = np.zeros(padded.shape, np.float32)
    for first in range(0, len(corners), batch):
        halt.check()
        boxes = [_box(corner, roi) for corner in corners[first : first + batch]]
        found = infer(np.stack([padded[box] for box in boxes])[:, None])
        if total is None:
            total = np.zeros((found.shape[1], *padded.shape), np.float32)
        for box, scores in zip(boxes, found, strict=True):
            total[(slice(None), *box)] += scores * weights
            norm[box] += weights
    assert total is not None  # there is at least one window
    total /= norm
    return total[(None, slice(None), *(slice(0, size) for size in values.shape))]


def places(size: int, width: int, window: Window) -> list[int]:
    """Where the windows of one axis begin."""
    if size <= width:
        return [0]
    stride = max(1, int(width * (1 - window.overlap)))
    count = int(np.ceil((size - width) / stride)) + 1
    if window.blend == "gaussian_monai":
        return [min(n * stride, size - width) for n in range(count)]
    return [round(n * (size - width) / (count - 1)) for n in range(count)]


def importance(roi: Sequence[int], blend: str) -> Floats:
    """The weight of each voxel of a window: highest in the middle."""
    weights = np.ones(tuple(roi), np.float64)
    for axis, width in enumerate(roi):
        at = np.arange(width) - (width - 1) / 2
        bell = np.exp(-0.5 * (at / (SIGMA * width)) ** 2)
        weights *= bell.reshape([-1 if n == axis else 1 for n in range(len(roi))])
    weights /= weights.max()
    least = CLAMP if blend == "gaussian_monai" else np.finfo(np.float32).tiny
    return np.maximum(weights, least).astype(np.float32)


def _padded(values: Floats, roi: Sequence[int], pad_value: float) -> Floats:
    short = [(0, max(0, width - size)) for size, width in zip(values.shape, roi, strict=True)]
    return np.pad(values, short, constant_values=pad_value) if any(end for _, end in short) else values


def _box(corner: Sequence[int], roi: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(start, start + width) for start, width in zip(corner, roi, strict=True))
