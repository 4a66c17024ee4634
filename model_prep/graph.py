# SPDX-License-Identifier: Apache-2.0
"""The Graph IR: a DAG of fused layers, float weights, and the shapes that follow.

One `Layer` is what the engine runs in one go: a convolution (a fully connected layer is one whose
kernel covers its whole input) with bias, activation and max pool, or one of the kinds without
weights. Channel concatenations are no layers but names for several of them. Importers build Graphs,
everything after them reads Graphs.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from nuq.formats.activation import RELU, Activation
from nuq.formats.arithmetic import BLOCK_CODES, Average, Lrn, Upscale, Window, dilated
from nuq.formats.rules import INPUT, KINDS, TWO_INPUTS, WEIGHTED, pixel_shapes
from nuq.model_prep.activations import rises


def no_weight() -> np.ndarray:
    """The weight of a layer that has none, shape (0, 0, 1, 1)."""
    return np.zeros((0, 0, 1, 1), np.float32)


def no_bias() -> np.ndarray:
    """The bias of a layer that has none, shape (0,)."""
    return np.zeros(0, np.float32)


@dataclass(frozen=True)
class Codes:
    """Uniform codes low..high, of which 0 stands for 0 and k for k * step."""

    step: float
    low: int
    high: int


@dataclass(eq=False)
class Layer:
    """One fused layer."""

    name: str  # identifier, `[a-z][a-z0-9_]*`, unique in the graph
    # "add", "mul", "maxpool", "avgpool", "lrn", "conv" or "fc": the last two are the same
    # operation, but plans and reports tell them apart
    kind: str
    # layers, concats or INPUT that it reads: two for "add" and "mul", else one; the second of a
    # "mul" may be one pixel, [channels, 1, 1], for all of the first
    inputs: tuple[str, ...]
    # float32 [out channels, in channels / groups, kernel rows, kernel columns] and [out channels]
    weight: np.ndarray = field(default_factory=no_weight)
    bias: np.ndarray = field(default_factory=no_bias)
    stride: tuple[int, int] = (1, 1)  # (rows, columns)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)  # (top, left, bottom, right), with the value 0
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    activation: Activation | None = RELU
    pool: Window | None = None  # max pool, fused behind it, or all there is of a "maxpool"
    upscale: Upscale | None = None  # behind the pool: every pixel is stored as several
    in_shape: tuple[int, int, int] = field(default=(0, 0, 0))
    conv_shape: tuple[int, int, int] = field(default=(0, 0, 0))  # before the max pool
    average: Average | None = None  # of an "avgpool"; stride and pads repeat it
    lrn: Lrn | None = None
    codes: Codes | None = None  # of the stored output, in a file that is quantized
    title: str | None = None  # name in the file it came from; for reading only, never for paths
    fixed: bool = False  # the weights are structure (an identity), which seeding leaves alone

    def __post_init__(self) -> None:
        """Let stride and pads of an average pool say what its `average` says."""
        if self.average:
            self.stride, self.pads = self.average.stride, self.average.pads

    @property
    def has_weights(self) -> bool:
        """Whether the layer is a convolution (or fully connected)."""
        return self.kind in WEIGHTED

    @property
    def coded(self) -> Activation | None:
        """The activation where it is in the codebook: what is encoded is the number before it."""
        return None if self.activation is None or self.activation.rectifies else self.activation

    @property
    def kernel(self) -> tuple[int, int]:
        """(rows, columns) of the convolution's or the average pool's kernel; (1, 1) for others."""
        if self.average:
            return self.average.kernel
        return int(self.weight.shape[2]), int(self.weight.shape[3])

    @property
    def out_shape(self) -> tuple[int, int, int]:
        """(channels, rows, columns) of what the layer stores: after pool and upscale."""
        channels, height, width = self.conv_shape
        size = self.pool.out_size(height, width) if self.pool else (height, width)
        return self.upscale.shape((channels, *size)) if self.upscale else (channels, *size)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image, padding included; 0 without weights."""
        if not self.has_weights:
            return 0
        _, height, width = self.conv_shape
        return int(self.weight.size) * height * width


