# SPDX-License-Identifier: Apache-2.0
"""`load_onnx`: a path to an `ImportedNetwork`, or a UserError of one sentence."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import torch

from nuq.formats.ending import Output, describe
from nuq.formats.errors import UserError
from nuq.model_prep.graph import INPUT, Codes, Graph, Layer
from nuq.model_prep.onnx import (  # noqa: F401
    convolutions,
    elementwise,
    parts,
    pointwise,
    quantized,
    resizing,
    views,
    windows,
)
from nuq.model_prep.onnx.concats import Padder, part_unlike, separate, spread_pools
from nuq.model_prep.onnx.fuse import check, fuse
from nuq.model_prep.onnx.limits import Budget, shown
from nuq.model_prep.onnx.lowering import Context, lower
from nuq.model_prep.onnx.operations import Op, Shape, reachable
from nuq.model_prep.onnx.reader import read
from nuq.model_prep.seeding import SEED, reseed

SEEDED = "seeded"
SEEDING_IMAGES = 2
NAME_LENGTH = 40
TITLE_LENGTH = 120
RESERVED = frozenset((  # array names, C++ keywords, and names that Windows keeps
    "input", "output", "images", "labels", "float_logits", "accelerator", "main", "int", "char",
    "float", "double", "bool", "void", "auto", "const", "static", "struct", "class", "union",
    "enum", "signed", "unsigned", "long", "short", "if", "else", "for", "while", "do", "switch",
    "case", "default", "break", "continue", "return", "goto", "sizeof", "typedef", "template",
    "typename", "namespace", "using", "new", "delete", "this", "operator", "inline", "volatile",
    "register", "extern", "true", "false", "and", "or", "not", "xor", "con", "prn", "aux", "nul",
))  # fmt: skip


@dataclass
class ImportedNetwork:
    """A network from an ONNX file."""

    graph: Graph  # its name is an identifier made from the file's name
    in_shape: Shape
    # tensor names as they are in the file, for onnxruntime; never for paths, code or pages
    input_name: str
    in_axes: tuple[int, ...]  # of the file's input: which of (batch, channels, rows, columns)
    # float32 [channels]: the Graph's input is the file's times `scale` plus `shift`
    scale: np.ndarray
    shift: np.ndarray
    outputs: tuple[Output, ...]  # in the file's order, their names made identifiers
    tensors: dict[str, str]  # by head: what it computes, an output unless the host does more
    input_codes: Codes | None = None  # of the Graph's input, in a file that is quantized
    notes: list[str] = field(default_factory=list)  # what was done that the file does not say

    @property
    def normalises(self) -> bool:
        """Whether the file has a normalisation of its own."""
        return bool((self.scale != 1).any() or (self.shift != 0).any())

    def file_input(self, x: np.ndarray) -> np.ndarray:
        """What the file's input is where the Graph's is x, both float32: x is [N, C, H, W]."""
        plain = (x.astype(np.float64) - self.shift[:, None, None]) / self.scale[:, None, None]
        absent = [axis for axis in range(4) if axis not in self.in_axes]  # of size 1
        moved = plain.transpose((*self.in_axes, *absent))
        return moved.reshape(moved.shape[: len(self.in_axes)]).astype(np.float32)


def load_onnx(
    path: Path, weights: str | None = None, x: torch.Tensor | None = None
) -> ImportedNetwork:
    """Read an ONNX file.

    Args:
        path: the file; external data must lie in its folder.
        weights: None for the file's own, "seeded" for random ones.
        x: float32 [images, channels, rows, columns], what seeded weights are scaled from; normal
            random numbers if None.

    Raises:
        UserError: the file is broken, too large for the machine, or needs what the engine has not;
            the text names all such nodes.
    """
    if weights not in (None, SEEDED):
        raise UserError(f"WEIGHTS must be seeded (or not given) for an ONNX file, not {weights}")
    try:
        network = _load(Path(path))
    except UserError as error:
        raise UserError(f"{shown(str(path), 200)}: {error}") from None
    except (MemoryError, RecursionError):
        raise UserError(
            f"{shown(str(path), 200)}: the model must fit the free memory; use a larger machine"
        ) from None
    if weights == SEEDED:
        if x is None:
            generator = torch.Generator().manual_seed(SEED)
            x = torch.randn((SEEDING_IMAGES, *network.in_shape), generator=generator)
        reseed(network.graph, x)
    return network


def _load(path: Path) -> ImportedNetwork:
    budget = Budget()
    source = read(path, budget)
    context = Context(source, path.parent, budget)
    values = lower(context)
    heads = fuse([value.op for value in values], budget)
    check(heads)
    spread_pools(heads)
    notes = context.notes
    larger = sum(op.kind == "maxpool" and op.upscale is not None for op in reachable(heads))
    if larger:
        notes.append(f"{larger} layers that only enlarge a map, because other nodes read it, too")
    for name, value in zip(source.output_names, values, strict=True):
        of = f" of output {shown(name)}" if len(values) > 1 else ""
        if value.steps:
            notes.append(f"left to the host{of}: {describe(value.steps)}")
    if source.batch != 1:
        notes.append("the batch axis is set to 1")
    copies = separate(heads)
    apart = part_unlike(heads)
    if apart:
        notes.append(f"{apart} convolutions, because layers in one concatenation share a codebook")
    if copies:
        notes.append(f"{copies} copies, because concatenations need layers at different places")
    padder = Padder(heads, budget)
    heads = padder.run()
    if padder.added:
        notes.append(f"{padder.added} zero channels, because concatenations address blocks of 8")
    graph, names = _graph(network_name(path), source.in_shape, heads)
    scale, shift = context.normalisation()
    if (scale != 1).any() or (shift != 0).any():
        notes.append("the file's own normalisation of its input is folded into the input's table")
    namer = Namer(())
    outputs = tuple(
        Output(namer.name(output, "output"), names[head], value.steps)
        for output, head, value in zip(source.output_names, heads, values, strict=True)
    )
    tensors = {
        names[head]: context.before_host(output)
        for output, head in zip(source.output_names, heads, strict=True)
    }
    return ImportedNetwork(
        graph, source.in_shape, source.input_name, source.in_axes, scale, shift, outputs, tensors,
        context.input_codes, notes,
    )  # fmt: skip


def _graph(name: str, in_shape: Shape, heads: Sequence[Op]) -> tuple[Graph, dict[Op, str]]:
    """The Graph of all that `heads` depend on, and the names of its layers."""
    namer = Namer()
    names: dict[Op, str] = {}
    layers: list[Layer] = []
    concats: dict[str, tuple[str, ...]] = {}
    for op in reachable(heads):
        inputs = tuple(names[source] for source in op.sources)
        names[op] = INPUT if op.kind == "input" else namer.name(op.title, op.kind)
        if op.kind == "concat":
            concats[names[op]] = inputs
        elif op.kind != "input":
            values = {one.name: getattr(op, one.name) for one in fields(Layer)}
            values |= {"name": names[op], "inputs": inputs, "title": shown(op.title, TITLE_LENGTH)}
            layers.append(Layer(**values))
    try:
        ends = {names[head] for head in heads}
        ordered = tuple(layer.name for layer in layers if layer.name in ends)
        return Graph(name, in_shape, layers, concats, ordered), names
    except ValueError as error:
        raise UserError(f"the model must fit the engine's rules: {error}") from None


def network_name(path: Path) -> str:
    """An identifier from a file's name.

    >>> network_name(Path("models/SqueezeNet-1.0.onnx")), network_name(Path("7.onnx"))
    ('squeezenet_1_0', 'net_7')
    """
    name = re.sub(r"[^a-z0-9]+", "_", path.stem.lower()).strip("_")[:NAME_LENGTH].strip("_")
    return name if name[:1].isalpha() else f"net_{name}".rstrip("_")


class Namer:
    """Gives every layer and concat its own identifier `[a-z][a-z0-9_]*`."""

    def __init__(self, reserved: Iterable[str] = RESERVED) -> None:
        self._taken: set[str] = set(reserved)
        self._reserved = frozenset(reserved)
        self._counts: dict[str, int] = {}

    def name(self, title: str, kind: str) -> str:
        """An identifier that follows `title`, or `kind` and a number where that says nothing.

        >>> namer = Namer()
        >>> [namer.name(t, "conv") for t in ("/Conv 1", "/Conv 1", "n0", "../../etc", "")]
        ['conv_1', 'conv_1_2', 'conv1', 'etc', 'conv2']
        """
        base = re.sub(r"[^a-z0-9]+", "_", title[:TITLE_LENGTH].lower()).strip("_")
        base = base[:NAME_LENGTH].strip("_")
        if base[:1].isdigit():
            base = f"{kind}_{base}"
        if sum(c.isalpha() for c in base) < 2 or base in self._reserved:
            return self._numbered(kind, 1, "")
        return base if self._take(base) else self._numbered(base, 2, "_")

    def _numbered(self, base: str, first: int, between: str) -> str:
        while True:
            number = self._counts.get(base + between, first)
            self._counts[base + between] = number + 1
            if self._take(f"{base}{between}{number}"):
                return f"{base}{between}{number}"

    def _take(self, name: str) -> bool:
        if name in self._taken:
            return False
        self._taken.add(name)
        return True
