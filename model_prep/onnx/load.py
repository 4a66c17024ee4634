# SPDX-License-Identifier: Apache-2.0
"""`load_onnx`: a path to an `ImportedNetwork`, or a UserError of one sentence."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import torch

from formats.errors import UserError
from model_prep.graph import Graph
from model_prep.onnx.concats import Padder, separate
from model_prep.onnx.emit import emit
from model_prep.onnx.fuse import Fuser, check, finish, reachable
from model_prep.onnx.limits import Budget
from model_prep.onnx.lowering import Context, lower
from model_prep.onnx.operators import OPERATORS
from model_prep.onnx.reader import read
from model_prep.onnx.spread import spread_pools
from model_prep.onnx.tensors import TensorReader
from model_prep.onnx.text import NAME_LENGTH, shown
from model_prep.onnx.views import plain_order
from model_prep.seeding import SEED, reseed

SEEDED = "seeded"
SEEDING_IMAGES = 2


@dataclass
class ImportedNetwork:
    """A network from an ONNX file.

    Attributes:
        graph: the network; its name is an identifier made from the file's name.
        in_shape: (channels, rows, columns).
        input_name, output_name: tensor names as they are in the file, for onnxruntime; never for
            paths, code or pages.
        logits_name: the tensor that the Graph computes; `output_name`, unless the host does more.
        host: what the host applies to the Graph's output: "softmax", "logsoftmax" or "".
        notes: what the importer did that the file does not say.
    """

    graph: Graph
    in_shape: tuple[int, int, int]
    input_name: str
    output_name: str
    logits_name: str = ""
    host: str = ""
    notes: list[str] = field(default_factory=list)


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
    context = Context(source, TensorReader(path.parent, budget), budget)
    value = lower(context, OPERATORS)
    if not plain_order(value):
        raise UserError("the output must lie channel by channel, not be transposed")
    output = finish(Fuser(value.op).run())
    check(reachable(output))
    spread_pools(output)
    notes = context.notes
    if source.batch != 1:
        notes.append("the batch axis is set to 1")
    copies = separate(output)
    if copies:
        notes.append(f"{copies} copies, because a layer can be in one concatenation only")
    padder = Padder(output, budget)
    output = padder.run()
    if padder.added:
        notes.append(f"{padder.added} zero channels, because concatenations address blocks of 8")
    graph = emit(network_name(path), source.in_shape, output)
    return ImportedNetwork(
        graph, source.in_shape, source.input_name, source.output_name,
        context.logits_name(), value.host, notes,
    )  # fmt: skip


def network_name(path: Path) -> str:
    """An identifier from a file's name.

    >>> network_name(Path("models/SqueezeNet-1.0.onnx")), network_name(Path("7.onnx"))
    ('squeezenet_1_0', 'net_7')
    """
    name = re.sub(r"[^a-z0-9]+", "_", path.stem.lower()).strip("_")[:NAME_LENGTH].strip("_")
    return name if name[:1].isalpha() else f"net_{name}".rstrip("_")
