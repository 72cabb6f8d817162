"""What an ONNX file may hold: standard operators, tensors as the manifest says, data inside its package."""

from collections.abc import Iterator, Mapping

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto

from ai_sidecar.manifest import Manifest, is_inside
from ai_sidecar.tables import Reader

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})  # what every build of the runtime has built in
EXTERNAL = "external_data"
RANKS: Mapping[str, int] = {"NCDHW": 5, "NCHW": 4}


def examine(reader: Reader, content: bytes, manifest: Manifest) -> None:
    """Note all that is wrong with the model of a package."""
    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError) as error:
        reader.add("model_unreadable", f"{manifest.onnx_file} is not an ONNX model: {error}.")
        return
    _domains(reader, model, manifest)
    _external(reader, model, manifest)
    _opset(reader, model, manifest)
    _tensors(reader, model, manifest)


def has_external_data(content: bytes) -> bool:
    """Whether weights lie in other files."""
    return any(True for tensor in _all_tensors(onnx.load_model_from_string(content)) if _is_external(tensor))


def _domains(reader: Reader, model: onnx.ModelProto, manifest: Manifest) -> None:
    own = {function.domain for function in model.functions}
    used = {node.domain for node in _all_nodes(model)} | {opset.domain for opset in model.opset_import}
    for domain in sorted(used - DOMAINS - own):
        reader.add(
            "custom_op", f"{manifest.onnx_file} uses operators of the domain {domain!r}; custom ones are refused."
        )


def _external(reader: Reader, model: onnx.ModelProto, manifest: Manifest) -> None:
    places = {entry.value for tensor in _all_tensors(model) if _is_external(tensor) for entry in tensor.external_data
              if entry.key == "location"}  # fmt: skip
    for place in sorted(places):
        if not is_inside(place):
            reader.add(EXTERNAL, f"{manifest.onnx_file} keeps weights at {place!r}, outside of the package.")
        elif place not in manifest.files:
            reader.add(EXTERNAL, f"{manifest.onnx_file} keeps weights in {place!r}, which [files] does not list.")


def _opset(reader: Reader, model: onnx.ModelProto, manifest: Manifest) -> None:
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset != manifest.model.opset:
        reader.add("bad_value", f"[model] opset is {manifest.model.opset}, but the model's is {opset}.")


def _tensors(reader: Reader, model: onnx.ModelProto, manifest: Manifest) -> None:
    initial = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: value for value in model.graph.input if value.name not in initial}
    outputs = {value.name for value in model.graph.output}
    if set(inputs) != set(manifest.inputs):
        reader.add(
            "tensor_mismatch", f"The model's inputs are {_names(inputs)}; [input] has {_names(manifest.inputs)}."
        )
    named = {one for output in manifest.outputs.values() for one in (output.score, output.class_) if one}
    for name in sorted((set(manifest.outputs) | named) - outputs):
        reader.add("tensor_mismatch", f"The model has no output {name!r}; it has {_names(outputs)}.")
    for name, tensor in manifest.inputs.items():
        if name in inputs:
            _input(reader, inputs[name], name, tensor.layout, tensor.dtype)


def _input(reader: Reader, value: onnx.ValueInfoProto, name: str, layout: str, dtype: str) -> None:
    kind = value.type.tensor_type
    found = (
        TensorProto.DataType.Name(kind.elem_type).lower().replace("float", "float32").replace("float3216", "float16")
    )
    if found != dtype:
        reader.add("tensor_mismatch", f"[input.{name}] dtype is {dtype}, but the model's is {found}.")
    if kind.HasField("shape") and len(kind.shape.dim) != RANKS[layout]:
        sentence = (
            f"[input.{name}] layout {layout} has {RANKS[layout]} axes, but the model's input {len(kind.shape.dim)}."
        )
        reader.add("tensor_mismatch", sentence)


def _names(names: Mapping[str, object] | set[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _is_external(tensor: TensorProto) -> bool:
    return bool(tensor.external_data) or tensor.data_location == TensorProto.EXTERNAL


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    waiting = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                waiting.extend(graph.node)


def _all_tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    graphs = [model.graph]
    for node in _all_nodes(model):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            sparse = (attribute.sparse_tensor, *attribute.sparse_tensors)
            yield from (tensor for one in sparse for tensor in (one.values, one.indices))
            graphs.extend((attribute.g, *attribute.graphs))
    for graph in graphs:
        yield from graph.initializer
        yield from (tensor for one in graph.sparse_initializer for tensor in (one.values, one.indices))
    for training in model.training_info:
        yield from (*training.initialization.initializer, *training.algorithm.initializer)
