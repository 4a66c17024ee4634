# SPDX-License-Identifier: Apache-2.0
"""The engine's recurrences as Verilog, with an engine's widths, and how long each takes.

A recurrence is what a pipelined loop must compute from its registers, back into them, within a
cycle. hls_templates/rtl/recurrences has a module body for each, and signals.toml, which says what
its registers are in the C++. Widths come from the types and constants of network.hpp.
"""

import ast
import json
import re
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuq.codegen.design.constants import bounds, types
from nuq.codegen.design.engine import Engine
from nuq.codegen.design.rows import FIELDS
from nuq.codegen.design.sizes import Sizes
from nuq.codegen.emit.render import TEMPLATES, render
from nuq.codegen.hls_check.delays import Delays, delays_of
from nuq.codegen.units.static_timing import Netlist
from nuq.codegen.units.static_timing import Path as LongestPath
from nuq.codegen.units.synthesis import run_yosys
from nuq.formats.arithmetic import MAX_UPSCALE, ceil_div, unsigned_bits
from nuq.formats.errors import UserError
from nuq.formats.packing import WORD_BYTES

FOLDER = TEMPLATES / "rtl" / "recurrences"
ABC_NET = 1000  # ps that abc9 counts a net
# Which pins of registers become logic in front of their data inputs: dffunmap's option, or none.
FOLDED = ("ce-only", "", "srst-only")
# C++'s own types: bits and sign
NATIVE = {"bool": (1, False), "uint8_t": (8, False), "int8_t": (8, True), "count_t": (32, False),
          "addr_t": (29, False), "cycle_t": (32, False)}  # fmt: skip
DIGIT = {"": "value", "_last": "last", "_before_last": "before_last_", "_single": "single_"}


@dataclass(frozen=True)
class Signal:
    """A register of a recurrence."""

    name: str
    bits: int
    signed: bool
    cpp: str  # what it is in the C++
    after: str = ""  # and behind the step, where that is written differently


@dataclass(frozen=True)
class Recurrence:
    """One loop's step."""

    name: str
    file: str
    loop: str  # its label
    also: tuple[str, ...]
    body: str
    go: str
    state: tuple[Signal, ...]
    given: tuple[Signal, ...]  # constants and inputs
    remember: Mapping[str, str]
    verilog: str = ""

    @property
    def loops(self) -> tuple[str, ...]:
        """Labels of all loops that it stands for."""
        return (self.loop, *self.also)


class Widths:
    """Bits of the C++ types of an engine."""

    def __init__(self, sizes: Sizes) -> None:
        self.types = {item.name: (item.bits, item.signed) for item in types(sizes)}
        self.bounds = {name: value for name, (value, _) in bounds(sizes).items()}
        words = self.bounds["WEIGHT_ROWS"] * self.bounds["ROW_WORDS"] // sizes.array.weight_ports
        self.bounds["SECTION_WORDS"] = words + sum(
            self.bounds[key] for key in ("TABLE_ENTRIES", "BIAS_WORDS", "SCALE_WORDS")
        )
        self.bounds["END_BYTE"] = (
            ceil_div(max(sizes.in_widths), WORD_BYTES) + 1
        ) * WORD_BYTES  # fmt: skip
        self.bounds["WORD_BYTES"] = WORD_BYTES
        self.bounds["MAX_UPSCALE"] = MAX_UPSCALE
        self.bounds["ROW_COLUMN_WORDS"] = (len(FIELDS) + 1) // 2

    def of(self, kind: str) -> tuple[int, bool]:
        """Bits and sign of a type.

        Raises:
            UserError: an unknown type.
        """
        if match := re.fullmatch(r"Count<(.*)>", kind):
            return unsigned_bits(max(1, self.number(match[1]))), False
        found = NATIVE.get(kind) or self.types.get(kind)
        if found is None:
            raise UserError(f"{FOLDER / 'signals.toml'} must have types that exist, not {kind}")
        return found

    def number(self, text: str) -> int:
        """A constant expression of the C++: numbers and constants with +, - and *."""

        def value(node: ast.expr) -> int:
            if isinstance(node, ast.BinOp):
                left, right = value(node.left), value(node.right)
                return {ast.Add: left + right, ast.Sub: left - right,
                        ast.Mult: left * right}[type(node.op)]  # fmt: skip
            return self.bounds[node.id] if isinstance(node, ast.Name) else ast.literal_eval(node)

        return value(ast.parse(text.replace("C::", ""), mode="eval").body)


def recurrences(sizes: Sizes, folder: Path = FOLDER) -> list[Recurrence]:
    """All recurrences with an engine's widths, rendered."""
    table = tomllib.loads((folder / "signals.toml").read_text(encoding="utf-8"))
    widths = Widths(sizes)
    return [_recurrence(name, entry, widths, folder) for name, entry in table.items()]


