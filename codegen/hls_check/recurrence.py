# SPDX-License-Identifier: Apache-2.0
"""The longest path that a pipelined loop must close in one cycle, in ns, from LLVM IR.

What goes round in a loop (a strongly connected component through the phi nodes of its header, or
through an array that it reads and writes) cannot be pipelined: at II = 1 every path from register
to register in it is one clock period or less. Vitis HLS reports II = 1 all the same and lengthens
the clock (UG1448, "II-constrained mode").
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nuq.codegen.hls_check.allowed import PROMISES
from nuq.codegen.hls_check.delays import SERIES7, Delays
from nuq.codegen.hls_check.graph import Loop
from nuq.codegen.hls_check.lexer import lex
from nuq.codegen.hls_check.llvm import Function, Instruction, Module, Place, source_name
from nuq.codegen.hls_check.pipeline import pipelines
from nuq.codegen.hls_check.pragmas import pragma_name, pragma_options
from nuq.codegen.hls_check.program import Finding
from nuq.codegen.hls_check.syntax import parse
from nuq.codegen.hls_check.timing import Timing


@dataclass(frozen=True)
class Recurrence:
    """The longest path of one loop."""

    process: str
    loop: "Pipeline"
    nanoseconds: float
    path: tuple[str, ...]  # from register to register
    delays: Delays = SERIES7

    @property
    def limit(self) -> float:
        """What it may take, in ns."""
        return self.delays.limit

    def __str__(self) -> str:
        return f"{self.nanoseconds:.2f} of {self.limit:g} ns: {self.loop.label} ({self.process})"


@dataclass(frozen=True)
class Pipeline:
    """A loop with PIPELINE, as its source says."""

    place: Place
    label: str
    free: frozenset[str]  # arrays of which no iteration needs what the one before it writes


def find_pipelines(texts: Mapping[str, str]) -> list[Pipeline]:
    """The pipelined loops of a rendered design."""
    found = []
    for name in (name for name in texts if name.endswith((".hpp", ".cpp"))):
        functions = [f for f in parse(lex(name, texts[name])).functions]
        for loop in (loop for function in functions for loop in pipelines(function)):
            given = [(pragma_name(pragma), pragma_options(pragma)) for pragma in loop.pragmas()]
            free = [
                options.get("variable")
                for kind, options in given
                if kind == "DEPENDENCE" and "distance" in options
            ]
            place = Place(name, loop.line)
            found.append(Pipeline(place, loop.label, frozenset(v for v in free if v in PROMISES)))
    return found


def recurrences(
    module: Module, loops: Iterable[Pipeline], delays: Delays = SERIES7
) -> list[Recurrence]:
    """The longest path of every pipelined loop that the compiled design has, on a part's family.

    0 ns where nothing goes round; a loop that runs once is none.
    """
    found = []
    known = {loop.place: loop for loop in loops}
    for function in module.functions:
        for number, (headers, blocks) in function.loops().items():
            pipeline = known.get(module.loop_place(number) or Place("", 0))
            if pipeline:
                loop = Loop(function, headers, blocks)
                for name in [n for n in loop.registers if short_name(n) in pipeline.free]:
                    loop.inputs[name] = []
                times = [Timing(loop, part, delays).longest() for part in loop.components()]
                nanoseconds, path = max(times, default=(0.0, []))
                steps = tuple(describe(module, function, name) for name in path)
                found.append(Recurrence(function.name, pipeline, nanoseconds, steps, delays))
    return found


def short_name(name: str) -> str:
    """The variable behind a value's name.

    >>> short_name("%top.sroa.0.0694"), short_name("@_ZZ8max_poolI7NetworkEvvE4rows")
    ('top', 'rows')
    """
    return source_name(name.lstrip("@%")).partition(".")[0]


def describe(module: Module, function: Function, name: str) -> str:
    """A value on a path: a variable, or an operation with its line."""
    item = function.values.get(name)
    place = module.place(item.place) if item else None
    if item is None or item.op == "phi":
        return short_name(name)
    what = called(item) if item.op == "call" else item.op
    return f"{what} ({place.file}:{place.line})" if place and place.line else what


def called(item: Instruction) -> str:
    """The function that a call is of."""
    names = [name for name in item.operands if name.startswith("@")]
    return f"call of {source_name(names[0][1:])}" if names else item.op


def check_recurrences(found: Iterable[Recurrence]) -> list[Finding]:
    """Loops in which a cycle does not suffice."""
    findings = []
    for item in found:
        loop = item.loop
        if item.nanoseconds > item.limit:
            text = (
                f"what goes round in {loop.label} ({item.process}) takes {item.nanoseconds:.2f} of "
                f"{item.limit:g} ns, {' -> '.join(item.path)}: compute it a step earlier"
            )
            findings.append(Finding(loop.place.file, loop.place.line, "recurrence", text))
    return findings
