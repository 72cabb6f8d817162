"""Small ONNX graphs that do what a pipeline needs besides the model: resample, softmax, argmax (ai.md 5).

They run on the CPU provider, which has all of them; no scipy, no torch.
"""

from collections.abc import Sequence

from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper

from ai_sidecar.runtime import IR_VERSION, serialised

OPSET = 18
FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8


def resize(mode: str) -> bytes:
    """`x` (n, 1, rows, columns) by the factors `scales` (4). Asymmetric: the centre of the first voxel stays."""
    nearest = {"nearest_mode": "round_prefer_floor"} if mode == "nearest" else {}
    node = helper.make_node(
        "Resize", ["x", "", "scales"], ["y"], mode=mode, coordinate_transformation_mode="asymmetric", **nearest
    )
    x = helper.make_tensor_value_info("x", FLOAT, ["n", 1, "rows", "columns"])
    scales = helper.make_tensor_value_info("scales", FLOAT, [4])
    y = helper.make_tensor_value_info("y", FLOAT, ["n", 1, "r", "c"])
    return _model([node], [x, scales], [y])


def argmax(rank: int) -> bytes:
    """`x` (n, channel, ...) to the index of the highest channel, uint8 (n, ...)."""
    nodes = [
        helper.make_node("ArgMax", ["x"], ["index"], axis=1, keepdims=0),
        helper.make_node("Cast", ["index"], ["y"], to=UINT8),
    ]
    return _model(nodes, [_any("x", FLOAT, rank)], [_any("y", UINT8, rank - 1)])


def activation(kind: str, rank: int) -> bytes:
    """`x` (n, channel, ...) through softmax over channels, or sigmoid."""
    node = (
        helper.make_node("Softmax", ["x"], ["y"], axis=1)
        if kind == "softmax"
        else helper.make_node("Sigmoid", ["x"], ["y"])
    )
    return _model([node], [_any("x", FLOAT, rank)], [_any("y", FLOAT, rank)])


def _any(name: str, kind: int, rank: int) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, [f"{name}{n}" for n in range(rank)])


def _model(nodes: Sequence[NodeProto], inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto]) -> bytes:
    graph: GraphProto = helper.make_graph(list(nodes), "filmroom", list(inputs), list(outputs))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="filmroom")
    model.ir_version = IR_VERSION
    return serialised(model)
