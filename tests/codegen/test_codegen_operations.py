# SPDX-License-Identifier: Apache-2.0
"""Layers without weights, concats and signed maps: bit-exact, with the predicted counts."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_codegen_csim import check, run

from codegen.design.array import Array
from codegen.design.planner import plan
from codegen.design.rows import Operation
from formats.commands import main
from formats.errors import UserError
from formats.hardware import find_part
from formats.network import load
from formats.quantizer import Quantizer
from tests import naive
from tests.checkout import needs_compiler
from tests.toys import POOL1, POOL2, Toy, ToyLayer

CEIL_POOL = {"kernel": [3, 3], "stride": [2, 2], "pads": [0, 1, 2, 1]}


def residual() -> Toy:
    """Adds of different quantizers and F, a max pool with pads as ceil mode gives them, depthwise
    and three-channel groups, a global average pool at the end."""
    layers = [
        ToyLayer(24, (3, 3), (2, 2), (1, 1, 1, 1), bits=4, frac=3),
        ToyLayer(24, pads=(1, 1, 1, 1), scheme="enq", bits=5, signed=True, variant="mid", frac=5),
        ToyLayer(kind="add", source2="layer0", scheme="knq", bits=5),
        ToyLayer(24, (1, 1), signed=True, scheme="knq", bits=6, frac=1),
        ToyLayer(kind="add", source="layer2", source2="layer3", scheme="uniform", bits=9),
        ToyLayer(kind="maxpool", pool=CEIL_POOL, scheme="enq", bits=4, variant="round"),
        ToyLayer(40, (1, 1), scheme="uniform", bits=8, signed=True),
        ToyLayer(40, pads=(1, 1, 1, 1), groups=40, scheme="knq", bits=4),
        ToyLayer(kind="add", source2="layer6", signed=True, scheme="enq", bits=7, variant="floor"),
        ToyLayer(30, groups=10, pads=(1, 1, 1, 1), scheme="uniform", bits=6),
        ToyLayer(30, groups=10, pads=(1, 1, 1, 1), scheme="knq", bits=3, rule="floor"),
        ToyLayer(kind="avgpool", kernel=(4, 4)),
    ]
    return Toy((3, 15, 13), layers, images=3)


def inception() -> Toy:
    """A concat of several sources, a copy of a signed map, average pools of both kinds, LRN."""
    average = {"kernel": (3, 3), "pads": (1, 1, 1, 1), "scheme": "knq", "signed": True}
    layers = [
        ToyLayer(16, scheme="knq", bits=4, frac=3),
        ToyLayer(kind="lrn", lrn_size=5, scheme="knq", bits=5),
        ToyLayer(21, scheme="uniform", bits=8, signed=True),
        ToyLayer(kind="lrn", lrn_size=3, signed=True, scheme="enq", bits=6, variant="round"),
        ToyLayer(kind="avgpool", kernel=(3, 2), stride=(2, 1), pads=(1, 1, 1, 0), signed=True,
                 scheme="uniform", bits=7),
        ToyLayer(kind="maxpool", pool=POOL1, signed=True, scheme="enq", bits=4, variant="mid"),
        ToyLayer(8, (1, 1), scheme="knq", bits=3, name="a", frac=2),
        ToyLayer(kind="avgpool", source="layer4", bits=3, count_include_pad=True, **average),
        ToyLayer(16, pads=(1, 1, 1, 1), like="a", source="layer7", name="b"),
        ToyLayer(5, (1, 1), like="a", source="layer5", name="c"),
        ToyLayer(kind="maxpool", pool=POOL2, source="cat", scheme="knq", bits=2),
        ToyLayer(33, (1, 1), source="cat", scheme="knq", bits=3),
        ToyLayer(kind="avgpool", bits=5, **average),
        ToyLayer(7, (2, 2)),
    ]  # fmt: skip
    return Toy((3, 12, 11), layers, images=2, concats={"cat": ["b", "a", "c"]})


def normalised(channels: int, size: int) -> Toy:
    """LRN on channel counts around the edges of tiles, signed values."""
    layers = [
        ToyLayer(channels, scheme="uniform", bits=9, signed=True),
        ToyLayer(kind="lrn", lrn_size=size, scheme="enq", bits=8, variant="round", signed=True),
        ToyLayer(9, (1, 1), scheme="enq", bits=3, variant="round"),
        ToyLayer(3, (1, 1)),
    ]
    return Toy((4, 6, 5), layers, images=1, seed=channels + size)


@needs_compiler
@pytest.mark.parametrize("network", [residual, inception])
@pytest.mark.parametrize(("simd", "pe"), [(8, 24), (16, 32)])
def test_operations(
    make_toy: Callable[..., Path], network: Callable[[], Toy], simd: int, pe: int
) -> None:
    toy = network()
    build = make_toy(toy)
    options = [f"SIMD={simd}", f"PE={pe}", "PART=XC7Z045"]
    assert main(["codegen", f"OUT={build}", *options]) == 0
    report = run(build, "SANITIZE=1")
    check(report, len(toy.layers))
    assert report["csim"]["accuracy"]["same_logits"] == toy.images


@needs_compiler
@pytest.mark.parametrize("network", [residual, inception])
def test_operations_in_exact_types(
    make_toy: Callable[..., Path], network: Callable[[], Toy]
) -> None:
    toy = network()
    build = make_toy(toy)
    assert main(["codegen", f"OUT={build}", "PART=XC7Z045"]) == 0
    check(run(build, "CSIM_TYPES=exact", "SANITIZE=1"), len(toy.layers))


@needs_compiler
@pytest.mark.parametrize(("channels", "size"), [(7, 3), (8, 5), (24, 3), (25, 17)])
def test_normalisation_at_tile_edges(
    make_toy: Callable[..., Path], channels: int, size: int
) -> None:
    build = make_toy(normalised(channels, size))
    assert main(["codegen", f"OUT={build}", "PE=32", "PART=XC7Z045"]) == 0
    check(run(build), 4)


def test_design_says_how_to_read_the_result(make_toy: Callable[..., Path]) -> None:
    build = make_toy(residual())
    assert main(["codegen", f"OUT={build}", "PART=XC7Z045"]) == 0
    report = json.loads((build / "report.json").read_text())
    manifest = json.loads((build / "quantized" / "manifest.json").read_text())
    frac = manifest["layers"][-1]["out_frac"]
    design = json.loads((build / "design.json").read_text())
    assert (design["output_frac"], design["output_divisor"]) == (frac, 16)
    assert design["layers"][-1]["out_shape"] == [30, 1, 1]
    kinds = [layer["kind"] for layer in report["layers"]]
    assert kinds.count("add") == 3 and report["layers"][2]["bytes_weights"] == 0


def test_rows_of_operations(make_toy: Callable[..., Path]) -> None:
    network = load(make_toy(inception()) / "quantized")
    made = plan(network, find_part("XC7Z045"), Array(16, 32, fm="ddr"))
    rows = {layer.name: row for layer, row in zip(made.layers, made.rows, strict=True)}
    lrn = rows["layer1"]
    assert (lrn.op, lrn.tiles_per_group, lrn.blocks, lrn.chunk_blocks) == (
        Operation.LRN, 1, 4, 4,
    )  # fmt: skip
    assert rows["layer3"].lrn_table == 1 and rows["layer3"].y_min == -(1 << 11)
    assert rows["layer7"].op == Operation.SUM and rows["layer7"].reciprocal == 1864135
    assert rows["layer12"].exclude_pad == 1 and rows["layer12"].reciprocal == 0
    cat = made.arena.address["cat"]
    plane = rows["a"].out_plane_words
    places = [rows[name].out_addr - cat for name in ("b", "a", "c")]
    assert places == [0, 2 * plane, 3 * plane]
    assert rows["layer11"].in_addr == cat == rows["layer10"].in_addr


def test_normalisation_needs_neighbours(make_toy: Callable[..., Path]) -> None:
    network = load(make_toy(inception()) / "quantized")
    with pytest.raises(
        UserError, match=r"^PE must be at least 24 for the normalisation layer1, not 16; use a lar"
    ):
        plan(network, find_part("XC7Z045"), Array(8, 16))


def test_fewer_units_where_multipliers_are_short(make_toy: Callable[..., Path]) -> None:
    network = load(make_toy(normalised(64, 5)) / "quantized")
    small = plan(network, find_part("XC7Z020"), Array(8, 24))
    large = plan(network, find_part("XC7Z045"), Array(8, 24))
    assert small.array.qk_units < large.array.qk_units
    assert small.resources.dsp <= find_part("XC7Z020").dsp < large.resources.dsp


NEW_KEYS = ("in_aligns", "average", "lrn")


def test_older_manifests_stay_valid(make_toy: Callable[..., Path]) -> None:
    build = make_toy()
    path = build / "quantized" / "manifest.json"
    manifest = json.loads(path.read_text())
    new = load(build / "quantized")
    del manifest["concats"]
    for layer in manifest["layers"]:
        for key in NEW_KEYS:
            del layer[key]
        if layer["quantizer"]:
            del layer["quantizer"]["signed"]
    path.write_text(json.dumps(manifest))
    old = load(build / "quantized")
    assert [layer.acc_bits for layer in old.layers] == [layer.acc_bits for layer in new.layers]
    assert [layer.in_aligns for layer in old.layers] == [(0,)] * len(old.layers)
    assert not old.concats and not any(q.signed for layer in old.layers if (q := layer.quantizer))


def layer_entry(manifest: dict, name: str) -> dict:
    """The manifest's entry of one layer."""
    return next(layer for layer in manifest["layers"] if layer["name"] == name)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m: layer_entry(m, "layer1").update(lrn=None), "layer layer1: lrn must be given"),
        (lambda m: layer_entry(m, "layer1")["lrn"].update(size=18), "lrn size must be 1..17, not"),
        (lambda m: layer_entry(m, "layer5").update(pool=POOL2), "layer layer5: conv_shape and out"),
        (
            lambda m: layer_entry(m, "b")["quantizer"].update(frac=9),
            "concat cat: parts must share one quantizer, unlike b and a",
        ),
        (
            lambda m: m["concats"][0].update(parts=["c", "a", "b"]),
            "concat cat: parts but the last must have a multiple of 8 channels, not 5 as c",
        ),
        (lambda m: m["concats"][0].update(parts=["b", "x"]), "layer10: input must be an earlier"),
        (lambda m: m["concats"][0].update(name="a"), "concat a: its name must be no other"),
        (
            lambda m: m["concats"].append({"name": "other", "parts": ["a", "b"]}),
            "its parts must not lie at other places in another concat",
        ),
        (
            lambda m: layer_entry(m, "layer4").update(kernel=[9, 8], pads=[4, 4, 4, 3]),
            "layer layer4: an average pool that leaves padding out must have at most 64 elements",
        ),
        (
            lambda m: layer_entry(m, "layer5").update(inputs=["input"], in_shape=[4, 12, 11]),
            "layer layer5: only convolutions must read the network's input",
        ),
        (
            lambda m: layer_entry(m, "layer0").update(inputs=["input", "input"]),
            "layer layer0: inputs must be 1 of a layer of kind conv, not 2",
        ),
    ],
)
def test_bad_operations(
    make_toy: Callable[..., Path], change: Callable[[dict], object], text: str
) -> None:
    build = make_toy(inception())
    path = build / "quantized" / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError) as error:
        plan(load(build / "quantized"), find_part("XC7Z045"))
    assert text in str(error.value)


def test_signed_maps_are_not_pooled(make_toy: Callable[..., Path]) -> None:
    build = make_toy(Toy(layers=[ToyLayer(8, pool=POOL2, scheme="uniform"), ToyLayer(4)]))
    path = build / "quantized" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["layers"][0]["quantizer"]["signed"] = True
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"^layer layer0: a max pool must have values of 0 or more"):
        load(build / "quantized")


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
