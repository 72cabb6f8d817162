"""A package is used only when every byte is accounted for and it reproduces its golden output."""

import json
import os

import numpy as np
import pytest
from onnx import TensorProto, helper

from ai_sidecar import package as packaged
from ai_sidecar.golden import describe
from ai_sidecar.package import PackageError, check, discover, load
from ai_sidecar.runtime import Runtime
from tests.ai_sidecar import packages


@pytest.fixture(scope="module")
def runtime():
    return Runtime("cpu", threads=1)


def reasons(path, runtime):
    return [finding.reason for finding in check(path, runtime)]


def replace(old, new):
    def edit(text):
        assert old in text
        return text.replace(old, new)

    return edit


def with_input(line):
    return replace('layout = "NCDHW"', f'layout = "NCDHW"\n{line}')


def test_a_good_package_loads_and_has_no_findings(tmp_path, runtime):
    path = packages.write(tmp_path, packages.above(0.0))
    package = load(path, runtime)
    assert (package.name, package.version) == ("tiny", "1.0.0")
    assert check(path, runtime) == []
    assert len(package.digest) == 64
    assert discover([tmp_path, tmp_path / "absent"]) == [path]


def test_the_digest_changes_with_the_manifest(tmp_path, runtime):
    one = load(packages.write(tmp_path / "a", packages.above(0.0)), runtime)
    other = load(packages.write(tmp_path / "b", packages.above(0.0), edit=replace('"Tests"', '"Others"')), runtime)
    assert one.digest != other.digest
    assert one.model_sha256 == other.model_sha256


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (replace('vendor = "Tests"', 'vendor = "Tests"\ncolour = 3'), "[model] has an unknown key 'colour'"),
        (replace("[select]", "[sellect]\n[select]"), "The manifest has an unknown table 'sellect'"),
        (replace('layout = "NCDHW"', ""), "[input.x] lacks the key 'layout'."),
        (replace('layout = "NCDHW"', 'layout = "DHW"'), "[input.x] layout must be one of NCDHW, NCHW."),
        (replace('version = "1.0.0"', 'version = "one"'), "[model] version must be a semantic version such as 1.0.0."),
        (replace("min_slices = 2", 'min_slices = "2"'), "[select] min_slices must be a whole number."),
        (replace("min_slices = 2", "rows = [3, 1]"), "[select] rows must be [low, high]."),
        (replace("index = 1", "index = 0"), "[label 1] index must be from 1 to 255."),
        (replace('"SCT", "Lung"]', '"SCT"]'), "[label 1] type must be [value, scheme, meaning]."),
        (with_input("ops = [{ clip = [1, 0] }]"), "[input.x] ops must be clip = [low, high] in rising order"),
        (with_input("ops = [{ blur = 1 }]"), "[input.x] ops must be of clip"),
        (with_input('orientation = "LPL"'), "[input.x] orientation must be three letters"),
        (replace('mode = "whole"', 'mode = "slice"'), "[window] mode must be slice for the layout NCHW"),
        (replace('mode = "whole"', 'mode = "sliding"'), "[window] roi must be three numbers for the mode sliding."),
        (replace('decode = "labels"', 'decode = "scores"'), "[output.y] decode must be one of labels, argmax"),
        (replace('decode = "labels"', 'decode = "boxes"'), "[output.y] decode must be one of labels, argmax"),
        (replace("[golden]", '[result]\nseg = "stl"\n[golden]'), "[result] seg must be one of binary, labelmap, none."),
        (replace('"golden/input.npz" =', '"golden/../../input.npz" ='), "must be a relative path inside the package"),
        (replace('input = "golden/input.npz"', 'input = "LICENSES"'), "[golden] input must name a file of [files]."),
        (replace("opset = 18", "opset = 17"), "[model] opset is 17, but the model's is 18."),
        (replace("opset = 18", 'opset = 18\nmin_ort = "99.0"'), "The model needs ONNX Runtime 99.0"),
        (replace("[input.x]", "[input.z]"), "The model's inputs are x; [input] has z."),
        (replace("[output.y]", "[output.z]"), "The model has no output 'z'; it has y."),
        (replace("[select]", "[select"), "manifest.toml is not TOML"),
        (replace('name = "tiny"', 'name = "other"'), "The package lies in tiny/1.0.0; its place is other/1.0.0."),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_manifest_is_named(edit, sentence, tmp_path, runtime):
    path = packages.write(tmp_path, packages.above(0.0), edit=edit)
    findings = [str(finding) for finding in check(path, runtime)]
    assert any(sentence in finding for finding in findings), findings


def test_all_findings_are_told_not_the_first_only(tmp_path, runtime):
    def edit(text):
        return (
            text.replace('vendor = "Tests"', "")
            .replace("index = 1", "index = 999")
            .replace("[select]", "[select]\nx = 1")
        )

    assert reasons(packages.write(tmp_path, packages.above(0.0), edit=edit), runtime) == [
        "missing_key", "unknown_key", "bad_value",
    ]  # fmt: skip


def test_files_that_were_changed_added_or_taken_away_are_found(tmp_path, runtime):
    path = packages.write(tmp_path, packages.above(0.0))
    (path / "LICENSE").write_bytes(b"another")
    (path / "more.bin").write_bytes(b"x")
    (path / "golden" / "expected.json").unlink()
    assert sorted(reasons(path, runtime)) == ["digest_mismatch", "missing_file", "uncovered_file"]


