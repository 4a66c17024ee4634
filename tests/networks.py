# SPDX-License-Identifier: Apache-2.0
"""Networks for tests: random small ones of all operators, and AlexNet and VGG-16 for the planner.

A draft keeps the shapes of what it has built; whatever does not fit is drawn again, and `make` of
the naive model has the last word.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from nuq.codegen.design.array import Array
from nuq.codegen.design.design import Design
from nuq.codegen.design.planner import plan
from nuq.formats.activation import RELU
from nuq.formats.arithmetic import Upscale, Window, dilated
from nuq.formats.hardware import Part, find_part
from nuq.formats.images import Preprocessing
from nuq.formats.network import InputFormat, Layer, Network
from nuq.formats.quantizer import Quantizer
from tests.fuzz.builds import Build
from tests.toys import POOL1, Toy, ToyLayer

CHANNELS = (1, 2, 3, 4, 5, 7, 8, 8, 9, 12, 16, 16, 17, 24, 24, 25, 32, 40, 48, 64)
TRIES = 200
LARGEST = 16  # rows or columns of a map that is enlarged
PLAIN = {"kernel": (1, 1), "stride": (1, 1), "pads": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}


@dataclass
class Map:
    """A feature map of a draft: shape, whether signed, and the widest value's bits."""

    name: str
    shape: tuple[int, int, int]
    signed: bool
    value_bits: int


@dataclass
class Draft:
    """A network under construction."""

    rng: np.random.Generator
    build: Build
    toy: Toy
    maps: list[Map] = field(default_factory=list)
    enlarging: np.random.Generator | None = None  # of layers that enlarge their maps

    def pick(self, low: int, high: int) -> int:
        """A number from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, part: float) -> bool:
        """True with probability `part`."""
        return bool(self.rng.random() < part)

    def source(self, ops: bool = False) -> Map:
        """A map to read, recent ones more often; operations do not read the input."""
        maps = self.maps[1:] if ops and len(self.maps) > 1 else self.maps
        return maps[-1] if self.chance(0.6) else maps[self.pick(0, len(maps) - 1)]

    def name(self) -> str:
        """A fresh name."""
        return f"l{len(self.toy.layers)}"


def window(draft: Draft, size: tuple[int, int], most: int = 5) -> Window:
    """A window that fits a map, and everywhere reaches into it."""
    kernel, stride, before, after = [], [], [], []
    for axis in range(2):
        k = draft.pick(1, min(most, size[axis]))
        kernel.append(k)
        stride.append(draft.pick(1, 3) if draft.chance(0.4) else 1)
        padded = k > 1 and draft.chance(0.6)
        before.append(draft.pick(0, k - 1) if padded else 0)
        after.append(draft.pick(0, k - 1) if padded else 0)
    return Window(tuple(kernel), tuple(stride), (*before, *after))


def quantizer(draft: Draft, signed: bool) -> dict[str, object]:
    """Fields of a random quantizer."""
    scheme = str(draft.rng.choice(["knq", "enq", "uniform"]))
    qm = draft.pick(4, 15) if draft.chance(0.5) else 12
    fields: dict[str, object] = {"scheme": scheme, "qm": qm, "signed": signed}
    if scheme == "uniform":
        fields["bits"] = draft.pick(2, 12) if draft.chance(0.9) else draft.pick(13, 16)
    else:
        fields["bits"] = draft.pick(1, min(qm, 12 if scheme == "enq" else 8))
    fields["variant"] = str(draft.rng.choice(["floor", "mid", "round"]))
    fields["rule"] = str(draft.rng.choice(["nearest", "floor"]))
    fields["shift_more"] = draft.pick(-2, 2) if draft.chance(0.3) else 0
    return fields


def value_bits(layer: ToyLayer) -> int:
    """Bits of the largest magnitude that the layer's codes stand for."""
    return layer.bits if layer.scheme == "uniform" else layer.qm


def append(draft: Draft, layer: ToyLayer, size: tuple[int, ...]) -> Map | None:
    """Add a layer with output (rows, columns) before its max pool; None where it is too small."""
    if min(size) < 1:
        return None
    free = not layer.signed and layer.pool is None
    if free and draft.chance(0.2) and min(size) > 1:
        layer.pool = window(draft, size, 3)
    if layer.pool:
        size = layer.pool.out_size(*size)
    if min(size) < 1:
        return None
    shape = (layer.out, *size)
    if draft.enlarging and draft.enlarging.random() < 0.3 and max(size) <= LARGEST:
        shape = enlarge(draft.enlarging, layer, shape)
    made = Map(layer.name or "", shape, layer.signed, value_bits(layer))
    draft.toy.layers.append(layer)
    draft.maps.append(made)
    return made


