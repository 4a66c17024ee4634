# SPDX-License-Identifier: Apache-2.0
"""What a compiled design costs: operators against a budget, recurrences against the clock."""

import pytest

from nuq.codegen.hls_check.allowed import MEMORIES
from nuq.codegen.hls_check.check import check_design, design_delays
from nuq.codegen.hls_check.delays import SERIES7, ULTRASCALE_PLUS
from nuq.codegen.hls_check.graph import Loop
from nuq.codegen.hls_check.llvm import Function, bits, parse_module
from nuq.codegen.hls_check.operators import check_operators, operators
from nuq.codegen.hls_check.recurrence import (
    check_recurrences,
    describe,
    find_pipelines,
    recurrences,
)
from nuq.codegen.hls_check.state import check_state
from nuq.codegen.hls_check.timing import Timing
from nuq.formats.errors import UserError
from tests.checkout import ROOT, needs_clang
from tests.hls.designs import DESIGNS, GENERAL, compiled, rendered

pytestmark = needs_clang

MANY = " ^ ".join(f"uint16_t(n[{i}]) * uint16_t(n[{j}])" for i in range(3) for j in range(3, 6))
COUNTED = "counters[COUNT_CYCLES] = region_cycles(most);"
ADDED = "__builtin_elementwise_add_sat(uint32_t(total) << 1, 99u)"
# file, old, new, rule, words
SEEDED = [
    ("engine.hpp", COUNTED, "counters[COUNT_CYCLES] = most * n[0];",
     "operators", "a multiplication of 32 x 32 bits in tally takes several DSPs"),
    ("engine.hpp", COUNTED, "counters[COUNT_CYCLES] = most / 3;",
     "operators", "a division of 32 x 2 bits in tally"),
    ("engine.hpp", COUNTED, "counters[COUNT_CYCLES] = most % n[0];",
     "operators", "a division of 32 x 32 bits in tally"),
    ("engine.hpp", COUNTED, f"counters[COUNT_CYCLES] = {MANY};",
     "operators", "9 variable multiplications must be 8 at most, in tally"),
    # the limit is chosen by a comparison, and what is compared with it is added to
    ("planners.hpp", "row += w.row_entries;",
     "if (row >= column) row -= column;\n        row += row >= w.row_entries ? dx : dy;",
     "recurrence", "what goes round in plan_tap (plan_taps) takes"),
    # a place that is moved and wrapped round; a gear of bytes that is shifted where it is kept
    ("compute.hpp", "      at += w.chunk_blocks;",
     "        at = (at == w.ring_entries - 1 ? line.entry : at) + w.chunk_blocks;\n"
     "        if (at >= w.ring_entries) at = at - w.ring_entries + line.entry;",
     "recurrence", "what goes round in compute_step (compute) takes"),
    ("packing.hpp",
     "      blocks.write(split_block<C>(from_byte<C, kept>(window, skip), job.bits));",
     "      const typename C::in_gear_t gear = from_byte<C, kept>(window, skip);\n"
     "      blocks.write(split_block<C>(gear, job.bits));\n"
     "      window[0] = uint64_t(gear >> (8 * int(job.bits)));",
     "recurrence", "what goes round in unpack_step (unpack_rows) takes"),
    ("finish.hpp", "    total++;", "    total = (total ^ total >> 3) * 5 + (total > 9 ? 3 : 7);",
     "recurrence", "what goes round in finish_lanes (finish) takes"),
    *(("finish.hpp", "    total++;", f"    total = {new};",
       "recurrence", "what goes round in finish_lanes (finish) takes")
      for new in (
          "(total << 3) ^ count_t(__builtin_popcount(~uint32_t(total)))",
          "(total << 3) ^ count_t(__builtin_ctz(uint32_t(total) | 1u << 31))",
          "(total << 3) ^ count_t(__builtin_clz(uint32_t(total) | 1u))",
          "count_t(__builtin_abs(__builtin_abs(int(total) << 1) - 5))",
          f"count_t(__builtin_elementwise_sub_sat({ADDED}, uint32_t(units)))",
      )),
    ("layer.hpp", "    const bool carry = enable && last;",
     "    static int seen = 0;\n    const bool carry = enable && last && seen++ != 99;",
     "state", "seen is a variable of "),
    ("engine.hpp", "  count_t most = 0;", "  static count_t most = 0;",
     "state", "tally keeps most"),
    ("pooling.hpp", "out.write(best);", "out.write(best);\n        rows[0][0] = best;",
     "recurrence", "rows -> "),
    ("compute.hpp", "#pragma HLS DEPENDENCE variable = partial inter RAW distance =", "//",
     "recurrence", "partial -> "),
]  # fmt: skip


@pytest.mark.parametrize("name", DESIGNS)
def test_design_keeps_to_its_budget(name):
    module = parse_module(compiled(name)[1])
    delays = design_delays(rendered(name))
    times = recurrences(module, find_pipelines(rendered(name)), delays)
    found = [*check_state(module), *check_operators(module), *check_recurrences(times)]
    assert [str(finding) for finding in found] == []


