"""The reference model `ct-lung-body`: body, right lung and left lung of a chest CT, by rules instead of weights.

    python -m ai_sidecar.reference.ct_lung_body OUTDIR

writes the package `OUTDIR/ct-lung-body/1.0.0`, the same bytes every time. The model (opset 18) takes Hounsfield units
(1, 1, slice, row, column) at 1.5 mm in the plane; all its kernels lie in the plane, so any distance of slices will do:

1. Air is below -400 HU. The air around the patient grows from the border of each slice until nothing changes: on
   quarter-size masks, where only cells full of air count, then by 8 steps at full size.
2. The body is what is left, opened by 9 x 9 (the table goes).
3. Lung is between -980 and -400 HU inside the body (airways and gas in the bowel are darker), opened by 3 x 3 and
   closed by 9 x 9 (vessels come back).
4. Each slice is split at the column with the least lung near the middle of the body.

Only comparisons, maxima and sums of whole numbers decide, so every machine gives the same labels.
"""

import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ai_sidecar.golden import describe
from ai_sidecar.runtime import CPU, IR_VERSION, create, serialised

NAME, VERSION, OPSET = "ct-lung-body", "1.0.0", 18
AIR_HU, DARKEST_LUNG_HU = -400.0, -980.0
QUARTER, REFINEMENTS = 4, 8
BODY_OPENING, LUNG_OPENING, LUNG_CLOSING = 9, 3, 9
MIDDLE_WIDTH, MIDDLE_PULL = 0.25, 1.0  # of the body's width; voxels of lung that one column off the middle costs
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


@dataclass
class Builder:
    """Nodes and constants of one graph, in order."""

    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)

    def add(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """A node with one output; returns the output's name."""
        out = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=out, **attributes))
        return out

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """A constant, kept once."""
        array = np.asarray(value, dtype)
        words = "_".join(f"{one:g}" for one in array.ravel()).replace("-", "m").replace(".", "p")
        name = f"{dtype.__name__}{array.ndim}_{words}"
        self.constants[name] = array
        return name

    def mask(self, condition: str) -> str:
        """A condition as 0 and 1: float32, on which the CPU's pooling is fastest."""
        return self.add("Cast", condition, to=FLOAT)

    def dilate(self, mask: str, size: int) -> str:
        """The maximum of a square; rows and columns one after the other."""
        half = size // 2
        rows = self.add("MaxPool", mask, kernel_shape=[size, 1], pads=[half, 0, half, 0])
        return self.add("MaxPool", rows, kernel_shape=[1, size], pads=[0, half, 0, half])

    def inverse(self, mask: str) -> str:
        return self.add("Sub", self.constant(1), mask)

    def opened(self, mask: str, size: int) -> str:
        """Without what is narrower than the square."""
        return self.dilate(self.inverse(self.dilate(self.inverse(mask), size)), size)

    def closed(self, mask: str, size: int) -> str:
        """With gaps that are narrower than the square filled."""
        return self.inverse(self.dilate(self.inverse(self.dilate(mask, size)), size))

    def initializers(self) -> list[TensorProto]:
        return [numpy_helper.from_array(array, name) for name, array in sorted(self.constants.items())]


def build() -> bytes:
    """The model's bytes."""
    b = Builder()
    shape = b.add("Shape", "hu")
    slices = b.add("Concat", b.add("Gather", shape, b.constant([2], np.int64)), b.constant([1], np.int64),
                   b.add("Gather", shape, b.constant([3, 4], np.int64)), axis=0)  # fmt: skip
    hu = b.add("Reshape", "hu", slices)
    air = b.mask(b.add("Less", hu, b.constant(AIR_HU)))
    body = _body(b, air)
    lung = _lung(b, hu, air, body)
    labels = _labels(b, body, lung)
    b.add("Reshape", b.add("Cast", labels, to=TensorProto.UINT8), shape, name="labels")
    axes: list[str | int] = [1, 1, "slices", "rows", "columns"]
    graph = helper.make_graph(
        b.nodes, NAME, [helper.make_tensor_value_info("hu", FLOAT, axes)],
        [helper.make_tensor_value_info("labels", TensorProto.UINT8, axes)], b.initializers(),
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="filmroom",
                              producer_version=VERSION)  # fmt: skip
    model.ir_version = IR_VERSION
    return serialised(model)


def _body(b: Builder, air: str) -> str:
    """Everything that the air around the patient does not reach, without what is thin."""
    full = b.inverse(b.add("MaxPool", b.inverse(air), kernel_shape=[QUARTER, QUARTER], strides=[QUARTER, QUARTER],
                           ceil_mode=1))  # fmt: skip
    outside = _flood(b, b.add("Mul", full, _border(b, full)), full)
    size = b.add("Shape", air)
    grown = b.add("Resize", outside, "", b.constant([1, 1, QUARTER, QUARTER]), mode="nearest",
                  coordinate_transformation_mode="asymmetric", nearest_mode="floor")  # fmt: skip
    cut = b.add("Slice", grown, b.constant([0, 0], np.int64), b.add("Slice", size, b.constant([2], np.int64),
                b.constant([4], np.int64)), b.constant([2, 3], np.int64))  # fmt: skip
    outside = b.add("Mul", cut, air)
    for _ in range(REFINEMENTS):
        outside = b.add("Mul", b.dilate(outside, 3), air)
    return b.opened(b.inverse(outside), BODY_OPENING)


