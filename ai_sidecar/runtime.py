"""ONNX Runtime behind one door: the device proved, threads counted, runs that can be stopped.

What a build offers says nothing about the machine, and a session asked for a GPU that is not there runs on the CPU
without a word. So the only proof is the first provider of a session that exists (ai.md 1.4).
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ai_sidecar.ports import Interrupted, RunFailed, StopSignal

ort: Any = onnxruntime  # its names are made at run time, where no type checker sees them
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
SESSIONS_KEPT = 8
IR_VERSION = 8  # what runtimes since 1.15 read
QUIET = 3  # errors only: warnings name shapes of no interest to an operator

Array = NDArray[Any]
Tensors = Mapping[str, Array]


class Never:
    """A stop signal that is never set."""

    def is_set(self) -> bool:
        return False

    def call(self, callback: Callable[[], None]) -> None:
        """Nothing will ever be called."""


class Deadline:
    """A stop signal that sets itself after so many seconds; end it with `close`."""

    def __init__(self, seconds: float) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._timer.start()

    def is_set(self) -> bool:
        return self._event.is_set()

    def call(self, callback: Callable[[], None]) -> None:
        """Have something called when the time is over, at once if it is."""
        with self._lock:
            self._callbacks.append(callback)
            late = self._event.is_set()
        if late:
            callback()

    def close(self) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        with self._lock:
            self._event.set()
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()


class Halt:
    """A stop signal as ONNX Runtime takes it: one `RunOptions` for all runs of a job."""

    def __init__(self, stop: StopSignal | None = None) -> None:
        self.stop = stop or Never()
        self.options = ort.RunOptions()
        self.options.log_severity_level = QUIET
        # volumes differ in shape from job to job: what the arena took for one is given back, or it would only grow
        self.options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self.stop.call(self._terminate)

    def check(self) -> None:
        """Raises Interrupted when it is time to stop."""
        if self.stop.is_set():
            raise Interrupted("The run was told to stop.")

    def _terminate(self) -> None:
        self.options.terminate = True


class Session:
    """A model that is loaded. `provider` is where it really runs."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.provider: str = session.get_providers()[0]
        self.outputs: tuple[str, ...] = tuple(output.name for output in session.get_outputs())

    def run(self, feeds: Tensors, halt: Halt, outputs: Sequence[str] = ()) -> list[Array]:
        """The output tensors by name, all by default. Raises Interrupted, or RunFailed."""
        halt.check()
        try:
            return [*self._session.run(list(outputs or self.outputs), dict(feeds), halt.options)]
        except Exception as error:  # the runtime's classes differ from build to build
            halt.check()
            raise _failure(error) from error


@dataclass(frozen=True, slots=True)
class Device:
    """What the proof of a device came to. `problem` is a sentence when nothing can run; `note` one worth telling."""

    wanted: str
    provider: str = ""
    options: Mapping[str, str] | None = None
    problem: str = ""
    note: str = ""


class Runtime:
    """Sessions on one device, kept by name. Thread-safe. `threads` per session; 0 = one for each core."""

    def __init__(self, device: str = "cpu", threads: int = 0) -> None:
        self.threads = threads
        self.device = prove(device)
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def problem(self) -> str:
        """Why nothing can run here; empty when all is well. Belongs on `/ready`."""
        return self.device.problem

    def session(self, name: str, model: Callable[[], bytes | Path], *, cpu: bool = False) -> Session:
        """The session of this name, made of a model's bytes or file when it is not there. Raises RunFailed."""
        key = f"{name}@{CPU if cpu else self.device.provider}"
        with self._lock:
            if key in self._sessions:
                self._sessions.move_to_end(key)
                return self._sessions[key]
            session = self._create(model(), cpu=cpu)
            self._sessions[key] = session
            while len(self._sessions) > SESSIONS_KEPT:
                self._sessions.popitem(last=False)
            return session

    def _create(self, model: bytes | Path, *, cpu: bool) -> Session:
        if self.device.problem and not cpu:
            raise RunFailed("device", self.device.problem)
        on_cpu = cpu or self.device.provider == CPU
        providers = [CPU] if on_cpu else [(self.device.provider, dict(self.device.options or {})), CPU]
        try:
            session = Session(create(model, providers, self.threads))
        except Exception as error:
            raise _failure(error, "model_unloadable") from error
        if not on_cpu and session.provider != self.device.provider:
            raise RunFailed("device", f"The model runs on {session.provider} instead of {self.device.provider}.")
        return session


def create(model: bytes | Path, providers: Sequence[Any], threads: int) -> Any:
    """A bare session with our options."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = QUIET
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # cores belong to the archive too
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(source, options, providers=list(providers))


def prove(device: str) -> Device:
    """Find out where sessions really run. `device` is `cpu`, `cuda`, `cuda:N` or `auto` (setting AI_DEVICE)."""
    if device == "cpu":
        return Device(device, CPU)
    number = device.partition(":")[2] or "0"
    options = {"device_id": number, "arena_extend_strategy": "kSameAsRequested"}
    provider = _first_provider(options)
    if provider == CUDA:
        return Device(device, CUDA, options)
    sentence = f"No GPU works here (asked for {CUDA}, device {number}; sessions run on {provider})"
    if device == "auto":
        return Device(device, CPU, note=f"{sentence}; running on the CPU.")
    return Device(device, problem=f"{sentence}. Set AI_DEVICE=cpu or auto, or repair the GPU and its libraries.")


def _first_provider(options: Mapping[str, str]) -> str:
    if CUDA not in ort.get_available_providers():
        return CPU
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    try:
        session = create(_identity(), [(CUDA, dict(options)), CPU], 1)
        session.run(None, {"x": np.zeros(1, np.float32)})
    except Exception:
        return "no provider"
    first: str = session.get_providers()[0]
    return first


def _identity() -> bytes:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "proof", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = IR_VERSION
    return serialised(model)


def serialised(model: onnx.ModelProto) -> bytes:
    """A model's bytes, the same for the same model."""
    return bytes(model.SerializeToString(deterministic=True))


def _failure(error: Exception, reason: str = "inference") -> RunFailed:
    text = " ".join(str(error).split())[:300]
    if "allocate" in text or "out of memory" in text.lower():
        return RunFailed(
            "out_of_memory", "The model ran out of memory; give the sidecar more, or use a smaller [window]."
        )
    permanent = reason == "model_unloadable" or type(error).__name__ in ("InvalidArgument", "NotImplemented")
    return RunFailed(reason, f"ONNX Runtime refused: {text}", permanent=permanent)
