"""The golden test: a package brings an input and what must come out of it (ai.md 2)."""

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai_sidecar.manifest import Manifest
from ai_sidecar.ports import RunFailed
from ai_sidecar.runtime import CPU, Halt, Runtime, Session
from ai_sidecar.tables import Finding

MOST_VALUES = 1 << 28
MEAN_TOLERANCE = 0.01  # of the range, on devices whose sums differ from the CPU's
Array = NDArray[Any]
Open = Callable[..., Session]


def prove(path: Path, manifest: Manifest, session: Open, runtime: Runtime) -> list[Finding]:
    """Run the golden input; findings where the output is not the expected one.

    On the CPU outputs must be equal byte for byte; elsewhere also close to the CPU's (Dice of labels, mean of scores).
    """
    try:
        feeds = _input(path / manifest.golden.input, manifest)
        expected = json.loads((path / manifest.golden.expected).read_bytes())
        outputs: Mapping[str, Mapping[str, Any]] = expected["outputs"]
        names = list(outputs)
        on_cpu = dict(zip(names, session(runtime, cpu=True).run(feeds, Halt(), names), strict=True))
        findings = [finding for name in names if (finding := _differs(name, on_cpu[name], outputs[name]))]
        if runtime.device.provider not in ("", CPU) and not findings:
            there = dict(zip(names, session(runtime).run(feeds, Halt(), names), strict=True))
            floor = float(expected.get("dice", 0.99))
            findings = [f for name in names if (f := _strays(name, there[name], on_cpu[name], floor))]
        return findings or _uncovered(manifest, names)
    except RunFailed as failed:
        return [Finding("golden_failed", f"The golden test did not run: {failed.message}")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        return [Finding("golden_unreadable", f"The golden test cannot be read: {type(error).__name__}.")]


def describe(array: Array) -> dict[str, Any]:
    """What `expected.json` says of one output tensor."""
    stated: dict[str, Any] = {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "sha256": hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest(),
        "min": float(array.min()),
        "max": float(array.max()),
        "mean": float(array.mean(dtype=np.float64)),
    }
    if array.dtype.kind in "iub":
        values, counts = np.unique(array, return_counts=True)
        stated["histogram"] = {str(value): int(count) for value, count in zip(values, counts, strict=True)}
    return stated


def _input(file: Path, manifest: Manifest) -> dict[str, Array]:
    with zipfile.ZipFile(file) as archive:
        if sum(info.file_size for info in archive.infolist()) > MOST_VALUES:
            raise ValueError("the golden input is too large")
    with np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in manifest.inputs}


def _differs(name: str, array: Array, stated: Mapping[str, Any]) -> Finding | None:
    found = describe(array)
    for key in ("shape", "dtype", "sha256"):
        if found[key] != stated[key]:
            sentence = f"The golden output {name!r} has another {key} than expected: {found[key]}, not {stated[key]}."
            return Finding("golden_mismatch", sentence)
    return None


def _strays(name: str, array: Array, on_cpu: Array, floor: float) -> Finding | None:
    if array.shape != on_cpu.shape:
        return Finding("golden_mismatch", f"The golden output {name!r} has another shape on this device.")
    if array.dtype.kind in "iub":
        dice = min((_dice(array == value, on_cpu == value) for value in np.unique(on_cpu) if value), default=1.0)
        low = dice < floor
        return Finding("golden_mismatch", f"The golden output {name!r} has Dice {dice:.4f} here.") if low else None
    width = float(on_cpu.max() - on_cpu.min()) or 1.0
    apart = abs(float(array.mean(dtype=np.float64)) - float(on_cpu.mean(dtype=np.float64)))
    if apart > MEAN_TOLERANCE * width:
        return Finding("golden_mismatch", f"The mean of the golden output {name!r} is off by {apart:.4g} here.")
    return None


def _dice(one: Array, other: Array) -> float:
    both = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / both if both else 1.0


def _uncovered(manifest: Manifest, names: list[str]) -> list[Finding]:
    missing = sorted(set(manifest.outputs) - set(names))
    return [Finding("golden_unreadable", f"The golden test says nothing of the output {name!r}.") for name in missing]
