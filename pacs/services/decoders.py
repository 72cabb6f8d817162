"""Decoding of frames, and coding them anew, in processes that may die: code streams are parsed in C (security.md 2).

A decoder process has a memory limit, a time limit for each frame and an empty environment; it knows no file, socket or
setting. Its death is the error of one request, and the next request gets a fresh one.
"""

import json
import os
import queue
import resource
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np

from pacs.domain import encoders, pixels
from pacs.domain.encoders import Encoded, Unencodable
from pacs.domain.frames import Description
from pacs.domain.pixels import BUDGET, Decoded, Undecodable
from pacs.errors import Unavailable

SECONDS = 30.0  # for one frame
START_SECONDS = 60.0  # until a process has loaded its codecs
WAIT_SECONDS = 60.0  # for a decoder that has time
MEMORY = 4 << 30  # address space of a decoder: several times the largest frame
T = TypeVar("T")
_LENGTH = struct.Struct("<I")
_ROOT = Path(__file__).resolve().parents[2]


class Decoders:
    """At most `count` decoder processes, started when they are needed and kept. Thread-safe.

    All questions raise Unavailable when no decoder has time for a minute.
    """

    def __init__(self, count: int = 2, *, seconds: float = SECONDS, memory: int = MEMORY, budget: int = BUDGET) -> None:
        self._seconds, self._memory, self._budget = seconds, memory, budget
        self._idle: queue.LifoQueue[_Decoder | None] = queue.LifoQueue()
        self._closed = False
        for _place in range(count):
            self._idle.put(None)

    def decode(self, stream: bytes, description: Description, transfer_syntax_uid: str) -> Decoded:
        """As `pacs.domain.pixels.decode`; raises Undecodable also when the decoder died or took too long."""
        answer, samples = self._ask(_Question(stream, description, transfer_syntax_uid))
        array = np.frombuffer(samples, answer["dtype"]).reshape(answer["shape"])
        return Decoded(array, answer["photometric_interpretation"])

    def recode(
        self, stream: bytes, description: Description, transfer_syntax_uid: str, target: str, quality: int
    ) -> Encoded:
        """As `pacs.domain.encoders.recode`; raises Undecodable also when the decoder died or took too long."""
        question = _Question(stream, description, transfer_syntax_uid, target, quality)
        answer, made = self._ask(question)
        return Encoded(made, answer["photometric_interpretation"])

    def _ask(self, question: "_Question") -> tuple[dict[str, Any], bytes]:
        try:
            decoder = self._idle.get(timeout=WAIT_SECONDS)
        except queue.Empty:
            raise Unavailable("All decoders have been at work for a minute; ask again.") from None
        try:
            if self._closed:
                raise Undecodable("the node is stopping")
            if decoder is None:
                decoder = _Decoder(self._memory)
            return decoder.answer(question, self._budget, self._seconds)
        finally:
            if decoder is not None and (decoder.is_dead or self._closed):
                decoder.close()
                decoder = None
            self._idle.put(decoder)

    def close(self) -> None:
        """End all decoders; one at work ends with its frame. Idempotent."""
        self._closed = True
        for _place in range(self._idle.qsize()):
            try:
                decoder = self._idle.get_nowait()
            except queue.Empty:
                break
            if decoder is not None:
                decoder.close()
            self._idle.put(None)


class _Question(NamedTuple):
    """A stored frame, and the transfer syntax it is wanted in; "" asks for its samples."""

    stream: bytes
    description: Description
    source: str
    target: str = ""
    quality: int = 0


class _Decoder:
    """One process and its two pipes; used by one thread at a time."""

    def __init__(self, memory: int) -> None:
        self.is_dead, self._is_started = False, False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pacs.services.decoders", str(memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": str(_ROOT), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            cwd="/",
            start_new_session=True,
        )

    def answer(self, question: _Question, budget: int, seconds: float) -> tuple[dict[str, Any], bytes]:
        head = question._asdict() | {"description": asdict(question.description), "budget": budget}
        stream = head.pop("stream")
        if not self._is_started:
            self._within(START_SECONDS, lambda: _receive(self._pipe(self._process.stdout)))
            self._is_started = True
        answer, body = self._within(seconds, lambda: self._exchange(head, stream))
        if "undecodable" in answer:
            raise Undecodable(answer["undecodable"])
        if "unencodable" in answer:
            raise Unencodable(answer["unencodable"])
        return answer, body

    def _exchange(self, head: dict[str, Any], stream: bytes) -> tuple[dict[str, Any], bytes]:
        _send(self._pipe(self._process.stdin), head, stream)
        return _receive(self._pipe(self._process.stdout))

    def _within(self, seconds: float, call: Callable[[], T]) -> T:
        """What the process says in so many seconds. Raises Undecodable when it dies or is ended."""
        late = threading.Timer(seconds, self._process.kill)
        late.start()
        try:
            return call()
        except (OSError, EOFError):
            self.is_dead = True
            raise Undecodable("its decoder died or took too long") from None
        finally:
            late.cancel()

    def _pipe(self, pipe: IO[bytes] | None) -> IO[bytes]:
        if pipe is None:
            raise EOFError
        return pipe

    def close(self) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # bytes for a process that is gone
                    continue
        self._process.wait()


def _send(pipe: IO[bytes], head: dict[str, Any], body: bytes | memoryview) -> None:
    text = json.dumps({**head, "bytes": len(body)}).encode()
    pipe.write(_LENGTH.pack(len(text)) + text)
    pipe.write(body)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    head = json.loads(_exactly(pipe, *_LENGTH.unpack(_exactly(pipe, _LENGTH.size))))
    return head, _exactly(pipe, head["bytes"])


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    found = pipe.read(size)
    if len(found) < size:
        raise EOFError
    return found


def main(memory: int) -> None:
    """The life of a decoder process: frames in on standard input, samples out on standard output."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    into, out = os.fdopen(0, "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints must not be taken for samples
    _send(out, {}, b"")  # from now on the time of each frame counts
    while True:
        try:
            question, stream = _receive(into)
        except EOFError:
            return
        answer, body = _answer(question, stream)
        _send(out, answer, body)


def _answer(question: dict[str, Any], stream: bytes) -> tuple[dict[str, Any], bytes | memoryview]:
    try:
        return (_recoded if question["target"] else _decoded)(question, stream)
    except Undecodable as reason:
        return {"undecodable": reason.message}, b""
    except Unencodable as reason:
        return {"unencodable": reason.message}, b""
    except MemoryError:
        return {"undecodable": "it needs more memory than a decoder may have"}, b""


def _decoded(question: dict[str, Any], stream: bytes) -> tuple[dict[str, Any], memoryview]:
    about = Description(**question["description"])
    found = pixels.decode(stream, about, question["source"], budget=question["budget"])
    samples = np.ascontiguousarray(found.samples)
    facts = {"dtype": samples.dtype.str, "shape": samples.shape}
    return {**facts, "photometric_interpretation": found.photometric_interpretation}, samples.data.cast("B")


def _recoded(question: dict[str, Any], stream: bytes) -> tuple[dict[str, Any], bytes]:
    about = Description(**question["description"])
    found = encoders.recode(
        stream,
        about,
        question["source"],
        question["target"],
        quality=question["quality"],
        budget=question["budget"],
    )
    return {"photometric_interpretation": found.photometric_interpretation}, found.stream


if __name__ == "__main__":
    main(int(sys.argv[1]))
