# SPDX-License-Identifier: Apache-2.0
"""Where NET leads: a network of the registry, or an ONNX file with the recipe for its images.

Both become a NetworkSpec, a Graph for planning, and weights.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nuq.formats.ending import decides, ending_of
from nuq.formats.errors import UserError, meant_file
from nuq.formats.images import LEVELS
from nuq.model_prep import data, networks, weights
from nuq.model_prep.graph import Graph
from nuq.model_prep.networks.spec import IMAGENET, NetworkSpec, Preprocessing, State
from nuq.model_prep.onnx import ImportedNetwork, load_onnx
from nuq.model_prep.quantize.codes import usual_width
from nuq.model_prep.quantize.matching import factor, matched, power_step, without_codes
from nuq.model_prep.quantize.plan import Settings, parse_bits
from nuq.model_prep.seeding import reseed

SUFFIX = ".onnx"
SEEDED = "seeded"
_RESIZE_RATIO = 256 / 224  # of the shorter side to the crop, as published recipes have it


@dataclass(frozen=True)
class Recipe:
    """Preprocessing options of the command line; None where they are not given."""

    mean: str | None = None
    std: str | None = None
    scale: float | None = None
    resize: int | None = None
    side: int | None = None  # of the input instead of the file's own


@dataclass(frozen=True)
class Source:
    """A network that is not loaded yet."""

    spec: NetworkSpec
    graph: Graph  # its structure, for the plan; the weights need not be the final ones
    # from images (uint8 [N, C, H, W], which seeded weights are scaled from) to weights
    load: Callable[[np.ndarray], weights.WeightsResult]
    imported: ImportedNetwork | None = None  # of an ONNX file
    path: Path | None = None  # of the ONNX file

    @property
    def defaults(self) -> Settings:
        """The network's own choices."""
        bits = parse_bits(self.spec.default_bits)
        return {"scheme": self.spec.default_scheme, "bits": bits}


def open_source(net: str, source: str | None, recipe: Recipe) -> Source:
    """The network that NET names.

    Args:
        net: a name of the registry, or the path of an ONNX file.
        source: WEIGHTS: see `weights.load`; for an ONNX file None means its own, and a checkpoint
            has tensors NAME.weight and NAME.bias by layer.
        recipe: for the images of an ONNX file.

    Raises:
        UserError: an unknown name, a file that cannot be imported, or options that do not fit.
    """
    if net.lower().endswith(SUFFIX):
        return _from_file(Path(net), source, recipe)
    spec = networks.get(net)
    if recipe != Recipe():
        raise UserError(
            f"MEAN, STD, SCALE, RESIZE and SIDE must go with an ONNX file, not with {net}, which "
            "has its published recipe"
        )
    return Source(spec, spec.empty(), lambda pixels: weights.load(spec, source, pixels))


def _from_file(path: Path, source: str | None, recipe: Recipe) -> Source:
    if not path.is_file():
        raise UserError(f"NET must be an existing ONNX file, not {path}{meant_file(path)}")
    imported = load_onnx(path)
    if recipe.side:
        graph = resized(imported.graph, recipe.side)
        imported = replace(imported, graph=graph, in_shape=graph.in_shape)
    images, by = folded(imported, recipe), factor(imported.input_codes)
    images = replace(images, std=tuple(one / by for one in images.std))
    graph, codes = matched(imported.graph, imported.input_codes), power_step(imported.input_codes)
    imported = replace(imported, graph=graph, scale=imported.scale * by, shift=imported.shift * by)
    file_bits = usual_width(graph)
    outputs = sum(int(np.prod(head.out_shape)) for head in graph.ends)
    spec = NetworkSpec(
        name=graph.name, in_shape=imported.in_shape, state_shapes=shapes_of(graph),
        build=lambda state: _filled(graph, state),
        preprocessing=images, input_codes=codes,
        default_data="photographs", default_scheme="uniform" if file_bits else "knq",
        default_bits=str(file_bits or 5),
        outputs=2 if decides(ending_of(imported.outputs), outputs) else outputs,
        results=imported.outputs,
    )  # fmt: skip

    def load(pixels: np.ndarray) -> weights.WeightsResult:
        if source not in (None, SEEDED):
            return weights.load(spec, source, pixels)
        if source == SEEDED:
            remedy = "leave WEIGHTS out to use the file's own"
            weights.warn_seeded(spec.name, "WEIGHTS=seeded asks for them", remedy)
            without_codes(graph)
            reseed(graph, data.to_float(spec, pixels[: weights.SCALING_IMAGES]))
        return weights.result_of(graph, SEEDED if source == SEEDED else "file")

    return Source(spec, graph, load, imported, path)


def resized(graph: Graph, side: int) -> Graph:
    """The same layers on square images of another side.

    Raises:
        UserError: a layer's kernel covers its whole input, or the maps vanish.
    """
    for layer in graph.layers:
        if max(layer.kernel) > 1 and layer.kernel == layer.in_shape[1:]:
            raise UserError(
                f"SIDE must go with a network of convolutions alone, but layer {layer.name} takes "
                f"its whole {layer.kernel[0]}x{layer.kernel[1]} input; leave SIDE out"
            )
    try:
        return Graph(
            graph.name, (graph.in_shape[0], side, side), graph.layers, graph.concats, graph.heads
        )
    except ValueError as error:
        raise UserError(f"SIDE must be large enough for the network, not {side}: {error}") from None


