"""The graph of `ct-lung-body` (see `ct_lung_body`): thresholds, a flood from the border, morphology, a split."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ai_sidecar.runtime import IR_VERSION, serialised

OPSET = 18
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
    air = b.mask(b.add("Less", "hu", b.constant(AIR_HU)))
    body = _body(b, air)
    lung = _lung(b, air, body)
    labels = _labels(b, body, lung)
    b.add("Cast", labels, to=TensorProto.UINT8, name="labels")
    axes: list[str | int] = ["slices", 1, "rows", "columns"]
    graph = helper.make_graph(
        b.nodes, "ct-lung-body", [helper.make_tensor_value_info("hu", FLOAT, axes)],
        [helper.make_tensor_value_info("labels", TensorProto.UINT8, axes)], b.initializers(),
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="filmroom",
                              producer_version="1.0.0")  # fmt: skip
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


def _lung(b: Builder, air: str, body: str) -> str:
    bright = b.mask(b.add("Greater", "hu", b.constant(DARKEST_LUNG_HU)))
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
