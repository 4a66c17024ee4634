# SPDX-License-Identifier: Apache-2.0
"""What zero masks and codes' entropy would save: blocks against a plain count, readers of a map."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nuq.model_prep.graph import Graph, Layer
from nuq.model_prep.study.compression import bits_of, entropy, filled_blocks, traffic


def conv(name: str, source: str, out: int, into: int) -> Layer:
    return Layer(name, "conv", (source,), np.zeros((out, into, 1, 1), np.float32),
                 np.zeros(out, np.float32))  # fmt: skip


def test_a_map_is_read_once_by_each_layer_behind_it() -> None:
    layers = [conv("a", "input", 8, 3), conv("b", "a", 8, 8), conv("c", "a", 4, 8),
              conv("d", "both", 2, 12)]  # fmt: skip
    graph = Graph("n", (3, 2, 2), layers, {"both": ("b", "c")})
    study: Any = SimpleNamespace(graph=graph, elements=graph.elements)
    # a is written and read twice, b and c are written and read once
    assert traffic(study, {"a": 1.0, "b": 1.0, "c": 2.0}) == 32 * 3 + 32 * 2 + 16 * 2 * 2


def test_blocks_are_counted_channel_by_channel() -> None:
    codes = (np.random.default_rng(7).random((3, 20, 4, 5)) > 0.9).astype(np.uint16)
    filled = [
        bool(codes[image, first : first + 8, row, column].any())
        for image in range(3) for first in (0, 8, 16) for row in range(4) for column in range(5)
    ]  # fmt: skip
    assert filled_blocks(codes) == pytest.approx(np.mean(filled))


def test_entropy_is_between_nothing_and_the_codes_bits() -> None:
    assert entropy(np.array([5, 0, 0, 0])) == 0
    assert entropy(np.full(32, 3)) == 5
    dense = bits_of(np.full(4, 1), 2, 1.0)
    assert (dense.mask, dense.blocks) == (2.5, 2.125)  # where few values are 0 a mask costs
