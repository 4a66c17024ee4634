# SPDX-License-Identifier: Apache-2.0
"""NB, the bits that store a network's activations, and how the papers' tables come to theirs.

000, table VII, and 001, table VII: NB sums elements * bits over the convolutions' outputs. What
their cells were computed from is in docs/papers.md.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

from nuq.model_prep.graph import Graph
from nuq.model_prep.quantize.plan import Plan

FLOAT_BITS = 32
T = TypeVar("T")


def megabytes(bits: float) -> float:
    """Bits as megabytes of 10^6 bytes.

    >>> megabytes(8e6)
    1.0
    """
    return bits / 8 / 10**6


def saved_percent(bits: float) -> float:
    """Memory saved against 32-bit floating point, in percent, by this many bits a value.

    >>> saved_percent(5), saved_percent(11)
    (84.375, 65.625)
    """
    return 100 * (1 - bits / FLOAT_BITS)


def plan_bits(graph: Graph, plan: Plan) -> int:
    """NB of a plan: bits of the stored activations of one image, in layers whose width is fixed."""
    return sum(graph.elements[one.name] * one.bits for one in plan.layers if one.bits is not None)


def average_bits(graph: Graph, plan: Plan) -> float:
    """NB over the number of stored activations."""
    fixed = [one.name for one in plan.layers if one.bits is not None]
    return plan_bits(graph, plan) / sum(graph.elements[name] for name in fixed)


VGG16_LAYERS = (
    "conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3",
    "conv4_1", "conv4_2", "conv4_3", "conv5_1", "conv5_2", "conv5_3",
)  # fmt: skip


def stored(of_inputs: Mapping[str, T]) -> dict[str, T]:
    """The papers' columns of a chain, which are of what a layer reads, by the map stored before it.

    The first column is the image's and falls away; the last layer reads the last map.

    >>> stored({"conv1_1": 8, "conv1_2": 5, "conv2_1": 6})
    {'conv1_1': 5, 'conv1_2': 6}
    """
    names = list(of_inputs)
    return {name: of_inputs[reader] for name, reader in itertools.pairwise(names)}


# Values of the outputs of VGG-16's convolutions, before any pool, from (channels, side).
VGG16_CONV = tuple(
    channels * side * side
    for channels, side in (
        *[(64, 224)] * 2, *[(128, 112)] * 2, *[(256, 56)] * 3, *[(512, 28)] * 3, *[(512, 14)] * 3,
    )
)  # fmt: skip


def table_vii(sizes: Sequence[int], saved: Mapping[str, float]) -> dict[str, float]:
    """NB in MB as the papers compute it: a rounded float size times a rounded percentage.

    The maps of the convolutions take `4 * sum` bytes as floats, here whole MB of 10^6; a scheme
    that saves p percent leaves (100 - p) percent of that, half precision 50.

    Args:
        sizes: values of the convolutions' outputs.
        saved: percent by scheme, as in 001's table VII.

    >>> table_vii(VGG16_CONV, {"knq": 84.4, "half": 50})
    {'knq': 8.424, 'half': 27.0}
    """
    whole = math.floor(megabytes(FLOAT_BITS * sum(sizes)) + 0.5)
    return {name: round(whole * (100 - percent) / 100, 6) for name, percent in saved.items()}