def enlarge(
    rng: np.random.Generator, layer: ToyLayer, shape: tuple[int, ...]
) -> tuple[int, int, int]:
    """Let a layer store a larger map; its shape."""
    factor = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    if rng.random() < 0.5:
        factor = (2, 2)
    shuffle = layer.kind == "conv" and layer.groups == 1 and rng.random() < 0.6
    if shuffle:
        layer.out = int(rng.integers(1, 21)) * factor[0] * factor[1]
        if layer.like is None and rng.random() < 0.7:
            factor, layer.bits = (2, 2), 4  # rows are whole words
            layer.out = 4 * int(rng.integers(1, 21))
    layer.upscale = Upscale(factor, shuffle)
    return layer.upscale.shape((layer.out, *shape[1:]))


def convolution(draft: Draft, source: Map | None = None, **fixed: object) -> Map | None:
    """A convolution, grouped or dilated at times."""
    source = source or draft.source()
    channels, size = source.shape[0], source.shape[1:]
    win, dilation = window(draft, size), (1, 1)
    if draft.chance(0.15):
        dilation = (draft.pick(1, 3), draft.pick(1, 3))
    groups, out = 1, int(draft.rng.choice(CHANNELS))
    if draft.chance(0.3):
        groups = int(draft.rng.choice([g for g in range(1, channels + 1) if channels % g == 0]))
        out = groups * draft.pick(1, max(1, 48 // groups))
        if draft.chance(0.4):  # depthwise
            groups = out = channels
    signed = draft.chance(0.3)
    layer = ToyLayer(
        out, dilation=dilation, groups=groups, source=source.name, name=draft.name(),
        frac=draft.pick(-2, 8), **vars(win), **quantizer(draft, signed),
    )  # fmt: skip
    for key, value in fixed.items():
        setattr(layer, key, value)
    reach = Window(dilated(layer.kernel, layer.dilation), layer.stride, layer.pads)
    return append(draft, layer, reach.out_size(*size))


def operation(
    draft: Draft, kind: str, source: Map, size: tuple[int, ...], signed: bool, **fields: object
) -> Map | None:
    """A layer without weights that gives as many channels as it reads."""
    layer = ToyLayer(
        source.shape[0], kind=kind, source=source.name, name=draft.name(), **fields,
        **quantizer(draft, signed),
    )  # fmt: skip
    return append(draft, layer, size)


def add(draft: Draft) -> Map | None:
    """The sum of two maps of one shape; the second is made where there is none."""
    first = draft.source(ops=True)
    if first.name == "input":
        return None
    others = [item for item in draft.maps[1:] if item.shape == first.shape]
    second = others[draft.pick(0, len(others) - 1)]
    if second is first and draft.chance(0.8):
        same = {**PLAIN, "kernel": (3, 3), "pads": (1, 1, 1, 1), "out": first.shape[0]}
        made = convolution(draft, first, **same)
        if made is None:
            return None
        second = made if made.shape == first.shape else first
    signed = draft.chance(0.3)
    return operation(draft, "add", first, first.shape[1:], signed, source2=second.name)


def multiply(draft: Draft) -> Map | None:
    """A map times another of its shape, or a number for each channel."""
    first = draft.source(ops=True)
    if first.name == "input":
        return None
    shapes = (first.shape, (first.shape[0], 1, 1))
    others = [item for item in draft.maps[1:] if item.shape in shapes]
    second = others[draft.pick(0, len(others) - 1)]
    if draft.chance(0.7):
        fixed = {**PLAIN, "kernel": first.shape[1:], "out": first.shape[0], "pool": POOL1}
        made = convolution(draft, first, **fixed)
        if made is None:
            return None
        second = made if made.shape in shapes else second  # it may have been enlarged
    signed = draft.chance(0.5)
    return operation(draft, "mul", first, first.shape[1:], signed, source2=second.name)


def max_pool(draft: Draft) -> Map | None:
    """A max pool on its own, or a copy of a signed map."""
    source = draft.source(ops=True)
    if source.name == "input":
        return None
    win = window(draft, source.shape[1:], 4)
    if source.signed and draft.chance(0.5):
        win = POOL1
    signed = source.signed and win.trivial
    return operation(draft, "maxpool", source, source.shape[1:], signed, pool=win)


def average_pool(draft: Draft) -> Map | None:
    """An average pool, global at times."""
    source = draft.source(ops=True)
    size = source.shape[1:]
    win = window(draft, size)
    if source.name == "input":
        return None
    if draft.chance(0.2):
        win = Window(size, (1, 1))
    fields = {"count_include_pad": draft.chance(0.4), **vars(win)}
    return operation(draft, "avgpool", source, win.out_size(*size), source.signed, **fields)


def normalisation(draft: Draft) -> Map | None:
    """Local response normalisation."""
    source = draft.source(ops=True)
    size = int(draft.rng.choice([1, 2, 3, 3, 4, 5, 5, 7, 9, 17]))
    if source.name == "input" or draft.build.pe < 24 or size << (2 * source.value_bits) >= 1 << 36:
        return None
    return operation(draft, "lrn", source, source.shape[1:], source.signed, lrn_size=size)


def concat(draft: Draft) -> Map | None:
    """Several layers that share one quantizer, at times one max pool each, all alike."""
    source = draft.source()
    size = source.shape[1:]
    same: dict[str, object] = {**PLAIN, "pool": None}
    if min(size) > 1 and draft.chance(0.3):
        win = window(draft, size, 4)
        size = win.out_size(*size)
        same.update(signed=False, pool=win)
    parts: list[Map] = []
    count, first = draft.pick(2, 3), len(draft.toy.layers)
    for index in range(count):
        fixed = {**same, "out": 8 * draft.pick(1, 4)}
        if index == count - 1 and draft.chance(0.5):
            fixed["out"] = int(draft.rng.choice(CHANNELS))
        if draft.chance(0.5):
            fixed.update(kernel=(3, 3), pads=(1, 1, 1, 1))
        if parts:
            fixed.update(like=parts[0].name, signed=parts[0].signed)
            fixed["relu"] = None if not parts[0].signed or draft.chance(0.5) else True
        made = convolution(draft, source, **fixed)
        if made is None or made.shape[1:] != size or (index < count - 1 and made.shape[0] % 8):
            return None
        parts.append(made)
    base = draft.toy.layers[first]
    for layer in draft.toy.layers[first + 1 :]:
        layer.scheme, layer.bits, layer.qm = base.scheme, base.bits, base.qm
    order = [int(i) for i in draft.rng.permutation(count)]
    chosen = [parts[i] for i in order]
    chosen.sort(key=lambda part: part.shape[0] % 8 != 0)
    return join(draft, chosen)


def join(draft: Draft, parts: list[Map]) -> Map:
    """A concat of maps."""
    name = f"c{len(draft.toy.concats)}"
    draft.toy.concats[name] = [part.name for part in parts]
    channels = sum(part.shape[0] for part in parts)
    made = Map(name, (channels, *parts[0].shape[1:]), parts[0].signed, parts[0].value_bits)
    draft.maps.append(made)
    return made


def finish(draft: Draft) -> bool:
    """The last layer: a classifier, a convolution, a raw average or a raw sum."""
    kind = draft.rng.choice(["fc", "conv", "avgpool", "add"], p=[0.4, 0.25, 0.25, 0.1])
    if kind == "conv":
        made = convolution(draft)
    elif kind == "fc":
        source = draft.source()
        size = source.shape[1:]
        fixed = {**PLAIN, "kernel": size, "out": draft.pick(1, 40)}
        made = convolution(draft, source, kind="fc", **fixed)
    else:
        made = average_pool(draft) if kind == "avgpool" else add(draft)
    if made is None:
        return False
    layer = draft.toy.layers[-1]
    layer.pool, layer.signed, layer.like, layer.relu = None, False, None, None
    layer.upscale = None
    if layer.kind == "avgpool":
        layer.count_include_pad = True
    return True


STEPS = (convolution, add, multiply, max_pool, average_pool, normalisation, concat)
WEIGHTS = (0.38, 0.12, 0.1, 0.08, 0.1, 0.1, 0.12)


def draw(rng: np.random.Generator, build: Build, seed: int) -> Toy | None:
    """One attempt at a network."""
    shape = (
        int(rng.choice([1, 2, 3, 3, 3, 4, 8, 11, 16, 19])),
        int(rng.integers(3, 16)),
        int(rng.integers(3, 16)),
    )
    low = min(build.weight_bits, 2)
    toy = Toy(
        shape, [], in_bits=int(rng.integers(2, 13)), images=int(rng.integers(1, build.images + 1)),
        weight_bits=int(rng.integers(low, build.weight_bits + 1)), seed=seed,
        symmetric=build.pair_bits > 0,
    )  # fmt: skip
    draft = Draft(rng, build, toy, [Map("input", shape, True, toy.in_bits - 1)])
    enlarging = np.random.default_rng([seed, 2])
    draft.enlarging = enlarging if enlarging.random() < 0.4 else None
    while convolution(draft) is None:
        pass
    for _ in range(draft.pick(0, 8)):
        step = STEPS[int(rng.choice(len(STEPS), p=WEIGHTS))]
        before = len(toy.layers)
        if step(draft) is None and len(toy.layers) > before:
            return None
    if not finish(draft):
        return None
    draw_weights(np.random.default_rng([seed, 1]), build, toy)
    return toy


def draw_weights(rng: np.random.Generator, build: Build, toy: Toy) -> None:
    """Give some layers weights of their own width, or a codebook; rows must suit the ports."""
    step = build.engine.sizes.array.tile(False) * build.simd // 64
    fitting = [n for n in range(1, build.weight_bits + 1) if step * n % build.weight_ports == 0]
    widths = [n for n in fitting if 2 <= n <= build.weight_bits]
    if toy.weight_bits not in widths:
        toy.weight_bits = widths[-1]
    for layer in toy.layers:
        if layer.kind in ("conv", "fc") and rng.integers(0, 2):
            layer.weight_bits = int(rng.choice(widths))
            most = layer.weight_bits - toy.symmetric
            indices = [n for n in fitting if n <= min(8, most, 14)]
            if indices and layer.weight_bits <= 14 and rng.integers(0, 2):
                layer.index_bits = int(rng.choice(indices))
    for layer in toy.layers:
        layer.scaled = layer.kind in ("conv", "fc") and bool(rng.integers(0, 3) == 0)


# name, output channels, kernel, stride, pad, whether a max pool follows
CLASSIFIER = [("fc7", 4096, 1, 1, 0, False), ("fc8", 1000, 1, 1, 0, False)]
FULL_SIZE = {
    "alexnet": [
        ("conv1", 64, 11, 4, 2, True),
        ("conv2", 192, 5, 1, 2, True),
        ("conv3", 384, 3, 1, 1, False),
        ("conv4", 256, 3, 1, 1, False),
        ("conv5", 256, 3, 1, 1, True),
        ("fc6", 4096, 6, 1, 0, False),
        *CLASSIFIER,
    ],
    "vgg16": [
        *[
            (f"conv{block}_{item}", 64 << min(block - 1, 3), 3, 1, 1, item == items)
            for block, items in ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3))
            for item in range(1, items + 1)
        ],
        ("fc6", 4096, 7, 1, 0, False),
        *CLASSIFIER,
    ],
}
POOLS = {"alexnet": 3, "vgg16": 2}
BITS = {"alexnet": 3, "vgg16": 5}  # as published


