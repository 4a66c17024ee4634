# SPDX-License-Identifier: Apache-2.0
"""Histograms weighted by how much the network's answer depends on each activation (label-free).

The weight of a stored value is the squared gradient of the log-likelihood of a class that is drawn
from the float network's own output: the diagonal of the Fisher matrix, half of which times the
squared error is the expected Kullback-Leibler divergence to second order (Kunstner et al. 2019,
on why the drawn class and not the label).
"""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
import torch.nn.functional as F

from formats.arithmetic import lowest
from model_prep import run
from model_prep.graph import Graph
from model_prep.quantize.calibrate import to_integers
from model_prep.quantize.plan import Plan


def fisher_histograms(
    graph: Graph, batches: Iterable[torch.Tensor], plan: Plan, qm: int, fracs: Mapping[str, int],
    seed: int = 1,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:  # fmt: skip
    """Counts and summed squared gradients of every y, by owner of a quantizer.

    Args:
        graph: the float network.
        batches: calibration inputs, float32 [N, C, H, W].
        plan: says which layers are quantized, share and count.
        qm: width of y.
        fracs: F of y by layer name.
        seed: of the drawn classes.

    Returns:
        (counts int64 [2^qm], weights float64 [2^qm]), each by owner's name. Gradients are with
        respect to the stored value, in units of the network's float values.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = {one.name: one for one in plan.layers if one.scheme is not None and one.counted}
    owners = {one.owner for one in layers.values()}
    counts = {name: torch.zeros(1 << qm, dtype=torch.int64) for name in owners}
    weights = {name: torch.zeros(1 << qm, dtype=torch.float64) for name in owners}
    for x in batches:
        kept, logits = _run(graph, x, layers.keys())
        drawn = torch.multinomial(logits.detach().softmax(1), 1, generator=generator)[:, 0]
        with torch.enable_grad():
            loss = F.cross_entropy(logits, drawn, reduction="sum")
        grads = torch.autograd.grad(loss, list(kept.values()))
        for (name, stored), grad in zip(kept.items(), grads, strict=True):
            one = layers[name]
            y = to_integers(stored.detach(), qm, fracs[name], one.signed)
            y = (y - lowest(qm, one.signed)).flatten()
            counts[one.owner] += torch.bincount(y, minlength=1 << qm)
            squared = grad.flatten().double().square()
            weights[one.owner] += torch.bincount(y, weights=squared, minlength=1 << qm)
    return (
        {name: count.numpy() for name, count in counts.items()},
        {name: weight.numpy() for name, weight in weights.items()},
    )


def _run(
    graph: Graph, x: torch.Tensor, wanted: Iterable[str]
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """(stored outputs of the wanted layers with gradients, logits)."""
    names, kept = set(wanted), {}
    with torch.enable_grad():
        for layer, stored in run.run(graph, x.requires_grad_(), run.float_layer, gradients=True):
            if layer.name in names:
                kept[layer.name] = stored
        return kept, stored.flatten(1)