def shapes_of(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Tensor names and shapes of a checkpoint for a graph from a file: those of its layers."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in graph.layers:
        if layer.has_weights:
            shapes[f"{layer.name}.weight"] = layer.weight.shape
            shapes[f"{layer.name}.bias"] = layer.bias.shape
    return shapes


def _filled(graph: Graph, state: State) -> Graph:
    """The graph with a checkpoint's weights in it."""
    for layer in graph.layers:
        if layer.has_weights:
            layer.weight, layer.bias = state[f"{layer.name}.weight"], state[f"{layer.name}.bias"]
    return graph


def state_of(source: Source, graph: Graph) -> dict[str, np.ndarray]:
    """A checkpoint's tensors, float32, from which `source` would build `graph` again.

    Args:
        source: where the graph's structure is from.
        graph: with weights to store.
    """
    shapes = source.spec.state_shapes
    arrays = [
        array for layer in graph.layers if layer.has_weights for array in (layer.weight, layer.bias)
    ]
    state = {
        name: np.array(array, np.float32).reshape(shape)
        for (name, shape), array in zip(shapes.items(), arrays, strict=True)
    }
    for want, got in zip(graph.layers, source.spec.build(state).layers, strict=True):
        if not (np.array_equal(want.weight, got.weight) and np.array_equal(want.bias, got.bias)):
            raise UserError(f"layer {want.name}: a checkpoint must be able to hold its weights")
    return state


def folded(imported: ImportedNetwork, recipe: Recipe) -> Preprocessing:
    """The recipe for an ONNX file's images, with the file's own normalisation behind it.

    Where the file has one and no mean, std or scale is given, its input is taken for pixels 0..255
    if it subtracts or divides by more than 1, else for pixels 0..1.
    """
    if not imported.normalises:
        return preprocessing(imported.in_shape, recipe)
    factor, shift = imported.scale.astype(np.float64), imported.shift.astype(np.float64)
    if recipe.mean is None and recipe.std is None and recipe.scale is None:
        wide = max(float(np.abs(shift / factor).max()), float(np.abs(1 / factor).max())) > 1
        recipe = replace(recipe, scale=1.0 if wide else 1 / 255)
    found = preprocessing(imported.in_shape, recipe)
    mean, std = np.array(found.mean), np.array(found.std)
    # ((p * s - m) / d) * a + b = (p * s - (m - b * d / a)) / (d / a)
    mean, std = mean - shift * std / factor, std / factor
    return replace(found, mean=tuple(mean.tolist()), std=tuple(std.tolist()))


def preprocessing(shape: tuple[int, int, int], recipe: Recipe) -> Preprocessing:
    """The recipe for an ONNX file's images.

    Values are torch's, 0..1 by a scale of 1 / 255, unless a scale is given. With no mean, std or
    scale given mean and std are torchvision's for 3 channels; what is missing otherwise is mean 0,
    std 1. A size that is given is for all pictures, without it those of the input's size stay.

    Raises:
        UserError: numbers that are none, too many or too few, or out of range.
    """
    channels, rows, columns = shape
    crop = max(rows, columns)
    resize = round(crop * _RESIZE_RATIO) if recipe.resize is None else recipe.resize
    if not crop <= resize <= 1 << 15:
        raise UserError(
            f"RESIZE must be {crop}..{1 << 15} for a {rows}x{columns} input, not {resize}"
        )
    given = (recipe.mean, recipe.std, recipe.scale)
    if given == (None, None, None) and channels == len(IMAGENET.mean):
        return replace(IMAGENET, resize=resize, resize_all=recipe.resize is not None)
    mean = _per_channel("MEAN", recipe.mean or "0", channels)
    std = _per_channel("STD", recipe.std or "1", channels)
    scale = IMAGENET.scale if recipe.scale is None else recipe.scale
    if min(std) <= 0 or not 0 < scale < float("inf"):
        raise UserError(f"STD and SCALE must be above 0, not {recipe.std} and {recipe.scale}")
    largest = (LEVELS - 1) * scale
    if max(mean) > largest * (1 + 1e-6):
        raise UserError(
            f"MEAN must be at most {largest:g}, the largest pixel times SCALE, not {recipe.mean}; "
            "set SCALE=1 for a mean of pixels from 0 to 255"
        )
    return Preprocessing(resize, scale, mean, std, resize_all=recipe.resize is not None)


def _per_channel(name: str, text: str, channels: int) -> tuple[float, ...]:
    """One number per channel from a comma list; a single number is for all channels.

    >>> _per_channel("MEAN", "123,117,104", 3), _per_channel("STD", "58", 2)
    ((123.0, 117.0, 104.0), (58.0, 58.0))
    """
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) == 1:
        numbers *= channels
    if len(numbers) != channels or not np.isfinite(numbers).all():
        raise UserError(f"{name} must be 1 or {channels} numbers with commas, not {text!r}")
    return numbers
