"""The ONNX graph of `ct-lung-body`: thresholds, a flood from the border, and in-plane morphology.

Input: Hounsfield units, float32 `(1, 1, slices, rows, columns)`, in LPS (columns to the patient's left), 1.5 mm in the
plane. Output: labels, uint8 of the same shape: 0 outside, 1 body, 2 right lung, 3 left lung. All kernels are in
voxels of that grid and lie in the plane, so the distance between slices does not matter.
"""

import onnx
from onnx import TensorProto, helper

OPSET = 18
AIR_BELOW, LUNG_ABOVE = -400.0, -980.0  # gas in bowel and airways is thinner than lung
BODY_OPENING, LUNG_OPENING, LUNG_CLOSING = 9, 3, 9
FLOOD_SCALE, REFINEMENTS, MOST_ROUNDS = 4, 8, 2000
IN_PLANE = 3  # the axis of rows; columns follow
VOLUME = [1, 1, "slices", "rows", "columns"]


class Builder:
    """Collects nodes and constants; each method adds one operation and returns the name of its result."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        """Add a node with one output."""
        name = f"{self.prefix}{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def number(self, value: float) -> str:
        """A float32 constant."""
        return self._constant(f"f{value}", TensorProto.FLOAT, [], [value])

    def integers(self, *values: int) -> str:
        """An int64 vector."""
        return self._constant("i" + "_".join(map(str, values)), TensorProto.INT64, [len(values)], list(values))

    def floats(self, *values: float) -> str:
        """A float32 vector."""
        return self._constant("v" + "_".join(map(str, values)), TensorProto.FLOAT, [len(values)], list(values))

    def _constant(self, name: str, kind: int, shape: list[int], values: list[float] | list[int]) -> str:
        name = self.prefix + name.replace("-", "m").replace(".", "p")
        self.constants[name] = helper.make_tensor(name, kind, shape, values)
        return name

    def mask(self, condition: str) -> str:
        """A condition as 0.0 and 1.0: float masks run several times faster than integer ones on a CPU."""
        return self.op("Cast", condition, to=TensorProto.FLOAT)

    def both(self, *masks: str) -> str:
        """Where all masks hold."""
        return self.op("Min", *masks)

    def without(self, mask: str) -> str:
        """Where the mask does not hold."""
        return self.op("Sub", self.number(1.0), mask)

    def dilate(self, mask: str, size: int) -> str:
        """Grow by a square of `size` voxels in the plane."""
        half = size // 2
        return self.op("MaxPool", mask, kernel_shape=[1, size, size], pads=[0, half, half] * 2, strides=[1, 1, 1])

    def erode(self, mask: str, size: int) -> str:
        """Shrink by a square of `size` voxels in the plane."""
        return self.op("Neg", self.dilate(self.op("Neg", mask), size))

    def opening(self, mask: str, size: int) -> str:
        """Remove what is thinner than `size`."""
        return self.dilate(self.erode(mask, size), size)

    def closing(self, mask: str, size: int) -> str:
        """Fill what is narrower than `size`."""
        return self.erode(self.dilate(mask, size), size)


def build() -> onnx.ModelProto:
    """The model, the same bytes each time."""
    b = Builder()
    air = b.mask(b.op("Less", "hu", b.number(AIR_BELOW)))
    body = b.opening(b.without(_outside(b, air)), BODY_OPENING)
    aerated = b.both(air, b.mask(b.op("Greater", "hu", b.number(LUNG_ABOVE))), body)
    lungs = b.both(b.closing(b.opening(aerated, LUNG_OPENING), LUNG_CLOSING), body)
    left = b.both(lungs, _left_of_midline(b, body))
    # body 1, a lung one more, the left one yet one more: the masks lie within one another
    labels = b.op("Add", b.op("Add", body, lungs), left)
    b.nodes.append(helper.make_node("Cast", [labels], ["labels"], name="labels", to=TensorProto.UINT8))
    graph = helper.make_graph(
        b.nodes,
        "ct-lung-body",
        [helper.make_tensor_value_info("hu", TensorProto.FLOAT, VOLUME)],
        [helper.make_tensor_value_info("labels", TensorProto.UINT8, VOLUME)],
        list(b.constants.values()),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="filmroom")
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return model


def _outside(b: Builder, air: str) -> str:
    """Air that is connected to the border of its slice: flooded at a quarter of the size, refined at full size."""
    step = [1, FLOOD_SCALE, FLOOD_SCALE]
    # a coarse voxel is air when all of it is
    coarse = b.op("Neg", b.op("MaxPool", b.op("Neg", air), kernel_shape=step, strides=step, ceil_mode=1))
    ring = b.integers(0, 0, 0, 1, 1, 0, 0, 0, 1, 1)
    ringed = b.op("Pad", coarse, ring, b.number(1.0))
    seed = b.op("Pad", b.op("Mul", coarse, b.number(0.0)), ring, b.number(1.0))
    flooded = _flood(b, seed, ringed)
    inner = b.op("Slice", flooded, b.integers(1, 1), b.integers(-1, -1), b.integers(IN_PLANE, IN_PLANE + 1))
    size = b.op("Shape", air)
    fine = b.op(
        "Resize", inner, "", "", size, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )
    outside = b.both(fine, air)
    for _ in range(REFINEMENTS):
        outside = b.both(b.dilate(outside, 3), air)
    return outside


def _flood(b: Builder, seed: str, within: str) -> str:
    """Grow the seed inside the mask until nothing changes."""
    body = Builder("flood_")
    grown = body.both(body.dilate("flood_in", 3), within)
    # a float32 sum is not exact above 16.7 million voxels; the largest change is
    change = body.op("ReduceMax", body.op("Sub", grown, "flood_in"), keepdims=0)
    body.nodes.append(helper.make_node("Greater", [change, body.number(0.0)], ["flood_more"], name="flood_more"))
    body.nodes.append(helper.make_node("Identity", [grown], ["flood_out"], name="flood_out"))
    volume = [1, 1, None, None, None]
    loop = helper.make_graph(
        body.nodes,
        "flood",
        [
            helper.make_tensor_value_info("flood_round", TensorProto.INT64, []),
            helper.make_tensor_value_info("flood_go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("flood_in", TensorProto.FLOAT, volume),
        ],
        [
            helper.make_tensor_value_info("flood_more", TensorProto.BOOL, []),
            helper.make_tensor_value_info("flood_out", TensorProto.FLOAT, volume),
        ],
        list(body.constants.values()),
    )
    rounds = b._constant("rounds", TensorProto.INT64, [], [MOST_ROUNDS])
    return b.op("Loop", rounds, "", seed, body=loop)


def _left_of_midline(b: Builder, body: str) -> str:
    """Columns to the patient's left of the body's centre of mass."""
    count = b.op("Gather", b.op("Shape", body), b._constant("last", TensorProto.INT64, [], [4]), axis=0)
    start, step = (b._constant(name, TensorProto.INT64, [], [value]) for name, value in (("zero", 0), ("one", 1)))
    columns = b.op("Cast", b.op("Range", start, count, step), to=TensorProto.FLOAT)
    in_column = b.op("ReduceMean", body, b.integers(0, 1, 2, 3), keepdims=0)
    weight = b.op("Max", b.op("ReduceSum", in_column, keepdims=0), b.number(1e-9))
    centre = b.op("Div", b.op("ReduceSum", b.op("Mul", in_column, columns), keepdims=0), weight)
    return b.mask(b.op("Greater", columns, centre))
