"""The reference model `ct-lung-body`: body, right lung and left lung of a chest CT, by rules instead of weights.

    python -m ai_sidecar.reference.ct_lung_body OUTDIR

writes the package `OUTDIR/ct-lung-body/1.0.0`, the same bytes every time. The model (opset 18) takes Hounsfield units
(slice, 1, row, column) at 1.5 mm in the plane, a few slices at a time; it looks at each slice alone, so any distance
between slices will do:

1. Air is below -400 HU. The air around the patient grows from the border of each slice until nothing changes: on
   quarter-size masks, where only cells full of air count, then by 8 steps at full size.
2. The body is what is left, opened by 9 x 9 (the table goes).
3. Lung is between -980 and -400 HU inside the body (airways and gas in the bowel are darker), opened by 3 x 3 and
   closed by 9 x 9 (vessels come back).
4. Each slice is split at the column with the least lung near the middle of the body.

Only comparisons, maxima and sums of whole numbers decide, so every machine gives the same labels.
"""

import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ai_sidecar.golden import describe
from ai_sidecar.reference.graph import build
from ai_sidecar.runtime import CPU, create

NAME, VERSION = "ct-lung-body", "1.0.0"


def golden_input() -> NDArray[np.float32]:
    """A small chest, (6, 1, 80, 100) Hounsfield units: body, table, two lungs, vessels, airway, gas in the bowel."""
    y, x = np.mgrid[0:80, 0:100].astype(np.float32)
    values = np.full((6, 80, 100), -1000, np.int16)
    for k in range(6):
        plane = values[k]
        plane[74:77, 10:90] = -150
        plane[((x - 50) / 42) ** 2 + ((y - 38) / 30) ** 2 < 1] = 40
        for centre, wide in ((28, 14), (72, 13)):
            if k >= 1:
                plane[((x - centre) / wide) ** 2 + ((y - 38) / (14 + k)) ** 2 < 1] = -850
        plane[(x - 28 - k) ** 2 + (y - 36) ** 2 < 5] = 60
        plane[(x - 50) ** 2 + (y - 30) ** 2 < 16] = -1000 if k > 2 else 40
        if k == 0:
            plane[((x - 62) / 9) ** 2 + ((y - 30) / 7) ** 2 < 1] = -995
    return values[:, None].astype(np.float32)


def golden_npz(array: NDArray[np.float32], tensor: str = "hu") -> bytes:
    """A compressed npz without times, so that its bytes are the same every time."""
    member, stream = io.BytesIO(), io.BytesIO()
    np.save(member, array, allow_pickle=False)
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        entry = zipfile.ZipInfo(f"{tensor}.npy", (1980, 1, 1, 0, 0, 0))
        archive.writestr(entry, member.getvalue(), zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def expected(model: bytes, array: NDArray[np.float32]) -> bytes:
    """What the model makes of the golden input."""
    labels = create(model, [CPU], 1).run(["labels"], {"hu": array})[0]
    stated = {"outputs": {"labels": describe(labels)}, "dice": 0.999}
    return (json.dumps(stated, indent=2, sort_keys=True) + "\n").encode()


def package(licence: bytes) -> dict[str, bytes]:
    """All files of the package by name."""
    model, array = build(), golden_input()
    files = {
        "model.onnx": model,
        "LICENSE": licence,
        "golden/input.npz": golden_npz(array),
        "golden/expected.json": expected(model, array),
    }
    return {"manifest.toml": _manifest(files).encode(), **files}


def _manifest(files: dict[str, bytes]) -> str:
    lines = [f'"{name}" = "{hashlib.sha256(content).hexdigest()}"' for name, content in sorted(files.items())]
    return MANIFEST.replace("@FILES@", "\n".join(lines)).replace("@NAME@", NAME).replace("@VERSION@", VERSION)


MANIFEST = """\
# Made by: python -m ai_sidecar.reference.ct_lung_body OUTDIR. Change that, not this.
[model]
name = "@NAME@"
version = "@VERSION@"
task = "segmentation"
summary = "Body, right lung and left lung of a chest CT, by thresholds and morphology."
vendor = "Filmroom"
licence = "Apache-2.0"
allowed_use = "research"
intended_use = "Shows that a node, its sidecar and its viewers work together. It is no medical device."
opset = 18
min_ort = "1.17"

[files]
@FILES@

[select]
modality = ["CT"]
sop_classes = ["1.2.840.10008.5.1.4.1.1.2"]
body_part = ["*CHEST*", "*THORAX*", "*LUNG*"]  # an unnamed part may be a head: no result is better than a wrong one
rows = [64, 2048]
min_slices = 6
max_slices = 2000
require = ["uniform_spacing", "single_orientation", "no_gantry_tilt"]
choose = "thinnest"

# The kernels of the model are in voxels of 1.5 mm: this spacing is part of it. Slices stay as they are.
[input.hu]
layout = "NCHW"
dtype = "float32"
orientation = "LPS"
spacing_mm = [0.0, 1.5, 1.5]
resample = "linear"
values = "hu"
ops = [{ clip = [-1024.0, 3071.0] }]
pad_value = -1024.0

[window]
mode = "slice"
batch = 16

[output.labels]
activation = "none"
decode = "labels"
largest_component = true
min_volume_ml = 1.0

[[label]]
index = 1
name = "Body"
category = ["91723000", "SCT", "Anatomical Structure"]
type = ["22943007", "SCT", "Trunk"]
region = ["816094009", "SCT", "Chest"]
colour = [200, 160, 130]
measurements = ["volume", "mean"]

[[label]]
index = 2
name = "Right lung"
category = ["91723000", "SCT", "Anatomical Structure"]
type = ["39607008", "SCT", "Lung"]
laterality = ["24028007", "SCT", "Right"]
colour = [80, 150, 220]
measurements = ["volume", "mean"]

[[label]]
index = 3
name = "Left lung"
category = ["91723000", "SCT", "Anatomical Structure"]
type = ["39607008", "SCT", "Lung"]
laterality = ["7771000", "SCT", "Left"]
colour = [90, 200, 120]
measurements = ["volume", "mean"]

[result]
seg = "binary"
sr = "always"
series_description = "Lungs and body"

[run]
device = "auto"
timeout_s = 300.0
max_attempts = 3
priority = "normal"

[golden]
input = "golden/input.npz"
expected = "golden/expected.json"
"""


def main(arguments: Sequence[str]) -> int:
    """Write the package below a folder; the licence is the repository's."""
    if len(arguments) != 1:
        print("usage: python -m ai_sidecar.reference.ct_lung_body OUTDIR", file=sys.stderr)
        return 2
    licence = (Path(__file__).parents[2] / "LICENSE").read_bytes()
    target = Path(arguments[0]) / NAME / VERSION
    for name, content in package(licence).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)
    print(target)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
