"""Stored values of single-frame grey images; the codecs are `pacs.domain.pixels`."""

import io
from typing import Any

from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from ai_sidecar.ports import RunFailed, SourceInstance
from pacs.domain import pixels
from pacs.domain.admission import Inadmissible
from pacs.domain.frames import NoSuchFrame

MOST_BYTES = 1 << 29  # of one image


def read(instance: SourceInstance) -> tuple[Dataset, NDArray[Any]]:
    """The data set, without its pixel data, and the stored values (row, column) with what lies above Bits Stored cut.

    Raises RunFailed for what cannot be decoded, and what `instance.read` raises.
    """
    content = instance.read()
    try:
        samples = pixels.frame(content, 0, budget=MOST_BYTES).samples
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


def _undecodable(message: str) -> RunFailed:
    return RunFailed("undecodable", message, permanent=True)
