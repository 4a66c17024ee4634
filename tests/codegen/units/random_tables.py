# SPDX-License-Identifier: Apache-2.0
"""Random tables for the conversion units' tests."""

import numpy as np

from codegen.units.tables import Entry, Tables, seeded_quantizer


def random_tables(scheme: str, count: int, seed: int, variant: str = "floor") -> Tables:
    """Tables of `count` layers with random widths, at random layer indices."""
    rng = np.random.default_rng(seed)
    places = np.sort(rng.choice(2 * count + 1, size=count, replace=False)).tolist()
    entries = []
    for index in places:
        qm = int(rng.integers(4, 14))
        bits = int(rng.integers(1, min(qm, 6) + 1))
        quantizer = seeded_quantizer(rng, scheme, bits, qm)
        if scheme == "enq":
            quantizer = type(quantizer)("enq", bits, qm, 0, variant, None)
        entries.append(Entry(index, f"layer{index}", quantizer))
    return Tables(f"seed {seed}", scheme, 2 * count + 1, tuple(entries))
