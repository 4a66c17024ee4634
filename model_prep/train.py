# SPDX-License-Identifier: Apache-2.0
"""Trains the networks whose weights come with the project, from fixed seeds.

Imports torch and, of the project, the data, error, file, float, Graph and network modules.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from model_prep import data, networks
from model_prep.errors import UserError
from model_prep.files import atomic_write_bytes
from model_prep.float_model import convolve, max_pool
from model_prep.graph import INPUT, Graph
from model_prep.networks.spec import NetworkSpec

SEED = 8
EPOCHS = 60
BATCH = 64
RATE = 3e-3
WEIGHT_DECAY = 1e-4
SHIFT = 1  # pixels a training image may be moved by


def train(net: str, out: Path | None = None) -> float:
    """Train `net`, print and return its test accuracy in percent, and store its weights.

    Args:
        net: a network with packaged weights.
        out: where to store them; default: the packaged place.

    Raises:
        UserError: the network has no training recipe here, or the file cannot be written.
    """
    spec = networks.get(net)
    if spec.packaged is None:
        recipes = ", ".join(name for name, other in networks.registry().items() if other.packaged)
        raise UserError(f"NET must be one with a training recipe ({recipes}), not {net}")
    fit, test = data.split(data.load(spec, None), data.DIGITS_TEST)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # faster on so small a network, and the sums do not depend on a count
    try:
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(SEED)
            graph, state = _fit(spec, data.to_float(spec, fit.pixels), torch.from_numpy(fit.labels))
    finally:
        torch.set_num_threads(threads)
    with torch.inference_mode():
        logits = _forward(graph, state, data.to_float(spec, test.pixels))
    accuracy = float((logits.argmax(1).numpy() == test.labels).mean() * 100)
    path = out or spec.packaged
    _save({name: tensor.detach() for name, tensor in state.items()}, path)
    print(f"{net}: {accuracy:.2f}% of {len(test)} test images; written: {path}")
    return accuracy


def _fit(
    spec: NetworkSpec, x: torch.Tensor, labels: torch.Tensor
) -> tuple[Graph, dict[str, torch.Tensor]]:
    """Train on images float32 [N, C, H, W], moved about by up to SHIFT pixels; labels int64 [N].

    Returns:
        The structure, and the trained tensors by their names in a state_dict.
    """
    state = {name: torch.zeros(shape) for name, shape in spec.state_shapes.items()}
    for name, tensor in state.items():
        if name.endswith("weight"):
            torch.nn.init.kaiming_normal_(tensor)
        tensor.requires_grad_()
    graph = spec.build({name: tensor.detach().numpy() for name, tensor in state.items()})
    optimizer = torch.optim.AdamW(state.values(), RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    background = float(x.min())
    for _ in tqdm(range(EPOCHS), desc=f"training {spec.name}", disable=not sys.stderr.isatty()):
        for index in torch.randperm(len(x)).split(BATCH):
            down, right = torch.randint(0, 2 * SHIFT + 1, (2,)).tolist()
            moved = F.pad(x[index], (SHIFT,) * 4, value=background)
            moved = moved[:, :, down : down + x.shape[2], right : right + x.shape[3]]
            loss = F.cross_entropy(_forward(graph, state, moved), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return graph, state


def _forward(graph: Graph, state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Logits of the graph's structure with trainable tensors named like its layers."""
    tensors = {INPUT: x}
    for layer in graph.layers:
        weight = state[f"{layer.name}.weight"].reshape(layer.weight.shape)
        out = convolve(layer, tensors[layer.inputs[0]], weight, state[f"{layer.name}.bias"])
        out = F.relu(out) if layer.relu else out
        tensors[layer.name] = max_pool(layer.pool, out) if layer.pool else out
    return out.flatten(1)


def _save(state: dict[str, torch.Tensor], path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    atomic_write_bytes(path, buffer.getvalue())
