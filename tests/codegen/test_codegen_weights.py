# SPDX-License-Identifier: Apache-2.0
"""Stored weights: own widths, codebooks and several ports, from the file's bytes to the engine."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuq.codegen.design import planner
from nuq.codegen.design.array import Array
from nuq.codegen.design.design import Design
from nuq.codegen.design.lowering import lower
from nuq.codegen.design.resources import weight_luts
from nuq.codegen.emit import generate, weights_file
from nuq.formats import network
from nuq.formats.build import sha256_file
from nuq.formats.errors import UserError
from nuq.formats.hardware import find_part
from nuq.formats.options import Options
from nuq.formats.packing import WORD_BYTES
from tests.checkout import needs_compiler
from tests.networks import planned
from tests.toys import POOL2, Toy, ToyLayer, change_json, read_json, simulated

PORTS = (1, 2, 3, 4, 6)


def coded() -> Toy:
    """Integers of two widths, codebooks of three, scales; odd channel counts, groups, chunks."""
    layers = [
        ToyLayer(24, (3, 3), (2, 2), (1, 1, 1, 1), scheme="knq", bits=3, weight_bits=12),
        ToyLayer(
            20, (3, 3), groups=4, scheme="enq", bits=5, weight_bits=8, index_bits=4, scaled=True
        ),
        ToyLayer(40, (3, 2), pads=(1, 0, 1, 1), scheme="uniform", bits=9, pool=POOL2, index_bits=8),
        ToyLayer(33, (4, 4), scheme="knq", bits=4, kind="fc", index_bits=2, weight_bits=14),
        ToyLayer(70, (1, 1), scheme="knq", bits=4, kind="fc", weight_bits=8, scaled=True),
        ToyLayer(10, (1, 1), kind="fc", weight_bits=4, scaled=True),
    ]
    return Toy(in_shape=(3, 20, 19), layers=layers, images=2, seed=9)


@pytest.fixture
def any_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part with ports for everything."""
    monkeypatch.setattr(Array, "check_ports", lambda array, part: None)


@needs_compiler
@pytest.mark.parametrize(
    "ports", [pytest.param(n, marks=() if n in (2, 3) else pytest.mark.slow) for n in PORTS]
)
@pytest.mark.usefixtures("any_ports")
def test_codebooks_and_ports_are_bit_exact(make_toy: Callable[..., Path], ports: int) -> None:
    build = make_toy(coded())
    settings = Options(out=build, part="XC7Z045", simd=8, pe=32, weight_ports=ports, batch=2)
    if ports in (3, 6):  # rows of 4 words a bit, and widths that 3 does not divide
        with pytest.raises(UserError, match=r"^WEIGHT_PORTS must divide the \d+ words of a row of"):
            generate.generate(settings)
        settings = replace(settings, pe=48)
    generate.generate(settings)
    # layer1's and layer3's channels are filled up, so their codebooks may have got one bit more
    stored = [layer["weights"] for layer in read_json(build)["layers"]]
    found = [(item["bits"], item["table_entries"]) for item in stored]
    assert found[0] == (12, 0) and found[4:] == [(8, 0), (4, 0)]
    assert found[1] in ((4, 16), (5, 32)) and found[3] in ((2, 4), (3, 8))
    report = simulated(build)
    layers = read_json(build, "design")["layers"]
    for counted, layer in zip(report["csim"]["layers"], layers, strict=True):
        assert counted["bytes_weights"] == WORD_BYTES * layer["weight_words"]


@pytest.mark.slow
@needs_compiler
@pytest.mark.usefixtures("any_ports")
def test_codebooks_in_exact_types(make_toy: Callable[..., Path]) -> None:
    build = make_toy(coded())
    generate.generate(Options(out=build, simd=8, pe=16, weight_ports=2))
    simulated(build, "CSIM_TYPES=exact")


def fields(words: np.ndarray, width: int) -> np.ndarray:
    """int64 [n]: the fields of `width` bits that words hold, without sign."""
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), bitorder="little")
    return bits.reshape(-1, width).astype(np.int64) @ (1 << np.arange(width))


