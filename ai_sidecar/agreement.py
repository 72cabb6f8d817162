"""What must hold between the tables of a manifest, and what is not built yet."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ai_sidecar.tables import Reader, Wrong

if TYPE_CHECKING:
    from ai_sidecar.manifest import Manifest


def _files(reader: Reader, manifest: "Manifest") -> None:
    models = [name for name in manifest.files if name.endswith(".onnx")]
    if len(models) != 1:
        reader.add("bad_value", f"[files] must list one .onnx file; it lists {len(models)}.")
    for key in ("input", "expected"):
        if getattr(manifest.golden, key) not in manifest.files:
            reader.add("bad_value", f"[golden] {key} must name a file of [files].")
    if "LICENSE" not in manifest.files:
        reader.add("missing_file", "[files] lacks LICENSE.")


def _inputs(reader: Reader, manifest: "Manifest") -> None:
    if len(manifest.inputs) != 1:
        reader.add("not_built", "More than one [input.<tensor>] cannot be run yet; give one.")
        return
    name, tensor = manifest.input
    try:
        _ = tensor.steps
    except Wrong as wrong:
        reader.add("bad_value", f"[input.{name}] ops must be {wrong}.")
    volume = tensor.layout == "NCDHW"
    if volume == (manifest.window.mode == "slice"):
        reader.add("bad_value", "[window] mode must be slice for the layout NCHW, whole or sliding for NCDHW.")
    if manifest.window.mode == "sliding" and len(manifest.window.roi) != 3:
        reader.add("bad_value", "[window] roi must be three numbers for the mode sliding.")
    if not volume and (tensor.spacing_mm and len(tensor.spacing_mm) == 3 and tensor.spacing_mm[0]):
        reader.add("bad_value", f"[input.{name}] spacing_mm must keep the slices (0) for the layout NCHW.")


_DECODES: Mapping[str, tuple[str, ...]] = {
    "segmentation": ("labels", "argmax", "threshold"),
    "classification": ("scores",),
    "detection": ("boxes", "scores", "labels"),
}


def _outputs(reader: Reader, manifest: "Manifest") -> None:
    task = manifest.model.task
    for name, output in manifest.outputs.items():
        if output.decode not in _DECODES[task]:
            reader.add("bad_value", f"[output.{name}] decode must be one of {', '.join(_DECODES[task])} for {task}.")
    wanted = [name for name, output in manifest.outputs.items() if output.decode == _DECODES[task][0]]
    if task != "detection" and len(manifest.outputs) != 1:
        reader.add("not_built", "More than one [output.<tensor>] cannot be run yet; give one.")
    if manifest.window.mode == "sliding" and any(output.decode == "labels" for output in manifest.outputs.values()):
        reader.add("bad_value", "[window] mode sliding needs scores to blend: decode must be argmax or threshold.")
    if task == "detection" and len(wanted) != 1:
        reader.add("bad_value", "A detection needs one [output.<tensor>] with decode = boxes.")
    for name in wanted if task == "detection" else ():
        _boxes(reader, manifest, name)


def _boxes(reader: Reader, manifest: "Manifest", name: str) -> None:
    output = manifest.outputs[name]
    if not output.score:
        reader.add("missing_key", f"[output.{name}] lacks the key 'score': the tensor that says how sure each box is.")
    if not output.class_ and len(manifest.labels) != 1:
        reader.add("missing_key", f"[output.{name}] lacks the key 'class', which several labels need.")
    others = set(manifest.outputs) - {name, output.score, output.class_}
    if others:
        reader.add("bad_value", f"[output.{name}] names neither as score nor as class: {', '.join(sorted(others))}.")


def _labels(reader: Reader, manifest: "Manifest") -> None:
    task = manifest.model.task
    key, listed = ("finding", manifest.findings) if task == "classification" else ("label", manifest.labels)
    indices = [one.index for one in listed]
    if not indices:
        reader.add("missing_key", f"A {task} needs at least one [[{key}]].")
    if len(set(indices)) != len(indices):
        reader.add("bad_value", f"[[{key}]] index must differ from entry to entry.")


def _built(reader: Reader, manifest: "Manifest") -> None:
    overlapping = any(output.decode == "threshold" for output in manifest.outputs.values())
    if manifest.result.seg == "labelmap" and overlapping and len(manifest.labels) > 1:
        reader.add("bad_value", '[result] seg = "labelmap" cannot hold labels that overlap (decode = "threshold").')
    boxes = [output for output in manifest.outputs.values() if output.decode == "boxes"]
    if boxes and (manifest.window.mode != "whole" or boxes[0].format != "xyzxyz"):
        reader.add("not_built", 'Boxes are taken from [window] mode = "whole" with format = "xyzxyz" only.')
    if any(output.decode == "threshold" for output in manifest.outputs.values()):
        most = max((label.index for label in manifest.labels), default=0)
        if most > 32:
            reader.add("not_built", '[output] decode = "threshold" takes labels up to index 32.')


AGREEMENTS: Sequence[Callable[[Reader, "Manifest"], None]] = (_files, _inputs, _outputs, _labels, _built)