def _border(b: Builder, mask: str) -> str:
    """1 on the border of each slice: what a dilation of the outside reaches."""
    pads = b.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64)
    framed = b.add("Pad", b.add("Mul", mask, b.constant(0)), pads, b.constant(1))
    inner = b.dilate(framed, 3)
    ends = b.constant([-1, -1], np.int64)
    return b.add("Slice", inner, b.constant([1, 1], np.int64), ends, b.constant([2, 3], np.int64))


def _flood(b: Builder, seed: str, within: str) -> str:
    """The seed grown inside a mask until a step changes nothing: ReduceMax, for a float32 sum is not exact."""
    step = Builder()
    grown = step.add("Mul", step.dilate("old", 3), within, name="new")
    change = step.add("ReduceMax", step.add("Sub", grown, "old"), keepdims=0)
    step.add("Greater", change, step.constant(0), name="go_on")
    axes: list[str | int] = ["n", 1, "r", "c"]
    boolean = TensorProto.BOOL
    body = helper.make_graph(
        step.nodes, "grow",
        [helper.make_tensor_value_info("turn", INT64, []), helper.make_tensor_value_info("go", boolean, []),
         helper.make_tensor_value_info("old", FLOAT, axes)],
        [helper.make_tensor_value_info("go_on", boolean, []), helper.make_tensor_value_info("new", FLOAT, axes)],
        step.initializers(),
    )  # fmt: skip
    return b.add("Loop", "", b.constant(True, np.bool_), seed, body=body)


def _lung(b: Builder, hu: str, air: str, body: str) -> str:
    bright = b.mask(b.add("Greater", hu, b.constant(DARKEST_LUNG_HU)))
    dark = b.add("Mul", b.add("Mul", air, bright), body)
    return b.add("Mul", b.closed(b.opened(dark, LUNG_OPENING), LUNG_CLOSING), body)


def _labels(b: Builder, body: str, lung: str) -> str:
    """1 body, 2 right lung, 3 left lung; columns grow to the patient's left."""
    split = _split(b, body, lung)
    left = b.mask(b.add("Not", b.add("Less", _columns(b, body), split)))
    of_lung = b.add("Mul", lung, b.add("Add", left, b.constant(2)))
    return b.add("Max", body, of_lung)


def _columns(b: Builder, mask: str) -> str:
    """The column numbers, float32 (1, 1, 1, columns)."""
    count = b.add("Gather", b.add("Shape", mask), b.constant(3, np.int64))
    numbers = b.add("Range", b.constant(0, np.int64), count, b.constant(1, np.int64))
    return b.add("Cast", b.add("Unsqueeze", numbers, b.constant([0, 1, 2], np.int64)), to=FLOAT)


def _split(b: Builder, body: str, lung: str) -> str:
    """The first column of the left half, (slices, 1, 1, 1): where a column near the middle holds the least lung."""
    rows, columns = b.constant([2], np.int64), b.constant([3], np.int64)
    numbers = _columns(b, body)
    in_body = b.add("ReduceMax", body, rows, keepdims=1)
    last = b.add("ReduceMax", b.add("Mul", in_body, numbers), columns, keepdims=1)
    many = b.constant(1 << 20)
    first = b.add(
        "ReduceMin", b.add("Where", b.add("Greater", in_body, b.constant(0)), numbers, many), columns, keepdims=1
    )
    middle = b.add("Mul", b.add("Add", first, last), b.constant(0.5))
    width = b.add("Sub", last, first)
    off = b.add("Abs", b.add("Sub", numbers, middle))
    far = b.mask(b.add("Greater", off, b.add("Mul", width, b.constant(MIDDLE_WIDTH / 2))))
    cost = b.add("Add", b.add("ReduceSum", lung, rows, keepdims=1), b.add("Mul", off, b.constant(MIDDLE_PULL)))
    cost = b.add("Add", cost, b.add("Mul", far, many))
    return b.add("Cast", b.add("ArgMin", cost, axis=3, keepdims=1), to=FLOAT)


def golden_input() -> NDArray[np.float32]:
    """A small chest, (1, 1, 6, 80, 100) Hounsfield units: body, table, two lungs, vessels, airway, gas in the bowel."""
    y, x = np.mgrid[0:80, 0:100].astype(np.float32)
    values = np.full((6, 80, 100), -1000, np.int16)
    for k in range(6):
        plane = values[k]
        plane[74:77, 10:90] = -150
        plane[((x - 50) / 42) ** 2 + ((y - 38) / 30) ** 2 < 1] = 40
        for centre, wide in ((28, 14), (72, 13)):
            if k >= 1:
                plane[((x - centre) / wide) ** 2 + ((y - 38) / (14 + k)) ** 2 < 1] = -850
        plane[(x - 28 - k) ** 2 + (y - 36) ** 2 < 5] = 60
        plane[(x - 50) ** 2 + (y - 30) ** 2 < 16] = -1000 if k > 2 else 40
        if k == 0:
            plane[((x - 62) / 9) ** 2 + ((y - 30) / 7) ** 2 < 1] = -995
    return values[None, None].astype(np.float32)


