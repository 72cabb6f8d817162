"""What a manifest may do to the values of an input before the model sees them: the `ops` of `[input.<tensor>]`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ai_sidecar.tables import Wrong


@dataclass(frozen=True, slots=True)
class Op:
    """One step on the input's values. `kind` is clip, scale, zscore, percentile or window."""

    kind: str
    numbers: tuple[float, ...]
    over: str = ""  # zscore: "volume" or "nonzero" instead of fixed numbers


_OPS: Mapping[str, tuple[tuple[int, ...], str]] = {
    "clip": ((2,), "[low, high]"),
    "scale": ((4,), "[from low, from high, to low, to high]"),
    "zscore": ((2,), '[mean, standard deviation], "volume" or "nonzero"'),
    "percentile": ((2, 4), "[low, high] or [low, high, to low, to high]"),
    "window": ((2,), "[centre, width]"),
}


def operation(step: Any) -> Op:
    """One entry of `ops`, checked. Raises Wrong."""
    if not isinstance(step, Mapping) or len(step) != 1:
        raise Wrong(f"a list of tables with one key each, of {', '.join(_OPS)}")
    kind, given = next(iter(step.items()))
    if kind not in _OPS:
        raise Wrong(f"of {', '.join(_OPS)}; {kind!r} is not known")
    counts, form = _OPS[kind]
    if kind == "zscore" and given in ("volume", "nonzero"):
        return Op(kind, (), given)
    numeric = isinstance(given, list) and all(isinstance(n, int | float) and not isinstance(n, bool) for n in given)
    if not numeric or len(given) not in counts:
        raise Wrong(f"{kind} = {form}")
    numbers = tuple(map(float, given))
    if (kind in ("clip", "percentile", "scale") and numbers[0] >= numbers[1]) or (
        kind in ("zscore", "window") and numbers[1] <= 0
    ):
        raise Wrong(f"{kind} = {form} in rising order, widths above 0")
    if kind == "percentile" and not 0 <= numbers[0] < numbers[1] <= 100:
        raise Wrong(f"{kind} = {form} with percentages from 0 to 100")
    return Op(kind, numbers)
