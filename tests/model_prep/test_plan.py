# SPDX-License-Identifier: Apache-2.0
"""Which setting wins, and every sentence about a setting that cannot be."""

from pathlib import Path

import numpy as np
import pytest

from nuq.formats import commands
from nuq.formats.activation import RELU
from nuq.formats.errors import UserError
from nuq.model_prep.commands import opened
from nuq.model_prep.graph import INPUT, Graph, Layer
from nuq.model_prep.quantize.plan import Plan, Settings, parse_bits, parse_qm
from nuq.model_prep.quantize.plan_file import resolve

DEFAULTS = Settings(scheme="knq", bits=3)
NAMES = "conv1, conv2, fc3, fc4"


@pytest.fixture()
def graph() -> Graph:
    layers, source, channels = [], INPUT, 3
    for name in ("conv1", "conv2", "fc3", "fc4"):
        weight = np.zeros((8, channels, 1, 1), np.float32)
        bias = np.zeros(8, np.float32)
        layers.append(
            Layer(
                name, name[:-1], (source,), weight, bias, activation=RELU if name != "fc4" else None
            )
        )
        source, channels = name, 8
    return Graph("four", (3, 1, 1), layers)


def write(folder: Path, text: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(text)
    return path


def schemes(plan: Plan) -> list[tuple[str | None, int | None]]:
    return [(layer.scheme, layer.bits) for layer in plan.layers]


def test_defaults(graph: Graph) -> None:
    plan = resolve(graph, Settings(), DEFAULTS)
    assert schemes(plan) == [("knq", 3)] * 3 + [(None, None)]
    assert (plan.qm, plan.frac_mode, plan.frac, plan.delta) == (12, "layer", None, None)
    assert {(layer.weight_bits, layer.bias_bits) for layer in plan.layers} == {(14, 14)}
    assert plan.layers[0].options == {"rule": "nearest"}
    assert not plan.searches_bits


def test_a_list_gives_each_quantized_layer_its_width(graph: Graph) -> None:
    plan = resolve(graph, Settings(bits=[5, 4, 3]), DEFAULTS)
    assert [layer.bits for layer in plan.layers] == [5, 4, 3, None]


def test_the_most_specific_setting_wins(graph: Graph, tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'scheme = "enq"\nbits = 6\nqm = 10\n' + 'variant = "mid"\n'
        '[kind.fc]\nscheme = "uniform"\nbits = 8\nweight_bits = 8\n'
        '[layer.conv2]\nscheme = "knq"\nrule = "floor"\n'
        "[layer.fc4]\nweight_bits = 10\n",
    )
    plan = resolve(graph, Settings(bits=4), DEFAULTS, path)
    assert schemes(plan) == [("enq", 4), ("knq", 4), ("uniform", 8), (None, None)]
    assert [layer.options for layer in plan.layers] == [
        {"variant": "mid"}, {"rule": "floor"}, {}, {}
    ]  # fmt: skip
    assert [layer.weight_bits for layer in plan.layers] == [14, 14, 8, 10]
    assert plan.qm == 10


def test_auto_leaves_fixed_widths_alone(graph: Graph, tmp_path: Path) -> None:
    path = write(tmp_path, '[kind.fc]\nscheme = "uniform"\nbits = 8\n[layer.conv2]\nbits = 2\n')
    plan = resolve(graph, Settings(bits="auto"), DEFAULTS, path)
    assert plan.searches_bits
    assert schemes(plan.with_bits(1))[:3] == [("knq", 1), ("knq", 2), ("uniform", 8)]
    assert not plan.with_bits(1).searches_bits


def test_parsing() -> None:
    assert parse_qm("auto") == "auto"
    assert parse_qm("10") == 10
    with pytest.raises(UserError, match="^BITS must be a number, a comma list .* not 'x'$"):
        parse_bits("x")
    with pytest.raises(UserError, match="^BITS must be a number, a comma list .* not '5,'$"):
        parse_bits("5,")
    with pytest.raises(UserError, match="^QM must be a number or auto, not 'wide'$"):
        parse_qm("wide")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (Settings(bits=[3, 3]), rf"BITS must have 3 widths, one .* \({NAMES[:-5]}\), not 2$"),
        (Settings(bits=9), "BITS of layer conv1 must be 1..8 for knq, not 9$"),
        (Settings(bits=[3, 0, 3]), "BITS of layer conv2 must be 1..8 for knq, not 0$"),
        (Settings(bits=5, qm=4), "BITS of layer conv1 must be 1..4 for knq, not 5$"),
        (Settings(bits=13, scheme="enq"), "BITS of layer conv1 must be 1..12 for enq, not 13$"),
        (Settings(bits=1, scheme="uniform"), "BITS of layer conv1 must be 2..16 for uniform, no"),
        (
            Settings(scheme="up"),
            "SCHEME must be one of knq, enq, uniform, optimal, dynamic, linear",
        ),
        (Settings(rule="up"), "RULE must be one of nearest, floor, not up$"),
        (Settings(variant="up"), "VARIANT must be one of round, mid, floor, not up$"),
        (Settings(qm=16), "QM must be 2..15, not 16$"),
        (Settings(qm=1), "QM must be 2..15, not 1$"),
        (Settings(delta=-1.0), "DELTA must be a number of 0 or more, not -1.0$"),
        (Settings(delta=float("nan")), "DELTA must be a number of 0 or more, not nan$"),
    ],
)
def test_bad_settings(graph: Graph, settings: Settings, text: str) -> None:
    with pytest.raises(UserError, match=f"^{text}"):
        resolve(graph, settings, DEFAULTS)


