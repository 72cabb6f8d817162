"""Small model packages for tests, written to a folder: models of a few nodes, manifests made of tables."""

import hashlib
import json

import numpy as np
from onnx import TensorProto, helper

from ai_sidecar.golden import describe
from ai_sidecar.reference.ct_lung_body import golden_npz
from ai_sidecar.runtime import CPU, create

CODE = '["91723000", "SCT", "Anatomical Structure"]'
LABEL = f"""
[[label]]
index = 1
name = "Dense"
category = {CODE}
type = ["39607008", "SCT", "Lung"]
measurements = ["volume", "mean", "std", "min", "max"]
"""
MANIFEST = """
[model]
name = "{name}"
version = "1.0.0"
task = "{task}"
vendor = "Tests"
licence = "Apache-2.0"
allowed_use = "research"
opset = 18

[files]
{files}

[select]
modality = "CT"
min_slices = 2

[input.x]
layout = "{layout}"
{input}

[window]
{window}

[output.y]
{output}
{more}
[golden]
input = "golden/input.npz"
expected = "golden/expected.json"
"""


def model(nodes, rank=5, out_type=TensorProto.FLOAT, out_rank=None, constants=(), domains=(), outputs=()):
    """An ONNX model from `x` to `y`."""
    axes = [f"d{n}" for n in range(rank)]
    out = [f"e{n}" for n in range(out_rank or rank)]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info("y", out_type, out), *outputs],
        list(constants),
    )
    opsets = [helper.make_opsetid("", 18), *(helper.make_opsetid(domain, 1) for domain in domains)]
    made = helper.make_model(graph, opset_imports=opsets)
    made.ir_version = 8
    return made.SerializeToString()


def number(name, value):
    """A float constant."""
    return helper.make_tensor(name, TensorProto.FLOAT, [], [value])


def above(limit):
    """Labels: 1 where a voxel is above the limit."""
    nodes = [
        helper.make_node("Greater", ["x", "limit"], ["over"]),
        helper.make_node("Cast", ["over"], ["y"], to=TensorProto.UINT8),
    ]
    return model(nodes, out_type=TensorProto.UINT8, constants=[number("limit", limit)])


def two_levels(low, high):
    """Labels: 1 above the low limit, 2 above the high one."""
    nodes = [
        helper.make_node("Greater", ["x", "low"], ["a"]),
        helper.make_node("Greater", ["x", "high"], ["b"]),
        helper.make_node("Cast", ["a"], ["one"], to=TensorProto.UINT8),
        helper.make_node("Cast", ["b"], ["two"], to=TensorProto.UINT8),
        helper.make_node("Add", ["one", "two"], ["y"]),
    ]
    return model(nodes, out_type=TensorProto.UINT8, constants=[number("low", low), number("high", high)])


def two_channels(limit):
    """Scores of two channels, (limit - x, x - limit)."""
    nodes = [
        helper.make_node("Sub", ["x", "limit"], ["over"]),
        helper.make_node("Neg", ["over"], ["under"]),
        helper.make_node("Concat", ["under", "over"], ["y"], axis=1),
    ]
    return model(nodes, constants=[number("limit", limit)])


def mean_scores():
    """(n, 2): the mean of each picture, and minus it."""
    axes = helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3])
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=0),
        helper.make_node("Neg", ["m"], ["n"]),
        helper.make_node("Unsqueeze", ["m", "one"], ["a"]),
        helper.make_node("Unsqueeze", ["n", "one"], ["b"]),
        helper.make_node("Concat", ["a", "b"], ["y"], axis=1),
    ]
    one = helper.make_tensor("one", TensorProto.INT64, [1], [1])
    return model(nodes, rank=4, out_rank=2, constants=[axes, one])


def detector():
    """One box around the voxels above 0, sure by 0.9, and a weak one; x is the last axis."""
    nodes = [
        helper.make_node("Greater", ["x", "limit"], ["over"]),
        helper.make_node("NonZero", ["over"], ["at"]),
        helper.make_node("Gather", ["at", "order"], ["xyz"]),
        helper.make_node("Cast", ["xyz"], ["points"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMin", ["points", "one"], ["low"], keepdims=0),
        helper.make_node("ReduceMax", ["points", "one"], ["high"], keepdims=0),
        helper.make_node("Concat", ["low", "high"], ["box"], axis=0),
        helper.make_node("Concat", ["box", "box"], ["two"], axis=0),
        helper.make_node("Reshape", ["two", "shape"], ["y"]),
        helper.make_node("Identity", ["sure"], ["s"]),
    ]
    constants = [
        number("limit", 0.0),
        helper.make_tensor("order", TensorProto.INT64, [3], [4, 3, 2]),
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("shape", TensorProto.INT64, [2], [2, 6]),
        helper.make_tensor("sure", TensorProto.FLOAT, [2], [0.9, 0.1]),
    ]
    outputs = [helper.make_tensor_value_info("s", TensorProto.FLOAT, [2])]
    return model(nodes, out_rank=2, constants=constants, outputs=outputs)


FINDING = """
[[finding]]
index = 0
concept = ["233604007", "SCT", "Pneumonia"]
threshold = 0.6

[[finding]]
index = 1
concept = ["36118008", "SCT", "Pneumothorax"]
"""


DEFAULTS = {
    "name": "tiny", "task": "segmentation", "layout": "NCDHW", "input": "", "window": 'mode = "whole"',
    "output": 'decode = "labels"', "more": LABEL,
}  # fmt: skip


def write(folder, content, *, shape=(1, 1, 3, 8, 9), expected=None, edit=None, extra=None, **tables):
    """Write a package below `folder`, with its golden test unless `expected` is given; returns its path."""
    array = np.random.default_rng(1).normal(0, 500, shape).astype(np.float32)
    if expected is None:
        found = create(content, [CPU], 1).run(["y"], {"x": array})[0]
        expected = json.dumps({"outputs": {"y": describe(found)}}).encode()
    npz = golden_npz(array, "x")
    files = {"model.onnx": content, "LICENSE": b"Apache-2.0\n", "golden/input.npz": npz,
             "golden/expected.json": expected, **(extra or {})}  # fmt: skip
    listed = "\n".join(f'"{key}" = "{hashlib.sha256(value).hexdigest()}"' for key, value in files.items())
    tables = {**DEFAULTS, **tables}
    text = MANIFEST.format(files=listed, **tables)
    path = folder / tables["name"] / "1.0.0"
    for key, value in {**files, "manifest.toml": (edit(text) if edit else text).encode()}.items():
        (path / key).parent.mkdir(parents=True, exist_ok=True)
        (path / key).write_bytes(value)
    return path