def golden_npz(array: NDArray[np.float32], tensor: str = "hu") -> bytes:
    """A compressed npz without times, so that its bytes are the same every time."""
    member, stream = io.BytesIO(), io.BytesIO()
    np.save(member, array, allow_pickle=False)
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        entry = zipfile.ZipInfo(f"{tensor}.npy", (1980, 1, 1, 0, 0, 0))
        archive.writestr(entry, member.getvalue(), zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def expected(model: bytes, array: NDArray[np.float32]) -> bytes:
    """What the model makes of the golden input."""
    labels = create(model, [CPU], 1).run(["labels"], {"hu": array})[0]
    stated = {"outputs": {"labels": describe(labels)}, "dice": 0.999}
    return (json.dumps(stated, indent=2, sort_keys=True) + "\n").encode()


def package(licence: bytes) -> dict[str, bytes]:
    """All files of the package by name."""
    model, array = build(), golden_input()
    files = {
        "model.onnx": model,
        "LICENSE": licence,
        "golden/input.npz": golden_npz(array),
        "golden/expected.json": expected(model, array),
    }
    return {"manifest.toml": _manifest(files).encode(), **files}


def _manifest(files: dict[str, bytes]) -> str:
    lines = [f'"{name}" = "{hashlib.sha256(content).hexdigest()}"' for name, content in sorted(files.items())]
    return MANIFEST.replace("@FILES@", "\n".join(lines)).replace("@NAME@", NAME).replace("@VERSION@", VERSION)


MANIFEST = """\
# Made by: python -m ai_sidecar.reference.ct_lung_body OUTDIR. Change that, not this.
[model]
name = "@NAME@"
version = "@VERSION@"
task = "segmentation"
summary = "Body, right lung and left lung of a chest CT, by thresholds and morphology."
vendor = "Filmroom"
licence = "Apache-2.0"
allowed_use = "research"
intended_use = "Shows that a node, its sidecar and its viewers work together. It is no medical device."
opset = 18
min_ort = "1.17"

[files]
@FILES@

[select]
modality = ["CT"]
sop_classes = ["1.2.840.10008.5.1.4.1.1.2"]
body_part = ["*CHEST*", "*THORAX*", "*LUNG*", '""']
rows = [64, 2048]
min_slices = 6
max_slices = 2000
require = ["uniform_spacing", "single_orientation", "no_gantry_tilt"]
choose = "thinnest"

# The kernels of the model are in voxels of 1.5 mm: this spacing is part of it. Slices stay as they are.
[input.hu]
layout = "NCDHW"
dtype = "float32"
orientation = "LPS"
spacing_mm = [0.0, 1.5, 1.5]
resample = "linear"
values = "hu"
ops = [{ clip = [-1024.0, 3071.0] }]
pad_value = -1024.0

[window]
mode = "whole"

[output.labels]
activation = "none"
decode = "labels"
largest_component = true
min_volume_ml = 1.0

[[label]]
index = 1
name = "Body"
category = ["91723000", "SCT", "Anatomical Structure"]
type = ["22943007", "SCT", "Trunk"]
region = ["816094009", "SCT", "Chest"]
colour = [200, 160, 130]
measurements = ["volume", "mean"]

[[label]]
index = 2
name = "Right lung"
category = ["91723000", "SCT", "Anatomical Structure"]
type = ["39607008", "SCT", "Lung"]
laterality = ["24028007", "SCT", "Right"]
colour = [80, 150, 220]
measurements = ["volume", "mean"]

[[label]]
index = 3
name = "Left lung"
category = ["91723000", "SCT", "Anatomical Structure"]
type = ["39607008", "SCT", "Lung"]
laterality = ["7771000", "SCT", "Left"]
colour = [90, 200, 120]
measurements = ["volume", "mean"]

[result]
seg = "binary"
sr = "always"
series_description = "Lungs and body"

[run]
device = "auto"
timeout_s = 300.0
max_attempts = 3
priority = "normal"

[golden]
input = "golden/input.npz"
expected = "golden/expected.json"
"""


def main(arguments: Sequence[str]) -> int:
    """Write the package below a folder; the licence is the repository's."""
    if len(arguments) != 1:
        print("usage: python -m ai_sidecar.reference.ct_lung_body OUTDIR", file=sys.stderr)
        return 2
    licence = (Path(__file__).parents[2] / "LICENSE").read_bytes()
    target = Path(arguments[0]) / NAME / VERSION
    for name, content in package(licence).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)
    print(target)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