def test_a_layer_may_have_its_tables_given(graph: Graph, tmp_path: Path) -> None:
    text = (
        "[layer.conv1]\nbits = 2\nfrac = 7\ncentroids = [0, 3, 9, 20]\n[layer.fc4]\nbias_bits = 9\n"
    )
    plan = resolve(graph, Settings(), DEFAULTS, write(tmp_path, text))
    assert (plan.layers[0].frac, plan.layers[0].centroids) == (7, (0, 3, 9, 20))
    assert plan.layers[1].frac is None and plan.layers[1].centroids is None


TOGETHER = "^layer conv1: frac and centroids must come together for knq, and frac alone"
RISING = "centroids must be a list of rising integers, not"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("wide = 1", "plan.toml: key must be one of scheme, bits, .*, not wide$"),
        ("[layer.conv9]\nbits = 3", f"plan.toml: layer must be one of {NAMES}, not conv9; did you"),
        ("[kind.pool]\nbits = 3", "plan.toml: kind must be one of conv, .*, lrn, not pool; did"),
        ("[layer.conv1]\nclip = true", r"plan.toml: \[layer.conv1\] key must be .*, not clip$"),
        ("[layer.conv1]\nbits = [3]", r"plan.toml: \[layer.conv1\] bits must be one number or au"),
        ("[layer.conv1]\nbits = 3.5", r"plan.toml: \[layer.conv1\] bits must be numbers or auto"),
        ("bits = true", "plan.toml: bits must be numbers or auto, not True$"),
        ("weight_bits = 17", "plan.toml: weight_bits must be 1..16, not 17$"),
        ("bias_bits = 33", "plan.toml: bias_bits must be 2..32, not 33$"),
        ('qm = "wide"', "plan.toml: qm must be an integer, not wide$"),
        ("frac = 99", "plan.toml: frac must be -64..64, not 99$"),
        ('frac_mode = "row"', "frac_mode must be one of layer, network, not row$"),
        ("layer = 3", r"plan.toml: layer must be tables such as \[layer.conv1\], not a value$"),
        ("[layer.fc4]\nbits = 3", r"plan.toml: \[layer.fc4\] must have no bits, as its ou"),
        ("[layer.fc4]\ncentroids = [1]", r"\[layer.fc4\] must have no centroids"),
        ("[kind.conv]\nfrac = 7", "key must be one of"),
        ('[layer.conv1]\nscheme = "enq"\nrule = "floor"',
         "^layer conv1: rule must stay with scheme knq, not enq$"),
        ("= 3", "plan.toml must be a TOML file, not one with: "),
        ("[layer.conv1]\ncentroids = [0, 3, 9, 20]", TOGETHER),
        ("[layer.conv1]\nfrac = 7", TOGETHER),
        ('[layer.conv1]\nscheme = "enq"\nfrac = 7\ncentroids = [0, 3]', TOGETHER),
        ("[layer.conv1]\nbits = 3\nfrac = 7\ncentroids = [0, 3]",
         r"layer conv1: centroids must be 2\^bits numbers"),
        ("[layer.conv1]\nfrac = 7\ncentroids = [0, 3, 3]", RISING),
        ("[layer.conv1]\nfrac = 7\ncentroids = 3", f"{RISING} 3"),
        ("[layer.conv1]\nfrac = 0.5", "frac must be an integer, not 0.5"),
        ('[layer.conv1]\nscheme = "optimal"\nfrac = 7',
         "must come with one of knq, enq, uniform and a width"),
        ('[layer.conv1]\nbits = "auto"\nfrac = 7\ncentroids = [1, 2]', "a width, not knq and auto"),
        ('weight_scale = "row"', "weight_scale must be one of layer, channel, not row$"),
        ("weight_scales = [1]", "key must be one of .*, not weight_scales; did you"),
        ('[layer.conv1]\nweight_scales = [1, 256]', "must be a list of integers of 1 to 255, not"),
        ('[layer.conv1]\nweight_scales = [1]',
         "^layer conv1: weight_scales must go with weight_scale = channel$"),
        ('[layer.conv1]\nweight_scale = "channel"\nweight_scales = [1]',
         r"^layer conv1: weight_scales must be \d+ numbers, one an output channel, not 1$"),
        ('qm = "auto"\n[layer.conv1]\nscheme = "enq"\nfrac = 7',
         "qm must be a number where layer conv1 has a frac"),
    ],
)  # fmt: skip
def test_bad_files(graph: Graph, tmp_path: Path, content: str, text: str) -> None:
    with pytest.raises(UserError, match=text):
        resolve(graph, Settings(), DEFAULTS, write(tmp_path, content))


