"""The manifest of a model package (`manifest.toml`): what the model is, what it takes, and what its output means.

Sizes and spacings are in tensor order, slowest axis first (slice, row, column); 0 in `spacing_mm` keeps the native
spacing of that axis. `orientation` names the directions in which column, row and slice grow (`LPS`: to the patient's
left, to the back, to the head); without it volumes come as LPS, slices as they were taken. With `decode = "argmax"`
channel c is label c, with `threshold` channel c is label c + 1.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ai_sidecar.agreement import AGREEMENTS
from ai_sidecar.operations import Op, operation
from ai_sidecar.tables import Code, Finding, Range, Reader, rule

MANIFEST_BYTES = 256 * 1024
TASKS = ("segmentation", "classification", "detection")
STATISTICS = ("volume", "mean", "std", "min", "max")
DTYPES = ("float32", "float16", "int16", "int32", "uint8")

PRESENT = Code("52101004", "SCT", "Present")
ABSENT = Code("272519000", "SCT", "Absent")

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}", re.ASCII)
_SEMVER = re.compile(r"\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?", re.ASCII)
_WORDS = re.compile(r"[^\\\x00-\x1f]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


def _fits(pattern: re.Pattern[str], wanted: str) -> Any:
    return lambda value: None if pattern.fullmatch(value) else wanted


def _at_most(length: int) -> Any:
    return lambda value: None if len(value) <= length and "\\" not in value else f"at most {length} characters"


def _within(low: float, high: float) -> Any:
    return lambda value: None if low <= value <= high else f"from {low:g} to {high:g}"


def _sizes(low: float, high: float = 4096) -> Any:
    wanted = f"two or three numbers from {low:g} to {high:g} (slice, row, column)"
    return lambda value: None if len(value) in (2, 3) and all(low <= one <= high for one in value) else wanted


def _orientation(value: str) -> str | None:
    pairs = sorted(next((n for n, pair in enumerate(("LR", "PA", "SI")) if letter in pair), 9) for letter in value)
    return None if pairs == [0, 1, 2] else "three letters, one each of L or R, P or A, S or I"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """[model]: who made what, and what for."""

    name: str = rule(check=_fits(_NAME, "lower-case letters, digits, '.', '_' and '-', at most 63"))
    version: str = rule(check=_fits(_SEMVER, "a semantic version such as 1.0.0"))
    task: str = rule(choices=TASKS)
    summary: str = rule("", check=_at_most(1024))
    vendor: str = rule(check=_at_most(64))
    licence: str = rule(check=_at_most(64))
    allowed_use: str = rule(choices=("research", "clinical"))
    intended_use: str = ""
    citation: str = ""
    opset: int = rule(check=_within(7, 100))
    min_ort: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Select:
    """[select]: the series that the model takes. An empty entry asks for nothing."""

    modality: tuple[str, ...] = ()
    sop_classes: tuple[str, ...] = ()
    body_part: tuple[str, ...] = ()
    description: tuple[str, ...] = ()
    image_type: tuple[str, ...] = ()
    slice_thickness: Range | None = None
    spacing: Range | None = None
    rows: Range | None = None
    min_slices: int = 1
    max_slices: int = 4096
    require: tuple[str, ...] = rule((), choices=("uniform_spacing", "single_orientation", "no_gantry_tilt"))
    choose: str = rule("all", choices=("thinnest", "newest", "all"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """[input.<tensor>]: how the tensor is made of the images."""

    layout: str = rule(choices=("NCDHW", "NCHW"))
    dtype: str = rule("float32", choices=DTYPES)
    orientation: str = rule("", check=lambda value: _orientation(value) if value else None)
    spacing_mm: tuple[float, ...] = rule((), check=lambda value: _sizes(0, 100)(value) if value else None)
    resample: str = rule("linear", choices=("linear", "nearest"))
    values: str = rule("hu", choices=("hu", "stored"))
    photometric: str = rule("", choices=("", "invert_monochrome1"))
    ops: tuple[Any, ...] = rule(())
    pad_value: float = 0.0

    @property
    def steps(self) -> tuple[Op, ...]:
        """`ops`, checked. Raises Wrong."""
        return tuple(operation(step) for step in self.ops)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """[window]: how the volume is cut into what one inference takes."""

    mode: str = rule("whole", choices=("whole", "sliding", "slice"))
    roi: tuple[int, ...] = rule((), check=lambda value: _sizes(1)(value) if value else None)
    overlap: float = rule(0.25, check=_within(0, 0.9))
    blend: str = rule("gaussian", choices=("gaussian", "gaussian_monai"))
    batch: int = rule(1, check=_within(1, 1024))


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """[output.<tensor>]: what the tensor means."""

    activation: str = rule("none", choices=("none", "softmax", "sigmoid"))
    decode: str = rule(choices=("labels", "argmax", "threshold", "scores", "boxes"))
    threshold: float = 0.5
    largest_component: bool = False
    min_volume_ml: float = rule(0.0, check=_within(0, 1e6))
    format: str = rule("xyzxyz", choices=("xyzxyz", "xyxy"))
    unit: str = rule("index", choices=("index", "mm"))
    score: str = ""  # detection: the tensor of scores
    class_: str = ""  # detection: the tensor of classes


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """[[label]]: one segment."""

    index: int = rule(check=_within(1, 255))
    name: str = rule(
        check=lambda value: None if value and len(value) <= 64 and "\\" not in value else "1 to 64 letters"
    )
    category: Code
    type: Code
    region: Code | None = None
    laterality: Code | None = None
    colour: tuple[int, ...] = rule(
        (), check=lambda value: None if not value or (len(value) == 3 and all(0 <= c <= 255 for c in value)) else "RGB"
    )
    measurements: tuple[str, ...] = rule((), choices=STATISTICS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Concept:
    """[[finding]]: one score of a classification and what it says."""

    index: int = rule(check=_within(0, 4095))
    concept: Code
    threshold: float = 0.5
    present: Code = PRESENT
    absent: Code = ABSENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """[result]: what is written back."""

    seg: str = rule("binary", choices=("binary", "labelmap", "none"))
    sr: str = rule("always", choices=("always", "never"))
    series_description: str = rule("", check=_at_most(40))


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """[run]: how it is run."""

    device: str = rule("", check=_fits(re.compile(r"|cpu|auto|cuda(:\d+)?"), "cpu, auto, cuda or cuda:N"))
    strict_device: bool = False
    timeout_s: float = rule(900.0, check=_within(1, 86400))
    max_attempts: int = rule(5, check=_within(1, 100))
    priority: str = rule("normal", choices=("urgent", "normal", "low"))
    max_batch: int = rule(0, check=_within(0, 4096))
    gpu_mem_mb: int = rule(0, check=_within(0, 1 << 20))


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """[golden]: the test that a package brings along."""

    input: str
    expected: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A whole manifest, in itself consistent."""

    model: Model
    files: Mapping[str, str]
    select: Select
    inputs: Mapping[str, Input]
    window: Window
    outputs: Mapping[str, Output]
    labels: tuple[Label, ...]
    findings: tuple[Concept, ...]
    result: Result
    run: Run
    golden: Golden

    @property
    def input(self) -> tuple[str, Input]:
        """The one image tensor and its name."""
        return next(iter(self.inputs.items()))

    @property
    def needs_grid(self) -> bool:
        """Whether images must form a grid in patient space: volumes and what is measured do, single pictures do not."""
        return self.input[1].layout == "NCDHW" or self.model.task != "classification" or bool(self.select.require)

    @property
    def required(self) -> tuple[str, ...]:
        """What the grid must be; volumes and what is measured ask for all of it."""
        pictures = self.input[1].layout == "NCHW" and self.model.task == "classification"
        return self.select.require if pictures else ("uniform_spacing", "single_orientation", "no_gantry_tilt")

    @property
    def onnx_file(self) -> str:
        """The one ONNX file."""
        return next(name for name in self.files if name.endswith(".onnx"))