def test_links_are_refused(tmp_path, runtime):
    path = packages.write(tmp_path, packages.above(0.0))
    os.rename(path / "LICENSE", tmp_path / "LICENSE")
    (path / "LICENSE").symlink_to(tmp_path / "LICENSE")
    assert "not_a_file" in reasons(path, runtime)


def test_a_folder_without_a_manifest_says_so(tmp_path, runtime):
    assert reasons(tmp_path, runtime) == ["manifest_missing"]


def test_large_packages_are_refused(tmp_path, runtime, monkeypatch):
    monkeypatch.setattr(packaged, "MOST_BYTES", 100)
    assert reasons(packages.write(tmp_path, packages.above(0.0)), runtime) == ["too_large"]


def test_operators_of_other_domains_are_refused(tmp_path, runtime):
    content = packages.model([helper.make_node("Evil", ["x"], ["y"], domain="evil.ops")], domains=["evil.ops"])
    assert reasons(packages.write(tmp_path, content, expected=b"{}"), runtime) == ["custom_op"]


def test_operators_hidden_in_a_branch_are_refused_too(tmp_path, runtime):
    out = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
    inner = helper.make_graph([helper.make_node("Evil", ["x"], ["b"], domain="evil.ops")], "branch", [], [out])
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    content = packages.model(
        [helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner)], constants=[yes]
    )
    assert reasons(packages.write(tmp_path, content, expected=b"{}"), runtime) == ["custom_op"]


def external(place):
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    entry = weights.external_data.add()
    entry.key, entry.value = "location", place
    return packages.model([helper.make_node("Mul", ["x", "w"], ["y"])], constants=[weights])


@pytest.mark.parametrize("place", ["../../secrets.bin", "/etc/hostname", "unlisted.data"])
def test_weights_outside_of_the_package_or_unlisted_are_refused(place, tmp_path, runtime):
    assert reasons(packages.write(tmp_path, external(place), expected=b"{}"), runtime) == ["external_data"]


def test_weights_in_a_listed_file_are_loaded(tmp_path, runtime):
    data = np.array([2.0], np.float32).tobytes()
    array = np.random.default_rng(1).normal(0, 500, (1, 1, 3, 8, 9)).astype(np.float32)
    expected = json.dumps({"outputs": {"y": describe(array * np.float32(2))}}).encode()
    path = packages.write(tmp_path, external("model.onnx.data"), expected=expected, extra={"model.onnx.data": data})
    assert load(path, runtime).external


def test_what_is_no_model_is_said_to_be_none(tmp_path, runtime):
    assert reasons(packages.write(tmp_path, b"\x0a\xff\xff\xff", expected=b"{}"), runtime) == ["model_unreadable"]


def test_a_package_that_gives_another_output_is_not_used(tmp_path, runtime):
    path = packages.write(tmp_path, packages.above(0.0))
    expected = (path / "golden" / "expected.json").read_bytes()
    other = packages.write(tmp_path / "other", packages.above(100.0), expected=expected)
    with pytest.raises(PackageError, match="has another sha256 than expected") as raised:
        load(other, runtime)
    assert raised.value.code == raised.value.reason == "golden_mismatch"


@pytest.mark.parametrize("expected", [b"{}", b"not json", b'{"outputs": {}}', b'{"outputs": {"y": {}}}', b"[]"])
def test_a_golden_test_that_says_nothing_is_no_test(expected, tmp_path, runtime):
    found = reasons(packages.write(tmp_path, packages.above(0.0), expected=expected), runtime)
    assert found == ["golden_unreadable"]


def test_a_model_that_fails_on_its_golden_input_is_not_used(tmp_path, runtime):
    content = packages.model([helper.make_node("Reshape", ["x", "s"], ["y"])], out_rank=1,
                             constants=[helper.make_tensor("s", TensorProto.INT64, [1], [7])])  # fmt: skip
    stated = json.dumps({"outputs": {"y": {"shape": [7], "dtype": "float32", "sha256": ""}}}).encode()
    assert reasons(packages.write(tmp_path, content, expected=stated), runtime) == ["golden_failed"]


def test_a_model_changed_after_its_check_is_not_run(tmp_path):
    path = packages.write(tmp_path, packages.above(0.0))
    package = load(path)
    (path / "model.onnx").write_bytes(packages.above(5.0))
    with pytest.raises(PackageError, match="changed after it was checked"):
        package.session(Runtime("cpu"))


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ('decode = "boxes"', "[output.y] lacks the key 'score': the tensor that says how sure each box is."),
        ('decode = "boxes"\nscore = "s"', "The model has no output 's'; it has y."),
        ('decode = "boxes"\nscore = "s"\nformat = "xyxy"', "Boxes are taken from [window] mode"),
        ('decode = "labels"', "A detection needs one [output.<tensor>] with decode = boxes."),
    ],
)
def test_what_a_detection_lacks_is_named(output, sentence, tmp_path, runtime):
    path = packages.write(tmp_path, packages.above(0.0), task="detection", output=output)
    findings = [str(finding) for finding in check(path, runtime)]
    assert any(sentence in finding for finding in findings), findings
