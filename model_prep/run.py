# SPDX-License-Identifier: Apache-2.0
"""The one loop over a network, and the float32 layers that most runs are made of.

`run` hands every layer its inputs and keeps what it stores until its last reader. What a layer
computes is an `Operation`: float32 (`float_layer`), fake-quantized, with gradients, or exact
integers. Tensors are [images, channels, rows, columns].
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F

from nuq.formats.arithmetic import Average, Lrn, Upscale, Window
from nuq.model_prep import activations
from nuq.model_prep.graph import INPUT, Graph, Layer
from nuq.model_prep.parallel import ordered


class Node(Protocol):
    """What `run` must know of a layer: its name, and the names that it reads."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def inputs(self) -> Sequence[str]: ...  # noqa: D102


N = TypeVar("N", bound=Node)
N_co = TypeVar("N_co", bound=Node, covariant=True)


class Network(Protocol[N_co]):
    """Layers in topological order; `parts_of` gives the layers behind a concatenation's name.

    `heads` are the layers whose values are the network's outputs.
    """

    @property
    def layers(self) -> Sequence[N_co]: ...  # noqa: D102

    @property
    def heads(self) -> tuple[str, ...]: ...  # noqa: D102

    def parts_of(self, name: str) -> tuple[str, ...]: ...  # noqa: D102


Tensors = list[torch.Tensor]
Operation = Callable[[N, Tensors], torch.Tensor]  # from a layer's inputs to what it stores
Given = Mapping[str, Callable[[], torch.Tensor]]


def run(
    network: Network[N], x: torch.Tensor | Callable[[], torch.Tensor], operation: Operation[N],
    given: Given | None = None, gradients: bool = False,
) -> Iterator[tuple[N, torch.Tensor]]:  # fmt: skip
    """Run a network; yield (layer, what it stores). A tensor goes after its last reader.

    Args:
        network: see Network.
        x: the network's input, or what gives it where a layer needs it.
        operation: gets a layer and its inputs, concatenations joined along the channels.
        given: what gives the stored values of some layers without computing them, by name. Layers
            that the heads do not need then are left out.
        gradients: leave autograd as the caller has it; else layers run in inference mode.
    """
    given = given or {}
    reads = {
        layer.name: [network.parts_of(name) for name in layer.inputs] for layer in network.layers
    }
    needed = _needed(reads, given, network.heads) if given else {INPUT, *reads}
    last_reader = {part: name for name in reads for parts in reads[name] for part in parts}
    stored: dict[str, torch.Tensor] = {}
    if INPUT in needed:
        stored[INPUT] = x() if callable(x) else x
    for layer in network.layers:
        if layer.name not in needed:
            continue
        with nullcontext() if gradients else torch.inference_mode():
            if layer.name in given:
                stored[layer.name] = given[layer.name]()
            else:
                inputs = [join([stored[part] for part in parts]) for parts in reads[layer.name]]
                stored[layer.name] = operation(layer, inputs)
                del inputs
        for part in {part for parts in reads[layer.name] for part in parts}:
            if last_reader[part] == layer.name:
                stored.pop(part, None)
        yield layer, stored[layer.name]


def _needed(
    reads: Mapping[str, list[tuple[str, ...]]], given: Given, heads: Iterable[str]
) -> set[str]:
    """The names that the heads need, themselves included."""
    needed = set(heads)
    for name in reversed(list(reads)):
        if name in needed and name not in given:
            needed.update(part for parts in reads[name] for part in parts)
    return needed


def join(parts: Tensors) -> torch.Tensor:
    """The parts of a concatenation along the channels."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def outputs(network: Network[N], layers: Iterable[tuple[N, torch.Tensor]]) -> torch.Tensor:
    """What the heads give in a run, one after the other: [images, outputs]."""
    heads = network.heads
    found = [stored.flatten(1) for layer, stored in layers if layer.name in heads]
    return join(found)


def run_float(graph: Graph, x: torch.Tensor) -> Iterator[tuple[Layer, torch.Tensor]]:
    """Run the float network: (layer, stored output) by layer."""
    return run(graph, x, float_layer)


def run_encoded(
    graph: Graph, x: torch.Tensor, gradients: bool = False
) -> Iterator[tuple[Layer, torch.Tensor, torch.Tensor]]:
    """Run the float network: (layer, what it encodes, what it stores) by layer."""
    before: list[torch.Tensor] = []

    def operation(layer: Layer, inputs: Tensors) -> torch.Tensor:
        before[:] = [encoded(layer, operate(layer, inputs))]
        return decoded(layer, before[0])

    for layer, stored in run(graph, x, operation, gradients=gradients):
        yield layer, before[0], stored


def forward(graph: Graph, x: torch.Tensor) -> torch.Tensor:
    """The float network's outputs, [images, outputs]."""
    return outputs(graph, run_float(graph, x))


def float_logits(graph: Graph, inputs: Iterable[torch.Tensor]) -> np.ndarray:
    """The float network's outputs for batches of inputs, float32 [images, classes]."""
    return np.concatenate(list(ordered(lambda x: forward(graph, x).numpy(), inputs)))


def float_layer(layer: Layer, inputs: Tensors) -> torch.Tensor:
    """What the layer stores: its operation, activation, max pool and upscale."""
    return finish(layer, operate(layer, inputs))


