# SPDX-License-Identifier: Apache-2.0
"""One pass over the images: maxima, histograms for any F chosen afterwards, outputs, maps."""

import digits_network as digits
import numpy as np
import pytest
import torch

from nuq.formats.arithmetic import lowest
from nuq.model_prep import run
from nuq.model_prep.graph import Graph
from nuq.model_prep.quantize import calibrate
from nuq.model_prep.quantize.calibrate import FINER, Calibration, Histogram, to_integers

QM, TO_FLOAT = 10, digits.TO_FLOAT


@pytest.fixture()
def graph() -> Graph:
    return digits.graph()


@pytest.fixture()
def pixels() -> np.ndarray:
    return digits.images(37).pixels


@pytest.mark.parametrize("batch_values", [64, 700, 10**6])
def test_batches_make_no_difference(
    graph: Graph, pixels: np.ndarray, batch_values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "_BATCH_VALUES", batch_values)
    layers = list(run.run_float(graph, TO_FLOAT(pixels)))
    everything = {layer.name: out for layer, out in layers}
    found = Calibration(graph, pixels, TO_FLOAT, QM, few=5)
    names = [layer.name for layer in graph.layers[:-1]]
    assert list(found.maxima) == names
    fracs = {name: index + 3 for index, name in enumerate(names)}
    counts = found.counts(QM, fracs)
    for name in names:
        assert found.maxima[name] == pytest.approx(float(everything[name].max()), rel=1e-5)
        y = np.floor(everything[name].double().numpy() * 2.0 ** fracs[name] + 0.5)
        want = np.bincount(np.clip(y, 0, 2**QM - 1).astype(int).ravel(), minlength=2**QM)
        assert counts[name].sum() == want.sum() == everything[name].numel()
        # another batch size sums in another order, which moves values that lie on a boundary
        assert np.abs(counts[name] - want).sum() <= 4
    np.testing.assert_allclose(found.logits, layers[-1][1].flatten(1), atol=1e-3)
    batches = list(found.maps())
    assert sum(len(batch) for batch, _ in batches) == 5
    last = torch.cat([list(maps)[-1] for _, maps in batches]).flatten(1)
    assert (last.numpy() == found.logits[:5]).all()


def test_batches_cover_every_image_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "_BATCH_VALUES", 3)
    pixels = np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1)
    assert [len(batch) for batch in calibrate.batches(pixels, "images")] == [3, 3, 2]
    assert [len(batch) for batch in calibrate.batches(pixels, split=4)] == [3, 1, 3, 1]
    monkeypatch.setattr(calibrate, "_BATCH_VALUES", 0)
    assert len(list(calibrate.batches(pixels))) == 8


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_any_f_follows_exactly_from_steps_that_widen(signed: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    parts = [random.standard_normal(500) * 2.0 ** random.integers(-30, 12) for _ in range(5)]
    values = torch.from_numpy(np.concatenate([[0.0], *parts]).astype(np.float32))
    values = values if signed else values.abs()
    histogram = Histogram(QM + FINER + 1, signed)
    for part in values.split(300):
        histogram.add(part)
    assert histogram.largest == float(values.abs().max())
    fine = np.log2((1 << (QM - signed)) / histogram.largest)
    for frac in range(int(np.floor(fine)) - 12, int(np.floor(fine)) + FINER):
        want = torch.bincount(
            to_integers(values, QM, frac, signed) - lowest(QM, signed), minlength=1 << QM
        )
        assert (histogram.at(QM, frac) == want.numpy()).all()
    assert histogram.at(QM, histogram.frac) is None


def test_an_f_too_fine_for_the_steps_takes_a_second_pass(
    graph: Graph, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Calibration(graph, pixels, TO_FLOAT, QM)
    passes = []
    float_pass = run.run_encoded
    monkeypatch.setattr(run, "run_encoded", lambda *args: passes.append(1) or float_pass(*args))
    fracs = dict.fromkeys(found.maxima, 30)
    counts = found.counts(QM, fracs)
    assert passes == [1]
    for layer, _, stored in float_pass(graph, TO_FLOAT(pixels)):
        if layer.name in counts:
            assert counts[layer.name][-1] == int((stored * 2.0**30 >= 2**QM - 1.5).sum())


def test_maps_too_large_to_keep_are_computed_again(
    graph: Graph, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Calibration(graph, pixels, TO_FLOAT, QM, few=6)
    monkeypatch.setattr(calibrate, "_KEPT_BYTES", 100)
    again = Calibration(graph, pixels, TO_FLOAT, QM, few=6)
    for (one, maps), (other, others) in zip(kept.maps(), again.maps(), strict=True):
        assert (one == other).all()
        for left, right in zip(maps, others, strict=True):
            assert torch.equal(left, right)
