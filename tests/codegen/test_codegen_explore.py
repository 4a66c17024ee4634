# SPDX-License-Identifier: Apache-2.0
"""The exploration: its pick against the whole grid, its bound, its causes of time, its pages."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from nuq.codegen.design import alternatives
from nuq.codegen.design.array import Array
from nuq.codegen.design.bounds import CAUSES, layer_times
from nuq.codegen.design.design import Design
from nuq.codegen.design.planner import plan
from nuq.codegen.design.search import (
    Bound,
    choose,
    dominates,
    explore,
    points,
)
from nuq.codegen.emit import explore_page
from nuq.codegen.emit.render import engine_context
from nuq.formats.commands import main
from nuq.formats.errors import UserError
from nuq.formats.hardware import Part, clocked, find_part, load_parts
from nuq.formats.network import load
from tests.networks import full_size, planned
from tests.pages import check_page
from tests.toys import Toy, ToyLayer, read_json

SMALL = Toy(in_shape=(3, 6, 6), layers=[ToyLayer(16, pads=(1, 1, 1, 1)), ToyLayer(5)])


def at(name: str, clock: float) -> Part:
    return clocked(find_part(name), clock)


@pytest.mark.parametrize(
    ("name", "images"), [pytest.param("alexnet", 8, marks=pytest.mark.slow), ("vgg16", 1)]
)
def test_the_pick_is_never_worse_than_a_point_set_by_hand(name: str, images: int) -> None:
    network, part = full_size(name), at("XC7Z020", 150)
    best = choose(network, part, images, {})
    assert best.array == explore(network, part, images).best.array
    tried = 0
    for simd, pe, pixels, ports in product((8, 16, 24), (8, 16, 24), (1, 3), (1, 2)):
        try:
            made = plan(network, part, Array(simd, pe, pixels, ports), images)
        except UserError:
            continue
        tried += 1
        assert best.seconds <= made.seconds
    assert tried > 10


@pytest.mark.parametrize("part", ["XC7Z020", "XCZU3EG"])
def test_no_plan_is_faster_than_its_bound(part: str) -> None:
    network, usable = full_size("alexnet"), find_part(part)
    bound = Bound(network, usable, 4)
    checked = 0
    for array in points(usable, bound.operands, {"weight_ports": 2}):
        try:
            made = plan(network, usable, array, 4)
        except UserError:
            continue
        checked += 1
        assert bound.seconds(array) <= made.seconds
    assert checked > 5


def speeds(made: Design) -> dict[str, dict[str, float]]:
    return explore_page.speeds(made, layer_times(made))


def test_vgg16_on_the_default_part_at_150_mhz() -> None:
    made = choose(full_size("vgg16"), at("XC7Z020", 150), 1, {})
    conv = speeds(made)["convolutions"]
    assert conv["gops"] >= 55  # published with 16 bits on this part: 48.5 (fpgaConvNet)
    assert conv["efficiency"] >= 0.9


def test_alexnet_in_batches_of_eight_on_the_default_part_at_150_mhz() -> None:
    made = choose(full_size("alexnet"), at("XC7Z020", 150), 8, {})
    found = speeds(made)
    assert found["all"]["images_per_second"] >= 31
    assert found["convolutions"]["efficiency"] >= 0.85


def test_vgg16_on_a_zu7ev_at_250_mhz() -> None:
    made = planned("vgg16", Array(24, 32, 2, 4), part=at("XCZU7EV", 250))
    assert speeds(made)["convolutions"]["gops"] >= 700


def test_alexnet_at_3_bits_stays_on_chip_and_below_nine_tenths_of_the_part() -> None:
    made = choose(full_size("alexnet"), find_part("XC7Z020"), 1, {})
    logits = 8 * 1000
    assert made.activation_bytes == 8 * made.input_words + logits
    assert max(made.use.values()) <= 0.9


@pytest.mark.parametrize("images", [1, 3])
def test_causes_add_up_to_the_cycles_or_to_the_traffic(images: int) -> None:
    made = planned("vgg16", Array(8, 24), images)
    clock = made.part.clock_mhz * 1e6
    for time, cost in zip(layer_times(made), made.costs, strict=True):
        assert set(time.causes) == set(CAUSES) and min(time.causes.values()) >= 0
        expected = max(cost.cycles / clock, cost.bytes_moved / (made.part.sustained_gbs * 1e9))
        assert time.seconds == pytest.approx(expected)
        assert time.bound in CAUSES
    total = sum(time.seconds for time in layer_times(made))
    assert total == pytest.approx(made.seconds)


def test_the_front_is_not_dominated_and_holds_the_pick() -> None:
    found = explore(full_size("alexnet"), find_part("XC7Z020"))
    assert found.front[0].seconds == found.best.seconds
    assert not any(dominates(a, b) for a in found.front for b in found.front)
    assert found.planned <= found.points


def test_memories_are_those_that_the_search_counted() -> None:
    """What a part keeps free counts: a map that needs all of its URAM is in block RAM."""
    network, axes = full_size("alexnet"), {"simd": 8, "pe": 24, "pixels": 1, "weight_ports": 1}
    part = replace(find_part("XCZU7EV"), bram36=5000)
    blocks = explore(network, part, 1, axes).best.resources.uram
    made = explore(network, replace(part, uram=blocks), 1, axes).best
    assert blocks > made.resources.uram == sum(memory.uram for memory in made.memories)
    assert engine_context(made.engine, 0)["chip_impl"].count("uram") == 1


def test_axes_that_are_set_stay() -> None:
    network, part = full_size("alexnet"), find_part("XC7Z020")
    made = choose(network, part, 1, {"simd": 8, "weight_ports": 1, "fm": "ddr"})
    assert (made.array.simd, made.array.weight_ports) == (8, 1)
    assert not any(row.out_chip for row in made.rows)


def test_command_writes_pages_and_pictures(
    make_toy: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    build = make_toy(SMALL)
    assert main(["explore", f"OUT={build}", "CLOCK=125"]) == 0
    text = capsys.readouterr().out
    assert "<- fastest" in text and "at 125 MHz" in text
    folder = build / "explore"
    entry = read_json(folder, "explore")
    assert entry["clock_mhz"] == 125 and entry["front"] and entry["layers"]
    page = (folder / "explore.html").read_text()
    check_page(page)
    assert page.count("<svg") == 2 and "frames/s" in page.partition("<section")[0]
    for name in ("bounds", "roofline"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert main(["alternatives", f"OUT={build}", "BATCH=2"]) == 0
    made = [clocked(part, None) for part in load_parts().values()]  # the clocks that boards make
    table = alternatives.table(load(build / "quantized"), made, 2)
    assert "codes" in table and capsys.readouterr().out.endswith(f"{table}\n")


@pytest.mark.parametrize("name", ["XC7Z020", "XCZU7EV"])
def test_pairs_and_sums_are_faster_than_products(name: str) -> None:
    part = find_part(name)
    found = {item.stage: item for item in alternatives.compare(full_size("alexnet"), part, 8)}
    assert found["multiply"].conv_gops <= 2e-9 * found["multiply"].lanes * part.clock_mhz * 1e6
    assert found["codes"].conv_gops > 1.5 * found["multiply"].conv_gops
    assert found["sums"].conv_gops > found["multiply"].conv_gops
    assert found["sums"].images_per_second > found["multiply"].images_per_second


def test_wide_codes_take_no_alternative() -> None:
    network, part = full_size("alexnet", 8), find_part("XC7Z020")
    found = {item.stage: item for item in alternatives.compare(network, part, 8)}
    assert found["codes"].conv_gops == found["multiply"].conv_gops
    assert "sums" not in found


def test_every_part_holds_alexnet() -> None:
    network = full_size("alexnet")
    for part in load_parts().values():
        small = replace(part, dsp=min(part.dsp, 256))
        assert explore(network, small, 1).best.seconds > 0