def test_missing_file(graph: Graph, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="^PLAN must be a readable file, not .*none.toml: No such"):
        resolve(graph, Settings(), DEFAULTS, tmp_path / "none.toml")


def test_presets_give_way_to_options_and_plans(tmp_path: Path) -> None:
    plan_file = tmp_path / "plan.toml"
    plan_file.write_text('weight_bits = 10\n[kind.fc]\nweight_bits = 6\nweight_scheme = "kmeans"\n')

    def planned(*words: str, net: str = "digits") -> Plan:
        return opened(commands.parse("quantize", [f"NET={net}", *words]))[1]

    fast, paper = planned("PRESET=fast"), planned("PRESET=paper")
    kinds = [(layer.weight_scheme, layer.weight_bits, layer.weight_scale) for layer in fast.layers]
    assert fast.qm == 9 and set(kinds[:3]) == {("uniform", 8, "channel")}
    assert set(kinds[3:]) == {("uniform", 8, "channel")}  # small
    large = planned("PRESET=fast", "WEIGHTS=seeded", net="alexnet").layers
    assert [(one.weight_scheme, one.weight_bits) for one in large[4:]] == [
        ("uniform", 8), *3 * [("kmeans", 4)]
    ]  # fmt: skip
    assert paper.qm == 12 and {layer.weight_bits for layer in paper.layers} == {14}
    assert {layer.options["rule"] for layer in paper.layers[:-1]} == {"floor"}
    assert planned("PRESET=accurate") == planned()
    small = planned("PRESET=small")
    assert {layer.bits for layer in small.layers[:-1]} == {3}
    assert {(one.weight_scheme, one.weight_bits) for one in small.layers} == {("kmeans", 4)}
    assert {one.weight_scale for one in small.layers} == {"channel"}
    assert small.refine == ("equalise", "sensitivity")
    wider = planned("PRESET=small", "BITS=5", "WEIGHT_SCHEME=uniform", "REFINE=none")
    assert {(one.weight_scheme, one.weight_bits) for one in wider.layers} == {("uniform", 14)}
    assert wider.layers[0].bits == 5 and not wider.refine
    assert planned("PRESET=small", "WEIGHT_BITS=6").layers[0].weight_bits == 6
    mixed = planned("PRESET=fast", "QM=10", f"PLAN={plan_file}")
    assert mixed.qm == 10 and [layer.weight_bits for layer in mixed.layers] == [10, 10, 10, 6, 6]
    assert planned("PRESET=fast", "FC_WEIGHT_BITS=5").layers[-1].weight_bits == 5
    seeded = ("PRESET=fast", "WEIGHTS=seeded", "FC_WEIGHT_SCHEME=uniform")
    uniform = planned(*seeded, net="alexnet").layers[-1]
    assert (uniform.weight_scheme, uniform.weight_bits) == ("uniform", 8)
    everywhere = planned("PRESET=fast", "WEIGHT_BITS=14").layers
    assert {(layer.weight_scheme, layer.weight_bits) for layer in everywhere} == {("uniform", 14)}
    codebooks = planned("PRESET=paper", "WEIGHT_SCHEME=kmeans").layers
    assert {(layer.weight_scheme, layer.weight_bits) for layer in codebooks} == {("kmeans", 8)}