def _recurrence(name: str, entry: dict[str, Any], widths: Widths, folder: Path) -> Recurrence:
    """One entry of signals.toml."""
    moving = entry.get("moving", [])
    state, given = [], []
    for digit, kind in entry.get("digits", {}).items():
        parts = _digit(digit, kind, digit, widths)
        state += parts if digit in moving else parts[:2]
        given += [] if digit in moving else parts[2:]
    for digit, text in entry.get("digit_constants", {}).items():
        kind, _, cpp = text.rpartition(" ")
        given += _digit(digit, kind, cpp, widths)[1:]
    for key, text in entry.get("arrays", {}).items():
        entries, rest = text.split(" ", 1)
        state += [
            _signal(f"{key}_{k}", rest.replace("[k]", f"[{k}]"), widths)
            for k in range(widths.number(entries))
        ]
    after = entry.get("after", {})
    state += [
        _signal(key, text, widths, after.get(key, ""))
        for key, text in entry.get("state", {}).items()
    ]
    for part in ("constants", "inputs"):
        given += [_signal(key, text, widths) for key, text in entry.get(part, {}).items()]
    found = Recurrence(
        name, entry["file"], entry["loop"], tuple(entry.get("also", ())),
        entry.get("body", name), entry.get("go", "1"), tuple(state), tuple(given),
        entry.get("remember", {}),
    )  # fmt: skip
    return Recurrence(**{**vars(found), "verilog": _verilog(found, widths, folder)})


def _signal(name: str, text: str, widths: Widths, after: str = "") -> Signal:
    """A signal from "TYPE" or "TYPE EXPRESSION"."""
    match = re.match(r"(Count<.*?>(?=\s|$)|\S+)\s*(.*)", text)
    kind, cpp = (match[1], match[2]) if match else (text, "")
    return Signal(name, *widths.of(kind), cpp or name, after)


def _digit(name: str, kind: str, cpp: str, widths: Widths) -> list[Signal]:
    """Registers of a Digit: value, last, and its limit."""
    bits, signed = widths.of(kind)
    sizes = {"": (bits, signed), "_before_last": (bits, signed)}
    return [
        Signal(name + ending, *sizes.get(ending, (1, False)), f"{cpp}.{member}")
        for ending, member in DIGIT.items()
    ]


def _verilog(loop: Recurrence, widths: Widths, folder: Path) -> str:
    """The module."""
    entries = {
        name: [item.name for item in loop.state if re.fullmatch(rf"{name}_\d+", item.name)]
        for name in {re.sub(r"_\d+$", "", item.name) for item in loop.state}
    }
    digits = {item.name for item in loop.state if item.name + "_last" in
              {other.name for other in loop.state}}  # fmt: skip

    def known(digit: str) -> str:
        if digit not in digits:
            raise UserError(f"{folder / loop.body}.v.j2 must step digits that exist, not {digit}")
        return digit

    def step(digit: str) -> str:
        d = known(digit)
        return (f"{d}_next = {d}_last ? 0 : {d} + 1; "
                f"{d}_last_next = {d}_last ? {d}_single : {d} == {d}_before_last;")  # fmt: skip

    def advance(digit: str) -> str:  # of one that may have been started in this step
        d = known(digit)
        return (f"{d}_end = {d}_last_next; "
                f"{d}_last_next = {d}_end ? {d}_single_next : {d}_next == {d}_before_last_next; "
                f"{d}_next = {d}_end ? 0 : {d}_next + 1;")  # fmt: skip

    def start(digit: str, limit: str) -> str:
        d = known(digit)
        return (f"{d}_next = 0; {d}_single_next = {limit} == 1; {d}_last_next = {limit} == 1; "
                f"{d}_before_last_next = {limit} - 2;")  # fmt: skip

    def take(digit: str, limit: str) -> str:
        d = known(digit)
        return (f"{d}_next = 0; {d}_last_next = {limit}_last; {d}_single_next = {limit}_single; "
                f"{d}_before_last_next = {limit}_before_last;")  # fmt: skip

    def pick(array: str, place: str, ending: str = "") -> str:
        *others, last = [f"{item}{ending}" for item in entries[array]]
        tests = [f"{place} == {k} ? {item} : " for k, item in enumerate(others)]
        return f"({''.join(tests)}{last})"

    def entry(array: str, k: int) -> str:
        return entries[array][k] if k < len(entries[array]) else "0"

    def pick_behind(array: str, place: str, distance: int) -> str:
        behind = entries[array][distance:]
        bits = (len(behind) + distance - 1).bit_length()

        def tree(first: int, bit: int) -> str:  # of those from `first` on, by `bit` and lower ones
            if first >= len(behind):
                return "0"
            if bit < 0:
                return behind[first]
            upper = tree(first + (1 << bit), bit - 1)
            return f"({place}[{bit}] ? {upper} : {tree(first, bit - 1)})"

        return tree(0, bits - 1)

    def put(array: str, place: str, value: str) -> str:
        return " ".join(
            f"if ({place} == {k}) {item}_next = {value};" for k, item in enumerate(entries[array])
        )

    values = {
        "loop": loop, "bounds": widths.bounds, "bits": lambda kind: widths.of(kind)[0],
        "hold": " ".join(f"{item.name}_next = {item.name};" for item in loop.state),
        "step": step, "advance": advance, "start": start, "take": take, "pick": pick, "put": put,
        "entry": entry, "pick_behind": pick_behind,
    }  # fmt: skip
    body = render(f"{loop.body}.v.j2", values, folder)
    return render("module.v.j2", {**values, "body": body}, folder)


