# SPDX-License-Identifier: Apache-2.0
"""Trains the networks whose weights come with the project, from fixed seeds.

digits is trained here, photographs by `train_photos`.
"""

import io
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from formats.build import write_atomic
from formats.errors import UserError
from formats.images import ImageSet, percent_correct
from model_prep import data, networks, trainer
from model_prep.graph import Layer
from model_prep.networks.spec import NetworkSpec
from model_prep.quantize import calibrate
from model_prep.run import finish, float_logits, last, operate, run
from model_prep.training import train_photos
from model_prep.training.augment import Augmented, centre, load_whole

SEED = 8
EPOCHS = 60
BATCH = 64
RATE = 3e-3
WEIGHT_DECAY = 1e-4
SHIFT = 1  # pixels a training image may be moved by


def train(
    net: str, out: Path | None = None, source: str | None = None, test: str | None = None,
    epochs: int | None = None,
) -> float:  # fmt: skip
    """Train `net`, print and return its test accuracy in percent, and store its weights.

    Args:
        net: a network with packaged weights.
        out: where to store them; default: the packaged place.
        source: DATA, images with labels; not for digits.
        test: TEST, images to report the accuracy of; default: a tenth of DATA, kept apart.
        epochs: instead of the recipe's.

    Raises:
        UserError: the network has no training recipe here, images do not fit, or the file cannot
            be written.
    """
    spec = networks.get(net)
    if spec.packaged is None:
        recipes = ", ".join(name for name, other in networks.registry().items() if other.packaged)
        raise UserError(f"NET must be one with a training recipe ({recipes}), not {net}")
    if epochs is not None and epochs < 1:
        raise UserError(f"EPOCHS must be 1 or more, not {epochs}")
    digits = spec.default_data == "digits"
    fit, held_out = _digits(spec, source, test) if digits else photographs(spec, source, test)
    with trainer.reproducible(SEED):
        if digits:
            pixels, labels = data.to_float(spec, fit.pixels), torch.from_numpy(fit.labels)
            state = _fit(spec, pixels, labels, epochs or EPOCHS)
        else:
            recipe = train_photos.Recipe()
            recipe = replace(recipe, epochs=epochs or recipe.epochs)
            folded = train_photos.fit(spec, Augmented(fit, spec.in_shape, mirror=True), recipe)
            state = {name: tensor.half() for name, tensor in folded.items()}
    graph = spec.build({name: tensor.detach().float().numpy() for name, tensor in state.items()})
    inputs = (data.to_float(spec, batch) for batch in calibrate.batches(held_out.pixels))
    accuracy = percent_correct(float_logits(graph, inputs), held_out.labels)
    path = out or spec.packaged
    _save({name: tensor.detach() for name, tensor in state.items()}, path)
    print(f"{net}: {accuracy:.2f}% of {len(held_out)} test images; written: {path}")
    return accuracy


def _digits(spec: NetworkSpec, source: str | None, test: str | None) -> tuple[ImageSet, ImageSet]:
    if source is not None or test is not None:
        raise UserError("DATA and TEST must be absent for digits, whose images scikit-learn has")
    return data.split(data.load(spec, None), data.DIGITS_TEST)


def photographs(
    spec: NetworkSpec, source: str | None, test: str | None
) -> tuple[ImageSet, ImageSet]:
    """(training images with their margin, test images of the input size), both with labels.

    Raises:
        UserError: no DATA, or no labels.
    """
    if source is None:
        raise UserError(
            f"DATA must be given to train {spec.name}: an .npz file with `jpeg`, `start` and "
            "`label` (or `images` and `labels`), or a folder with a subfolder of images per class"
        )
    fit = load_whole(spec, source)
    if test is None:
        fit, held_out = data.split(fit, len(fit) // 10)
        held_out = replace(held_out, pixels=centre(held_out.pixels, spec.in_shape))
    else:
        held_out = data.load(spec, test)
    for name, images in (("DATA", fit), ("TEST", held_out)):
        if not images.labelled:
            raise UserError(f"{name} must have a label for every image, not {images.source}")
    return fit, held_out


def _fit(
    spec: NetworkSpec, x: torch.Tensor, labels: torch.Tensor, epochs: int
) -> dict[str, torch.Tensor]:
    """Train on images float32 [N, C, H, W], moved about by up to SHIFT pixels; labels int64 [N].

    Returns:
        The trained tensors by their names in a state_dict.
    """
    state, graph = train_photos.untrained(spec)
    optimizer = torch.optim.AdamW(state.values(), RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    background = float(x.min())

    def batches() -> Iterator[list[torch.Tensor]]:
        for _ in range(epochs):
            for index in torch.randperm(len(x)).split(BATCH):
                yield [index]
            schedule.step()

    def loss(index: torch.Tensor) -> torch.Tensor:
        down, right = torch.randint(0, 2 * SHIFT + 1, (2,)).tolist()
        moved = F.pad(x[index], (SHIFT,) * 4, value=background)
        moved = moved[:, :, down : down + x.shape[2], right : right + x.shape[3]]
        return F.cross_entropy(last(run(graph, moved, stored, gradients=True)), labels[index])

    def stored(layer: Layer, inputs: list[torch.Tensor]) -> torch.Tensor:
        return finish(layer, operate(layer, inputs, train_photos.parameters(state, layer)))

    steps = epochs * math.ceil(len(x) / BATCH)
    trainer.train(optimizer, None, batches(), loss, steps, f"training {spec.name}")
    return state


def _save(state: dict[str, torch.Tensor], path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())
