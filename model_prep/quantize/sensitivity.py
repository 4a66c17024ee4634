# SPDX-License-Identifier: Apache-2.0
"""Sensitivity: how much the network's output depends on each stored activation, without labels.

Of a network that answers by classes it is the squared gradient of the log-likelihood of a class
that is drawn from the float network's own output. That is the diagonal of the Fisher matrix, half
of which times the squared error is the expected Kullback-Leibler divergence to second order
(Kunstner et al. 2019, on why the drawn class and not the label). Of any other network it is the
squared gradient of the output along a random direction, whose mean times the squared error is the
expected squared error of the output.
"""

from collections.abc import Iterable, Mapping, Set

import numpy as np
import torch
import torch.nn.functional as F

from nuq.formats.arithmetic import lowest
from nuq.model_prep import run
from nuq.model_prep.graph import Graph
from nuq.model_prep.parallel import ordered
from nuq.model_prep.quantize.calibrate import to_integers
from nuq.model_prep.quantize.plan import SEED

Histograms = dict[str, np.ndarray]  # by layer name


def answers(graph: Graph) -> bool:
    """Whether the output is a number for each of several classes."""
    return graph.classifies and graph.layers[-1].out_shape[0] > 1


def histograms(
    graph: Graph, batches: Iterable[torch.Tensor], fracs: Mapping[str, int], qm: int,
    signed: Set[str], seed: int = SEED,
) -> tuple[Histograms, Histograms]:  # fmt: skip
    """Counts and summed squared gradients of every integer y that stored activations are.

    Args:
        graph: the float network.
        batches: its inputs, float32 [N, C, H, W]; what is drawn depends on how they are divided.
        fracs: F by name of the layers to measure.
        qm: width of y.
        signed: the layers whose y may be negative.
        seed: of the drawn classes or directions.

    Returns:
        (counts int64 [2^qm], weights float64 [2^qm]), the smallest y first. Gradients are with
        respect to the stored value, in units of the network's float values.
    """
    counts = {name: np.zeros(1 << qm, np.int64) for name in fracs}
    weights = {name: np.zeros(1 << qm) for name in fracs}

    def measure(numbered: tuple[int, torch.Tensor]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        found = {}
        for name, encoded, squared in squared_gradients(graph, *numbered, fracs.keys(), seed):
            y = to_integers(encoded, qm, fracs[name], name in signed)
            y = (y - lowest(qm, name in signed)).flatten()
            found[name] = (
                torch.bincount(y, minlength=1 << qm).numpy(),
                torch.bincount(y, weights=squared.flatten(), minlength=1 << qm).numpy(),
            )
        return found

    for found in ordered(measure, enumerate(batches)):
        for name, (count, weight) in found.items():
            counts[name] += count
            weights[name] += weight
    return counts, weights


def squared_gradients(
    graph: Graph, number: int, x: torch.Tensor, names: Set[str], seed: int = SEED
) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """(layer, what it encodes, squared gradients float64) of a batch, both [N, C, H, W].

    Gradients are with respect to what it stores.

    Args:
        graph: the float network.
        number: of the batch; what is drawn depends on it, and on `seed`.
        x: the batch's inputs, float32 [N, C, H, W].
        names: of the layers.
        seed: of the drawn classes or directions.
    """
    # torch looks at 32 bits of it only: 16 for the seed, and as many for the batch
    drawn_from = ((seed - SEED << 16) + number) % (1 << 32)
    generator = torch.Generator().manual_seed(drawn_from)
    kept, before, ends = {}, {}, []
    with torch.enable_grad():
        for layer, encoded, stored in run.run_encoded(graph, x.requires_grad_(), gradients=True):
            if layer.name in names:
                kept[layer.name], before[layer.name] = stored, encoded
            if layer.name in graph.heads:
                ends.append(stored.flatten(1))
        output = run.join(ends)
        if answers(graph):
            odds = output.detach().softmax(1)
            drawn = torch.multinomial(odds, 1, generator=generator)[:, 0]
            loss = F.cross_entropy(output, drawn, reduction="sum")
        else:
            loss = (output * torch.randn(output.shape, generator=generator)).sum()
    if not kept:  # a network of one layer, whose output stays raw
        return []
    found = torch.autograd.grad(loss, list(kept.values()))
    return [
        (name, before[name].detach(), one.double().square())
        for name, one in zip(kept, found, strict=True)
    ]