_SINGLE: Mapping[str, tuple[type, bool]] = {
    "model": (Model, True), "select": (Select, False), "window": (Window, False), "result": (Result, False),
    "run": (Run, False), "golden": (Golden, True),
}  # fmt: skip
_NAMED: Mapping[str, tuple[type, str]] = {"input": (Input, "inputs"), "output": (Output, "outputs")}
_LISTED: Mapping[str, tuple[type, str]] = {"label": (Label, "labels"), "finding": (Concept, "findings")}


def parse(text: str) -> tuple[Manifest | None, list[Finding]]:
    """The manifest in a TOML text, or None; and everything that is wrong with it."""
    reader = Reader()
    try:
        tree = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        return None, [Finding("manifest_unreadable", f"manifest.toml is not TOML: {error}.")]
    known = [*_SINGLE, "files", *_NAMED, *_LISTED]
    for key in tree:
        if key not in known:
            reader.add("unknown_key", f"The manifest has an unknown table {key!r}; it knows {', '.join(known)}.")
    values = _tables(reader, tree)
    if reader.found:
        return None, reader.found
    manifest = Manifest(**values)
    for agree in AGREEMENTS:
        agree(reader, manifest)
    return (None if reader.found else manifest), reader.found


def _tables(reader: Reader, tree: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {"files": _files(reader, tree.get("files", {}))}
    for key, (kind, needed) in _SINGLE.items():
        if needed and key not in tree:
            reader.add("missing_key", f"The manifest lacks the table [{key}].")
        else:
            values[key] = reader.table(kind, tree.get(key, {}), key)
    for key, (kind, name) in _NAMED.items():
        tables = tree.get(key, {})
        if not isinstance(tables, Mapping) or not tables:
            reader.add("missing_key", f"The manifest lacks a table [{key}.<tensor>].")
            continue
        values[name] = {tensor: reader.table(kind, table, f"{key}.{tensor}") for tensor, table in tables.items()}
    for key, (kind, name) in _LISTED.items():
        tables = tree.get(key, [])
        if not isinstance(tables, list):
            reader.add("bad_value", f"[[{key}]] must be written with two brackets.")
            continue
        values[name] = tuple(reader.table(kind, table, f"{key} {n + 1}") for n, table in enumerate(tables))
    return values


def _files(reader: Reader, table: object) -> Mapping[str, str]:
    if not isinstance(table, Mapping) or not table:
        reader.add("missing_key", "The manifest lacks the table [files] with the sha256 of every file.")
        return {}
    for name, digest in table.items():
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            reader.add("bad_value", f"[files] {name!r} must be a sha256: 64 lower-case hexadecimal digits.")
        if not is_inside(name):
            reader.add("bad_value", f"[files] {name!r} must be a relative path inside the package.")
    return dict(table)


def is_inside(name: str) -> bool:
    """Whether a path is relative and names something below the folder it is relative to."""
    parts = name.split("/")
    return bool(name) and "\\" not in name and "\0" not in name and not any(part in ("", ".", "..") for part in parts)
