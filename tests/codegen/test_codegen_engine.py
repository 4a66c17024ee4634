# SPDX-License-Identifier: Apache-2.0
"""Engines and networks apart: equal engines for equal widths, plans for an engine that exists."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nuq.codegen.design.engine import CAPACITIES, UNITS, WIDTH_SETS, read_engine
from nuq.codegen.design.general import general_engine, summary
from nuq.codegen.design.planner import plan, plan_for
from nuq.codegen.design.resources import shortage
from nuq.codegen.emit.render import render_engine
from nuq.formats.commands import main
from nuq.formats.errors import UserError
from nuq.formats.hardware import find_part, load_parts
from nuq.formats.network import Network, load
from nuq.formats.program import PROGRAM, read_program
from tests.checkout import needs_compiler
from tests.toys import POOL2, Toy, ToyLayer, mixed_layers, read_json, write_toy

Generated = Callable[..., Path]


def sources(build: Path) -> dict[str, str]:
    """The generated C++ by name."""
    return {path.name: path.read_text() for path in (build / "hls").glob("*.?pp")}


@pytest.fixture
def two(make_toy: Callable[..., Path]) -> Callable[..., Path]:
    """Factory: a toy quantized and generated in a folder of its own."""

    def make(name: str, toy: Toy, *options: str) -> Path:
        build = make_toy(toy, name)
        assert main(["codegen", f"OUT={build}", f"BATCH={toy.images}", *options]) == 0
        return build

    return make


def test_quantizing_again_changes_program_and_weights_only(two: Callable[..., Path]) -> None:
    first, again = (
        two(f"seed{seed}", Toy((3, 14, 13), mixed_layers(), images=1, seed=seed))
        for seed in (1, 2)
    )  # fmt: skip
    assert sources(first) == sources(again)
    designs = [read_json(build, "design") for build in (first, again)]
    assert designs[0]["engine_id"] == designs[1]["engine_id"]
    assert designs[0]["network_id"] != designs[1]["network_id"]
    for name in (PROGRAM, "weights.bin"):
        paths = [build / "params" / name for build in (first, again)]
        assert paths[0].read_bytes() != paths[1].read_bytes()
    wider = two("wider", Toy((3, 14, 13), mixed_layers(), images=1, weight_bits=15))
    assert read_json(wider, "design")["engine_id"] != designs[0]["engine_id"]


def test_program_says_whose_it_is(generated: Generated) -> None:
    build = generated(Toy((3, 14, 13), mixed_layers(), images=1))
    program, design = read_program(build / "params"), read_json(build, "design")
    assert f"{program.header('engine_id'):08x}" == design["engine_id"]
    assert f"{program.header('network_id'):08x}" == design["network_id"]
    assert f"DESIGN_ID = 0x{design['engine_id']}u" in sources(build)["network.hpp"]
    assert program.layers == len(design["layers"])
    assert program.words.size == design["program_words"]
    assert render_engine(read_engine(build))[0] == design["engine_id"]


SMALL = [ToyLayer(16), ToyLayer(8, (1, 1))]


@needs_compiler
def test_networks_run_on_one_engine(two: Callable[..., Path], tmp_path: Path) -> None:
    """Other shapes, widths and schemes on one engine, which is compiled once."""
    engine = tmp_path / "engine"
    assert main(["engine", f"OUT={engine}", "SIMD=8", "PE=16", "PIXELS=1"]) == 0
    first = two("first", Toy((3, 14, 13), SMALL, images=2), f"ENGINE={engine}")
    layers = [ToyLayer(16, scheme="enq", bits=5), ToyLayer(12, (1, 1), pool=POOL2, index_bits=3),
              ToyLayer(kind="add", source2="layer1", bits=2), ToyLayer(5)]  # fmt: skip
    other = two("other", Toy((2, 12, 10), layers, images=3), f"ENGINE={engine}")
    assert sources(first) == sources(other)
    made = engine / "csim" / "csim_fast"
    assert main(["csim", f"OUT={first}", f"ENGINE={engine}"]) == 0
    before = made.stat().st_mtime_ns
    assert main(["csim", f"OUT={other}", f"ENGINE={engine}"]) == 0
    assert made.stat().st_mtime_ns == before and not (other / "csim" / "csim_fast").exists()
    assert read_json(other, "csim/csim")["mismatches"] == 0


def test_what_an_engine_lacks_is_named(
    two: Callable[..., Path], make_toy: Callable[..., Path]
) -> None:
    engine = two("engine", Toy((3, 8, 8), SMALL, images=1), "WEIGHT_PORTS=1", "PE=24")
    layers = [ToyLayer(24, bits=5, scheme="enq"), ToyLayer(kind="lrn"), ToyLayer(9, (3, 3))]
    build = make_toy(Toy((3, 30, 31), layers, images=1, weight_bits=16), "large")
    with pytest.raises(UserError) as error:
        main(["codegen", f"OUT={build}", f"ENGINE={engine}"])
    text = str(error.value)
    assert text.startswith("toy: the engine must have ENQ (it has none); "), text
    for words in (
        r"layers without weights \(it has none\)", r"normalisations \(it has none\)",
        r"codes of 5 bits \(it has 3, 10\)", r"16 bits of a weight \(it has 14\)",
        r"\d+ columns of an output \(it has 6\)", "; leave ENGINE out, or make an engine that has$",
    ):  # fmt: skip
        assert re.search(words, text), f"{words}: {text}"
    assert not (build / "params").exists()


def test_every_capacity_is_compared(load_toy: Callable[..., Network]) -> None:
    """One less than a network needs is named, whatever it is."""
    network = load_toy(Toy((3, 14, 13), mixed_layers(), images=1))
    engine = plan(network, find_part("XC7Z045")).engine
    needed = engine.sizes
    for name, text in CAPACITIES.items():
        less = replace(engine, sizes=replace(needed, **{name: getattr(needed, name) - 1}))
        assert any(text in item for item in less.lacks(needed)), name
    for name, text in UNITS.items():
        less = replace(engine, sizes=replace(needed, **{name: False}))
        if getattr(needed, name):
            assert any(item.startswith(text) for item in less.lacks(needed)), name
    for name, text in WIDTH_SETS.items():
        less = replace(engine, sizes=replace(needed, **{name: getattr(needed, name)[:-1]}))
        assert any(item.startswith(f"{text} of") for item in less.lacks(needed)), name
    assert engine.lacks(needed) == []


def test_options_that_an_engine_has_are_refused(two: Callable[..., Path]) -> None:
    engine = two("engine", Toy((3, 8, 8), SMALL, images=1))

    def refused(text: str, *options: str) -> None:
        with pytest.raises(UserError, match=text):
            main(["codegen", f"OUT={engine}", f"ENGINE={engine}", *options])

    refused("^SIMD, PE must be left out with ENGINE, which has it", "SIMD=8", "PE=16")
    refused("^CLOCK, PART must be left out with ENGINE", "CLOCK=50", "PART=xczu3eg")
    header = engine / "hls" / "network.hpp"
    header.write_text(header.read_text() + "\n")
    refused("must be rendered by this version of the program")
    record = engine / "hls" / "engine.json"
    record.write_text("{}")
    refused("engine.json must have this program's fields")
    record.unlink()
    refused("engine.json must exist; run `nuq engine`")


@pytest.mark.parametrize("name", load_parts())
def test_general_engine_fits_its_part(name: str) -> None:
    engine = general_engine(find_part(name), {})
    assert shortage(engine.sizes, engine.part) is None
    assert engine.sizes.out_widths == tuple(range(1, 9)) and {8, 14} <= {
        *engine.sizes.weight_widths
    }
    assert engine.sizes.table_entries >= 16 and engine.sizes.knq_levels >= 16
    assert all(engine.sizes.array.row_words(bits) % engine.sizes.array.weight_ports == 0
               for bits in engine.sizes.weight_widths)  # fmt: skip
    assert f"{name}: {engine.sizes.array.simd}x" in summary(engine)


def test_general_engine_that_fits_nothing() -> None:
    part = replace(find_part("XC7Z020"), bram36=20)
    with pytest.raises(UserError, match=r"^a general engine must fit 90% of XC7Z020: "):
        general_engine(part, {})


def test_engine_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "engine"
    assert main(["engine", f"OUT={folder}", "SIMD=8", "PE=16", "PIXELS=1"]) == 0
    text = capsys.readouterr().out
    assert (
        "XC7Z020: 8x16x1 products a cycle of 128 multipliers" in text and f"ENGINE={folder}" in text
    )
    made = read_engine(folder)
    assert made.sizes.array.pe == 16 and not list(folder.glob("*.json"))
    write_toy(tmp_path / "toy" / "quantized", Toy((3, 14, 13), SMALL, images=1))
    network = load(tmp_path / "toy" / "quantized")
    design = plan_for(network, made)
    assert design.engine == made and np.all([row.weight_bits == 14 for row in design.rows])
