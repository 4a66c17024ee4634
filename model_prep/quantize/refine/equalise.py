# SPDX-License-Identifier: Apache-2.0
"""Channel scaling that makes one table per layer suit all of its channels (exact in float).

A ReLU, a LeakyReLU and a max pool commute with positive factors, so an output channel may be scaled
and the readers' weights divided by the same factor (Nagel et al. 2019, there for weight ranges).
With the same number of bits a channel's error is least where the table has its channel's scale,
whatever the channel's weight in the result; so all channels of a layer get the same one, and so do
those of other layers that share its table and can be scaled.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

import numpy as np
import torch

from nuq.formats.activation import Activation
from nuq.model_prep import run
from nuq.model_prep.graph import INPUT, Graph, Layer
from nuq.model_prep.parallel import ordered
from nuq.model_prep.quantize.sharing import forced

_MOST = 64.0  # factor between a channel's scale and the layer's, either way
Scales = Mapping[str, np.ndarray]  # float64 [C] by name of a convolution in `scalable`


def readers(graph: Graph, name: str) -> list[Layer]:
    """The layers that read a layer, directly or in a concat."""
    return [
        layer for layer in graph.layers if any(name in graph.parts_of(one) for one in layer.inputs)
    ]


def scalable(graph: Graph, alike: bool = False) -> frozenset[str]:
    """Convolutions and max pools whose channels may be scaled: all their readers have weights.

    Max pools in between hand a scale on. Where all channels are to be scaled `alike`, average
    pools do so, too, and there may be an upper limit.
    """
    good: set[str] = set()
    for layer in reversed(graph.layers):  # readers come later, so they are decided first
        behind = readers(graph, layer.name)
        kind = layer.has_weights or layer.kind == "maxpool" or (alike and layer.kind == "avgpool")
        passed_on = all(one.has_weights or one.name in good for one in behind)
        rectified = layer.activation is not None and layer.activation.rectifies
        scaled = scales(layer.activation) or (alike and rectified)
        inside = behind and passed_on and layer.name not in graph.heads
        if layer.upscale is not None and layer.upscale.shuffle and not alike:
            continue  # one scale for the channels that go to one place each
        if kind and inside and scaled:
            good.add(layer.name)
    return frozenset(good)


def scales(activation: Activation | None) -> bool:
    """Whether a positive factor on its argument is one on its value."""
    if activation is None or activation.function == "leaky_relu":
        return True
    return activation.rectifies and not activation.parameters


def channel_scales(graph: Graph, scales: Scales, name: str) -> np.ndarray:
    """Factor of every channel of a layer, concat or INPUT (float64 [C])."""
    found = []
    for part in graph.parts_of(name):
        if part in scales:
            # of a convolution that shuffles, whose channels all have one scale, those stored
            found.append(scales[part][: graph.source_shape(part)[0]])
            continue
        layer = None if part == INPUT else graph.layer(part)
        if layer is not None and layer.kind in ("maxpool", "avgpool"):
            found.append(channel_scales(graph, scales, layer.inputs[0]))
        else:
            found.append(np.ones(graph.source_shape(part)[0]))
    return np.concatenate(found)


def product(one: Scales, other: Scales) -> dict[str, np.ndarray]:
    """Factors of both, one after the other."""
    return {
        name: one.get(name, np.ones(1)) * other.get(name, np.ones(1)) for name in {*one, *other}
    }


def rescale(graph: Graph, scales: Scales) -> Graph:
    """The same function with the stored outputs of each layer multiplied by its scales."""
    layers = []
    for layer in graph.layers:
        if layer.has_weights:
            own = scales.get(layer.name, np.ones(len(layer.bias)))
            before = channel_scales(graph, scales, layer.inputs[0])
            outs = len(layer.bias) // layer.groups
            ins = layer.weight.shape[1]
            weight = layer.weight.astype(np.float64) * own[:, None, None, None]
            for group in range(layer.groups):
                part = before[group * ins : (group + 1) * ins]
                weight[group * outs : (group + 1) * outs] /= part[:, None, None]
            layer = replace(
                layer, weight=weight.astype(np.float32), bias=(layer.bias * own).astype(np.float32)
            )
        layers.append(layer)
    return Graph(graph.name, graph.in_shape, layers, dict(graph.concats), graph.heads)


def alive_energy(
    graph: Graph, names: Collection[str], batches: Iterable[torch.Tensor]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(sum of squares, how many) of the stored values that are not 0, by layer name and channel.

    Args:
        graph: the float network.
        names: of the layers.
        batches: inputs, float32 [N, C, H, W].
    """
    empty = {name: np.zeros(graph.source_shape(name)[0]) for name in names}
    found = {name: (sums, sums.copy()) for name, sums in empty.items()}

    def sums(x: torch.Tensor) -> list[tuple[str, np.ndarray, np.ndarray]]:
        return [
            (layer.name, stored.double().square().sum((0, 2, 3)).numpy(),
             (stored != 0).sum((0, 2, 3)).numpy())
            for layer, stored in run.run_float(graph, x) if layer.name in names
        ]  # fmt: skip

    for batch in ordered(sums, batches):
        for name, power, alive in batch:
            squares, counts = found[name]
            squares += power
            counts += alive
    return found


def find_scales(
    graph: Graph, batches: Callable[[], Iterable[torch.Tensor]]
) -> dict[str, np.ndarray]:
    """Factors that give channels that share a table the same RMS over their non-zero values.

    Those that can be scaled; parts of a concatenation share a table. `batches` gives the
    calibration inputs, float32 [N, C, H, W].
    """
    wanted = [name for name in sorted(scalable(graph)) if graph.layer(name).has_weights]
    rms = {
        name: np.sqrt(squares / np.maximum(counts, 1))
        for name, (squares, counts) in alive_energy(graph, wanted, batches()).items()
    }
    scales = {}
    for names in forced(graph).groups(wanted):
        every = np.concatenate([rms[name] for name in names])
        if not every.any():
            continue
        middle = np.exp(np.log(every[every > 0]).mean())
        for name in names:
            factor = np.divide(middle, rms[name], where=rms[name] > 0, out=np.ones(len(rms[name])))
            scales[name] = np.clip(factor, 1 / _MOST, _MOST)
    return scales
