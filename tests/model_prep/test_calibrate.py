# SPDX-License-Identifier: Apache-2.0
"""Streamed maxima and histograms equal those of all activations at once."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from model_prep import data, networks, run, weights
from model_prep.graph import Graph
from model_prep.quantize import calibrate

QM = 10


@pytest.fixture()
def graph() -> Graph:
    return weights.load(networks.get("digits"), None, np.zeros((1, 1, 8, 8), np.uint8)).graph


@pytest.fixture()
def pixels() -> np.ndarray:
    return data.load(networks.get("digits"), None, 37).pixels


def stored(graph: Graph, pixels: np.ndarray) -> dict[str, torch.Tensor]:
    """All activations at once."""
    x = data.to_float(networks.get("digits"), pixels)
    return {layer.name: out for layer, out in run.run_float(graph, x)}


@pytest.mark.parametrize("batch_values", [64, 700, 10**6])
def test_batches_make_no_difference(
    graph: Graph, pixels: np.ndarray, batch_values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "_BATCH_VALUES", batch_values)
    to_float = partial(data.to_float, networks.get("digits"))
    everything = stored(graph, pixels)
    maxima = calibrate.maxima(graph, pixels, to_float)
    names = [layer.name for layer in graph.layers[:-1]]
    assert list(maxima) == names
    fracs = {name: index + 3 for index, name in enumerate(names)}
    counts = calibrate.histograms(graph, pixels, to_float, QM, fracs)
    for name in names:
        assert maxima[name] == pytest.approx(float(everything[name].max()), rel=1e-5)
        y = np.floor(everything[name].double().numpy() * 2.0 ** fracs[name] + 0.5)
        want = np.bincount(np.clip(y, 0, 2**QM - 1).astype(int).ravel(), minlength=2**QM)
        assert counts[name].sum() == want.sum() == everything[name].numel()
        # another batch size sums in another order, which moves values that lie on a boundary
        assert np.abs(counts[name] - want).sum() <= 4


def test_batches_cover_every_image_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "_BATCH_VALUES", 3)
    pixels = np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1)
    sizes = [len(batch) for batch in calibrate.batches(pixels, "images")]
    assert sizes == [3, 3, 2]
    monkeypatch.setattr(calibrate, "_BATCH_VALUES", 0)
    assert len(list(calibrate.batches(pixels))) == 8