@dataclass(frozen=True)
class Timed:
    """A synthesized recurrence."""

    recurrence: Recurrence
    netlist: Mapping[str, Any]
    path: LongestPath


def synthesize(found: Iterable[Recurrence], family: str, folded: str) -> dict[str, Any]:
    """Netlists of Yosys by name, mapped for speed.

    Args:
        found: recurrences with different names; each is kept apart from the others.
        family: "xc7" or "xcup".
        folded: which pins of registers become logic in front of their data inputs, one of FOLDED.
    """
    names = [item.name for item in found]
    options = "-noiopad -noclkbuf -nobram -nodsp -nosrl -flatten -abc9"
    flow = f"synth_xilinx -family {family} {options} -run"
    commands = [
        *(f"read_verilog {name}.v" for name in names),
        "read_verilog -lib -specify +/xilinx/cells_sim.v", "hierarchy -check",
        f"setattr -mod -set keep_hierarchy 1 {' '.join(names)}",
        f"{flow} prepare:coarse",
        # In the place of `coarse`: its `share` puts operators of two branches behind a multiplexer,
        # a way round longer by that; and a comparison takes two bits a LUT, because the outputs O6
        # and O5 that a carry block is fed with depend on five inputs together, not on six.
        "techmap -map +/cmp2lut.v -map +/cmp2lcu.v -D LUT_WIDTH=4", "alumacc", "opt", "opt_clean",
        f"{flow} map_memory:map_ffs",
        *([f"dffunmap -{folded}", "opt_expr", "opt_clean"] if folded else []),
        # abc9 counts 0.3 ns a net otherwise, and trades levels for area
        f"scratchpad -set synth_xilinx.abc9.W {ABC_NET}",
        f"{flow} map_ffs:", "write_json netlist.json",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="recurrences-") as name:
        folder = Path(name)
        for item in found:
            (folder / f"{item.name}.v").write_text(item.verilog)
        run_yosys(commands, folder)
        modules: dict[str, Any] = json.loads((folder / "netlist.json").read_text())["modules"]
    return {name: modules[name] for name in names}


def time_recurrences(found: Sequence[Recurrence], delays: Delays) -> list[Timed]:
    """Synthesize recurrences and find the longest path of each.

    An enable or a reset costs a net behind its logic, a data input a LUT for both: which is shorter
    depends on the loop, and Vivado decides for every register. Here what is too long in one way is
    mapped in the others, too.
    """

    best: dict[str, Timed] = {}
    for folded in FOLDED:
        late = [
            item
            for item in found
            if item.name not in best or best[item.name].path.nanoseconds > delays.limit
        ]
        netlists = synthesize(late, delays.family, folded) if late else {}
        for item in late:
            way = Timed(item, netlists[item.name], Netlist(netlists[item.name]).longest(delays))
            before = best.get(item.name, way)
            best[item.name] = min(before, way, key=lambda one: one.path.nanoseconds)
    return [best[item.name] for item in found]


def measure_recurrences(engine: Engine) -> list[dict[str, Any]]:
    """Rows of units.json, the longest first; UserError where one is beyond the part's limit."""
    delays = delays_of(engine.part.device)
    timed = time_recurrences(recurrences(engine.sizes), delays)
    check_limit(timed, delays)
    rows = [
        {
            "name": item.recurrence.name, "loops": list(item.recurrence.loops),
            "file": item.recurrence.file, "ns": item.path.nanoseconds, "limit": delays.limit,
            "net": delays.net, "from": item.path.start, "to": item.path.end,
            "path": str(item.path),
        }
        for item in timed
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (-row["ns"], row["name"]))


def check_limit(timed: Iterable[Timed], delays: Delays) -> None:
    """UserError, with the recurrence, where one takes more than the family's limit."""
    longest = max(timed, key=lambda item: item.path.nanoseconds)
    path = longest.path
    if path.nanoseconds > delays.limit:
        raise UserError(
            f"{longest.recurrence.file}: a step of {longest.recurrence.loop} must take "
            f"{delays.limit} ns at most with {delays.net} ns a net, not {path.nanoseconds:.2f} "
            f"({path.start} to {path.end}: {path})"
        )