def read_weights(plan: Design, data: np.ndarray) -> Iterator[np.ndarray]:
    """Decode weights.bin as docs/formats.md describes it: [O, C, KH, KW] of each layer."""
    ports, simd, pe = plan.array.weight_ports, plan.array.simd, plan.array.pe
    stream = data.reshape(ports, -1).T.reshape(-1)  # word j comes from section j % ports
    at = 0
    for layer, row in zip(plan.layers, plan.rows, strict=True):
        if not row.is_conv:
            continue
        bits, entries = row.weight_bits, row.weight_table
        assert at == row.weight_addr * ports
        table = (stream[at : at + entries * ports : ports].astype(np.int64) ^ 0x8000) - 0x8000
        at += entries * ports
        per_group = layer.conv_shape[0] // layer.groups
        lanes = row.tiles_per_group * pe
        out = np.zeros((layer.groups, lanes, row.blocks * 8, *layer.kernel))
        for group in range(layer.groups):
            for tile in range(0, lanes, pe):
                first = group * per_group + tile
                there = slice(first, first + min(pe, per_group - tile))
                bias = stream[at : at + pe // 2].view("<i4")[: there.stop - there.start]
                assert np.array_equal(bias, layer.bias[there])
                at += -(-pe // 2 // ports) * ports
                if row.scaled:
                    scale = stream[at : at + pe // 8].view(np.uint8)[: there.stop - there.start]
                    assert np.array_equal(scale, layer.weight_scale[there])
                    at += -(-pe // 8 // ports) * ports
                for first in range(0, row.blocks, row.chunk_blocks):
                    blocks = min(row.chunk_blocks, row.blocks - first)
                    items = row.kernel_h * row.kernel_w * blocks
                    words = -(-items * 8 // simd) * simd * pe * bits // 64
                    number = fields(stream[at : at + words], bits)
                    at += words
                    sign = 1 << (bits - 1)
                    values = table[number] if entries else (number ^ sign) - sign
                    cells = values.reshape(-1, pe)[: items * 8]
                    cells = cells.reshape(*layer.kernel, blocks * 8, pe)
                    channel = slice(first * 8, (first + blocks) * 8)
                    out[group, tile : tile + pe, channel] = cells.transpose(3, 2, 0, 1)
        channels = layer.in_shape[0] // layer.groups
        yield out[:, :per_group, :channels].reshape(-1, channels, *layer.kernel)
    assert at == stream.size


@pytest.mark.parametrize("ports", [1, 2, 4])
@pytest.mark.usefixtures("any_ports")
def test_file_holds_the_weights(
    load_toy: Callable[..., network.Network], tmp_path: Path, ports: int
) -> None:
    plan = planner.plan(load_toy(coded()), find_part("XC7Z045"), Array(8, 32, weight_ports=ports))
    weights_file.write_weights(plan, tmp_path / "weights.bin")
    data = np.fromfile(tmp_path / "weights.bin", dtype="<u8")
    assert data.size == plan.weight_words
    found = list(read_weights(plan, data))
    assert len(found) == 6 and [row.scaled for row in plan.rows] == [0, 1, 0, 0, 1, 0]
    for layer, weight in zip(plan.layers, found, strict=True):
        assert np.array_equal(weight, layer.weight), layer.name


def test_rows_shrink_with_their_width(load_toy: Callable[..., network.Network]) -> None:
    layers = [ToyLayer(48, (1, 1)), ToyLayer(48, (1, 1), kind="fc")]
    rows = {}
    for bits in (14, 8, 6, 4):
        layers[1].index_bits = 0 if bits == 14 else bits
        toy = Toy(in_shape=(16, 1, 1), layers=layers, images=1)
        plan = planner.plan(load_toy(toy, f"bits{bits}"), find_part("XC7Z020"))
        rows[bits] = plan.rows[1].row_words
        assert plan.sizes.weight_bits == 14 and plan.rows[1].weight_bits == bits
    assert rows == {14: 42, 8: 24, 6: 18, 4: 12}


def store(folder: Path, arrays: dict[str, np.ndarray], **changes: int) -> None:
    """Write changed arrays, and fields of the first layer, as if they had been quantized so."""
    np.savez(folder / "arrays.npz", **arrays)

    def change(manifest: dict[str, Any]) -> None:
        manifest["arrays_sha256"] = sha256_file(folder / "arrays.npz")
        manifest["layers"][0].update(changes)

    change_json(folder / "manifest.json", change)


def small(index_bits: int, out: int = 16) -> Toy:
    """A convolution with a codebook, and another layer."""
    layers = [ToyLayer(out, index_bits=index_bits), ToyLayer(5, (2, 2))]
    return Toy(in_shape=(8, 4, 4), layers=layers, images=1)


@pytest.mark.parametrize(("out", "index_bits", "bits"), [(16, 3, 3), (12, 3, 4), (12, 8, 14)])
def test_a_table_without_zero_gets_one_where_it_is_needed(
    make_toy: Callable[..., Path], out: int, index_bits: int, bits: int
) -> None:
    """12 channels leave 4 of a plane that must be 0; 16 leave none that is stored."""
    folder = make_toy(small(index_bits, out)) / "quantized"
    arrays = dict(np.load(folder / "arrays.npz"))
    table, weight = arrays["layer0/weight_table"], arrays["layer0/weight"]
    table[table >= 0] += 1
    weight[weight >= 0] += 1
    store(folder, arrays, acc_bits=40)
    stored = lower(network.load(folder), Array(8, 24), 0).layers[0].stored
    assert stored.bits == bits
    if stored.table is not None:
        assert set(table) <= set(stored.table) and (np.diff(stored.table) > 0).all()
        assert (0 in stored.table) == (out == 12)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("table", "layer layer0: weights must be entries of its weight table, not "),
        ("order", "layer layer0: the weight table must increase strictly within -8192..8191"),
        ("shape", "arrays.npz: layer0/weight_table must have shape (8,), not (4,)"),
        ("missing", "arrays.npz must hold layer0/weight_table"),
    ],
)
def test_bad_tables_are_refused(make_toy: Callable[..., Path], change: str, text: str) -> None:
    folder = make_toy(small(3)) / "quantized"
    arrays = dict(np.load(folder / "arrays.npz"))
    table = arrays["layer0/weight_table"]
    if change == "table":
        table[3] += 1 if table[3] + 1 < table[4] else -1
    elif change == "order":
        table[3] = table[4]
    elif change == "shape":
        arrays["layer0/weight_table"] = table[:4]
    else:
        del arrays["layer0/weight_table"]
    store(folder, arrays)
    with pytest.raises(UserError) as found:
        network.load(folder)
    assert str(found.value).startswith(text)


def test_ports_must_fit_the_part(load_toy: Callable[..., network.Network]) -> None:
    loaded = load_toy()
    text = "^WEIGHT_PORTS must be one of 1, 2, 3 on XC7Z020, whose 4 memory ports also serve"
    for ports in (0, 4, 5):
        with pytest.raises(UserError, match=text):
            planner.plan(loaded, find_part("XC7Z020"), Array(weight_ports=ports))
    assert planner.plan(loaded, find_part("XCK26"), Array(weight_ports=3)).array.weight_ports == 3


def test_lut_formula() -> None:
    """192 lanes: 16 entries in 7 LUTs and a choice of 14; two widths, the wider of 14 bits."""
    sizes = planned("alexnet").sizes
    assert weight_luts(sizes) == 0
    array = Array(8, 24, weight_ports=2)
    both = replace(sizes, weight_widths=(4, 14), table_entries=16, array=array)
    assert weight_luts(both) == 192 * (14 + 7 + 14)
    assert weight_luts(replace(both, table_entries=256)) == 192 * (14 + 56 + 14)
