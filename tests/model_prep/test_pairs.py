# SPDX-License-Identifier: Apache-2.0
"""Widths of values by layer, and METHOD=pairs, which chooses the layers with narrow numbers."""

import json
from pathlib import Path

import digits_network as digits
import numpy as np
import pytest

from nuq.formats import network as manifest
from nuq.formats.commands import main
from nuq.formats.errors import UserError, run_cli
from nuq.model_prep.allocate import pairs
from nuq.model_prep.allocate.measure import measuring
from nuq.model_prep.quantize import fracs
from nuq.model_prep.quantize.fake_quant import FakeQuantized
from nuq.model_prep.quantize.plan import Plan, Settings
from nuq.model_prep.quantize.plan_file import check_widths, resolve
from nuq.model_prep.quantize.quantizers.histogram import signal_and_noise
from nuq.model_prep.quantize.refine.pipeline import fit_one

NARROW = {"conv1": 9, "fc4": 10}


def plan_with(qm: dict[str, int], scheme: str = "knq", bits: int = 4) -> Plan:
    return digits.plan_of(scheme=scheme, bits=bits).with_values("qm", qm)


@pytest.mark.parametrize("scheme", ["knq", "enq", "uniform"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_layer_may_have_narrower_values(scheme: str, weighted: bool) -> None:
    """Its F is less by the bits that it lacks, and its table is that of a network so narrow."""
    found = digits.formats()
    if weighted:
        found = fracs.by_layer(digits.calibration(), digits.plan_of(), 12)
    plain = found.fit(plan_with({}, scheme))
    mixed = found.fit(plan_with(NARROW, scheme))
    for name, one in mixed.items():
        less = 12 - NARROW.get(name, 12) if scheme != "uniform" else 0
        assert (one.qm, one.frac) == (plain[name].qm - less, plain[name].frac - less)
        if less and scheme == "knq":
            counts, frac = found.counts[name], found.fracs[name]
            noise = [signal_and_noise(counts, 0, frac, table)[1] for table in (one, plain[name])]
            assert noise[0] == pytest.approx(noise[1], rel=0.05)
    again = {layer.name: layer for layer in plan_with(NARROW, scheme).layers}
    if scheme == "knq" and not weighted:
        counts, frac = found.counts["fc4"].astype(float), found.fracs["fc4"]
        refined, _ = fit_one(again["fc4"], counts, 4, 12, frac)
        assert (refined.qm, refined.frac) == (10, frac - 2)
        assert np.array_equal(refined.centroid, mixed["fc4"].centroid)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("[layer.conv1]\nqm = 13", "qm of layer conv1 must be at most the network's 12, not 13"),
        ('[layer.conv1]\nqm = "auto"', "qm must be an integer, not auto"),
        ('qm = "auto"\n[layer.conv1]\nqm = 9', "qm must be a number where layer conv1 has a qm"),
        ("[layer.fc5]\nqm = 9", "fc5. must have no qm, as its output, the network's own, "),
        ("[layer.conv1]\nqm = 3", "BITS of layer conv1 must be 1..3 for knq, not 4"),
    ],
)
def test_bad_widths_of_values(tmp_path: Path, content: str, text: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(content + "\n")
    with pytest.raises(UserError, match=text):
        resolve(digits.graph(), Settings(), Settings(scheme="knq", bits=4), path)


def test_the_layers_of_least_loss_become_narrow() -> None:
    """The most of them that reach the goal, in their order; scores are the evaluator's."""
    plan, formats, sample = digits.plan_of(), digits.formats(), digits.sample(False)
    with measuring(None, sample, "divergence") as measure:
        done = pairs.choose(digits.graph(), plan, formats, measure)
        ranks = [one.loss / one.macs for one in done.candidates]
        assert ranks == sorted(ranks) and {"conv2", "fc5"} <= {one.name for one in done.candidates}
        assert done.score >= done.goal
        assert done.goal == pytest.approx(done.wide_score * (1 + pairs.SHARE), rel=1e-12)
        first = done.candidates[: done.narrow]
        for layer in done.plan.layers:
            weights = layer.weight_bits, layer.weight_scale
            narrow = layer.name in {one.name for one in first}
            assert weights == ((8, "channel") if narrow else (14, "layer"))
        maps = {name for one in first for name in one.maps}
        assert {layer.name for layer in done.plan.layers if layer.qm} == maps
        network = FakeQuantized(digits.graph(), digits.INPUT, done.plan.layers)
        logits = network.logits(sample.pixels, formats.fit(done.plan))
        assert measure.rate(logits)[0] == pytest.approx(done.score, rel=0.05)  # biases differ
        strict = pairs.choose(digits.graph(), digits.plan_of(delta=0.0), formats, measure)
        assert strict.score >= strict.wide_score and strict.narrow <= done.narrow
    check_widths(done.plan)


def test_the_plan_is_what_a_network_is_made_of(tmp_path: Path) -> None:
    common = ["NET=digits", "BITS=4"]
    assert main(["allocate", *common, "METHOD=pairs", "DELTA=1", f"OUT={tmp_path}"]) == 0
    entry = json.loads((tmp_path / "allocation.json").read_text())
    assert entry["narrow"] == len(entry["candidates"]) > 0
    plan = f"PLAN={tmp_path / 'plan.toml'}"
    assert main(["quantize", "NET=digits", plan, f"OUT={tmp_path}"]) == 0
    network = manifest.load(tmp_path / "quantized")
    stored = [layer.quantizer for layer in network.layers[:-1]]
    assert {one.qm for one in stored if one is not None} == {9}
    assert all(layer.weight_bits == 8 for layer in network.layers if layer.has_weights)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("BITS=auto", "METHOD=pairs must have fixed widths, not BITS=auto"),
        ("REFINE=all", "METHOD=pairs must have no REFINE"),
        ("NB=1000", "NB must go with METHOD=budget, not METHOD=pairs"),
        ("WEIGHT_BITS=14", "METHOD=pairs must have layers with weights of a width to choose"),
    ],
)
def test_what_pairs_cannot_use(
    words: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["allocate", "NET=digits", "METHOD=pairs", *words.split(), f"OUT={tmp_path}"]
    assert run_cli(main, line) == 2
    assert text in capsys.readouterr().err
