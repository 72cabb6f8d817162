"""The device is proved, never believed, and runs end when they are told to."""

import threading
import time

import numpy as np
import pytest
from onnx import TensorProto, helper

from ai_sidecar import runtime as runtimes
from ai_sidecar.ports import Interrupted, RunFailed
from ai_sidecar.runtime import CPU, CUDA, Deadline, Halt, Runtime, prove
from tests.ai_sidecar import packages


def no_gpu():
    return prove("auto").provider == CPU


def test_the_cpu_is_what_it_says():
    assert prove("cpu").provider == CPU
    assert Runtime("cpu").problem == ""


@pytest.mark.skipif(not no_gpu(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_a_problem_and_no_fallback():
    runtime = Runtime("cuda:1")
    assert "AI_DEVICE=cpu" in runtime.problem
    with pytest.raises(RunFailed) as raised:
        runtime.session("m", lambda: packages.above(0.0))
    assert raised.value.code == "device"


@pytest.mark.skipif(not no_gpu(), reason="there is a GPU here")
def test_auto_falls_to_the_cpu_and_says_so():
    device = prove("auto")
    assert (device.provider, device.problem) == (CPU, "")
    assert "running on the CPU" in device.note


@pytest.mark.skipif(not no_gpu(), reason="there is a GPU here")
def test_a_build_that_names_a_gpu_is_not_believed(monkeypatch):
    monkeypatch.setattr(runtimes.ort, "get_available_providers", lambda: [CUDA, CPU])
    assert prove("cuda").problem != ""


def endless():
    """A loop that goes on for a very long time."""
    body = helper.make_graph(
        [helper.make_node("Sin", ["old"], ["new"]), helper.make_node("Identity", ["go"], ["more"])],
        "body",
        [helper.make_tensor_value_info("turn", TensorProto.INT64, []),
         helper.make_tensor_value_info("go", TensorProto.BOOL, []),
         helper.make_tensor_value_info("old", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("more", TensorProto.BOOL, []),
         helper.make_tensor_value_info("new", TensorProto.FLOAT, ["n"])],
    )  # fmt: skip
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    return packages.model([helper.make_node("Loop", ["", "yes", "x"], ["y"], body=body)], rank=1, constants=[yes])


def test_a_run_past_its_deadline_is_stopped_from_another_thread():
    session = Runtime("cpu", threads=1).session("endless", endless)
    deadline = Deadline(0.2)
    with pytest.raises(Interrupted):
        session.run({"x": np.ones(10, np.float32)}, Halt(deadline))


def test_a_signal_that_was_set_before_stops_at_once():
    deadline = Deadline(0.0)
    while not deadline.is_set():
        time.sleep(0.001)
    told = threading.Event()
    deadline.call(told.set)
    assert told.is_set()
    with pytest.raises(Interrupted):
        Halt(deadline).check()


def test_a_closed_deadline_never_comes():
    deadline = Deadline(0.05)
    deadline.close()
    time.sleep(0.1)
    assert not deadline.is_set()


def test_input_of_the_wrong_shape_fails_for_good():
    session = Runtime("cpu").session("m", lambda: packages.above(0.0))
    with pytest.raises(RunFailed) as raised:
        session.run({"x": np.ones((2, 2), np.float32)}, Halt())
    assert raised.value.permanent


def test_sessions_are_kept_by_name_and_the_oldest_let_go(monkeypatch):
    monkeypatch.setattr(runtimes, "SESSIONS_KEPT", 2)
    runtime = Runtime("cpu")
    made = []

    def model(name):
        def make():
            made.append(name)
            return packages.above(0.0)

        return make

    for name in ("a", "a", "b", "c", "a"):
        runtime.session(name, model(name))
    assert made == ["a", "b", "c", "a"]
