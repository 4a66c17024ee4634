# SPDX-License-Identifier: Apache-2.0
"""NB, the bits that store a network's activations, and how the papers' tables come to theirs.

000, table VII, and 001, table VII: NB sums elements * bits over the convolutions' outputs. What
their cells were computed from is in docs/papers.md.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from model_prep.graph import Graph
from model_prep.quantize.plan import Plan

FLOAT_BITS = 32
MEGABYTE = {"MB": 10**6, "MiB": 2**20}


def bits_stored(elements: Sequence[int], widths: Sequence[float]) -> float:
    """NB: the sum of elements times bits.

    >>> bits_stored([100, 10], [3, 8])
    380
    """
    return sum(count * bits for count, bits in zip(elements, widths, strict=True))


def megabytes(bits: float, unit: str = "MB") -> float:
    """Bits as megabytes of 10^6 ("MB") or 2^20 bytes ("MiB").

    >>> megabytes(8e6), round(megabytes(8e6, "MiB"), 3)
    (1.0, 0.954)
    """
    return bits / 8 / MEGABYTE[unit]


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


@dataclass(frozen=True)
class Maps:
    """Sizes of a network's feature maps, in values.

    Attributes:
        conv: outputs of the convolutions, before any pool.
        pool: outputs of the pools.
        fc: outputs of the fully connected layers.
        norm: outputs of the normalisations.
        image: the network's input.
    """

    conv: tuple[int, ...]
    pool: tuple[int, ...]
    fc: tuple[int, ...]
    norm: tuple[int, ...] = ()
    image: int = 0

    def readings(self) -> dict[str, int]:
        """How many values are stored, for every way to say which maps count."""
        parts = {
            "pools": sum(self.pool), "norms": sum(self.norm), "fc": sum(self.fc),
            "image": self.image,
        }  # fmt: skip
        found = {"conv": sum(self.conv), "conv, each twice": 2 * sum(self.conv)}
        for name, size in parts.items():
            if size:
                found.update({f"{old} + {name}": n + size for old, n in list(found.items())})
        return found


def _maps(*shapes: tuple[int, int]) -> tuple[int, ...]:
    """Sizes of square maps from (channels, side)."""
    return tuple(channels * side * side for channels, side in shapes)


VGG16 = Maps(
    conv=_maps(
        *[(64, 224)] * 2, *[(128, 112)] * 2, *[(256, 56)] * 3, *[(512, 28)] * 3, *[(512, 14)] * 3
    ),
    pool=_maps((64, 112), (128, 56), (256, 28), (512, 14), (512, 7)),
    fc=(4096, 4096, 1000),
    image=3 * 224 * 224,
)
ALEXNETS: Mapping[str, Maps] = {
    "two groups, 227 pixels": Maps(
        conv=_maps((96, 55), (256, 27), (384, 13), (384, 13), (256, 13)),
        pool=_maps((96, 27), (256, 13), (256, 6)),
        fc=(4096, 4096, 1000),
        norm=_maps((96, 55), (256, 27)),
        image=3 * 227 * 227,
    ),
    "one tower, 224 pixels": Maps(
        conv=_maps((64, 55), (192, 27), (384, 13), (256, 13), (256, 13)),
        pool=_maps((64, 27), (192, 13), (256, 6)),
        fc=(4096, 4096, 1000),
        image=3 * 224 * 224,
    ),
}


def table_vii(maps: Maps, saved: Mapping[str, float]) -> dict[str, float]:
    """NB in MB as the papers compute it: a rounded float size times a rounded percentage.

    The maps of the convolutions take `4 * sum` bytes as floats, here whole MB of 10^6; a scheme
    that saves p percent leaves (100 - p) percent of that, half precision 50.

    Args:
        maps: sizes.
        saved: percent by scheme, as in 001's table VII.

    >>> table_vii(VGG16, {"knq": 84.4, "half": 50})
    {'knq': 8.424, 'half': 27.0}
    """
    whole = math.floor(megabytes(FLOAT_BITS * sum(maps.conv)) + 0.5)
    return {name: round(whole * (100 - percent) / 100, 6) for name, percent in saved.items()}
