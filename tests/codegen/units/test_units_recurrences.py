# SPDX-License-Identifier: Apache-2.0
"""The engine's recurrences as Verilog: within a part's cycle, and step by step the C++."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from nuq.codegen.design.engine import read_engine
from nuq.codegen.design.general import general_engine
from nuq.codegen.design.search import choose
from nuq.codegen.design.sizes import Sizes
from nuq.codegen.hls_check.delays import SERIES7, delays_of
from nuq.codegen.units.recurrences import (
    Recurrence,
    Timed,
    check_limit,
    recurrences,
    time_recurrences,
)
from nuq.formats.commands import main
from nuq.formats.errors import UserError
from nuq.formats.hardware import Part, find_part
from tests.checkout import needs_compiler, needs_yosys
from tests.codegen.test_codegen_pairs import narrow
from tests.codegen.units import netlists, traces
from tests.hls.designs import every_operation
from tests.toys import write_toy

STEPS = 1000  # compared of each recurrence
# recurrence, what stands in its Verilog, and what is wrong then
LONGER = ("send_word", "i_next = i + 1;", "i_next = i + (limit + i < limit - i) + 1;")
DRIFTED = {
    "write_word": ("next == words", "at == words"),
    "unpack_step": ("less_next = advance_next - 8", "less_next = bits - 8"),
}
pytestmark = [needs_yosys, needs_compiler]


@dataclass
class Found:
    """Recurrences of an engine with traces of its C++, and seeded ones, timed."""

    folder: Path  # of the traces
    timed: dict[str, Timed]
    longer: Timed
    drifted: dict[str, Timed]


def changed(loops: Sequence[Recurrence], name: str, right: str, wrong: str) -> Recurrence:
    """A recurrence whose Verilog is another one."""
    loop = next(item for item in loops if item.name == name)
    assert loop.verilog.count(right) == 1, right
    text = loop.verilog.replace(right, wrong).replace(f"module {name} ", f"module wrong_{name} ")
    return replace(loop, name=f"wrong_{name}", verilog=text)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    build, folder = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("traces")
    write_toy(build / "quantized", every_operation())
    assert main(["codegen", f"OUT={build}", "SIMD=8", "PE=24", "PART=xc7z045"]) == 0
    loops = recurrences(read_engine(build).sizes)
    texts = {path.name: path.read_text() for path in (build / "hls").glob("*.[ch]pp")}
    traces.run(traces.instrument(texts, loops), build, folder, 2)
    seeded = [changed(loops, *LONGER)]
    seeded += [changed(loops, name, *words) for name, words in DRIFTED.items()]
    timed = time_recurrences([*loops, *seeded], SERIES7)
    wrong = timed[len(loops) :]
    return Found(
        folder,
        {item.recurrence.name: item for item in timed[: len(loops)]},
        wrong[0],
        dict(zip(DRIFTED, wrong[1:], strict=True)),
    )


def test_every_pipeline_is_there(found: Found) -> None:
    """The label of each loop with PIPELINE II in the engine."""
    labels = set()
    for path in Path("hls_templates/engine").glob("*.hpp"):
        lines = path.read_text().splitlines()
        for at, line in enumerate(lines):
            if "#pragma HLS PIPELINE II" in line:
                above = "\n".join(lines[:at])
                labels.add(re.findall(r"^ *(\w+):$", above, re.MULTILINE)[-1])
    assert len(labels) > 10
    loops = {label for item in found.timed.values() for label in item.recurrence.loops}
    assert labels <= loops, labels - loops


def test_every_recurrence_is_within_the_limit(found: Found) -> None:
    check_limit(found.timed.values(), SERIES7)
    assert min(item.path.nanoseconds for item in found.timed.values()) > 2.0


def general() -> tuple[Part, Sizes]:
    part = find_part("xc7z020")
    return part, general_engine(part, {}).sizes


def pairs(name: str) -> tuple[Part, Sizes]:
    """VGG-16 with two products a multiplier."""
    part = find_part(name)
    return part, choose(narrow("vgg16"), part, 1, {"stage": "pairs"}).sizes


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine",
    [general, partial(pairs, "xc7z020"), partial(pairs, "xczu7ev")],
    ids=["general", "xc7z020", "xczu7ev"],
)
def test_large_engines_keep_to_the_limit_of_their_family(
    engine: Callable[[], tuple[Part, Sizes]],
) -> None:
    part, sizes = engine()
    delays = delays_of(part.device)
    check_limit(time_recurrences(recurrences(sizes), delays), delays)


def test_a_longer_recurrence_is_refused(found: Found) -> None:
    with pytest.raises(UserError) as error:
        check_limit([*found.timed.values(), found.longer], SERIES7)
    text = str(error.value)
    assert re.match(
        r"control.hpp: a step of send_word must take 5.0 ns at most with 0.75 ns a net, not \d",
        text,
    )


def test_verilog_is_the_cpp(found: Found) -> None:
    """What every register holds behind each step."""
    for name, item in found.timed.items():
        steps = traces.steps(found.folder, item.recurrence)[:STEPS]
        assert len(steps) >= 20, f"{name} makes {len(steps)} steps"
        assert netlists.differences(item.netlist, item.recurrence, steps) == [], name


@pytest.mark.parametrize("name", DRIFTED)
def test_verilog_that_drifts_is_found(found: Found, name: str) -> None:
    own, wrong = found.timed[name].recurrence, found.drifted[name]
    steps = traces.steps(found.folder, own)[:STEPS]
    assert netlists.differences(wrong.netlist, own, steps)
