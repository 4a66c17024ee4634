# SPDX-License-Identifier: Apache-2.0
"""A written plan file gives the plan again; METHOD=loss; the divergence that the study prints."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import digits_network as digits
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nuq.formats.commands import main
from nuq.formats.errors import UserError, run_cli
from nuq.model_prep.quantize import plan_file
from nuq.model_prep.quantize.plan import Settings
from nuq.model_prep.quantize.plan_file import resolve
from nuq.model_prep.stats import divergences

DEFAULTS = Settings(scheme="enq", bits=8)


@pytest.mark.parametrize(
    ("settings", "fc", "in_file"),
    [
        ({"scheme": "knq", "rule": "floor"}, {}, 'rule = "floor"'),
        ({"weight_bits": 8}, {}, "weight_bits = 8"),
        ({"weight_bits": 8, "bias_bits": 10, "qm": 10, "frac": 3}, {}, "frac = 3"),
        ({}, {"weight_bits": 6}, "weight_bits = 6"),
        ({}, {"weight_scheme": "kmeans"}, 'weight_scheme = "kmeans"'),
        ({"weight_scheme": "kmeans"}, {"weight_bits": 4}, 'weight_scheme = "kmeans"'),
        ({"weight_scheme": "kmeans", "weight_bits": 4}, {}, "weight_bits = 4"),
        ({"weight_scale": "channel", "weight_bits": 8}, {}, 'weight_scale = "channel"'),
        ({}, {"weight_scale": "channel"}, "bias_bits = 32"),
        ({"scheme": "optimal", "density": "laplacian"}, {}, 'density = "laplacian"'),
        ({"scheme": "gaussian", "levels": "equal"}, {}, 'levels = "equal"'),
        ({"scheme": "enq", "variant": "round"}, {"scheme": "knq"}, 'scheme = "knq"'),
        ({"scheme": "knq"}, {"rule": "floor"}, 'rule = "floor"'),
    ],
)
def test_a_plan_file_gives_the_plan_again(
    tmp_path: Path, settings: dict[str, Any], fc: dict[str, Any], in_file: str
) -> None:
    asked = Settings(**{"scheme": "knq", "bits": 4, "refine": "all", **settings})
    plan = resolve(digits.graph(), asked, Settings(), by_kind={"fc": fc})
    plan = replace(plan, layers=(replace(plan.layers[0], bits=3), *plan.layers[1:]))
    path = tmp_path / "plan.toml"
    path.write_text(plan_file.text(plan, {}))
    assert in_file in path.read_text()
    assert resolve(digits.graph(), Settings(), DEFAULTS, path) == plan


def test_defaults_are_not_written() -> None:
    plan = resolve(digits.graph(), Settings(scheme="knq", bits=3, refine="distil"), Settings())
    top = plan_file.text(plan, {}, "two\nlines").split("\n\n")[0].splitlines()
    assert top == ["# two", "# lines", "qm = 12", 'frac_mode = "layer"', 'refine = "distil"']


def allocate(tmp_path: Path, *options: str) -> int:
    return run_cli(main, ["allocate", "NET=digits", f"OUT={tmp_path}", "METHOD=loss", *options])


def test_expected_loss_keeps_the_width_of_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert allocate(tmp_path, "SCHEME=knq", "WEIGHT_BITS=8", "AVERAGE=3.5") == 0
    top = (tmp_path / "plan.toml").read_text().splitlines()[0]
    plan = resolve(digits.graph(), Settings(), DEFAULTS, tmp_path / "plan.toml")
    assert all(layer.weight_bits == 8 for layer in plan.layers)
    assert plan.refine == ("equalise", "sensitivity", "distil")
    assert 3.3 < float(top.split()[-3]) <= 3.5
    widths = [f"{layer.name} {layer.bits}" for layer in plan.layers if layer.bits]
    assert f"widths: {', '.join(widths)}\n" in capsys.readouterr().out
    assert f"NB {json.loads((tmp_path / 'allocation.json').read_text())['nb']} bits," in top


def test_several_averages_are_several_plans(tmp_path: Path) -> None:
    assert allocate(tmp_path, "AVERAGE=3,4.5", "REFINE=equalise") == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "allocation_3.json",
        "allocation_4.5.json",
        "plan_3.toml",
        "plan_4.5.toml",
        "settings.toml",
    ]


def test_expected_loss_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, sentence in (
        (("AVERAGE=3", "QM=auto"), "QM must be a number to allocate widths, not auto"),
        (("AVERAGE=3", "NB=9"), "NB must go with METHOD=budget, not METHOD=loss"),
        (("AVERAGE=1.2",), "the average width must be 2.00 bits or more, not 1.2"),
    ):
        assert allocate(tmp_path, *options) == 2
        assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_layers_have_their_name_in_the_file_too(tmp_path: Path) -> None:
    """torch's default exporter calls nodes node_Conv_112; layers are called node_conv_112."""
    plan = tmp_path / "plan.toml"
    graph = digits.graph()
    graph.layers[1].title = "node_Conv_112"
    plan.write_text("[layer.node_Conv_112]\nbits = 7\n")
    assert resolve(graph, Settings(), DEFAULTS, plan).layers[1].bits == 7
    name = graph.layers[1].name
    plan.write_text(f"[layer.node_Conv_112]\nbits = 7\n[layer.{name}]\nbits = 6\n")
    with pytest.raises(UserError, match=f"must stand once, not as {name}, too"):
        resolve(graph, Settings(), DEFAULTS, plan)
    for text, near in (
        ("bit = 7\n", "not bit; did you mean bits"),
        ('scheme = "kmq"\n', "not kmq; did you mean knq"),
    ):
        plan.write_text(text)
        with pytest.raises(UserError, match=near):
            resolve(graph, Settings(), DEFAULTS, plan)
    plan.write_text("[layer.con1]\nbits = 7\n")
    with pytest.raises(UserError, match="layer must be one of conv1, .*, not con1; did you mean c"):
        resolve(graph, Settings(), DEFAULTS, plan)


def test_divergence_is_torchs() -> None:
    random = np.random.default_rng(2)
    exact, other = random.normal(size=(2, 7, 10)).astype(np.float32) * 20
    logs = [F.log_softmax(torch.from_numpy(one).double(), 1) for one in (exact, other)]
    want = F.kl_div(logs[1], logs[0], reduction="batchmean", log_target=True)
    assert divergences(exact, other).mean() == pytest.approx(float(want), rel=1e-6)
    assert divergences(exact, exact + 3) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("steps", [0, 2])
def test_the_table_distils_as_long_as_asked(
    steps: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["NET=digits", f"OUT={tmp_path}", "IMAGES=30", "SCHEMES=knq"]
    assert run_cli(main, ["refinement", *words, "AVERAGE=3", f"DISTIL_STEPS={steps}"]) == 0
    rows = json.loads((tmp_path / "refine_table.json").read_text())
    assert [row["kind"] for row in rows] == ["plain", "allocated", "refined"][: 3 if steps else 2]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Calibrated on ") and lines[1].split()[-1] == "KL"
    for row, line in zip(rows, lines[2:], strict=False):
        assert 0 < row["divergence"] < 1
        assert line.endswith(f"{row['divergence']:.4f}")


def test_steps_below_none_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["NET=digits", f"OUT={tmp_path}", "DISTIL_STEPS=-1"]
    assert run_cli(main, ["refinement", *words]) == 2
    assert "DISTIL_STEPS must be 1..100000, not -1" in capsys.readouterr().err
