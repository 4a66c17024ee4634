# SPDX-License-Identifier: Apache-2.0
"""Layers without weights, concats and signed maps: their rows, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_codegen_csim import inception, normalised, residual

from nuq.codegen.design.array import Array
from nuq.codegen.design.planner import plan
from nuq.codegen.design.rows import Operation
from nuq.formats.errors import UserError
from nuq.formats.hardware import find_part
from nuq.formats.network import Network, load
from nuq.formats.quantizer import Quantizer
from nuq.formats.schema import to_json
from tests import naive
from tests.toys import POOL2, Toy, ToyLayer, change_json, read_json


def test_design_says_how_to_read_the_result(generated: Callable[..., Path]) -> None:
    build = generated(residual(), "PART=XC7Z045", "SIMD=8", "PE=24")
    report, design = read_json(build), read_json(build, "design")
    frac = read_json(build, "quantized/manifest")["layers"][-1]["out_frac"]
    assert [(one["frac"], one["divisor"]) for one in design["outputs"]] == [(frac, 16)]
    assert design["layers"][-1]["out_shape"] == [30, 1, 1]
    kinds = [layer["kind"] for layer in report["layers"]]
    assert kinds.count("add") == 3 and report["layers"][2]["bytes_weights"] == 0


def test_rows_of_operations(load_toy: Callable[..., Network]) -> None:
    made = plan(load_toy(inception()), find_part("XC7Z045"), Array(16, 32, fm="ddr"))
    rows = {layer.name: row for layer, row in zip(made.layers, made.rows, strict=True)}
    lrn = rows["layer1"]
    assert lrn.op == Operation.LRN
    assert (lrn.tiles_per_group, lrn.blocks, lrn.chunk_blocks) == (1, 4, 4)
    assert rows["layer3"].y_min == -(1 << 11)
    assert rows["layer7"].op == Operation.SUM and rows["layer7"].reciprocal == 1864135
    assert rows["layer12"].exclude_pad == 1 and rows["layer12"].reciprocal == 0
    cat = made.arena.address["cat"]
    plane = rows["a"].out_plane_words
    places = [rows[name].out_addr - cat for name in ("b", "a", "c")]
    assert places == [0, 2 * plane, 3 * plane]
    assert rows["layer11"].in_addr == cat == rows["layer10"].in_addr


def test_normalisation_needs_neighbours(load_toy: Callable[..., Network]) -> None:
    text = "^PE must be at least 24 for the normalisation layer1, not 16; use a lar"
    with pytest.raises(UserError, match=text):
        plan(load_toy(inception()), find_part("XC7Z045"), Array(8, 16))


def test_fewer_units_where_multipliers_are_short(load_toy: Callable[..., Network]) -> None:
    network = load_toy(normalised(64, 5))
    part = find_part("XC7Z020")
    short = replace(part, dsp=part.dsp - 3)
    small, large = (plan(network, chosen, Array()) for chosen in (short, part))
    assert small.array.factor_units < large.array.factor_units
    assert small.array.qk_units == large.array.qk_units
    assert small.resources.dsp <= short.room("dsp") < large.resources.dsp


def test_older_manifests_stay_valid(make_toy: Callable[..., Path]) -> None:
    build = make_toy()
    new = load(build / "quantized")

    def older(manifest: dict[str, Any]) -> None:
        del manifest["concats"]
        for layer in manifest["layers"]:
            for key in ("in_aligns", "average", "lrn"):
                del layer[key]
            if layer["quantizer"]:
                del layer["quantizer"]["signed"]

    change_json(build / "quantized" / "manifest.json", older)
    old = load(build / "quantized")
    assert [layer.acc_bits for layer in old.layers] == [layer.acc_bits for layer in new.layers]
    assert [layer.in_aligns for layer in old.layers] == [(0,)] * len(old.layers)
    assert not old.concats and not any(q.signed for layer in old.layers if (q := layer.quantizer))


def of(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    """The manifest's entry of one layer."""
    return next(layer for layer in manifest["layers"] if layer["name"] == name)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m: of(m, "layer1").update(lrn=None), "layer layer1: lrn must be given"),
        (lambda m: of(m, "layer1")["lrn"].update(size=18), "lrn size must be 1..17, not"),
        (lambda m: of(m, "layer5").update(pool=to_json(POOL2)), "layer layer5: conv_shape and out"),
        (lambda m: of(m, "b")["quantizer"].update(frac=9),
         "concat cat: parts must share one quantizer, unlike b and a"),
        (lambda m: m["concats"][0].update(parts=["c", "a", "b"]),
         "concat cat: parts but the last must have a multiple of 8 channels, not 5 as c"),
        (lambda m: m["concats"][0].update(parts=["b", "x"]), "layer10: input must be an earlier"),
        (lambda m: m["concats"][0].update(name="a"), "concat a: its name must be no other"),
        (lambda m: m["concats"].append({"name": "other", "parts": ["a", "b"]}),
         "its parts must not lie at other places in another concat"),
        (lambda m: of(m, "layer4").update(kernel=[9, 8], pads=[4, 4, 4, 3]),
         "layer layer4: an average pool that leaves padding out must have at most 64 elements"),
        (lambda m: of(m, "layer5").update(inputs=["input"], in_shape=[4, 12, 11]),
         "layer layer5: only convolutions must read the network's input"),
        (lambda m: of(m, "layer0").update(inputs=["input", "input"]),
         "layer layer0: inputs must be 1 of a layer of kind conv, not 2"),
    ],
)  # fmt: skip
def test_bad_operations(
    make_toy: Callable[..., Path], change: Callable[[dict[str, Any]], object], text: str
) -> None:
    folder = make_toy(inception()) / "quantized"
    change_json(folder / "manifest.json", change)
    with pytest.raises(UserError) as error:
        plan(load(folder), find_part("XC7Z045"))
    assert text in str(error.value)


def test_signed_maps_are_pooled_on_codes_of_a_table_only(make_toy: Callable[..., Path]) -> None:
    toy = Toy(layers=[ToyLayer(8, pool=POOL2, scheme="uniform"), ToyLayer(4)])
    path = make_toy(toy) / "quantized" / "manifest.json"
    change_json(path, lambda m: of(m, "layer0")["quantizer"].update(signed=True))
    with pytest.raises(UserError, match="^layer layer0: a max pool of values that may be neg"):
        load(path.parent)
    table = Toy(layers=[ToyLayer(8, pool=POOL2, scheme="knq", signed=True), ToyLayer(4)])
    assert load(make_toy(table, "table") / "quantized").layers[0].pool == POOL2


@pytest.mark.parametrize(
    ("scheme", "variant", "bits"),
    [
        *(("uniform", None, bits) for bits in (2, 4)),
        *(("enq", variant, bits) for variant in ("floor", "mid", "round") for bits in (1, 2, 4)),
    ],
)
def test_ranges_of_signed_quantizers(scheme: str, variant: str | None, bits: int) -> None:
    qm = bits if scheme == "uniform" else 7
    made = Quantizer(scheme, bits, qm, 0, variant, signed=True)
    values = naive.decode(np.arange(1 << bits), made)
    if scheme == "enq":
        assert (made.min_value, made.max_value) == (values.min(), values.max())
    y = np.arange(made.y_min, made.y_max + 1)
    assert made.encode(y).tolist() == naive.encode(y, made).tolist()
