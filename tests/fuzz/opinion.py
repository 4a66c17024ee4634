# SPDX-License-Identifier: Apache-2.0
"""The second opinion: model_prep's integer reference on the files of a toy network.

The first is the naive model that made them, the third the C++ engine.
"""

from pathlib import Path

import numpy as np
import torch

from formats.network import load
from model_prep.quantize.reference import Reference


def disagreement(folder: Path, vectors: dict[str, np.ndarray]) -> str | None:
    """Where the reference differs from `vectors`, in one sentence, or None."""
    torch.set_num_threads(1)  # small networks, and one process per core
    for name, values in Reference(load(folder)).run(vectors["input"]):
        wrong = np.argwhere(values != vectors[name])
        if len(wrong):
            place = tuple(int(i) for i in wrong[0])
            return (
                f"layer {name}: the integer reference says {values[place]} at {place}, "
                f"the naive model {vectors[name][place]}"
            )
    return None