@pytest.mark.parametrize(("file", "old", "new", "rule", "words"), SEEDED)
def test_seeded_violation(file, old, new, rule, words):
    texts = dict(rendered("small"))
    assert old in texts[file]
    texts[file] = texts[file].replace(old, new, 1)
    found, _ = check_design(texts)
    assert {hit.file for hit in found if hit.rule == rule and words in hit.message} == {file}, found


# The memory in codegen/design of every static array, by the array's name.
ROWS = {"low": "line buffer", "high": "line buffer, wide codes", "partial": "partial sums",
        "weight": "weight buffer", "tap": "tap table", "factors": "normalisation factors",
        "rows": "pool rows", "row": "output row"}  # fmt: skip


def test_every_memory_of_a_process_is_counted():
    """The check knows them all (rule `state`); codebooks are part of weight_luts."""
    names = {name for name, reason in MEMORIES.items() if not reason.startswith("probe ")}
    assert names == {*ROWS, "table"}
    text = "".join(
        (ROOT / f"codegen/design/{name}.py").read_text() for name in ("resources", "sizes")
    )
    assert [name for name in ROWS.values() if f'"{name}"' not in text] == []


def test_every_product_of_finish_says_what_it_is_built_of():
    """A product of two variables has BIND_OP: DSP blocks are counted exactly."""
    texts = rendered("operations")
    found = {
        (item.place.file, item.place.line)
        for item in operators(parse_module(compiled("operations")[1]))
        if item.op == "mul" and item.process == "finish"
    }
    assert len(found) >= 3
    for file, line in found:
        assert any("HLS BIND_OP" in text for text in texts[file].splitlines()[line : line + 2])


def test_delays_are_those_of_the_part():
    seven, ultra = (rendered(name) for name in GENERAL)
    assert design_delays(seven) == SERIES7 == design_delays({})
    assert design_delays(ultra) == ULTRASCALE_PLUS
    with pytest.raises(UserError, match=r"^engine\.json must name the part's device"):
        design_delays({"engine.json": "{}"})
    with pytest.raises(UserError, match="must be of a family with known delays"):
        design_delays({"engine.json": seven["engine.json"].replace("xc7z020", "xcvu9p")})


def test_every_pipelined_loop_is_timed():
    """In one design at least: where a loop runs once, none is left."""
    loops, timed = set(), set()
    for name in DESIGNS:
        pipelines = find_pipelines(rendered(name))
        loops |= {loop.label for loop in pipelines}
        found = recurrences(parse_module(compiled(name)[1]), pipelines)
        timed |= {item.loop.label for item in found}
        assert sum(item.nanoseconds > 2 for item in found) >= 10  # all have a counter
    assert timed == loops and len(loops) >= 12


def blocks(**targets: str) -> Function:
    """A function of empty blocks, in this order."""
    return Function("f", {}, {name: [] for name in targets},
                    {name: text.split() for name, text in targets.items()})  # fmt: skip


def test_dominators():
    function = blocks(entry="head", head="left right", left="join", right="join", join="head end",
                      end="")  # fmt: skip
    assert function.dominators["join"] == {"entry", "head", "join"}
    assert function.dominators["end"] == {"entry", "head", "join", "end"}


# a counter of 12 bits, and one of 32 that goes back to 0 where the other one is 7
LOOP = """
define void @_Z5countv() {
entry:
  br label %loop
loop:
  %i = phi i12 [ 0, %entry ], [ %next, %loop ]
  %n = phi i32 [ 0, %entry ], [ %chosen, %loop ]
  %next = add i12 %i, 1
  %back = icmp eq i12 %i, 7
  %more = add i32 %n, 1
  %chosen = select i1 %back, i32 0, i32 %more
  %done = icmp eq i12 %next, 99
  br i1 %done, label %end, label %loop, !llvm.loop !1
end:
  ret void
}
"""


def test_call_without_a_delay_is_too_long():
    text = LOOP.replace("%more = add i32 %n, 1", "%more = call i32 @_Z6hashedj(i32 %n), !dbg !3")
    loop = Loop(module := parse_module(text).functions[0], *module.loops()["1"])
    times = [Timing(loop, part, SERIES7).longest() for part in loop.components()]
    nanoseconds, path = max(times)
    assert nanoseconds == float("inf") and "%more" in path
    assert describe(parse_module(text), module, "%more") == "call of hashed"


def test_times_of_counters():
    function = parse_module(LOOP).functions[0]
    headers, inside = function.loops()["1"]
    loop = Loop(function, headers, inside)
    for own, blocks in ((SERIES7, (2, 7)), (ULTRASCALE_PLUS, (1, 3))):
        times = sorted(Timing(loop, part, own).longest()[0] for part in loop.components())
        level = own.net + own.lut
        chain = own.clock_to_q + level + own.carry_in + own.carry_out + own.setup
        few, many = (chain + number * own.carry for number in blocks)
        assert times == pytest.approx([few, many + level])
    assert function.name == "count" and bits(function, "%next") == 12