@dataclass
class Graph:
    """A network: input shape (channels, rows, columns), layers in topological order, concats.

    `concats` maps a name to the layers whose channels follow each other under it; layers read it
    like a layer. Parts are layers, never other concats or the network's input. `heads` are the
    layers whose values are the network's outputs: no layer reads them.
    """

    name: str
    in_shape: tuple[int, int, int]
    layers: list[Layer]
    concats: dict[str, tuple[str, ...]] = field(default_factory=dict)
    heads: tuple[str, ...] = ()  # in execution order, the last layer among them; default: it alone

    @property
    def stored(self) -> list[Layer]:
        """The layers whose outputs are stored as codes: all but the heads."""
        return [layer for layer in self.layers if layer.name not in self.heads]

    @property
    def ends(self) -> list[Layer]:
        """The heads as layers."""
        return [layer for layer in self.layers if layer.name in self.heads]

    @property
    def classifies(self) -> bool:
        """Whether the output is a number for each class, not several outputs or a map."""
        return len(self.heads) == 1 and self.layers[-1].out_shape[1:] == (1, 1)

    @property
    def elements(self) -> dict[str, int]:
        """Stored activations of an image by layer name, heads left out."""
        return {layer.name: math.prod(layer.out_shape) for layer in self.stored}

    def __post_init__(self) -> None:
        """Fill in every layer's shapes; ValueError names the layer that does not fit."""
        self.heads = self.heads or tuple(layer.name for layer in self.layers[-1:])
        self._shapes = {INPUT: self.in_shape}
        for layer in self.layers:
            if layer.name in self._shapes or layer.name in self.concats:
                raise ValueError(f"layer {layer.name}: names must be unique")
            _check_fields(layer)
            shapes = [self._input_shape(layer, name) for name in layer.inputs]
            if any(
                shape != shapes[0] and shape not in pixel_shapes(layer.kind, index, shapes[0])
                for index, shape in enumerate(shapes)
            ):
                raise ValueError(f"layer {layer.name}: inputs must have equal shapes, not {shapes}")
            layer.in_shape = shapes[0]
            layer.conv_shape = computed_shape(layer)
            if min(layer.out_shape) < 1:
                raise ValueError(
                    f"layer {layer.name}: the pool's kernel must fit its padded input, "
                    f"not {layer.pool.kernel if layer.pool else ()} on {layer.conv_shape}"
                )
            self._shapes[layer.name] = layer.out_shape
        for name, parts in self.concats.items():
            unknown = [part for part in parts if part not in self._shapes]
            if unknown:
                raise ValueError(f"concat {name}: parts must be layers, not {unknown}")
            self._shapes[name] = self.source_shape(name)
        self._check_heads()

    def _check_heads(self) -> None:
        names = [layer.name for layer in self.layers]
        if [name for name in names if name in self.heads] != [*self.heads] or (
            self.heads[-1:] != (*names[-1:],)
        ):
            raise ValueError(
                f"heads must be layers in their order, the last one among them, not {self.heads}"
            )
        if len(self.heads) > 1:
            for layer in self.layers:
                read = [part for part in self.sources_of(layer) if part in self.heads]
                if read:
                    raise ValueError(f"layer {layer.name}: it must not read a head, {read[0]}")

    def _input_shape(self, layer: Layer, name: str) -> tuple[int, int, int]:
        try:
            return self.source_shape(name)
        except KeyError as error:
            raise ValueError(
                f"layer {layer.name}: input {error.args[0]} must be a layer before it"
            ) from None

    def source_shape(self, name: str) -> tuple[int, int, int]:
        """(channels, rows, columns) of what a layer, a concat or INPUT gives to its readers.

        Raises:
            KeyError: there is no such name.
            ValueError: the parts of a concat differ in rows or columns, or break a rule.
        """
        if name in self._shapes:
            return self._shapes[name]
        parts = self.concats[name]
        if not parts or any(part == INPUT or part in self.concats for part in parts):
            raise ValueError(f"concat {name}: parts must be layers, not {parts}")
        shapes = [self._shapes[part] for part in parts]
        if any(shape[1:] != shapes[0][1:] for shape in shapes):
            raise ValueError(f"concat {name}: parts must have equal rows and columns, not {shapes}")
        if any(shape[0] % BLOCK_CODES for shape in shapes[:-1]):
            raise ValueError(
                f"concat {name}: every part but the last must have a multiple of {BLOCK_CODES} "
                f"channels, not {[shape[0] for shape in shapes]}"
            )
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])

    def parts_of(self, name: str) -> tuple[str, ...]:
        """The layers behind a name: a concat's parts, or the name itself."""
        return self.concats.get(name, (name,))

    def sources_of(self, layer: Layer) -> list[str]:
        """The layers (or INPUT) that a layer reads, parts of concatenations one by one."""
        return [part for name in layer.inputs for part in self.parts_of(name)]

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return sum(layer.macs for layer in self.layers)

    def layer(self, name: str) -> Layer:
        """The layer called `name`; KeyError if there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)


def _check_fields(layer: Layer) -> None:
    """ValueError where kind, inputs and fields of a layer do not go together."""
    if layer.kind not in KINDS:
        raise ValueError(f"layer {layer.name}: kind must be one of {KINDS}, not {layer.kind}")
    inputs = 2 if layer.kind in TWO_INPUTS else 1
    if len(layer.inputs) != inputs:
        raise ValueError(f"layer {layer.name}: inputs must be {inputs}, not {len(layer.inputs)}")
    if not layer.has_weights and INPUT in layer.inputs:
        raise ValueError(f"layer {layer.name}: only convolutions read the network's input")
    if not layer.has_weights and (layer.weight.size or layer.bias.size):
        raise ValueError(f"layer {layer.name}: a layer of kind {layer.kind} has no weights")
    if (layer.kind == "avgpool") != (layer.average is not None):
        raise ValueError(f"layer {layer.name}: average must be set for avgpool, and only there")
    if (layer.kind == "lrn") != (layer.lrn is not None):
        raise ValueError(f"layer {layer.name}: lrn must be set for lrn, and only there")
    if layer.kind == "maxpool" and layer.pool is None:
        raise ValueError(f"layer {layer.name}: pool must be set for maxpool")
    if layer.kind == "maxpool" and layer.coded:
        raise ValueError(f"layer {layer.name}: {layer.coded} must be in front of a max pool")
    if layer.upscale is not None and layer.upscale.shuffle:
        places = math.prod(layer.upscale.factor)
        if not layer.has_weights or layer.groups > 1 or len(layer.bias) % places:
            raise ValueError(
                f"layer {layer.name}: what shuffles pixels must be a convolution of one group and "
                f"a multiple of {places} channels"
            )
    if layer.pool is not None and not rises(layer.coded):
        raise ValueError(f"layer {layer.name}: {layer.coded} must have its max pool behind it")


def computed_shape(layer: Layer) -> tuple[int, int, int]:
    """Output shape of a layer before its max pool, from its in_shape."""
    channels, height, width = layer.in_shape
    if layer.average:
        sizes = layer.average.out_size(height, width)
    elif layer.has_weights:
        expected = int(layer.weight.shape[1]) * layer.groups
        if channels != expected:
            raise ValueError(
                f"layer {layer.name}: input channels must be {expected}, not {channels}"
            )
        if layer.groups < 1 or layer.weight.shape[0] % layer.groups:
            raise ValueError(
                f"layer {layer.name}: groups must divide the {layer.weight.shape[0]} output "
                f"channels, not {layer.groups}"
            )
        reach = dilated(layer.kernel, layer.dilation)
        sizes = Window(reach, layer.stride, layer.pads).out_size(height, width)
        channels = int(layer.weight.shape[0])
    else:
        return layer.in_shape
    if min(sizes) < 1:
        raise ValueError(
            f"layer {layer.name}: the kernel must fit its padded input, "
            f"not {layer.kernel} on {height}x{width}"
        )
    return (channels, *sizes)
