# SPDX-License-Identifier: Apache-2.0
"""How good a choice of quantizers is: metrics of outputs, and `Evaluator`, which scores choices.

SQNR as in paper 002, equation 4. A metric is one entry of METRICS: a loss that adds up over images
and a score that falls with it, so that a search can stop as soon as a candidate has lost too much.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from nuq.formats.errors import UserError
from nuq.formats.quantizer import Quantizer
from nuq.model_prep.parallel import ordered
from nuq.model_prep.quantize.calibrate import Calibration, FloatMaps
from nuq.model_prep.quantize.fake_quant import FakeQuantized
from nuq.model_prep.quantize.plan import NETWORK, LayerPlan, Plan
from nuq.model_prep.stats import divergences

_ALIKE = 0.999  # of a layer's codes are one: it says nothing
_VARIED = 0.99  # of its values may be one
_SAMPLED = 13  # one value in so many says whether what a layer stores is alike
_ENOUGH = 1000  # values, to tell one in a thousand


def sqnr_db(signal: float, noise: float) -> float:
    """Signal-to-quantization-noise ratio of two sums of squares, in dB; inf without noise.

    >>> sqnr_db(1000.0, 1.0), sqnr_db(1.0, 0.0)
    (30.0, inf)
    """
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def inverse_sqnr(db: float) -> float:
    """Noise over signal of a ratio in dB, which adds up over independent quantizers (paper 002).

    >>> inverse_sqnr(20.0), inverse_sqnr(float("inf"))
    (0.01, 0.0)
    """
    return 0.0 if db == math.inf else 10 ** (-db / 10)


def energy(values: np.ndarray) -> float:
    """Sum of squares of float32 values, in float64."""
    return float((values.astype(np.float64) ** 2).sum())


def layer_pairs(
    network: FakeQuantized, maps: FloatMaps, quantizers: Mapping[str, Quantizer],
    weights: Mapping[str, torch.Tensor] | None = None,
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:  # fmt: skip
    """(layer, what it stores in float, what it stores quantized), float32, batch by batch.

    Args:
        network: the fake-quantized network.
        maps: of the float network with the same layers, whose weights may be others.
        quantizers: by layer name.
        weights: see `FakeQuantized.run`.
    """
    for batch, exact in maps:
        for want, (layer, got) in zip(exact, network.run(batch, quantizers, weights), strict=True):
            yield layer.name, want, got


@dataclass(frozen=True)
class Stored:
    """What a layer of the quantized network stores of its own inputs, over some images."""

    sqnr_db: float  # against what float stores
    alike: float  # the largest share of its values that are one, of every _SAMPLED-th; 0 of few


def stored_layers(
    network: FakeQuantized, maps: FloatMaps, quantizers: Mapping[str, Quantizer]
) -> dict[str, Stored]:
    """Every layer's `Stored` by name: see `layer_pairs`."""
    names = [layer.name for layer in network.graph.layers]
    signal, noise = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    sampled: dict[str, list[torch.Tensor]] = {name: [] for name in quantizers}

    def sums(
        part: tuple[np.ndarray, Iterable[torch.Tensor]],
    ) -> list[tuple[str, float, float, torch.Tensor]]:
        return [
            (name, float(want.double().square().sum()), float((want - got).double().square().sum()),
             got.flatten()[::_SAMPLED].clone())
            for name, want, got in layer_pairs(network, [part], quantizers)
        ]  # fmt: skip

    for found in ordered(sums, maps):
        for name, power, error, some in found:
            signal[name] += power
            noise[name] += error
            if name in sampled:
                sampled[name].append(some)
    return {
        name: Stored(sqnr_db(signal[name], noise[name]), _alike(sampled.get(name, [])))
        for name in names
    }


def _alike(parts: list[torch.Tensor]) -> float:
    """The share of the commonest value, where it is more than half; 0 of less than _ENOUGH values.

    >>> _alike([torch.arange(500), torch.ones(1500)])
    0.7505
    """
    values = torch.cat(parts) if parts else torch.empty(0)
    if len(values) < _ENOUGH:
        return 0.0
    return float((values == values.median()).double().mean())


def layer_sqnr_db(
    network: FakeQuantized, maps: FloatMaps, quantizers: Mapping[str, Quantizer]
) -> dict[str, float]:
    """SQNR of every layer's stored output against the float network: see `layer_pairs`."""
    return {
        name: one.sqnr_db for name, one in stored_layers(network, maps, quantizers).items()
    }  # fmt: skip


def _misses(logits: np.ndarray, _: np.ndarray, truth: np.ndarray) -> float:
    """Images whose first largest output is not the truth."""
    return float((np.argsort(-logits, axis=1, kind="stable")[:, 0] != truth).sum())


def _percent(misses: float, images: int, _: float) -> float:
    return 100 * ((images - misses) / images)


