# SPDX-License-Identifier: Apache-2.0
"""HEAD: a linear layer that reads a network's features, where the network has no classes.

Multinomial logistic regression with a small penalty on the squared weights, by L-BFGS (Liu and
Nocedal 1989) in float64 from zeros, on one thread: it draws no random number.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from nuq.formats.build import digest
from nuq.formats.errors import UserError
from nuq.formats.images import ImageSet
from nuq.model_prep import data, run
from nuq.model_prep.graph import Graph, Layer
from nuq.model_prep.quantize.calibrate import batches
from nuq.model_prep.source import Source, shapes_of
from nuq.model_prep.study.results import kept
from nuq.model_prep.weights import result_of

NAME = "head"
_IMAGES = 10_000  # of HEAD at most, evenly spaced
_PENALTY = 3e-2  # of the squared weights of features whose mean square is 1
_STEPS = 100
_MANY = 1 << 20  # labels that the reader takes before it is known how many classes there are


def with_head(source: Source, path: str, folder: Path) -> Source:
    """The network with a linear layer at its end, trained on the labelled images of `path`.

    Args:
        source: a network whose last map the layer reads; an identity that an importer put there is
            left out.
        path: as DATA.
        folder: where the trained layer is kept for the next run.

    Raises:
        UserError: images without labels, or of one class.
    """
    spec = replace(source.spec, outputs=_MANY)
    images = data.load(spec, path, _IMAGES)
    classes = int(images.labels.max(initial=0)) + 1
    if not images.labelled or classes < 2:
        raise UserError(f"HEAD must hold labelled images of two classes or more, not {path}")
    loaded = source.load(images.pixels)
    layers = loaded.graph.layers[: -1 if loaded.graph.layers[-1].fixed else None]
    body = Graph(loaded.graph.name, loaded.graph.in_shape, layers, loaded.graph.concats)
    facts = [
        loaded.sha256, str(spec.preprocessing), body.in_shape, _PENALTY, _STEPS,
        *(hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
          for array in (images.pixels, images.labels)),
    ]  # fmt: skip

    def train() -> np.ndarray:
        return trained(features(source, body, images), images.labels, classes)

    weight = kept(folder / "head.npz", digest(facts), train)
    shape = (classes, *layers[-1].out_shape)
    head = Layer(
        NAME,
        "fc",
        (layers[-1].name,),
        weight[:, :-1].reshape(shape),
        weight[:, -1],
        activation=None,
    )
    graph = Graph(body.name, body.in_shape, [*layers, head], body.concats)
    return replace(
        source, graph=graph, load=lambda _: result_of(graph, loaded.origin),
        spec=replace(source.spec, outputs=classes, state_shapes=shapes_of(graph)),
    )  # fmt: skip


def features(source: Source, body: Graph, images: ImageSet) -> np.ndarray:
    """What the network's last layer stores for the images: float32 [N, values]."""
    inputs = (data.to_float(source.spec, part) for part in batches(images.pixels, "features"))
    return run.float_logits(body, inputs)


def trained(features: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Weights and, as the last column, biases of the layer: float32 [classes, values + 1].

    Args:
        features: float32 [N, values].
        labels: int [N], of 0 to `classes` - 1.
        classes: their number.

    >>> trained(np.array([[1.0], [2.0], [-1.0]], np.float32), np.array([1, 1, 0]), 2)[:, 0] > 0
    array([False,  True])
    """
    scale = float(np.sqrt(np.square(features.astype(np.float64)).mean())) or 1.0
    with one_thread(), torch.enable_grad():
        x = torch.from_numpy(features).double() / scale
        truth = torch.from_numpy(labels)
        weight = torch.zeros(classes, x.shape[1], dtype=torch.float64, requires_grad=True)
        bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS(
            [weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe"
        )

        def loss() -> torch.Tensor:
            optimiser.zero_grad()
            value = F.cross_entropy(F.linear(x, weight, bias), truth)
            value = value + _PENALTY * weight.square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimiser.step(loss)  # type: ignore[no-untyped-call]
    columns = np.hstack([weight.detach().numpy() / scale, bias.detach().numpy()[:, None]])
    return columns.astype(np.float32)


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in one order, whatever the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
