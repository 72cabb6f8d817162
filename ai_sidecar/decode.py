"""Stored values of single-frame grey images. Code streams are untrusted: they are decoded by whatever `read` is given,
which for a job is a process that may die (`pacs.services.decoders`)."""

import io
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from ai_sidecar.ports import RunFailed, SourceInstance
from pacs.domain import frames, pixels
from pacs.domain.admission import Inadmissible, admit
from pacs.domain.frames import Description, NoSuchFrame

Decode = Callable[[bytes, Description, str], pixels.Decoded]

MOST_BYTES = 1 << 29  # of one image


def read(instance: SourceInstance, decode: Decode = pixels.decode) -> tuple[Dataset, NDArray[Any]]:
    """The data set, without its pixel data, and the stored values (row, column) with what lies above Bits Stored cut.

    Raises RunFailed for what cannot be decoded, and what `instance.read` raises.
    """
    content = instance.read()
    try:
        samples = _samples(content, decode)
        dataset = dcmread(io.BytesIO(content), stop_before_pixels=True)
    except (Inadmissible, NoSuchFrame, pixels.Undecodable) as error:
        raise _undecodable(f"An image cannot be decoded: {error}") from error
    except Exception as error:  # pydicom raises what it likes on elements that it does not expect
        raise _undecodable(f"An image cannot be read: {type(error).__name__}.") from error
    if str(dataset.get("SOPInstanceUID", "")) != instance.sop_instance_uid:
        raise RunFailed("wrong_instance", "The file holds another instance than the job names.", permanent=True)
    if samples.ndim != 2 or samples.dtype.kind not in "iu":
        raise _undecodable("An image is in colour, or its values are no whole numbers.")
    return dataset, samples


def _samples(content: bytes, decode: Decode) -> NDArray[Any]:
    admitted = admit(content)
    table = frames.table(admitted, content)
    with memoryview(content if admitted.data is None else admitted.data) as view:
        stream = table.read(1, lambda offset, length: bytes(view[offset : offset + length]))
    if table.encapsulated:
        return decode(stream, table.description, table.transfer_syntax_uid).samples
    return pixels.decode(stream, table.description, "", budget=MOST_BYTES).samples


def _undecodable(message: str) -> RunFailed:
    return RunFailed("undecodable", message, permanent=True)