def operate(
    layer: Layer, inputs: Tensors, parameters: tuple[torch.Tensor, torch.Tensor] | None = None
) -> torch.Tensor:
    """What the layer computes from its inputs, before its activation and its max pool.

    Args:
        layer: any layer.
        inputs: one tensor, or two of an "add" or "mul".
        parameters: weight and bias, used instead of the layer's own.
    """
    if layer.kind == "add":
        return inputs[0] + inputs[1]
    if layer.kind == "mul":
        return inputs[0] * inputs[1]
    if layer.average:
        return average_pool(layer.average, inputs[0])
    if layer.lrn:
        return normalise(layer.lrn, inputs[0])
    if not layer.has_weights:
        return inputs[0]
    weight, bias = parameters or (tensor_of(layer.weight), tensor_of(layer.bias))
    return convolve(layer, inputs[0], weight, bias)


def finish(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """The layer's activation, then what comes behind it."""
    return placed(layer, activate(layer, x))


def placed(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """The layer's max pool, and its pixels where they are stored."""
    out = max_pool(layer.pool, x) if layer.pool else x
    return enlarge(layer.upscale, out) if layer.upscale else out


def encoded(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """What the layer encodes: what it stores, or what is before an activation in its codebook.

    A max pool of codes is one of these numbers: the activation rises with them.
    """
    if not layer.coded:
        return finish(layer, x)
    return placed(layer, x)


def decoded(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """What the layer stores, of what it encodes."""
    return activate(layer, x) if layer.coded else x


def tensor_of(array: np.ndarray) -> torch.Tensor:
    """A tensor that shares the array's memory where numpy allows it."""
    return torch.from_numpy(np.ascontiguousarray(array))


def convolve(
    layer: Layer, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """The layer's convolution with bias, before its activation.

    Args:
        layer: gives strides, pads and the like.
        x: float32 [N, C, H, W].
        weight, bias: used instead of the layer's own.

    Returns:
        float32 [N, *layer.conv_shape].
    """
    top, left, bottom, right = layer.pads
    if (top, left) == (bottom, right):
        padding = (top, left)
    else:
        x = F.pad(x, (left, right, top, bottom))
        padding = (0, 0)
    if layer.groups == 1 and not any(layer.pads) and x.shape[2:] == weight.shape[2:]:
        # A library convolution would first reorder hundreds of megabytes for one output pixel.
        flat = F.linear(x.flatten(1), weight.flatten(1), bias)
        return flat[:, :, None, None]
    return F.conv2d(x, weight, bias, layer.stride, padding, layer.dilation, layer.groups)


def max_pool(pool: Window, x: torch.Tensor) -> torch.Tensor:
    """Max pool of float32 or integers [N, C, H, W]; padding never wins.

    Rows, then columns, by whole-tensor maxima: several times as fast on one thread as the library's
    pool, which visits the window of every output on its own.
    """
    top, left, bottom, right = pool.pads
    if any(pool.pads):
        least = float("-inf") if x.is_floating_point() else torch.iinfo(x.dtype).min
        x = F.pad(x, (left, right, top, bottom), value=least)
    if x.requires_grad:  # the library's pool gives the whole gradient to one of equal values
        return F.max_pool2d(x, pool.kernel, pool.stride)
    for dim, kernel, stride in zip((2, 3), pool.kernel, pool.stride, strict=True):
        span = x.shape[dim] - kernel + 1
        taps = [
            x.narrow(dim, tap, span)[(slice(None),) * dim + (slice(None, None, stride),)]
            for tap in range(kernel)
        ]
        x = taps[0] if kernel == 1 else torch.maximum(taps[0], taps[1])
        for tap in taps[2:]:
            torch.maximum(x, tap, out=x)
    return x.contiguous()


def enlarge(upscale: Upscale, x: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W] of any type with every pixel at its places."""
    (rows, columns), (images, _, height, width) = upscale.factor, x.shape
    if upscale.shuffle:
        groups = x.reshape(images, rows, columns, -1, height, width)
        return groups.permute(0, 3, 4, 1, 5, 2).reshape(images, *upscale.shape(x.shape[1:]))
    copies = x[:, :, :, None, :, None].expand(-1, -1, -1, rows, -1, columns)
    return copies.reshape(images, *upscale.shape(x.shape[1:]))


def average_pool(average: Average, x: torch.Tensor) -> torch.Tensor:
    """Average pool: the sum over the window, 0 outside the map, divided by the element count."""
    counts = tensor_of(average.divisors(x.shape[2], x.shape[3])).to(x)  # its type and device
    return window_sums(average, x) / counts


def window_sums(window: Window, x: torch.Tensor) -> torch.Tensor:
    """The sum over every window of a floating-point map, 0 outside it."""
    top, left, bottom, right = window.pads
    if any(window.pads):
        x = F.pad(x, (left, right, top, bottom))
    return F.avg_pool2d(x, window.kernel, window.stride, divisor_override=1)


def normalise(lrn: Lrn, x: torch.Tensor) -> torch.Tensor:
    """Local response normalisation over channels, see `Lrn`."""
    return x * (lrn.k + lrn.alpha / lrn.size * near_squares(x, lrn.size)) ** -lrn.beta


def near_squares(x: torch.Tensor, size: int) -> torch.Tensor:
    """Sums of squares over each channel of [..., C, H, W] and its neighbours, `size` in all."""
    channels = x.shape[-3]
    squares = F.pad(x * x, (0, 0, 0, 0, (size - 1) // 2, size // 2))
    total = squares.narrow(-3, 0, channels).clone()
    for offset in range(1, size):
        total += squares.narrow(-3, offset, channels)
    return total


def activate(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """The layer's activation, or x itself."""
    return x if layer.activation is None else activations.apply(layer.activation, x)