def full_size(name: str, bits: int | None = None) -> Network:
    """`alexnet` or `vgg16` at 224x224: KNQ everywhere, 14-bit weights that take no memory."""
    bits, pool = bits or BITS[name], POOLS[name]
    centroid = np.arange(1 << bits, dtype=np.int32) * (4095 // ((1 << bits) - 1))
    quantizer = Quantizer("knq", bits, 12, 0, None, "nearest", centroid, centroid)
    layers: list[Layer] = []
    source, shape = "input", (3, 224, 224)
    for layer, out, kernel, stride, pad, pooled in FULL_SIZE[name]:
        size = (shape[1] + 2 * pad - kernel) // stride + 1
        last = layer == "fc8"
        layers.append(Layer(
            name=layer, kind="fc" if layer[:2] == "fc" else "conv", inputs=(source,),
            in_shape=shape, conv_shape=(out, size, size), kernel=(kernel, kernel),
            stride=(stride, stride), dilation=(1, 1), pads=(pad, pad, pad, pad), groups=1,
            activation=RELU, pool=Window((pool, pool), (2, 2), (0, 0, 0, 0)) if pooled else None,
            weight_bits=14, weight_frac=0, bias_bits=14, bias_frac=0, bias_shift=0, acc_bits=36,
            requant_shift=0 if last else 14, quantizer=None if last else replace(quantizer),
            weight=np.broadcast_to(np.int16(0), (out, shape[0], kernel, kernel)),
            bias=np.zeros(out, np.int32), out_frac=0,
        ))  # fmt: skip
        source, shape = layer, layers[-1].out_shape
    pixels = InputFormat((3, 224, 224), 10, 2, np.zeros((3, 256), np.int16), Preprocessing.plain(3))
    return Network(
        name=name, weights="seeded", weights_sha256="0" * 64, manifest_sha256="0" * 64, qm=12,
        input=pixels, layers=tuple(layers),
    )  # fmt: skip


def planned(
    name: str, array: Array | None = None, images: int = 1, part: str | Part = "XC7Z020"
) -> Design:
    """`alexnet` or `vgg16` as the planner lays it out on a part."""
    return plan(full_size(name), find_part(part) if isinstance(part, str) else part, array, images)