@dataclass(frozen=True)
class Metric:
    """What a search keeps high."""

    unit: str  # of scores
    delta: float  # how much of it a search may lose unless DELTA says otherwise
    # from outputs, float's outputs [N, classes] and truth (int [N]) to a sum over images
    loss: Callable[[np.ndarray, np.ndarray, np.ndarray], float]
    # from a total loss, the number of images and the energy of float's outputs
    score: Callable[[float, int, float], float]
    truth: str | None = None  # what is to be answered: "labels", "float" (its first answers)
    worst: float = math.inf  # largest loss of an image


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric("% top-1", 1.0, _misses, _percent, "labels", 1.0),
    "agreement": Metric("% agreement with float", 5.0, _misses, _percent, "float", 1.0),
    "divergence": Metric(
        "nats from float (negative)", 0.1,
        lambda logits, exact, _: float(divergences(exact, logits).sum()),
        lambda total, images, _: -total / images,
    ),
    "sqnr": Metric(
        "dB of output SQNR", 30.0, lambda logits, exact, _: energy(logits - exact),
        lambda noise, _, signal: sqnr_db(signal, noise),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """Images that choices of quantizers are judged on."""

    network: FakeQuantized
    pixels: np.ndarray  # uint8 [N, C, H, W]
    labels: np.ndarray | None  # int [N], or None where they mean nothing
    logits: np.ndarray  # the float network's outputs, float32 [N, classes]

    @classmethod
    def of(
        cls, calibration: Calibration, network: FakeQuantized, labels: np.ndarray | None
    ) -> "Sample":
        """The search images of a calibration; `labels` are those of all its images."""
        few = slice(calibration.few)
        labels = None if labels is None else labels[few]
        return cls(network, calibration.pixels[few], labels, calibration.logits[few])

    def outputs(self, quantizers: Mapping[str, Quantizer]) -> np.ndarray:
        """The fake-quantized network's outputs, float32 [N, classes]."""
        return self.network.logits(self.pixels, quantizers)

    def hardest_first(self) -> "Sample":
        """The images in the order that settles a candidate's fate soonest.

        First those that even the float network gets wrong, then by its margin between the two
        largest outputs: small margins turn first under noise.
        """
        if self.logits.shape[1] < 2:
            return self
        top = np.sort(self.logits, axis=1)
        margin = top[:, -1] - top[:, -2]
        if self.labels is not None:
            margin = np.where(self.logits.argmax(1) == self.labels, margin, -np.inf)
        order = np.argsort(margin, kind="stable")
        labels = None if self.labels is None else self.labels[order]
        return Sample(self.network, self.pixels[order], labels, self.logits[order])


class Evaluator:
    """Scores a choice of quantizers by a metric."""

    def __init__(self, sample: Sample, metric: str | None = None) -> None:
        """`metric` is a key of METRICS; None: accuracy with labels, else sqnr.

        Raises:
            UserError: an unknown metric, or one that asks for labels where there are none.
        """
        name = metric or ("sqnr" if sample.labels is None else "accuracy")
        if name not in METRICS:
            raise UserError(f"METRIC must be one of {', '.join(METRICS)}, not {name}")
        self.sample, self.metric = sample, METRICS[name]
        truths = {"labels": sample.labels, "float": sample.logits.argmax(axis=1)}
        truth = truths.get(self.metric.truth or "", np.zeros(len(sample.pixels), np.int64))
        if truth is None:
            others = [key for key, one in METRICS.items() if one.truth != "labels"]
            raise UserError(
                f"METRIC must be {' or '.join(others)} for images without labels or seeded "
                f"weights, not {name}"
            )
        self.truth = truth  # int [N]; zeros where the metric does not ask
        self.signal = energy(sample.logits)

    @property
    def unit(self) -> str:
        """What scores are measured in."""
        return self.metric.unit

    @property
    def float_score(self) -> float:
        """The float network's score: its accuracy, or infinite SQNR."""
        return self.rate(self.sample.logits)[0]

    def delta(self, given: float | None) -> float:
        """What a search may lose: DELTA, or what the metric has where that is not given."""
        return self.metric.delta if given is None else given

    def goal_text(self, goal: float, given: float | None, qm: int) -> str:
        """What a search must reach, for people; `given` as for `delta`."""
        return f"goal {goal:.2f}, DELTA {self.delta(given):g} below {qm}-bit uniform codes"

    def score(self, quantizers: Mapping[str, Quantizer]) -> tuple[float, float]:
        """(score, output SQNR in dB): greater is better, the second decides between equals."""
        return self.rate(self.sample.outputs(quantizers))

    def rate(self, logits: np.ndarray) -> tuple[float, float]:
        """(score, output SQNR in dB) of outputs [N, classes] for the images."""
        loss = self.metric.loss(logits, self.sample.logits, self.truth)
        noise = energy(logits - self.sample.logits)
        return self.metric.score(loss, len(logits), self.signal), sqnr_db(self.signal, noise)


def check_codes(
    calibration: Calibration, plan: Plan, quantizers: Mapping[str, Quantizer],
    alike: Mapping[str, float],
) -> None:  # fmt: skip
    """Refuse, by UserError, a layer whose codes say nothing although its values differ.

    Args:
        calibration: what float's values are.
        plan, quantizers: what encodes them.
        alike: by layer name, the largest share of equal values in what the quantized network
            stores, whose layers read what is left by those before them.
    """
    for layer in plan.layers:
        chosen = quantizers.get(layer.name)
        if chosen is None or calibration.commonest(layer.name) > _VARIED:
            continue
        counts = calibration.counts(chosen.qm, {layer.name: chosen.encoded_frac})[layer.name]
        codes = np.bincount(chosen.encode_table, weights=counts)
        share = max(float(codes.max() / max(1, codes.sum())), alike[layer.name])
        if share >= _ALIKE:
            raise UserError(
                f"layer {layer.name}: {layer.scheme} with {layer.bits} bits must tell values "
                f"apart, not give {100 * share:.1f}% of them one code; {_remedies(plan, layer)}"
            )


def _remedies(plan: Plan, layer: LayerPlan) -> str:
    """What makes a layer's codes say more."""
    found = ["raise BITS"]
    if layer.scheme != "knq":
        found.append("set SCHEME=knq")
    elif layer.options.get("rule") == "floor":
        found.append("set RULE=nearest")
    if plan.frac_mode == NETWORK or plan.frac is not None or layer.frac is not None:
        found.append('let each layer have its F (frac_mode = "layer" and no frac)')
    *others, last = found
    return ", ".join(others) + f"{', or' if len(others) > 1 else ' or'} {last}" if others else last
